"""A folder that appears whole or not at all: filled under a hidden name, renamed at its end."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import shutil

from data_pipelines import typed
from data_pipelines.errors import UserError


@contextlib.contextmanager
def filled(out: str | os.PathLike) -> Iterator[pathlib.Path]:
  """An empty folder .<out>.unfinished beside `out`, which becomes `out` where the block ends well.

  Of a block that fails nothing is left; what a killed process has left is cleared by the next one.

  Raises:
    FileExistsError: `out` holds files already. UserError: another process is writing
      it; a name that nobody means.
  """
  out = typed.new(out, "--out").absolute()
  if os.path.lexists(out) and not out.is_dir():
    raise FileExistsError(f"{out} is no folder but a file, or a link to nothing: choose a new folder")
  if out.exists() and any(out.iterdir()):
    raise FileExistsError(f"{out} is not empty: choose a new folder")
  unfinished = out.with_name(f".{out.name}.unfinished")
  unfinished.mkdir(parents=True, exist_ok=True)
  held = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY)
  try:
    try:
      fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # goes with the process, however it ends
    except BlockingIOError:
      raise UserError(f"another process is writing {out}: wait for it, or choose another folder") from None
    try:
      _clear(unfinished)
      yield unfinished
      unfinished.rename(out)  # an empty folder is replaced
    finally:
      shutil.rmtree(unfinished, ignore_errors=True)
  finally:
    os.close(held)


def _clear(folder: pathlib.Path) -> None:
  for path in folder.iterdir():
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      path.unlink()
