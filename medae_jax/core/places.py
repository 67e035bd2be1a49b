"""Where the files of the house lie: beside medae_jax in a clone, inside it once it is installed.

A wheel may not own the names `configs` and `data_pipelines` in site-packages (CONTRIBUTING.md,
"Packaging"): there they are medae_jax/configs and medae_jax/data_pipelines.
"""

from __future__ import annotations

import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def folder(name: str) -> pathlib.Path:
  """The folder "configs", "data_pipelines" or "examples" of this installation."""
  inside = PACKAGE / name
  return inside if inside.is_dir() else PACKAGE.parent / name


def config_file(name: str) -> pathlib.Path:
  """The file that --config=NAME means, without the part after ":".

  Args:
    name: a path, absolute or relative to the current folder; else the name of a config of this
      installation, "dae_brats.py" or "configs/dae_brats.py".

  Raises:
    FileNotFoundError: neither exists.
  """
  path = pathlib.Path(name).expanduser()
  if path.is_file():
    return path
  ours = folder("configs") / name.removeprefix("configs/")
  if path.is_absolute() or not ours.is_file():
    raise FileNotFoundError(f"{name} does not exist; --mode=list names the configs")
  return ours
