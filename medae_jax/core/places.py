"""Where the files of the house lie: beside medae_jax in a clone, inside it once it is installed.

A wheel may not own the names `configs` and `data_pipelines` in site-packages (CONTRIBUTING.md,
"Packaging"): there they are medae_jax/configs and medae_jax/data_pipelines. `install_aliases` lets
files of users write `from data_pipelines import ...` against a wheel as against a clone.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import json
import os
import pathlib
import sys
import types

from data_pipelines import typed
from medae_jax.core.errors import UserError, place_in

argument, home = typed.argument, typed.home  # of a command line, of a path: ~ is the home folder
PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_NAMES = ("configs", "data_pipelines")


def folder(name: str) -> pathlib.Path:
  """The folder "configs", "data_pipelines" or "examples" of this installation."""
  inside = PACKAGE / name
  return inside if inside.is_dir() else PACKAGE.parent / name


def config_file(name: str) -> pathlib.Path:
  """The file that --config=NAME means, without the part after ":".

  Args:
    name: a path, absolute or relative to the current folder; else the name of a config of this
      installation, "dae_brats", "dae_brats.py" or "configs/dae_brats.py".

  Raises:
    FileNotFoundError: neither exists.
  """
  names = [name, f"{name}.py"]
  for path in (pathlib.Path(n).expanduser() for n in names):
    if path.is_file():
      return path
  for ours in (folder("configs") / n.removeprefix("configs/") for n in names):
    if ours.is_file() and not pathlib.Path(name).expanduser().is_absolute():
      return ours
  raise FileNotFoundError(f"{name} does not exist; --mode=list names the configs")


def config_module(name: str, field: str = "") -> types.ModuleType:
  """The module of the file that --config=NAME means.

  Args:
    field: "--config=" or the like, with which the lines of errors begin.

  Raises:
    FileNotFoundError: there is none. UserError: no Python file, one that fails, or one without get_config.
  """
  try:
    file = config_file(name)
  except FileNotFoundError as e:
    raise FileNotFoundError(f"{field}{e}") from e
  spec = importlib.util.spec_from_file_location(f"asked_{file.stem}", file)
  if spec is None or spec.loader is None:
    raise UserError(f"{field}{name}: a config is a Python file, which ends in .py")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as e:  # whatever the user's file raises
    raise UserError(f"{field}{name}: {type(e).__name__}: {e}{place_in(e, str(file))}") from e
  if not callable(getattr(module, "get_config", None)):
    raise UserError(f"{field}{name}: it has no function get_config(arg)")
  return module


def check_folder(path, flag: str) -> None:
  """Refuses what can be no folder to write to.

  Raises:
    UserError: the name is blank, or holds what no shell has seen to (a ~, a variable); a file, or a link to
      nothing, has it, or lies on the way to it.
  """
  if not str(path).strip():
    raise UserError(f"{flag} is blank: give a folder")
  typed.check(path, flag)
  path = pathlib.Path(path)
  above = next((p for p in (path, *path.absolute().parents) if os.path.lexists(p)), None)
  if above is not None and not above.is_dir():
    raise UserError(f"{flag}={path}: {above} is no folder but a file, or a link to nothing: choose another")


def is_run(path) -> bool:
  """Whether a path is the folder of a run, with its config and checkpoints."""
  path = pathlib.Path(path)
  return (path / "config.json").is_file() and (path / "checkpoints").is_dir()


def given(path, what: str) -> pathlib.Path:
  """A path that Python code hands over.

  Raises:
    UserError: it is none, or blank, which would mean the folder that the program happens to run in.
  """
  if not isinstance(path, (str, os.PathLike)):
    raise UserError(f"{what} is the path of a file or folder, not {type(path).__name__}")
  if not os.fspath(path).strip():
    raise UserError(f"{what} is blank: give a path")
  return pathlib.Path(home(os.fspath(path)))


def check_workdir(workdir) -> None:
  """Refuses what can be no folder, and one in which Orbax writes checkpoints that nothing can read: it merges
  the files of its processes by a pattern of names, in which these characters mean something else.

  Raises:
    UserError: the absolute path has one of [ ] * ?; the name is blank; something that is no folder has it.
  """
  check_folder(workdir, "--workdir")
  path = os.path.abspath(workdir)
  if found := sorted({c for c in path if c in "[]*?"}):
    raise UserError(f"--workdir={workdir}: checkpoints in a folder with {' '.join(found)} in its path "
                    f"({path}) cannot be read again; choose another name")


def check_run(workdir, flag) -> None:
  """Refuses a folder that is no run's, and a --config of another method, which nothing would read.

  Args:
    flag: FLAGS["config"] of absl.

  Raises:
    FileNotFoundError: no config.json. UserError: --config is of another method.
  """
  path = pathlib.Path(workdir) / "config.json"
  if not path.is_file():
    raise FileNotFoundError(f"--workdir={workdir} holds no config.json: it must be a run's folder")
  from ml_collections import config_flags
  if flag.value is None or "from_workdir.py" in config_flags.get_config_filename(flag):
    return
  try:
    own = json.loads(path.read_text(encoding="utf-8"))["method"]["name"]
    asked = flag.value.method.name
  except (OSError, ValueError, LookupError, TypeError, AttributeError):  # who reads it says so
    return
  if own != asked:
    raise UserError(f"--config={config_flags.get_config_filename(flag)} is of the method {asked}, and "
                    f"--workdir={workdir} holds a run of {own}: leave --config out, a run has its own")


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Finds data_pipelines.X as the module object medae_jax.data_pipelines.X, not a second copy of it.

  It stands last in sys.meta_path: where any other package has the name, that one is imported, and
  nothing of medae_jax ever goes through here.
  """

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


def install_aliases() -> None:
  """Adds the finder, once, where configs and data_pipelines lie inside medae_jax."""
  inside = folder("data_pipelines").parent == PACKAGE
  if inside and not any(isinstance(f, _Finder) for f in sys.meta_path):
    sys.meta_path.append(_Finder())
