"""NIfTI files of brain scans: their names in the BraTS releases, and reading with clear reasons."""

from __future__ import annotations

import pathlib
from typing import Any
import zlib

import numpy as np

from data_pipelines.brains.normalise import BadScan

# The newer releases' names of the modalities, after a "-" instead of a "_".
NEW_NAMES = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}
SUFFIXES = (".nii.gz", ".nii")


def file_name(patient: str, kind: str, style: str = "brats2021") -> str:
  """Name of a file; kind is a modality or "seg", style "brats2021" or "brats2023"."""
  return (f"{patient}_{kind}.nii.gz" if style == "brats2021"
          else f"{patient}-{NEW_NAMES.get(kind, kind)}.nii.gz")


def find_file(folder: pathlib.Path, kind: str) -> pathlib.Path | None:
  """The file of `kind` in a scan folder named as the patient, in either naming; None = absent."""
  patient = folder.name
  for stem in (f"{patient}_{kind}", f"{patient}-{NEW_NAMES.get(kind, kind)}"):
    for suffix in SUFFIXES:
      if (folder / (stem + suffix)).is_file():
        return folder / (stem + suffix)
  return None


def is_nifti(path: pathlib.Path) -> bool:
  """Whether the name ends as NIfTI files do."""
  return path.name.endswith(SUFFIXES)


def read_volume(path) -> np.ndarray:
  """Voxels of a file as stored (no reorientation), float64 [H,W,Z].

  Raises:
    BadScan: absent, truncated, not NIfTI, or not three-dimensional.
  """
  import nibabel  # pylint: disable=import-outside-toplevel
  path = pathlib.Path(path)
  if not path.is_file():
    raise BadScan(f"{path.name} does not exist")
  try:
    image: Any = nibabel.load(path)
    array = np.asarray(image.dataobj, np.float64)  # reads and scales; a cut file fails here
  except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError,
          nibabel.spatialimages.HeaderDataError) as e:
    line = " ".join(str(e).split())[:160]
    raise BadScan(f"{path.name} is corrupt or truncated ({type(e).__name__}: {line})") from e
  while array.ndim > 3 and array.shape[-1] == 1:
    array = array[..., 0]
  if array.ndim != 3:
    raise BadScan(f"{path.name} has shape {array.shape}, a volume has three axes")
  return array
