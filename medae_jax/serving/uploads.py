"""Files of a request as files of a temporary folder, under their own names: names say the modality.

A .zip stands for the files in it; folders inside it, and those that a browser sends, are left off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import itertools
import pathlib
import re
import shutil
from typing import IO
import zipfile
import zlib

from medae_jax.serving.problems import Problem

MOST_FILES = 5000  # of a DICOM series
_LONGEST = 200     # bytes of a name; file systems end at 255 and results have longer names


def save(files: Iterable[tuple[str, IO[bytes]]], folder: pathlib.Path, most_bytes: int) -> list[pathlib.Path]:
  """Writes (name, content) into `folder`; DICOM files of one name get a number in front: theirs say nothing.

  Args:
    most_bytes: of all that one .zip holds, unpacked.

  Returns:
    The files.

  Raises:
    Problem: 400, a name that is none, or twice the same. 413, 422: a .zip too large, or damaged.
  """
  saved: dict[str, pathlib.Path] = {}
  for name, content in _unpacked(files, most_bytes):
    plain = plain_name(name)
    twice = plain.lower() in saved
    numbered = (f"{n}_{plain}" for n in itertools.count(len(saved)))
    target = folder / (next(n for n in numbered if n.lower() not in saved) if twice else plain)
    try:
      with open(target, "xb") as out:
        shutil.copyfileobj(content, out, 2**20)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:  # met while it is unpacked
      raise Problem(422, f"{plain} is damaged in its .zip ({error}): send its files themselves") from error
    if twice and not _is_dicom(target):
      raise Problem(400, f"two files are called {plain}: send the files of one scan, each under a name of "
                    "its own")
    saved[target.name.lower()] = target
  return list(saved.values())


def _unpacked(files, most_bytes: int) -> Iterator[tuple[str, IO[bytes]]]:
  """(name, content), those of a .zip in its place."""
  for name, content in files:
    if not name or not name.lower().endswith(".zip"):
      yield name, content
      continue
    plain = plain_name(name)
    try:
      with zipfile.ZipFile(content) as packed:
        members = [m for m in packed.infolist() if not m.is_dir() and not _of_system(m.filename)]
        if not members:
          raise Problem(415, f"{plain} is empty: a .zip holds the files of one scan")
        size = sum(m.file_size for m in members)
        if len(members) > MOST_FILES or size > most_bytes:
          raise Problem(413, f"{plain} holds {len(members)} files of {size / 2**20:.0f} MiB: at most "
                        f"{MOST_FILES} and {most_bytes // 2**20} MiB are unpacked; --max_mb sets that")
        for member in members:
          with packed.open(member) as inner:  # ends at file_size, whatever the file holds
            yield member.filename, inner
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:  # last: a password
      raise Problem(422, f"{plain} cannot be unpacked ({error}): send its files themselves") from error


def _of_system(path: str) -> bool:
  """Whether operating systems have put it there: __MACOSX/, .DS_Store."""
  return any(part.startswith((".", "__MACOSX")) for part in path.split("/") if part not in (".", ".."))


def _is_dicom(path: pathlib.Path) -> bool:
  with open(path, "rb") as file:
    return file.read(132)[128:] == b"DICM"


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
