"""What is read of a method by the modes, of a state by a method's score, of a config by a method."""

import collections
import pathlib
import sys

import jax
from jax import export as jax_export
import ml_collections

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


GROUPS = ("method", "model", "optim")  # of a config: a method's own
ROOMS = {"methods", "models", "losses", "scores", "optim", "weights"}


def watch_fields(monkeypatch) -> dict[str, set[str]]:
  """{name of a method: dotted fields of its groups that code of `ROOMS` reads}, once it is loaded again.

  Checks of a config, which read everything, do not count.
  """
  read, places = collections.defaultdict(set), {}
  load, get = method_lib.load, ml_collections.ConfigDict.__getitem__
  copy = ml_collections.ConfigDict.copy_and_resolve_references

  def note(node, name, prefix):
    places[id(node)] = node, name, prefix  # the node too: its id shall not be another's later
    for key in node:
      if isinstance(child := get(node, key), ml_collections.ConfigDict):
        note(child, name, f"{prefix}{key}.")

  def loaded(config):
    for group in GROUPS:
      note(config.get(group, {}), config.method.name, f"{group}.")
    return load(config)

  def item(self, key):
    if (place := places.get(id(self))) and _by_a_method(sys._getframe(1)):
      read[place[1]].add(place[2] + key)
    return get(self, key)

  def copied(self, *args, **kw):
    made = copy(self, *args, **kw)
    if place := places.get(id(self)):
      note(made, *place[1:])
    return made
  monkeypatch.setattr(method_lib, "load", loaded)
  monkeypatch.setattr(ml_collections.ConfigDict, "__getitem__", item)
  monkeypatch.setattr(ml_collections.ConfigDict, "copy_and_resolve_references", copied)
  return read


def _by_a_method(frame) -> bool:
  while "ml_collections" in frame.f_code.co_filename:
    frame = frame.f_back
  parts = pathlib.PurePath(frame.f_code.co_filename).parts
  return "medae_jax" in parts and not ROOMS.isdisjoint(parts)


def fields_of(config) -> set[str]:
  """Dotted names of all fields of the groups but the method's name, which the loader reads."""
  def leaves(node, prefix):
    for key, value in node.items():
      if isinstance(value, ml_collections.ConfigDict):
        yield from leaves(value, f"{prefix}{key}.")
      else:
        yield prefix + key
  return {field for group in GROUPS for field in leaves(config[group], f"{group}.")} - {"method.name"}
