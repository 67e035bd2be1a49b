"""The check before a file is opened: it is there, and reading it cannot wait for ever."""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat

from data_pipelines.errors import UserError
from data_pipelines.intake import find
from data_pipelines.intake.tables import same


def is_there(path, what: str = "table") -> bool:
  """Whether a file that may be missing is there; a folder or a pipe of its name is no missing file.

  Raises:
    UserError: as `check_regular`, also for a link that leads nowhere.
  """
  if not os.path.lexists(path):
    return False
  try:
    check_regular(path, what)
  except FileNotFoundError:
    raise UserError(f"{what} {path} is a link that leads nowhere") from None
  return True


def nearly(path) -> str:
  """"; NAME is there, ..." of a name that differs in capitals, blanks, accents or its ending alone; or "".

  A Mac writes accents in two characters, and shows them as other systems do.
  """
  path = pathlib.Path(path)
  with contextlib.suppress(OSError, ValueError):
    there = [found.name for found in find.like(path.parent, "*")]
    for name in there:
      if name != path.name and same(name) == same(path.name):
        return f"; {name!a} is there, of other capitals, blanks or form of accents: rename one of them"
    if other := [name for name in there if find.stem_of(name) == find.stem_of(path)]:
      return f"; {other[0]!a} is there, of another ending"
  return ""


def check_regular(path, what: str = "file") -> None:
  """Returns where `path` is a regular file, or a link to one.

  A pipe, a socket or a device that lies among images would block the first `open`, or never end.

  Raises:
    FileNotFoundError: nothing there, or a link that leads nowhere. UserError: a folder, a pipe, a
    socket, a device, a link that leads to itself, a name that no system takes, a file that may not be read.
  """
  try:
    mode = pathlib.Path(path).stat().st_mode
  except FileNotFoundError:
    raise FileNotFoundError(f"{what} {path} does not exist{nearly(path)}") from None
  except (OSError, RuntimeError, ValueError) as error:
    reason = getattr(error, "strerror", None) or str(error)
    raise UserError(f"{what} {path} cannot be opened ({reason})") from None
  if stat.S_ISDIR(mode):
    raise UserError(f"{what} {path} is a folder")
  if not stat.S_ISREG(mode):
    raise UserError(f"{what} {path} is no file but a pipe, a socket or a device")
  if not os.access(path, os.R_OK):
    raise UserError(f"{what} {path} may not be read: change its permissions")
