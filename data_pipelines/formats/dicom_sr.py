"""DICOM structured reports (PS3.16 TID 1500, Measurement Report) of what was found in a series.

One measurement group of the segmented region (TID 1411: volume in mm3, references to the segment of the DICOM
SEG and to the slices) and one of the scan (TID 1501: score, p-value, call), each with the algorithm that made
it. The standard has no codes for anomaly scores: they are those of the private scheme 99MEDAE. Reports are
UNVERIFIED and PRELIMINARY, and say that they are for research alone. Written by highdicom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from data_pipelines.formats import dicom_seg

USE = "Research use only. Not a medical device: computed scores, no diagnosis; not verified by a physician."
SCHEME = "99MEDAE"
_CODES = {"score": "Anomaly score of the scan", "p_value": "P-value of the score among normal scans",
          "threshold": "Threshold of the anomaly map", "call": "Call at the threshold of validation",
          "abnormal": "Called abnormal", "normal": "Called normal"}


@dataclasses.dataclass(frozen=True)
class Found:
  """What a report says of a scan; None = not known.

  Attributes:
    volume: of the mask in mm3. score: of the scan. p_value: 0 to 1. threshold: of the anomaly map.
    abnormal: whether the scan is called abnormal.
    model: {"method": ..., "checkpoint": ...}, in words; parameters of the algorithm.
  """

  volume: float | None
  score: float
  p_value: float | None = None
  threshold: float | None = None
  abnormal: bool | None = None
  model: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write(target: pathlib.Path, sources: Sequence, mask: Any, found: Found, version: str) -> pathlib.Path:
  """Writes the report of one scan.

  Args:
    sources: headers of the slices, of `dicom_seg.sources`.
    mask: the SEG of the mask as a data set; None = there is none, and no group of a region.
  """
  import highdicom as hd
  from pydicom.sr.codedict import codes
  algorithm = hd.sr.AlgorithmIdentification(
      "medae_jax", version, [USE, *(f"{k}: {v}" for k, v in found.model.items() if v)],
      family=codes.DCM.ArtificialIntelligence)
  groups = ([] if mask is None else [_region(sources, mask, found, algorithm)]) + [
      _scan(sources, found, algorithm)]
  device = hd.sr.ObserverContext(codes.DCM.Device, hd.sr.DeviceObserverIdentifyingAttributes(
      dicom_seg.new_uid(), "medae_jax", "medae_jax", found.model.get("method") or "medae_jax"))
  report = hd.sr.MeasurementReport(hd.sr.ObservationContext(observer_device_context=device),
                                   codes.SCT.ImagingProcedure, groups,
                                   title=codes.DCM.ImagingMeasurementReport)
  report[0].ContentSequence.append(hd.sr.TextContentItem(
      codes.DCM.Comment, USE, hd.sr.RelationshipTypeValues.CONTAINS))
  document = hd.sr.ComprehensiveSR(
      [*sources, *([] if mask is None else [mask])], report[0], dicom_seg.new_uid(),
      dicom_seg.series_number(sources) + 1, dicom_seg.new_uid(), 1, "medae_jax", is_complete=True,
      is_final=False, is_verified=False, series_description="Anomaly report (medae_jax; not for diagnosis)")
  document.pop("ContributingEquipmentSequence", None)
  document.save_as(target)
  return target


def _region(sources, mask, found, algorithm):
  """TID 1411: the segment of the mask."""
  import highdicom as hd
  from pydicom.sr.codedict import codes
  images = [hd.sr.SourceImageForSegmentation(s.SOPClassUID, s.SOPInstanceUID) for s in sources]
  measured = [hd.sr.Measurement(codes.SCT.Volume, found.volume, codes.UCUM.CubicMillimeter)]
  if found.threshold is not None:
    measured.append(_number("threshold", found.threshold))
  return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
      hd.sr.TrackingIdentifier(dicom_seg.new_uid(), "anomaly above the threshold"),
      referenced_segment=hd.sr.ReferencedSegment(mask.SOPClassUID, mask.SOPInstanceUID, 1,
                                                 source_images=images),
      finding_type=codes.SCT.MorphologicallyAbnormalStructure, algorithm_id=algorithm, measurements=measured)


def _scan(sources, found, algorithm):
  """TID 1501: the scan as a whole."""
  import highdicom as hd
  measured = [_number("score", found.score)]
  if found.p_value is not None:
    measured.append(_number("p_value", found.p_value))
  call = [] if found.abnormal is None else [hd.sr.QualitativeEvaluation(
      _code("call"), _code("abnormal" if found.abnormal else "normal"))]
  return hd.sr.MeasurementsAndQualitativeEvaluations(
      hd.sr.TrackingIdentifier(dicom_seg.new_uid(), "scan"), algorithm_id=algorithm, measurements=measured,
      qualitative_evaluations=call, source_images=[
          hd.sr.SourceImageForMeasurementGroup(s.SOPClassUID, s.SOPInstanceUID) for s in sources])


def _code(name):
  import highdicom as hd
  return hd.sr.CodedConcept(name, SCHEME, _CODES[name])


def _number(name, value):
  import highdicom as hd
  from pydicom.sr.codedict import codes
  return hd.sr.Measurement(_code(name), float(value), codes.UCUM.NoUnits)
