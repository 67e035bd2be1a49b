"""A pickle reader that cannot act: it parses, and builds nothing but plain data.

Why an interpreter and not pickle.Unpickler with a white list in `find_class`: Unpickler still calls
what find_class returned and writes attributes into it (REDUCE, NEWOBJ, BUILD), so whatever is
allowed becomes reachable by a hostile file. Here `pickletools.genops` only splits the bytes into
opcodes, and the machine below knows the few that weight files contain. It builds None, numbers,
strings, lists, tuples, dicts and sets. A class or function is only ever a name (`Global`); what
"calling" it means is decided by the caller's table of plain Python functions. Nothing is imported,
no attribute is set.
"""

from __future__ import annotations

from collections.abc import Callable
import pickletools
from typing import Any, BinaryIO, NamedTuple

_MAX_OPCODES = 20_000_000


class Refused(ValueError):
  """Understood and declined; the message is one line that stands on its own."""


class Global(NamedTuple):
  """A class or function that the file names ("torch._utils._rebuild_tensor_v2"). Only a name."""
  name: str


class Inert(NamedTuple):
  """Result of a call that carries no weights (a numpy scalar, a device)."""
  name: str


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING",
    "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_IGNORED = {"PROTO", "FRAME"}


def run(file: BinaryIO, call: Callable[[Any, tuple], Any],
        persistent: Callable[[tuple], Any]) -> Any:
  """The plain data of one pickle; the file is left just after it.

  Args:
    file: open at the first byte of a pickle.
    call: (function, arguments) -> value, for REDUCE and NEWOBJ. `function` is usually a `Global`.
      It should raise `Refused` for everything it does not know.
    persistent: persistent id (a tuple) -> value.

  Raises:
    Refused: an opcode that plain data does not need.
    ValueError, EOFError, KeyError, IndexError, TypeError, ...: damaged.
  """
  machine = _Machine(call, persistent)
  for count, (opcode, arg, _) in enumerate(pickletools.genops(file)):
    if opcode.name == "STOP":
      return machine.stack.pop()
    if count > _MAX_OPCODES:
      raise Refused("its description has too many entries for a weight file")
    machine.step(opcode.name, arg)
  raise EOFError("pickle without end")


class _Machine:
  """Stack and memo of the pickle virtual machine."""

  def __init__(self, call, persistent):
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}
    self.call, self.persistent = call, persistent

  def step(self, name: str, arg: Any) -> None:
    stack = self.stack
    if name in _LITERALS:
      stack.append(arg)
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
      stack.append(_EMPTY[name]())
    elif name in _IGNORED:
      pass
    elif hasattr(self, "op_" + name.lower()):
      getattr(self, "op_" + name.lower())(arg)
    else:
      raise Refused(f"refused: pickle opcode {name} has no place in a weight file")

  def pop_mark(self) -> list[Any]:
    """The values above the topmost mark; they and the mark are removed."""
    at = max(i for i, v in enumerate(self.stack) if v is _MARK)
    values = self.stack[at + 1:]
    del self.stack[at:]
    return values

  def pop(self, count: int) -> tuple:
    values = tuple(self.stack[-count:])
    if len(values) < count:
      raise IndexError("pickle stack is empty")
    del self.stack[-count:]
    return values

  # Each method is one opcode, named as in pickletools.
  def op_mark(self, _):
    self.stack.append(_MARK)

  def op_pop(self, _):
    self.stack.pop()

  def op_pop_mark(self, _):
    self.pop_mark()

  def op_tuple(self, _):
    self.stack.append(tuple(self.pop_mark()))

  def op_tuple1(self, _):
    self.stack.append(self.pop(1))

  def op_tuple2(self, _):
    self.stack.append(self.pop(2))

  def op_tuple3(self, _):
    self.stack.append(self.pop(3))

  def op_list(self, _):
    self.stack.append(self.pop_mark())

  def op_dict(self, _):
    values = self.pop_mark()
    self.stack.append(dict(zip(values[::2], values[1::2])))

  def op_append(self, _):
    value, = self.pop(1)
    _top(self.stack, list).append(value)

  def op_appends(self, _):
    values = self.pop_mark()
    _top(self.stack, list).extend(values)

  def op_setitem(self, _):
    key, value = self.pop(2)
    _top(self.stack, dict)[key] = value

  def op_setitems(self, _):
    values = self.pop_mark()
    _top(self.stack, dict).update(zip(values[::2], values[1::2]))

  def op_additems(self, _):
    values = self.pop_mark()
    _top(self.stack, set).update(values)

  def op_frozenset(self, _):
    self.stack.append(frozenset(self.pop_mark()))

  def op_put(self, arg):
    self.memo[arg] = self.stack[-1]

  op_binput = op_long_binput = op_put

  def op_memoize(self, _):
    self.memo[len(self.memo)] = self.stack[-1]

  def op_get(self, arg):
    self.stack.append(self.memo[arg])

  op_binget = op_long_binget = op_get

  def op_global(self, arg):
    self.stack.append(Global(arg.replace(" ", ".")))

  def op_stack_global(self, _):
    module, name = self.pop(2)
    self.stack.append(Global(f"{module}.{name}"))

  def op_reduce(self, _):
    function, args = self.pop(2)
    self.stack.append(self.call(function, tuple(args)))

  op_newobj = op_reduce

  def op_build(self, _):  # state of an object: kept only where it is a plain dict's attributes
    self.pop(1)
    if not isinstance(self.stack[-1], (dict, Inert)):
      raise Refused(f"refused: it wants to set the state of a {type(self.stack[-1]).__name__}")

  def op_binpersid(self, _):
    pid, = self.pop(1)
    self.stack.append(self.persistent(tuple(pid)))


def _top(stack: list[Any], kind: type) -> Any:
  if type(stack[-1]) is not kind:
    raise TypeError(f"expected a {kind.__name__} in the pickle, found {type(stack[-1]).__name__}")
  return stack[-1]
