"""The structured report of predict: TID 1500, its numbers and references, read back by two libraries."""

import numpy as np
import pydicom
import pytest

from data_pipelines.formats import dicom_sr
from tests.stored_volumes import LPS
from tests.unit.formats.test_dicom_seg import SECRET, TILT, model, scan_of


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """(folder of results, row, scan) of a tilted series."""
  pytest.importorskip("highdicom")
  folder = tmp_path_factory.mktemp("sr")
  scan, made = scan_of(folder / "in", "PIR", TILT @ LPS, **SECRET), model()
  made.calibration.update(scan_unit="scan", scan_scores=[0.1, 0.2, 0.3], scan_threshold=0.25)
  made.begin(folder, {"method": "dae", "checkpoint": "best checkpoint, step 4"})
  return folder, made.predict_one(scan, folder), scan


def items(data):
  """Content items of a data set, at all depths."""
  for item in data.get("ContentSequence", ()):
    yield item
    yield from items(item)


def named(data, meaning):
  return [i for i in items(data) if i.get("ConceptNameCodeSequence")
          and i.ConceptNameCodeSequence[0].CodeMeaning == meaning]


def test_numbers_and_references_by_highdicom(written):
  import highdicom as hd
  folder, row, scan = written
  report = hd.sr.srread(folder / "p_report.dcm")
  group, = report.content.get_volumetric_roi_measurement_groups()
  volume, threshold = group.get_measurements()
  assert volume.value == pytest.approx(row["mask_voxels"] * 20) and row["mask_voxels"] > 0  # of 2 x 2 x 5 mm
  assert volume.unit.value == "mm3" and threshold.value == row["threshold"]
  mask = hd.seg.segread(folder / "p_mask.dcm")
  assert group.referenced_segment.referenced_sop_instance_uid == mask.SOPInstanceUID
  sources = {pydicom.dcmread(f).SOPInstanceUID for f in scan.series[scan.files["flair"]]}
  assert {i.referenced_sop_instance_uid for i in group.referenced_segment.source_images_for_segmentation
          } == sources
  codes = [i.ConceptNameCodeSequence[0] for i in items(report) if "ConceptNameCodeSequence" in i]
  own = [c for c in codes if c.CodeMeaning in dicom_sr._CODES.values()]
  assert len(own) > 2 and all(c.CodingSchemeDesignator.startswith("99") for c in own)  # private: PS3.16, 8.2
  whole, = report.content.get_image_measurement_groups()
  numbers = {m.name.meaning: m.value for m in whole.get_measurements()}
  assert numbers == {"Anomaly score of the scan": pytest.approx(row["score"], rel=1e-6),
                     "P-value of the score among normal scans": pytest.approx(row["p_value"])}
  call, = (e for e in whole.get_qualitative_evaluations() if e.name.value == "call")
  assert call.value.meaning == ("Called abnormal" if row["called_abnormal"] else "Called normal")


def test_identity_by_pydicom(written):
  folder, _, scan = written
  data, mask = (pydicom.dcmread(folder / f"p_{k}.dcm") for k in ("report", "mask"))
  source = pydicom.dcmread(scan.all_files[0])
  assert (data.Modality, data.VerificationFlag, data.PreliminaryFlag) == ("SR", "UNVERIFIED", "PRELIMINARY")
  assert data.StudyInstanceUID == source.StudyInstanceUID == mask.StudyInstanceUID
  assert data.SeriesInstanceUID not in (source.SeriesInstanceUID, mask.SeriesInstanceUID)
  assert (data.PatientName, data.PatientID, data.SeriesNumber) == ("Doe^Jane", "P", 1008)
  assert data.ContentTemplateSequence[0].TemplateIdentifier == "1500"
  evidence = [i.ReferencedSOPInstanceUID for study in data.CurrentRequestedProcedureEvidenceSequence
              for s in study.ReferencedSeriesSequence for i in s.ReferencedSOPSequence]
  slices = scan.series[scan.files["flair"]]
  assert len(evidence) == len(set(evidence)) == len(slices) + 1 and mask.SOPInstanceUID in evidence
  assert [i.TextValue for i in named(data, "Comment")] == [dicom_sr.USE]
  assert {i.TextValue for i in named(data, "Algorithm Name")} == {"medae_jax"}
  said = {i.TextValue for i in named(data, "Algorithm Parameters")}
  assert {dicom_sr.USE, "method: dae", "checkpoint: best checkpoint, step 4"} <= said
  text = str(data)
  assert not [v for v in ("Hospital", "Street", "070Y", "private", "'42'", "Contributing") if v in text]


def test_without_a_threshold_the_scan_alone(tmp_path):
  hd = pytest.importorskip("highdicom")
  scan, made = scan_of(tmp_path / "in"), model()
  made.threshold = None
  made.predict_one(scan, tmp_path)
  report = hd.sr.srread(tmp_path / "p_report.dcm")
  assert not report.content.get_volumetric_roi_measurement_groups() and not (tmp_path / "p_mask.dcm").exists()
  whole, = report.content.get_image_measurement_groups()
  assert [m.name.value for m in whole.get_measurements()] == ["score"] and np.isfinite(
      whole.get_measurements()[0].value)
