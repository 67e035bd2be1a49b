"""NumPy files (.npy, .npz): the only reader of those that a user gives; nothing is unpickled."""

from __future__ import annotations

from collections.abc import Sequence
import math
import pathlib
import zipfile

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats.regular import check_regular

MAX_SHRINK = 200  # an array that grows more than so many times on reading is made to fill the memory


def read(path, what: str = "array file") -> np.ndarray:
  """The array of a .npy file.

  Raises:
    FileNotFoundError: no such file. UserError: damaged, objects, more claimed than is there.
  """
  path = pathlib.Path(path)
  check_regular(path, what)
  return _guarded(path, what, lambda: np.load(path, allow_pickle=False, mmap_mode="r").copy())


def names_of(path, what: str = "array file") -> list[str]:
  """The names of the arrays of a .npz file; raises as `read` does."""
  path = pathlib.Path(path)
  check_regular(path, what)

  def names():
    with zipfile.ZipFile(path) as archive:
      return [n.removesuffix(".npy") for n in archive.namelist()]
  return _guarded(path, "readable .npz", names)


def read_some(path, names: Sequence[str], what: str = "array file") -> dict[str, np.ndarray]:
  """{name: array} of a .npz file; raises as `read` does, and UserError where a name is missing."""
  path = pathlib.Path(path)
  check_regular(path, what)
  if not zipfile.is_zipfile(path):
    raise UserError(f"{path} is not a readable .npz: it is no zip archive")

  def arrays():
    with np.load(path, allow_pickle=False) as archive:
      missing = set(names) - set(archive.files)
      if missing:
        raise UserError(f"{path} lacks the array {', '.join(sorted(missing))}")
      for name in names:
        _check(path, archive.zip, name + ".npy")
      return {name: archive[name] for name in names}
  return _guarded(path, "readable .npz", arrays)


def _check(path, archive, member):
  """Refuses an array that claims more than it holds, or that would grow out of proportion."""
  info = archive.getinfo(member)
  if info.file_size > 64 << 20 and info.file_size > MAX_SHRINK * max(info.compress_size, 1):
    raise UserError(f"{path}: its array {member} grows from {info.compress_size:,} to "
                    f"{info.file_size:,} bytes")
  with archive.open(info) as file:
    old = np.lib.format.read_magic(file) == (1, 0)
    header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, _, kind = header(file)
  if math.prod(shape) * kind.itemsize > info.file_size:
    raise UserError(f"{path}: its array {member} claims {math.prod(shape):,} values and holds "
                    f"{info.file_size:,} bytes")


def _guarded(path, what, use):
  try:
    return use()
  except UserError:
    raise
  except MemoryError:
    raise UserError(f"{path} does not fit in memory") from None
  except Exception as error:  # NumPy, zipfile and zlib raise several types for damaged files
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    raise UserError(f"{path} is not a readable {what.removeprefix('readable ')} ({reason})") from None
