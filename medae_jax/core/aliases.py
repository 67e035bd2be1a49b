"""Lets files of users write `from data_pipelines import ...` against an installed wheel as against a clone.

There these packages are medae_jax.data_pipelines and medae_jax.configs. The finder stands last in
sys.meta_path: where any other package has the name, that one is imported, and nothing of medae_jax
ever goes through here (CONTRIBUTING.md, "Packaging").
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys

from medae_jax.core import places

_NAMES = ("configs", "data_pipelines")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """data_pipelines.X is the module object medae_jax.data_pipelines.X, not a second copy of it."""

  def find_spec(self, fullname, path=None, target=None):
    top, dot, _ = fullname.partition(".")
    if top not in _NAMES:
      return None
    if dot and sys.modules.get(top) is not sys.modules.get(f"medae_jax.{top}"):
      return None  # below somebody else's package
    if importlib.util.find_spec(f"medae_jax.{fullname}") is None:
      return None
    return importlib.util.spec_from_loader(fullname, self)

  def create_module(self, spec):
    module = importlib.import_module(f"medae_jax.{spec.name}")
    spec.loader_state = module.__spec__  # which the import system is about to replace
    return module

  def exec_module(self, module):
    module.__spec__ = module.__spec__.loader_state


def install() -> None:
  """Adds the finder, once, where configs and data_pipelines lie inside medae_jax."""
  inside = places.folder("data_pipelines").parent == places.PACKAGE
  if inside and not any(isinstance(f, _Finder) for f in sys.meta_path):
    sys.meta_path.append(_Finder())
