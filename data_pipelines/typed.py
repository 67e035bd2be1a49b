"""Paths as people type them, where no shell has seen to them.

A leaf, for both packages. bash leaves the ~ of --workdir=~/runs to the program, Python that of "~/runs"; a
variable in single quotes, quotes inside of quotes and a path of Windows come as they stand, too. Each is a
name that a file system takes: results would lie in a folder called ~ or $HOME.
"""

from __future__ import annotations

import os
import pathlib
import re

from data_pipelines.errors import UserError

_ODD = (  # of the part of a path that is not there yet
    (r"~.*", "a ~ for which no home folder was put in"),
    (r".*(?:\$\w|\$\{|%\w+%).*", "a variable that no shell has put in"),
    ("['\"`\u2018\u2019\u201c\u201d\u201e].*|.*[\"\u201c\u201d]",
     "quotes that no shell has taken off"),
    (r"\s.*|.*\s", "a blank at one end"),
    (r"\w:[\\/].*|.*\\.*", "a path of Windows; folders are parted by /, and C: is /mnt/c in WSL"),
    (r"[a-z][a-z\d+.-]+:/.*", "an address, no folder of this computer"))
_ARGUMENT = re.compile(r"(--?[\w.]+=)(~.*)", re.DOTALL)


def home(path: str) -> str:
  """The path with the home folder in place of a "~" at its beginning; other texts as they are."""
  return os.path.expanduser(path) if path.startswith("~") else path


def argument(text: str) -> str:
  """--workdir=HOME/runs of --workdir=~/runs; other arguments of a command line as they are."""
  found = _ARGUMENT.fullmatch(text)
  return text if found is None else found[1] + home(found[2])


def new(path: str | os.PathLike, field: str) -> pathlib.Path:
  """A path that is to be written to, `home` put in; raises as `check`."""
  found = home(os.fspath(path))
  check(found, field)
  return pathlib.Path(found)


def check(path: str | os.PathLike, field: str) -> None:
  """Refuses a path to be written to that would become a folder of a name that nobody means.

  Args:
    field: "--output", "config.data.prepared_dir": what it was given by.

  Raises:
    UserError: with what is wrong about the part of it that is not there yet.
  """
  found = pathlib.Path(path)
  there = next((p for p in (found, *found.parents) if os.path.lexists(p)), pathlib.Path())
  rest = str(found.relative_to(there))
  for pattern, what in _ODD:
    if rest != "." and re.fullmatch(pattern, rest, re.DOTALL):
      raise UserError(f"{field}={os.fspath(path)!r} holds {what}: write the path out")
