"""Reads weight files of other frameworks without unpickling anything.

`load` takes what people publish: PyTorch `.pt/.pth/.pth.tar` (the zip format of torch >= 1.6 and
the stream format before it), `.safetensors` and `.npz`, told apart by content, not by suffix, and
returns {name: numpy array}. Neither torch nor the pickle module takes part.

`inert_pickle.py` turns the descriptions inside PyTorch files into plain data without
importing, calling or setting anything the file names; this module gives the few calls that rebuild
tensors their meaning (`_CALLS`) and reads the raw buffers. A class that is merely named (the DAE
reference stores `model_class`) is dropped; one that the file wants *called* is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
import io
import math
import os
import struct
from typing import Any, Literal, NamedTuple
import zipfile

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.weights import inert_pickle, npz_file
from medae_jax.weights.inert_pickle import Global, Inert, Refused

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the stream format
_STATE_KEYS = ("model_state_dict", "state_dict", "model_weights", "model_state", "model")  # wrappers
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
_MAX_ENTRIES = 1_000_000  # of the flattened result; one dict can be shared in many places
_DTYPES = {  # torch's storage class or dtype -> numpy; bfloat16 is widened after reading
    "Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": "bfloat16", "Long": "i8", "Int": "i4",
    "Short": "i2", "Char": "i1", "Byte": "u1", "Bool": "?", "ComplexFloat": "c8",
    "ComplexDouble": "c16", "float32": "f4", "float64": "f8", "float16": "f2",
    "bfloat16": "bfloat16", "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint8": "u1", "bool": "?", "uint16": "u2", "uint32": "u4", "uint64": "u8",
    "complex64": "c8", "complex128": "c16"}


class Storage(NamedTuple):
  """A flat buffer of the file."""
  dtype: str
  key: str
  offset: int  # of a view, in elements
  numel: int


class Tensor(NamedTuple):
  """A strided view of a storage; all counts in elements."""
  storage: Storage
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]


def load(path: str | os.PathLike,
         keep: Callable[[str], bool] | None = None) -> dict[str, np.ndarray]:
  """The arrays of a weight file.

  Args:
    path: `.pt/.pth/.pth.tar`, `.safetensors` or `.npz`, recognised by content.
    keep: names to read, after prefixes are stripped; others are not read from disk (VGG19's
      classifier is four fifths of its file).

  Returns:
    {name: array} in the file's order, each a contiguous copy in its own dtype, bfloat16 widened to
    float32 (exactly). Nested dicts and lists are joined with dots ("c11.0"); wrappers such as
    `model_state_dict` and the prefixes `module.` and `_orig_mod.` are removed.

  Raises:
    FileNotFoundError: no such file.
    UserError: one line: not a weight file, damaged, or it wants something called.
  """
  path = os.fspath(path)
  if not os.path.isfile(path):
    raise FileNotFoundError(f"no weight file at {path}")
  keep = keep or (lambda name: True)
  try:
    with open(path, "rb") as file:
      return _open(path, file)(keep)
  except (Refused, MemoryError) as e:
    raise UserError(f"{path}: {str(e) or 'does not fit in memory'}") from None
  except (zipfile.BadZipFile, EOFError, KeyError, IndexError, TypeError, ValueError, struct.error,
          AttributeError, OverflowError, RecursionError, NotImplementedError) as e:
    raise UserError(f"{path} is damaged or cut short ({type(e).__name__}: "
                     f"{' '.join(str(e).split())[:120]}); get it again") from e


def _open(path: str, file) -> Callable[[Callable], dict[str, np.ndarray]]:
  head = file.read(16)
  file.seek(0)
  if head[:4] == b"PK\x03\x04":
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    if any(n.endswith("/data.pkl") or n == "data.pkl" for n in names):
      return lambda keep: _read_zip(archive, keep)
    if names and all(n.endswith(".npy") for n in names):
      return lambda keep: _read_npz(file, archive, keep)
    raise Refused("a zip archive without data.pkl (PyTorch) or .npy members (NumPy)")
  if len(head) > 8 and head[8:9] == b"{":
    return lambda keep: _read_safetensors(path, keep)
  if head[:1] == b"\x80":
    return lambda keep: _read_stream(file, keep)
  raise Refused("not a PyTorch (.pt, .pth), .safetensors or .npz file")


# -------------------------------------------------------------------------------------- containers
def _read_npz(file, archive, keep):
  npz_file.check(archive)
  file.seek(0)
  with np.load(file, allow_pickle=False) as arrays:
    return {name: arrays[key] for name, key in _strip({n: n for n in arrays.files}).items() if keep(name)}


def _read_safetensors(path, keep):
  import safetensors
  try:
    with safetensors.safe_open(path, framework="numpy") as arrays:
      names = _strip({n: n for n in arrays.keys()})  # noqa: SIM118 - safe_open has no __iter__
      out = {name: arrays.get_tensor(key) for name, key in names.items() if keep(name)}
  except safetensors.SafetensorError as e:
    raise UserError(e) from None
  return {n: a.astype(np.float32) if a.dtype.name == "bfloat16" else a for n, a in out.items()}


def _read_zip(archive: zipfile.ZipFile, keep):
  """torch >= 1.6: <name>/data.pkl describes, <name>/data/<key> holds each storage."""
  root = next(n for n in archive.namelist() if n.endswith("data.pkl"))[:-len("data.pkl")]
  if root + "constants.pkl" in archive.namelist():
    raise Refused("a TorchScript archive, which holds a program; save the state_dict instead")
  tree = _run(io.BytesIO(_member(archive, root + "data.pkl")))
  order: Literal["<", ">"] = "<"
  if root + "byteorder" in archive.namelist():
    order = ">" if _member(archive, root + "byteorder") == b"big" else "<"
  return _arrays(tree, lambda key: _member(archive, f"{root}data/{key}"), order, keep)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
  info = archive.getinfo(name)
  if info.compress_type != zipfile.ZIP_STORED:  # torch stores plainly; anything else may be a bomb
    raise Refused(f"its member {name} is compressed, which torch.save never does")
  return archive.read(info)


def _read_stream(file, keep):
  """torch < 1.6: pickles of magic, version, machine, object, storage keys; then size and bytes."""
  if _run(file) != _MAGIC:
    raise Refused("a bare pickle, not a torch.save file; it is not opened")
  _run(file)  # protocol version
  machine = _run(file)
  order: Literal["<", ">"] = "<" if machine.get("little_endian", True) else ">"
  storages: dict[str, str] = {}  # key -> dtype of everything the description refers to

  def persistent(pid):
    value = _storage(pid)
    if isinstance(value, Storage):
      storages[value.key] = value.dtype
    return value

  tree, found = _run(file, persistent), {}
  for key in _run(file):
    numel, = struct.unpack(order + "q", file.read(8))
    found[key] = (file.tell(), numel * _itemsize(storages[key]))
    file.seek(found[key][1], os.SEEK_CUR)

  def read(key):
    file.seek(found[key][0])
    return file.read(found[key][1])
  return _arrays(tree, read, order, keep)


# --------------------------------------------------------------------------------- tensors, names
def _itemsize(dtype: str) -> int:
  return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _arrays(tree, read: Callable[[str], bytes], order: Literal["<", ">"], keep):
  tensors: dict[str, Tensor] = {}
  for _ in range(3):  # a checkpoint may wrap its state dict more than once
    inner = [k for k in _STATE_KEYS if isinstance(tree, dict) and isinstance(tree.get(k), dict)]
    tree = tree[inner[0]] if inner else tree
  _walk(tree, tensors.__setitem__)
  if not tensors:
    raise Refused("holds no tensor")
  tensors = {n: t for n, t in _strip(tensors).items() if keep(n)}
  cache: dict[tuple, np.ndarray] = {}  # several tensors may share one storage
  return {name: _array(name, t, read, order, cache) for name, t in tensors.items()}


def _array(name: str, t: Tensor, read, order: Literal["<", ">"], cache: dict) -> np.ndarray:
  storage = t.storage
  dtype = storage.dtype
  if (storage.key, dtype) not in cache:
    raw = np.dtype("u2" if dtype == "bfloat16" else dtype).newbyteorder(order)
    flat = np.frombuffer(read(storage.key), raw)
    if dtype == "bfloat16":  # the upper half of a float32
      flat = (flat.astype(np.uint32) << 16).view(np.float32)
    cache[storage.key, dtype] = flat.astype(flat.dtype.newbyteorder("="), copy=False)
  flat = cache[storage.key, dtype]
  counts = (storage.offset, t.offset, *t.shape, *t.stride)
  if len(t.shape) != len(t.stride) or not all(type(n) is int and n >= 0 for n in counts):
    raise Refused(f"tensor {name!r} has an impossible shape or stride: {t.shape}, {t.stride}")
  size, begin = math.prod(t.shape), storage.offset + t.offset
  last = begin + sum((n - 1) * s for n, s in zip(t.shape, t.stride))
  if size and last >= len(flat):
    raise Refused(f"tensor {name!r} {t.shape} reaches beyond its storage of {len(flat)} values: "
                   "the file is damaged or cut short")
  if size > max(len(flat), 2**26):  # an expanded tensor (stride 0) of absurd size
    raise Refused(f"tensor {name!r} {t.shape} is far larger than its storage")
  if not size:
    return np.zeros(t.shape, flat.dtype)
  strides = [s * flat.itemsize for s in t.stride]
  return np.lib.stride_tricks.as_strided(flat[begin:], t.shape, strides).copy()


def _walk(tree: Any, visit: Callable[[str, Tensor], Any], prefix: str = "", depth: int = 0,
          count: list[int] | None = None) -> None:
  """Calls visit(dotted name, tensor) for every tensor of nested dicts, lists and tuples."""
  count = [0] if count is None else count
  count[0] += 1
  if depth > 32 or count[0] > _MAX_ENTRIES:
    raise Refused("nested too deeply for a weight file")
  if isinstance(tree, Tensor):
    visit(prefix or "tensor", tree)
  elif isinstance(tree, dict) or type(tree) in (list, tuple):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
      if isinstance(key, (str, int)):
        _walk(value, visit, f"{prefix}.{key}" if prefix else str(key), depth + 1, count)


def _strip(named: dict[str, Any]) -> dict[str, Any]:
  """Removes a prefix that all names share."""
  for prefix in _PREFIXES * 2:
    if named and all(n.startswith(prefix) for n in named):
      named = {n[len(prefix):]: v for n, v in named.items()}
  return named


# --------------------------------------------------------------------- what the file may ask for
def _storage(pid) -> Storage | Global:
  """A persistent id: ("storage", class, key, location, numel[, view]) or ("module", class, ...)."""
  if pid[0] == "module":  # the stream format's way of naming a class
    return pid[1]
  if pid[0] != "storage" or not isinstance(pid[1], Global):
    raise Refused(f"unknown persistent id {str(pid[0])[:40]!r}")
  kind = pid[1].name.split(".")[-1]
  key, numel, view = str(pid[2]), pid[4], (pid[5] if len(pid) > 5 else None)
  dtype = "u1" if kind == "UntypedStorage" else _dtype(kind.removesuffix("Storage"))
  return Storage(dtype, key, view[1] if view else 0, numel)


def _dtype(name: str) -> str:
  if name not in _DTYPES:
    raise Refused(f"element type {name!r} is not supported")
  return _DTYPES[name]


def _tensor(args) -> Tensor:
  storage, offset, shape, stride = args[:4]
  if not isinstance(storage, Storage):
    raise TypeError("a tensor without a storage")
  return Tensor(storage, offset, tuple(shape), tuple(stride))


def _tensor_v3(args) -> Tensor:  # (storage, offset, size, stride, requires_grad, hooks, dtype, ...)
  dtype = _dtype(args[6].name.split(".")[-1])
  return _tensor((args[0]._replace(dtype=dtype), *args[1:]))


_CALLS: dict[str, Callable[[tuple], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda args: args[0],
    "torch._utils._rebuild_parameter_with_state": lambda args: args[0],
    "collections.OrderedDict": lambda args: dict(args[0]) if args else {},
    "collections.defaultdict": lambda args: {},
}
_INERT = {  # called by harmless bookkeeping in checkpoints; the result carries no weights
    "torch.Size", "torch.device", "_codecs.encode", "builtins.set", "__builtin__.set",
    "numpy.dtype", "numpy.ndarray", "argparse.Namespace", "datetime.datetime",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}


def _call(function, args) -> Any:
  name = function.name if isinstance(function, Global) else repr(function)[:60]
  if name in _CALLS:
    return _CALLS[name](args)
  if name in _INERT:
    return Inert(name)
  raise Refused(f"refused: it asks to call {name}, which no weight file needs; save only the "
                 "state_dict of the network (torch.save(model.state_dict(), path))")


def _run(file, persistent=_storage) -> Any:
  return inert_pickle.run(file, _call, persistent)
