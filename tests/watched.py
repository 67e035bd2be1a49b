"""What is read of a method by the modes, and of a state by a method's score."""

import jax
from jax import export as jax_export

from medae_jax.core import method as method_lib, parallel

MEMBERS = frozenset(name for name in (*method_lib.Method.__annotations__, *vars(method_lib.Method))
                    if not name.startswith("_"))


class Watched:
  """Passes reads on to the method, notes them, and stops at undeclared ones.

  Only what is read from outside comes by: calls of a method to itself go past it.

  Attributes:
    read: names of the members that were read.
  """

  def __init__(self, method, read):
    self.__dict__.update(_method=method, read=read)

  def __getattr__(self, name):
    if name.startswith("__"):
      raise AttributeError(name)
    assert name in MEMBERS, f"a mode reads method.{name}, which the protocol does not declare"
    self.read.add(name)
    return getattr(self._method, name)

  def __setattr__(self, name, value):
    raise AssertionError(f"a mode sets method.{name}")


def watch(monkeypatch) -> set[str]:
  """Every method that is loaded from now on is watched; the set fills with what the modes read."""
  read, load = set(), method_lib.load
  monkeypatch.setattr(method_lib, "load", lambda config: Watched(load(config), read))
  return read


def unread(method, state, batch):
  """Names of the arrays of a state that score has no use for."""
  step, state = state.step, parallel.to_host(state).replace(step=None)
  score = jax.jit(lambda s, b: method.score(s.replace(step=step), b))
  used = set(jax_export.export(score)(state, batch).module_kept_var_idx)
  names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
  return [name for i, name in enumerate(names) if i not in used]
