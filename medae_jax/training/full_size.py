"""What a newcomer's first command does: no days of full-size training on synthetic data by accident."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
from typing import Any

from absl import logging

from medae_jax.core import config as config_lib

_LONG = 1000  # steps that nobody should wait for on synthetic data and a CPU
# Data sets that make up their data where config.data.dir is empty.
_MADE_UP = ("brats", "annotations")


def is_accident(config, backend: str) -> bool:
  """Whether a training of full size would run on synthetic data without an accelerator.

  Args:
    backend: jax.default_backend().
  """
  data = config.data
  synthetic = data.name in _MADE_UP and not data.get("dir", "") and not data.get("tfds_dir", "")
  long = config.train.steps > _LONG or config.train.get("epochs", 0) or config.train.get("examples", 0)
  return bool(synthetic and long and backend == "cpu")


def demo(config, get_config: Callable[..., Any], argument: str):
  """The :demo variant of a config file, with the command line's changes on top; locked.

  Args:
    config: the one that was asked for. get_config: of its file. argument: what stood after the colon.

  Raises:
    UserError: the file has no :demo.
  """
  asked = get_config(argument) if argument else get_config()
  changed = config_lib.differences(asked, config)
  small = config_lib.override(get_config(",".join(filter(None, [argument, "demo"]))), changed)
  small = small.copy_and_resolve_references()
  with small.unlocked():
    small.variant = "demo"
  logging.warning(
      "No data folder was given and there is no accelerator: instead of %d steps of full size on SYNTHETIC "
      "data this runs the :demo variant (minutes), marked as such. For your data: --config.data.dir=FOLDER; "
      "for full size all the same: --full_size.", config.train.steps)
  return small.lock()


def default_workdir(config_file: str) -> str:
  """runs/<name of the config file>[_<its argument>]."""
  file, _, argument = config_file.partition(":")
  name = pathlib.PurePath(file).stem
  word = "".join(c if c.isalnum() or c in "-_." else "_" for c in argument)[:60]
  return str(pathlib.Path("runs") / "_".join(filter(None, [name, word])))
