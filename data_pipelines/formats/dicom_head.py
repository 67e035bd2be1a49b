"""What single elements of a DICOM header say, read without the pixels; nothing where they cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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


def no_picture(data) -> str:
  """Why a data set with pixels is no picture, reads on after its name; "" of others."""
  if "MOSAIC" in (str(word).upper() for word in data.get("ImageType", None) or ()):
    return "is a mosaic of the slices of a volume in one picture: convert it to NIfTI, as dcm2niix does"
  known = {"SEG": "a segmentation (SEG)", "RTDOSE": "a map of doses (RTDOSE)"}
  what = known.get(text(data, "Modality"))
  return f"is {what}, no picture: take it out of the images" if what else ""
