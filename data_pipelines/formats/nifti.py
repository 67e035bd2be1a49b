"""NIfTI volumes: the only reader and writer of them; orientation of their axes.

What is written has the shape, affine, qform and sform codes and units of the volume it was computed
from, so that any viewer lays it over the original.
"""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.intake import find as finder

SUFFIXES = finder.SUFFIXES["nifti"]


def is_nifti(path: pathlib.Path) -> bool:
  """Whether the name ends as NIfTI files do, in any capitals."""
  return finder.kind_of(path, by_content=False) == "nifti"


def stem(path: pathlib.Path) -> str:
  """File name without its ending, in any capitals."""
  return finder.stem_of(path)


def read(path) -> tuple[np.ndarray, Any]:
  """(float64 [H,W,Z] or [H,W,Z,C], the nibabel image with affine and header).

  Raises:
    FileNotFoundError: no such file. UserError: damaged, not 3-D or 4-D, not numbers, NaN.
  """
  path = pathlib.Path(path)
  array, image = _load(path)
  if array.ndim not in (3, 4) or not array.size:
    raise UserError(f"{path} has shape {array.shape}; a volume needs three axes (or four, modalities "
                    "last)")
  if not np.isfinite(array).all():
    raise UserError(f"{path} holds {int((~np.isfinite(array)).sum())} NaN or infinite voxels")
  return array, image


def read_volume(path) -> np.ndarray:
  """Voxels of a file as stored (no reorientation), float64 [H,W,Z]; NaN is let through.

  Raises:
    FileNotFoundError, UserError: absent, truncated, not NIfTI, or not three-dimensional.
  """
  array, _ = _load(pathlib.Path(path))
  if array.ndim != 3:
    raise UserError(f"{path} has shape {array.shape}, a volume has three axes")
  return array


def write(path, array: np.ndarray, affine: np.ndarray) -> None:
  """Writes [H,W,Z] of any numeric type with an affine of its own."""
  import nibabel
  nibabel.save(nibabel.Nifti1Image(array, affine), path)


def write_like(path, array: np.ndarray, reference) -> None:
  """Writes [H,W,Z] as NIfTI on the grid of `reference`, a nibabel image: affine, codes, units.

  Args:
    array: float32 or uint8, of the reference's first three axes.
  """
  if array.shape != tuple(reference.shape[:3]):
    raise UserError(f"result of shape {array.shape} does not fit the grid {reference.shape[:3]}")
  import nibabel
  header = reference.header.copy()
  header.set_data_dtype(array.dtype)
  header.set_data_shape(array.shape)
  header.set_slope_inter(1, 0)
  header["cal_max"] = header["cal_min"] = 0  # the viewer's window of the original does not apply
  kind = nibabel.Nifti2Image if isinstance(reference, nibabel.Nifti2Pair) else nibabel.Nifti1Image
  nibabel.save(kind(array, reference.affine, header), path)


def axis_codes(image) -> str:
  """Where the array's axes point to, e.g. "LPS" as in BraTS."""
  import nibabel
  return "".join(c or "?" for c in nibabel.aff2axcodes(image.affine))


def turn(array: np.ndarray, affine: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
  """Flips and swaps axes so that they point to `codes`: (array, transform for `turn_back`).

  Raises:
    ValueError: codes are not three different axes.
  """
  import nibabel
  try:
    wanted = nibabel.orientations.axcodes2ornt(tuple(codes))
    change = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted)
  except (ValueError, KeyError) as error:
    raise UserError(f"orientation {codes!r}: give three letters such as LPS or RAS") from error
  return nibabel.orientations.apply_orientation(array, change), change


def turn_back(array: np.ndarray, change: np.ndarray) -> np.ndarray:
  """Undoes `turn`."""
  import nibabel
  shape_after = np.zeros((3, 2))
  shape_after[change[:, 0].astype(int), 0] = np.arange(3)
  shape_after[change[:, 0].astype(int), 1] = change[:, 1]
  return nibabel.orientations.apply_orientation(array, shape_after)


def _check_claim(path, shape, itemsize):
  """Refuses a header that claims more voxels than its file can hold: before memory is asked for them.

  gzip packs at most 1032 bytes into one.
  """
  claimed, there = math.prod(int(n) for n in shape) * itemsize, path.stat().st_size
  if claimed > there * 1032:
    raise UserError(f"{path} claims {' x '.join(map(str, shape))} voxels ({claimed:.2g} bytes) and has "
                    f"{there} bytes: corrupt or truncated")


def _load(path):
  """(float64 array without trailing axes of length 1, nibabel's image); the one place nibabel fails."""
  import nibabel
  if not path.is_file():
    raise FileNotFoundError(f"volume {path} does not exist")
  try:
    image: Any = nibabel.load(path)
    kind = image.get_data_dtype()
    if kind.kind not in "biuf":
      raise UserError(f"{path} holds {kind}, not grey values")
    _check_claim(path, image.shape, kind.itemsize)
    array = np.asarray(image.dataobj, np.float64)  # reads and scales; a cut file fails here
  except (MemoryError, UserError):
    raise
  except Exception as error:  # nibabel raises a dozen types for damaged files
    reason = " ".join(str(error).split())[:160]
    raise UserError(f"{path} is not a readable NIfTI volume: corrupt or truncated "
                    f"({type(error).__name__}: {reason})") from None
  while array.ndim > 3 and array.shape[-1] == 1:
    array = array[..., 0]
  return array, image
