"""Files of a request as files of a temporary folder, under their own names: names say the modality."""

from __future__ import annotations

from collections.abc import Iterable
import pathlib
import re
import shutil
from typing import IO

from medae_jax.serving.problems import Problem

MOST_FILES = 5000  # of a DICOM series
_LONGEST = 200     # bytes of a name; file systems end at 255 and results have longer names


def save(files: Iterable[tuple[str, IO[bytes]]], folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes (name, content) into `folder`.

  Returns:
    The files.

  Raises:
    Problem: 400, a name that is none, or twice the same.
  """
  saved: dict[str, pathlib.Path] = {}
  for name, content in files:
    plain = plain_name(name)
    if plain.lower() in saved:
      raise Problem(400, f"two files are called {plain}: send the files of one scan, each under a name of "
                    "its own")
    saved[plain.lower()] = folder / plain
    with open(folder / plain, "xb") as target:
      shutil.copyfileobj(content, target, 2**20)
  return list(saved.values())


def plain_name(name: str) -> str:
  """The last part of a path, of whatever system, without what a file system cannot take.

  Raises:
    Problem: 400, nothing is left.
  """
  last = re.split(r"[/\\]", name or "")[-1].strip()
  if last in ("", ".", "..") or not last.isprintable() or len(last.encode("utf-8", "replace")) > _LONGEST:
    raise Problem(400, f"{last[:60]!r} is no name of a file: give each file its name (printable, at most "
                  f"{_LONGEST} bytes)")
  return last
