"""Whose a DICOM file is, read from its header alone."""

from __future__ import annotations


def patient_id(path) -> str:
  """PatientID (0010,0020) without blanks around it; "" where there is none or the file cannot be read."""
  import pydicom  # only who has DICOM files needs it
  try:
    data = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=["PatientID"])
    return str(data.get("PatientID", "") or "").strip(" \0")
  except Exception:  # pydicom raises a dozen types for damaged files; who reads the pixels says so
    return ""
