"""The arrays inside an .h5 file (Keras's form of weights), read by h5py: nothing in it is run or followed.

h5py comes with TensorFlow. Links to other files, virtual and external data sets are refused or left out.
"""

from __future__ import annotations

from collections.abc import Callable
import os

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.weights.npz_file import MAX_PLAIN, MAX_SHRINK

MAGIC = b"\x89HDF\r\n\x1a\n"


def load(path: str | os.PathLike, keep: Callable[[str], bool] | None = None) -> dict[str, np.ndarray]:
  """{"group/.../name": array} of the numeric data sets whose names `keep` accepts, in the file's order.

  Raises:
    UserError: no .h5 file, a damaged one, one that points elsewhere or grows without measure, or no h5py.
  """
  try:
    import h5py
  except ImportError:
    raise UserError(f"{os.fspath(path)}: .h5 files need h5py (pip install h5py)") from None
  found: dict[str, np.ndarray] = {}

  def visit(name, item):  # links, soft and external, are not visited
    if not isinstance(item, h5py.Dataset) or (keep is not None and not keep(name)):
      return
    if item.is_virtual or item.external:
      raise UserError(f"{os.fspath(path)}: {name} lies in another file, as no weights do")
    if item.dtype.kind not in "fiu":
      return
    size, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
    if size > MAX_PLAIN and size > MAX_SHRINK * max(stored, 1):
      raise UserError(f"{os.fspath(path)}: {name} grows from {stored:,} to {size:,} bytes, as no weights do")
    found[name] = item[()]

  try:
    with h5py.File(path, "r") as file:
      file.visititems(visit)
  except UserError:
    raise
  except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as e:
    what = " ".join(str(e).split())[:120]
    raise UserError(f"{os.fspath(path)} is damaged or no .h5 file ({what}); get it again") from e
  return found
