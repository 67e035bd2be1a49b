"""medae_jax: medical-imaging autoencoders, trained and applied with JAX.

  import medae_jax as mx

  run = mx.train("own_folder:dae", "runs/mine")     # or mx.load("runs/mine")
  run.score("scan.nii.gz")                          # heat map, score, p-value, verdict
  run.evaluate("test").table()

The Python API is medae_jax/api.py, written down in docs/api.md; everything is looked up when it is asked
for, so that this import stays quick.
"""

import importlib

from medae_jax.core import places
from medae_jax.core.device import xla_flags
from medae_jax.core.errors import UserError

__version__ = "0.2.0.dev0"
__all__ = ["Run", "UserError", "config", "load", "train"]

places.install_aliases()
xla_flags.prefer_eigen_convolutions()
_API = ("Run", "config", "load")


def __getattr__(name):
  if name in _API:
    return getattr(importlib.import_module("medae_jax.api"), name)
  if name == "train":  # the mode's module, which can be called: medae_jax/train.py
    return importlib.import_module("medae_jax.train")
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
  return sorted({*globals(), *__all__})
