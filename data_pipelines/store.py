"""A preparation's target folder: files that appear whole, and one record of what is done a slide and step.

  records/<slide>.<step>.json   key, files with checksums, rows, or why the slide is left out; written last
  locks/                        claims of the slides being worked on (data_pipelines/claims.py)
  .unfinished/<process>/        files being written; renamed when they are whole

A record counts while its key (source files, records before it) is the one asked for and its files have their
sizes: a run killed at any moment has lost the step it was in, and nothing half-written is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any
import uuid

from data_pipelines import claims, typed
from data_pipelines.errors import UserError

LOCKS, _UNFINISHED = "locks", ".unfinished"
_TABLES = ("manifest.csv", "report.json")  # written at the end, whatever is there
_VERSION = 1  # of the preparation: raise it when its results change


class CannotWrite(OSError):
  """The target cannot be written: no fault of the slide."""


class Store:
  """The target folder of a preparation; one a process."""

  def __init__(self, target):
    self.folder = typed.new(target, "--target")
    self._scratch: pathlib.Path | None = None

  def write(self, file: str, content: bytes) -> dict[str, Any]:
    """Writes a file below the target, whole or not at all; returns {"file", "bytes", "sha256"}.

    Raises:
      CannotWrite: the disk is full, or refuses.
    """
    path = self.folder / file
    try:
      temp = self._temp()
      temp.write_bytes(content)
      path.parent.mkdir(parents=True, exist_ok=True)
      os.replace(temp, path)
    except OSError as error:
      raise CannotWrite(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    return {"file": file, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

  def link(self, old: dict[str, Any], file: str) -> dict[str, Any]:
    """A second name for a written file, a copy where the file system has no links."""
    source, path = self.folder / old["file"], self.folder / file
    try:
      temp = self._temp()
      try:
        os.link(source, temp)
      except OSError:
        shutil.copyfile(source, temp)
      path.parent.mkdir(parents=True, exist_ok=True)
      # rename does nothing where both are names of one file: the temporary one is taken away then
      os.replace(temp, path)
      temp.unlink(missing_ok=True)
    except OSError as error:
      raise CannotWrite(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    return {**old, "file": file}

  def _temp(self):
    while self._scratch is None or not self._scratch.is_dir():
      scratch = self.folder / _UNFINISHED / claims.owner_name()
      with contextlib.suppress(FileNotFoundError):  # another process took the empty folder away
        scratch.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
        self._scratch = scratch
    return self._scratch / uuid.uuid4().hex

  @contextlib.contextmanager
  def scratch_file(self) -> Iterator[pathlib.Path]:
    """A file of this process for the block, below the target.

    Raises:
      CannotWrite: the target cannot be written.
    """
    try:
      path = self._temp()
    except OSError as error:
      raise CannotWrite(error.errno, f"cannot write {self.folder}: {error.strerror or error}") from error
    try:
      yield path
    finally:
      path.unlink(missing_ok=True)

  @contextlib.contextmanager
  def scratch_folder(self) -> Iterator[pathlib.Path]:
    """A folder of this process for the block, below the target; raises OSError where it cannot be made."""
    path = self._temp()
    path.mkdir()
    try:
      yield path
    finally:
      shutil.rmtree(path, ignore_errors=True)
      self.close()

  def close(self) -> None:
    """Takes away this process's folder of unfinished files."""
    if self._scratch is not None:
      shutil.rmtree(self._scratch, ignore_errors=True)
      self._scratch = None
      with contextlib.suppress(OSError):  # others are writing
        (self.folder / _UNFINISHED).rmdir()

  def clear(self) -> None:
    """Takes away what dead processes of this machine have left unfinished."""
    claims.clear(self.folder / LOCKS)
    for folder in self.folder.glob(f"{_UNFINISHED}/*"):
      if claims.left_by_dead(folder.name):
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
      (self.folder / _UNFINISHED).rmdir()

  def settle(self, settings: dict[str, Any]) -> None:
    """Writes settings.json, or compares it: a target belongs to one preparation, from its first record on.

    Raises:
      UserError: other settings are there; with each of them.
    """
    path = self.folder / "settings.json"
    try:
      old = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
      if other := next((n for n in _TABLES if (self.folder / n).exists() and not path.exists()), ""):
        raise UserError(f"{self.folder / other} is there, and no preparation has written it: choose another "
                        "--target") from None
      self.write("settings.json", as_json(settings))
      return
    if not any(self.folder.glob("records/*.json")):  # a first try that ended before it had made anything
      self.write("settings.json", as_json(settings))
      return
    changed = sorted(k for k in {*old, *settings} if old.get(k) != settings.get(k))
    if changed:
      raise UserError(f"{self.folder} was prepared with another "
                      + ", ".join(f"{k} ({old.get(k)}, now {settings.get(k)})" for k in changed)
                      + "; choose another --target")

  def record(self, slide: str, step: str, key: str = "") -> dict[str, Any] | None:
    """A step's record if it is complete (and has this key), else None."""
    try:
      content = json.loads(self._record(slide, step).read_text(encoding="utf-8"))
      if key and content["key"] != key:
        return None
      if any((self.folder / f["file"]).stat().st_size != f["bytes"] for f in content["files"]):
        return None
      return content
    except (OSError, ValueError, KeyError, TypeError):
      return None

  def write_record(self, slide: str, step: str, content: dict[str, Any]) -> None:
    """Writes a record: its files must all be there."""
    self.write(str(self._record(slide, step).relative_to(self.folder)), as_json(content))

  def _record(self, slide, step):
    return self.folder / "records" / f"{slide}.{step}.json"


def as_json(content) -> bytes:
  """JSON, indented, with a newline at its end."""
  return (json.dumps(content, indent=1) + "\n").encode()


def digest(names: Sequence[str]) -> str:
  """A checksum of names in their order, "" for none."""
  return hashlib.sha256("\n".join(names).encode()).hexdigest() if names else ""


def key(step: str, files: Sequence[pathlib.Path], before: Sequence[str], extra: Sequence[str] = ()) -> str:
  """What a step's result depends on besides the settings, which a target has once: a checksum.

  Args:
    files: of the source; their sizes and times count. before: keys of the records that it reads.
    extra: what else it depends on.

  Raises:
    UserError: a source file is gone.
  """
  stamps = []
  for path in files:
    try:
      info = os.stat(path)
    except OSError as error:
      raise UserError(f"{path} cannot be read ({error.strerror})") from None
    stamps.append([path.name, info.st_size, info.st_mtime_ns])
  text = json.dumps([_VERSION, step, stamps, list(before), list(extra)], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
