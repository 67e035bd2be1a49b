"""DICOM segmentations (PS3.3 A.51) of a volume that was read from a series: a mask and a map on its slices.

BINARY: the mask. FRACTIONAL (PROBABILITY, 8 bits): the map divided by a scale that stands in the object's
description; the standard knows no other fractions, and the values are scores, no probabilities. Every slice
of the series has a frame, at its own place, that refers to it.

Of the source's header travel the identifiers of patient and study that the standard demands (so that an
archive files the object with its source), the frame of reference and the slices' places, nothing else.
Written by highdicom, of the optional extra `dicom`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import importlib.util
import logging
import pathlib
import re
from typing import Any

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats.dicom_series import along_normal

ADVICE = "highdicom is not installed: pip install 'medae-jax[dicom]'"
LEVELS = 255  # of a fractional value
_PERSON = {"PatientName": "", "PatientID": "", "PatientBirthDate": r"\d{8}", "PatientSex": "[MFO]"}
_STUDY = {"AccessionNumber": "", "StudyID": "", "StudyDate": r"\d{8}", "StudyTime": r"\d{2,6}(\.\d{1,6})?",
          "ReferringPhysicianName": ""}
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "ImagePositionPatient",
           "ImageOrientationPatient", "PixelSpacing")
_TAGS = [*_NEEDED, *_PERSON, *_STUDY, "StudyInstanceUID", "FrameOfReferenceUID", "SpecificCharacterSet",
         "SeriesNumber"]


def available() -> bool:
  """Whether highdicom is installed."""
  return importlib.util.find_spec("highdicom") is not None


@contextlib.contextmanager
def explained(files: Sequence[pathlib.Path]) -> Iterator[None]:
  """What highdicom and pydicom raise for headers that they do not like, as one line of objects about `files`.

  Raises:
    UserError: highdicom is not installed, or the series lacks what an object that refers to it needs.
  """
  if not available():
    raise UserError(f"no DICOM objects: {ADVICE}")
  logging.getLogger("highdicom").setLevel(logging.WARNING)  # it tells of every module, with identifiers
  try:
    yield
  except (UserError, OSError):
    raise
  except Exception as error:  # they raise a dozen types
    reason = " ".join(str(error).split())[:160]
    where = pathlib.Path(files[0]).parent
    raise UserError(f"no DICOM objects of {where} ({type(error).__name__}: {reason})") from None


def write(targets: Sequence[pathlib.Path], heads: Sequence, mask: np.ndarray | None,
          anomaly: np.ndarray, scale: float, threshold: float | None, version: str) -> Any:
  """Writes the mask and the map of one scan as one series of two objects; returns the mask's, or None.

  Args:
    targets: of the mask and of the map.
    heads: of the slices that the voxels were read from, of `sources`.
    mask: [H,W,Z] 0 or 1, None = none; anomaly: [H,W,Z] from 0 on, on the grid of `dicom_series.read_series`.
    scale: the map's value that becomes 1; larger ones are 1.
    threshold: of the mask, for its description.
  """
  uid = new_uid()
  shares = np.clip(anomaly / scale, 0, 1).astype(np.float32)
  made = None if mask is None else _object(
      "BINARY", targets[0], mask.astype(np.uint8), "Anomaly", f"anomaly score above {threshold:.6g}", heads,
      uid, 1, version)
  _object("FRACTIONAL", targets[1], shares, "Anomaly score",
          f"1 = an anomaly score of {scale:.6g}; a score, no probability", heads, uid, 1 + (made is not None),
          version)
  return made


def _object(kind, target, array, label, text, sources, series, number, version):
  import highdicom as hd
  from pydicom.sr.codedict import codes
  algorithm = hd.AlgorithmIdentificationSequence("medae_jax", codes.DCM.ArtificialIntelligence, version)
  segment = hd.seg.SegmentDescription(
      1, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion,
      hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm)
  seg = hd.seg.Segmentation(
      sources, np.ascontiguousarray(array.transpose(2, 1, 0)), kind, [segment], series,
      series_number(sources), new_uid(), number, "medae_jax", "medae_jax", version, "0",
      fractional_type="PROBABILITY", max_fractional_value=LEVELS, content_description=text[:64],
      content_label="ANOMALY", omit_empty_frames=False,  # empty slices were looked at, too
      series_description=f"{label} (medae_jax; not for diagnosis)")
  seg.pop("ContributingEquipmentSequence", None)  # of the scanner: nobody asked for it
  seg.save_as(target)
  return seg


def series_number(heads: Sequence) -> int:
  """1000 more than the source's; structured reports have the next one."""
  return 1000 + min(abs(int(heads[0].get("SeriesNumber") or 0)), 10**6)


def sources(files: Sequence[pathlib.Path]) -> list[Any]:
  """Minimal headers of the slices in the order of the volume.

  Args:
    files: of the series, in any order.

  Raises:
    UserError: one of them lacks what an object that refers to it needs.
  """
  import pydicom
  heads, places = [], []
  for path in files:
    data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    lacking = [name for name in _NEEDED if data.get(name) in (None, "")]
    if lacking:
      raise UserError(f"{path} has no {', '.join(lacking)}: a DICOM object cannot refer to it")
    heads.append(data)
    places.append([float(v) for v in data.ImagePositionPatient])
  order, distance = along_normal(np.array(places), heads[0].ImageOrientationPatient)
  study, frame = (heads[0].get(name) or new_uid() for name in ("StudyInstanceUID", "FrameOfReferenceUID"))
  mm = pydicom.valuerep.DSfloat(distance, auto_format=True)
  return [_minimal(heads[i], study, frame, mm) for i in order]


def _minimal(data, study, frame, distance) -> Any:
  """What an object needs of a slice: highdicom copies everything else that it finds."""
  import pydicom
  result = pydicom.Dataset()
  for name in (*_NEEDED, "SpecificCharacterSet", "SeriesNumber"):
    if name in data:
      result[name] = data[name]
  for name, form in (*_PERSON.items(), *_STUDY.items()):  # must be there, may be empty
    value = data.get(name) or ""
    setattr(result, name, value if not form or re.fullmatch(form, str(value)) else "")
  result.StudyInstanceUID, result.FrameOfReferenceUID = study, frame
  result.SliceThickness = result.SpacingBetweenSlices = distance  # of the places, as the volume has it
  result.Modality = "OT"
  return result


def new_uid() -> str:
  """Of a new instance, series or thing that is tracked."""
  from pydicom.uid import generate_uid
  return generate_uid()
