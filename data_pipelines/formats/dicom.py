"""DICOM images: pixels with the grey levels that mean black and white, and writing them back.

Only data_pipelines.formats.images calls this; pydicom is loaded when a DICOM file is met.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.intake import find as finder


def is_dicom(path) -> bool:
  """True for DICOM names, and for files without a known ending that are DICOM by their content."""
  return finder.kind_of(path) == "dicom"


def read(path) -> tuple[np.ndarray, int, int, bool, Any]:
  """(pixels [N,H,W,1 or 3], stored value of black, of white, whether inverted, pydicom's data set).

  Raises:
    UserError: damaged, a codec that is not installed, or pixels of a form that is not read.
  """
  import pydicom
  try:
    data = pydicom.dcmread(path)
    array = data.pixel_array
  except Exception as error:  # pydicom raises a dozen types for damaged files
    reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
    raise UserError(f"{path} is not readable DICOM ({reason})") from None
  samples, frames = int(data.get("SamplesPerPixel", 1)), int(data.get("NumberOfFrames", 1) or 1)
  kind = str(data.PhotometricInterpretation)
  if kind == "PALETTE COLOR" or samples not in (1, 3):
    raise UserError(f"{path} has {kind} pixels; grey, RGB and YBR images are read")
  if array.dtype.itemsize > 2:
    raise UserError(f"{path} has {array.dtype} pixels; 8 and 16 bit are read")
  if kind.startswith("YBR"):  # pixel_array has converted to RGB
    data.PhotometricInterpretation = "RGB"
  array = np.ascontiguousarray(array.reshape(frames, *array.shape[-3 if samples == 3 else -2:][:2],
                                             samples))
  if samples == 3:
    low, high = 0, 2 ** int(data.BitsStored) - 1
  else:
    low, high = _window(data, array)
  return array, low, high, kind == "MONOCHROME1", data


def write(data, pixels: np.ndarray, target: pathlib.Path) -> pathlib.Path:
  """The file again with other pixels; all further elements and the identifiers stay."""
  import pydicom
  data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
  data["PixelData"].VR = "OB" if pixels.dtype == np.uint8 else "OW"
  data["PixelData"].is_undefined_length = False
  if pixels.shape[-1] == 3:
    data.PlanarConfiguration = 0
  data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  data.save_as(target, enforce_file_format=True)
  return target


def _window(data, array) -> tuple[int, int]:
  """Stored values shown black and white: the file's window, else the range of its bits or values."""
  slope = float(data.get("RescaleSlope", 1) or 1)
  centre, width = data.get("WindowCenter"), data.get("WindowWidth")
  if centre is not None and width is not None:
    first = lambda v: float(v[0] if hasattr(v, "__len__") and not isinstance(v, str) else v)
    middle = (first(centre) - float(data.get("RescaleIntercept", 0) or 0)) / slope
    half = max(first(width) / abs(slope) / 2, 1)
    info = np.iinfo(array.dtype)
    return max(int(middle - half), info.min), min(int(middle + half), info.max)
  if array.dtype == np.uint8:
    return 0, 255
  return int(array.min()), max(int(array.max()), int(array.min()) + 1)
