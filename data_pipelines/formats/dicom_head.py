"""What single elements of a DICOM header say, read without the pixels (nothing where that fails), and
whether the bits of the pixels fit it: more than it says, and padding around the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import UserError

_ABOVE = 0.25  # share of the pixels with bits above Bits Stored: more than an overlay draws


def read(path, names: Sequence[str]) -> Any:
  """pydicom's data set of these elements; empty where it cannot be read: who reads the pixels says so."""
  import pydicom  # only who has DICOM files needs it
  try:
    return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(names))
  except Exception:  # pydicom raises a dozen types for damaged files
    return pydicom.Dataset()


def text(data, name: str) -> str:
  """An element on one line, "" where there is none."""
  return " ".join(str(data.get(name, "") or "").replace("\0", " ").split())


def patient_id(path) -> str:
  """PatientID (0010,0020) without blanks around it; "" where there is none or the file cannot be read."""
  try:
    return str(read(path, ["PatientID"]).get("PatientID", "") or "").strip(" \0")
  except Exception:  # elements are decoded when they are asked for
    return ""


def modality(path) -> str:
  """The word of (0008,0060) Modality of a DICOM file, such as "MR"; "" where there is none, or no header."""
  try:
    return text(read(path, ["Modality"]), "Modality").upper()[:16]
  except Exception:  # as above
    return ""


def intent(path) -> str:
  """"raw" or "processed" of a radiograph that says so (Presentation Intent Type), "" of all others."""
  words = {"FOR PROCESSING": "raw", "FOR PRESENTATION": "processed"}
  try:
    found = read(path, ["PresentationIntentType"])
    return words.get(text(found, "PresentationIntentType").upper(), "")
  except Exception:  # as above
    return ""


def no_picture(data) -> str:
  """Why a data set with pixels is no picture, reads on after its name; "" of others."""
  if "MOSAIC" in (str(word).upper() for word in data.get("ImageType", None) or ()):
    return "is a mosaic of the slices of a volume in one picture: convert it to NIfTI, as dcm2niix does"
  known = {"SEG": "a segmentation (SEG)", "RTDOSE": "a map of doses (RTDOSE)"}
  what = known.get(text(data, "Modality"))
  return f"is {what}, no picture: take it out of the images" if what else ""


# ------------------------------------------------------------------------------------ bits of pixels
def check_stored(path, data) -> None:
  """Refuses a header that says fewer bits than the pixels have: what is above them is cut off.

  Overlays of old scanners and the values beside the picture (padding) may lie there.
  """
  bits, allocated = int(data.get("BitsStored", 0) or 0), int(data.BitsAllocated)
  syntax = data.file_meta.TransferSyntaxUID
  if not 0 < bits < allocated <= 16 or syntax.is_compressed or int(data.get("PixelRepresentation", 0) or 0):
    return
  stored = _raw(data)
  padding = int(data.get("PixelPaddingValue", 0) or 0) % 2**allocated
  above = float(np.mean((stored >> bits != 0) & (stored != padding))) if stored.size else 0.0
  if above > _ABOVE and not any((group, 0x0102) in data for group in range(0x6000, 0x6020, 2)):
    raise UserError(f"{path} says that it stores {bits} bits, and {above:.0%} of its pixels have more: its "
                    "header (Bits Stored) is wrong")


def check_length(path, data) -> None:
  """Refuses more pixels than Rows and Columns say: without them it is another picture, or sheared."""
  kind, allocated = data.PhotometricInterpretation, int(data.BitsAllocated)
  if data.file_meta.TransferSyntaxUID.is_compressed or kind == "YBR_FULL_422" or allocated % 8:
    return
  frames = int(data.get("NumberOfFrames", 1) or 1)
  said = int(data.Rows) * int(data.Columns) * int(data.SamplesPerPixel) * frames * allocated // 8
  more = (data.get("PixelData") or b"")[said:]
  if len(more) > 1 and any(more):  # zeros fill a block up
    raise UserError(f"{path} holds {len(more)} bytes more than {data.Rows} x {data.Columns} pixels take: its "
                    "header is wrong")


def padding(data, array: np.ndarray) -> np.ndarray | None:
  """bool, as `array`: values beside the picture, by Pixel Padding Value and its range; None = there are none.

  They may lie above Bits Stored, where the decoder cuts them off and makes white of them: pixels without
  compression are looked at as they are stored.

  Args:
    array: decoded grey pixels [N,H,W,1].
  """
  first = data.get("PixelPaddingValue")
  if first in (None, "") or array.shape[-1] != 1 or array.dtype.kind not in "iu":
    return None
  allocated = int(data.BitsAllocated)
  native = not data.file_meta.TransferSyntaxUID.is_compressed and allocated in (8, 16, 32)
  values = _raw(data)[:array.size].reshape(array.shape) if native else array
  ends = [int(first), int(data.get("PixelPaddingRangeLimit") or first)]
  values = values.astype(np.int64)
  if array.dtype.kind == "i":
    values -= (values >= 2 ** (allocated - 1)) * 2**allocated
    ends = [end - 2**allocated if end >= 2 ** (allocated - 1) else end for end in ends]
  else:
    ends = [end % 2**allocated for end in ends]
  found = (values >= min(ends)) & (values <= max(ends))
  return found if found.any() and not found.all() else None


def _raw(data):
  """The words of uncompressed pixels without sign, with the bits above Bits Stored."""
  size = int(data.BitsAllocated) // 8
  order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
  return np.frombuffer(data.PixelData[:len(data.PixelData) // size * size], f"{order}u{size}")
