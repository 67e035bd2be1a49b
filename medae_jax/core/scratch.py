"""Temporary folders beside a result, and the removal of those that a killed run has left.

The process that fills such a folder holds a lock on it: what nobody holds is litter. The lock goes
with the process, however that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import tempfile

from medae_jax.core.errors import UserError


@contextlib.contextmanager
def folder(parent: pathlib.Path, prefix: str) -> Iterator[pathlib.Path]:
  """A temporary folder <parent>/<prefix>..., gone at the end of the block."""
  while True:
    path = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    held = _lock(path)
    if path.is_dir():  # else somebody who cleans up was quicker than the lock
      break
    _release(held)
  try:
    yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)
    _release(held)


@contextlib.contextmanager
def alone(folder: pathlib.Path, field: str) -> Iterator[None]:
  """Keeps other processes from writing their results into `folder`, where its file system has locks.

  Raises:
    UserError: another is writing; the line names the folder and `field`, which says another.
  """
  held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
  try:
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno == errno.EWOULDBLOCK:
      os.close(held)
      raise UserError(f"another process writes its results into {folder}: wait for it, or choose another "
                      f"{field}") from error
  try:
    yield
  finally:
    os.close(held)


def remove_litter(parent: pathlib.Path, prefix: str) -> None:
  """Removes the folders of `folder` in `parent` whose process is gone."""
  for path in sorted(p for p in parent.iterdir() if p.name.startswith(prefix)):
    if path.is_symlink() or not path.is_dir():
      continue
    held = _lock(path)
    if held is not None:
      shutil.rmtree(path, ignore_errors=True)
      _release(held)


def _lock(path: pathlib.Path) -> int | None:
  """Descriptor of the locked folder; None where another holds it, or it cannot be locked."""
  try:
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
  except OSError:
    return None
  try:
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    os.close(held)
    return None
  return held


def _release(held: int | None) -> None:
  if held is not None:
    os.close(held)
