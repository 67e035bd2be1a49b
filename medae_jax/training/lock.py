"""One writer at a time in a workdir: a lock that goes with the process that holds it, however it ends.

flock on <workdir>/.<what>.lock. The system releases it with the process, also after kill -9; on
shared folders (NFS, Lustre with flock) it holds between machines as well. Where a file system has no
locks, the file's text decides on one machine: the process it names, and when that began.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket

from absl import logging

from medae_jax.core.errors import UserError


class Held(UserError):
  """Another process holds the lock."""


# What each work writes into: looked at before it begins, not found out after hours.
_WRITTEN = {"training": ("checkpoints", "checkpoints/last", "checkpoints/best"),
            "evaluation": ("evaluation",)}
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def held(workdir: str | os.PathLike, what: str, *, wait: bool = False) -> Iterator[None]:
  """Holds the lock `what` of a workdir, which is made where it is missing.

  Args:
    what: the work, "training" or "evaluation": the file is .<what>.lock.
    wait: True = until the other process is done; False = refuse at once.

  Raises:
    Held: another process holds it; the line names the process. UserError: a folder that the work writes into
      may not be written.
  """
  folder = pathlib.Path(workdir)
  for inside in (folder / name for name in _WRITTEN.get(what, ())):
    if inside.is_dir() and not os.access(inside, os.W_OK | os.X_OK):
      raise UserError(f"{inside} may not be written: change its permissions, or give another --workdir")
  made = not folder.exists()
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f".{what}.lock"
  file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
  try:
    _acquire(file, folder, what, wait)
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(_me()).encode(), 0)
    try:
      yield
    finally:
      with contextlib.suppress(OSError):
        os.ftruncate(file, 0)  # the file stays: to delete it would free a lock that another waits for
      if made:  # refused before anything was written: the folder goes as well
        _remove_if_empty(folder)
  finally:
    os.close(file)


def _acquire(file, folder, what, wait):
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return
  except OSError as e:
    other = _read(file)
    if e.errno in _NO_LOCKS:
      if _runs(other):
        raise Held(_line(folder, what, other)) from e
      logging.warning("%s lies on a file system without locks: see to it that one process works in it.",
                      folder)
      return
    if e.errno not in (errno.EWOULDBLOCK, errno.EACCES):
      raise
  if not wait:
    raise Held(_line(folder, what, other))
  logging.warning("%s Waiting for it.", _line(folder, what, other))
  fcntl.flock(file, fcntl.LOCK_EX)


def _line(folder, what, other) -> str:
  who = f"process {other['pid']} on {other['host']}" if other else "another process"
  return (f"{folder}: the {what} of {who} works in this folder; wait for it, end it, or choose another "
          "--workdir")


def _me() -> dict:
  return {"pid": os.getpid(), "host": socket.gethostname(), "began": _began(os.getpid())}


def _began(pid: int) -> str:
  """When a process began, in the system's own count; "" where it is gone or the system is silent."""
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
  except (OSError, IndexError):
    return ""


def _read(file) -> dict:
  try:
    found = json.loads(os.pread(file, 4096, 0))
    return found if {"pid", "host", "began"} <= set(found) else {}
  except (ValueError, TypeError, OSError):
    return {}


def _runs(other: dict) -> bool:
  """True where the process may still be there: another machine's cannot be seen from here."""
  if not other or other["pid"] == os.getpid():
    return False
  return other["host"] != socket.gethostname() or (bool(other["began"]) and (
      _began(other["pid"]) == other["began"]))


def _remove_if_empty(folder: pathlib.Path) -> None:
  """Removes a folder that holds empty folders and its locks alone: this one, and those of ended work."""
  own_lock = lambda p: p.parent == folder and p.name.startswith(".") and p.name.endswith(".lock")
  with contextlib.suppress(OSError):
    found = []
    for path in folder.rglob("*"):
      if not (path.is_dir() or own_lock(path)):
        return  # at the first file: a finished run has thousands
      found.append(path)
    for path in [*sorted(found, reverse=True), folder]:  # what is inside comes before its folder
      if path.is_dir():
        path.rmdir()
      else:
        path.unlink()
