"""The check of an .npz archive before its arrays are read: none may fill the memory."""

from __future__ import annotations

import math
import zipfile

import numpy as np

from medae_jax.weights.inert_pickle import Refused

MAX_PLAIN, MAX_SHRINK = 64 << 20, 20  # bytes of an array that may have shrunk more than 20 times


def check(archive: zipfile.ZipFile) -> None:
  """Looks at the arrays' headers and sizes: weights hardly shrink, and hold what they claim.

  Raises:
    Refused: a deflated array that would grow out of proportion, or claims more than it holds.
  """
  for info in archive.infolist():
    _check(archive, info)


def _check(archive, info):
  if info.file_size > MAX_PLAIN and info.file_size > MAX_SHRINK * max(info.compress_size, 1):
    raise Refused(f"its array {info.filename} grows from {info.compress_size:,} to "
                  f"{info.file_size:,} bytes, as no weights do")
  headers: dict = {(1, 0): np.lib.format.read_array_header_1_0,
                   (2, 0): np.lib.format.read_array_header_2_0}
  with archive.open(info) as member:
    read = headers.get(np.lib.format.read_magic(member))
    if read is None:  # names of fields beyond Latin-1, which weights do not have
      raise Refused(f"its array {info.filename} has a form that is not read")
    shape, _, dtype = read(member)
  if math.prod(shape) * dtype.itemsize > info.file_size:
    raise Refused(f"its array {info.filename} claims {math.prod(shape):,} values and holds "
                  f"{info.file_size:,} bytes")
