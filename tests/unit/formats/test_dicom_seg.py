"""DICOM SEG of predict: the slices' places and references, mask and map, read back by two libraries."""

import re

import nibabel
import numpy as np
import pydicom
import pytest

from data_pipelines.brains import inputs
from data_pipelines.formats import dicom_seg, dicom_series
from medae_jax.core.errors import UserError
from medae_jax.tasks.anomaly.predictor import Predictor
from tests import dicom_series_files as series
from tests.stored_volumes import LPS, NAMES, egg, predictor, stored

TILT = nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.2, -0.25, 0.15))
TO_RAS = np.diag([-1.0, -1, 1, 1])
SECRET = dict(PatientName="Doe^Jane", PatientBirthDate="19500102", PatientSex="F", StudyDate="20200304",
              InstitutionName="Hospital", PatientAddress="Street 1", PatientAge="070Y",
              StudyDescription="private", DeviceSerialNumber="42", SeriesDescription="flair",
              AccessionNumber="A1", SeriesNumber=7)


def model(asked="auto"):
  made = predictor()
  config = made.config.copy_and_resolve_references()
  with config.unlocked(), config.predict.ignore_type():
    config.predict.dicom_seg = asked
  return Predictor(config, {"threshold": 0.5, "map_max": 0.8}, made.score_fn)


def scan_of(folder, codes="LPS", affine=LPS, edit=None, **fields):
  for modality, volume in zip(NAMES, egg()):
    series.write(folder / f"p_{modality}", *stored(volume, codes, affine), edit=edit, **fields)
  scan, = inputs.find_all(folder, NAMES, ("dicom",))[0]
  return scan


@pytest.mark.parametrize("codes, tilt", [("LPS", np.eye(4)), ("PIR", TILT), ("LIA", TILT),
                                         ("RSP", np.eye(4))])
def test_mask_and_map_lie_on_the_slices_of_the_series(tmp_path, codes, tilt):
  hd = pytest.importorskip("highdicom")
  scan = scan_of(tmp_path / "in", codes, tilt @ LPS)
  row = model().predict_one(scan, tmp_path)
  assert row["mask_voxels"] > 0 and row["seg_scale"] >= 0.8
  for kind, form, scale in (("mask", "BINARY", 1), ("anomaly", "FRACTIONAL", row["seg_scale"])):
    seg, nifti = hd.seg.segread(tmp_path / f"p_{kind}.dcm"), nibabel.load(tmp_path / f"p_{kind}.nii.gz")
    atol = 0 if form == "BINARY" else scale / 500
    assert seg.SegmentationType == form
    volume = seg.get_volume(rescale_fractional=True)
    found = nibabel.Nifti1Image(volume.array[..., 0].astype(np.float32), TO_RAS @ volume.affine)
    change = nibabel.orientations.ornt_transform(*(nibabel.io_orientation(i.affine) for i in (found, nifti)))
    found = found.as_reoriented(change)
    np.testing.assert_allclose(found.affine, nifti.affine, atol=1e-3)
    np.testing.assert_allclose(found.get_fdata() * scale, nifti.get_fdata(), atol=atol)
    check_frames(pydicom.dcmread(tmp_path / f"p_{kind}.dcm"), scan, nifti, scale, atol)


def check_frames(data, scan, nifti, scale, atol):
  """By pydicom alone: each frame has the place of the slice that it refers to, and the values of NIfTI."""
  slices = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, scan.series[scan.files["flair"]])}
  frames = data.pixel_array / (1 if data.SegmentationType == "BINARY" else dicom_seg.LEVELS) * scale
  shared, = data.SharedFunctionalGroupsSequence
  referenced = data.ReferencedSeriesSequence[0].ReferencedInstanceSequence
  assert {i.ReferencedSOPInstanceUID for i in referenced} == set(slices) and len(frames) == len(slices)
  for frame, group in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
    source = slices.pop(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
    for found, name in ((group.PlanePositionSequence, "ImagePositionPatient"),
                        (shared.PlaneOrientationSequence, "ImageOrientationPatient"),
                        (shared.PixelMeasuresSequence, "PixelSpacing")):
      np.testing.assert_allclose(found[0][name].value, source[name].value, atol=1e-6)
    place = np.linalg.solve(nifti.affine, TO_RAS @ [*source.ImagePositionPatient, 1])
    np.testing.assert_allclose(frame.T, nifti.get_fdata()[:, :, round(place[2])], atol=atol)
    assert data.FrameOfReferenceUID == source.FrameOfReferenceUID


def test_what_travels_is_what_the_standard_demands(tmp_path, caplog):
  pytest.importorskip("highdicom")
  scan = scan_of(tmp_path / "in", **SECRET)
  caplog.set_level("INFO")
  row = model("True").predict_one(scan, tmp_path)
  assert "copy" not in caplog.text and "1.2.3" not in caplog.text  # highdicom logs identifiers
  one, two = (pydicom.dcmread(tmp_path / f"p_{kind}.dcm") for kind in ("mask", "anomaly"))
  for data in (one, two):
    assert (data.PatientName, data.PatientBirthDate, data.PatientSex) == ("Doe^Jane", "19500102", "F")
    assert (data.PatientID, data.StudyInstanceUID, data.StudyDate) == ("P", "1.2.3", "20200304")
    text = str(data)
    assert not [v for v in ("Hospital", "Street", "070Y", "private", "'42'", "Contributing") if v in text]
  source = pydicom.dcmread(scan.all_files[0])
  assert one.SeriesInstanceUID == two.SeriesInstanceUID != source.SeriesInstanceUID
  assert one.SOPInstanceUID != two.SOPInstanceUID and one.Modality == "SEG" and one.SeriesNumber == 1007
  scale = float(re.search(r"score of ([\d.]+)", two.ContentDescription)[1])
  assert scale == pytest.approx(row["seg_scale"], rel=1e-5) and one.ContentDescription.endswith("above 0.5")
  # Results among inputs are no input.
  (tmp_path / "p_mask.dcm").rename(tmp_path / "in/p_flair/x.dcm")
  found = inputs.find_all(tmp_path / "in", NAMES, ("dicom",))
  assert len(found[0]) == 1
  assert [i.reason for i in found[1].left_out] == ["is a DICOM segmentation (SEG), no image"]


def test_an_odd_header_costs_a_warning_or_the_scan_where_it_was_asked_for(tmp_path, monkeypatch):
  pytest.importorskip("highdicom")

  def odd(data, k):
    data.PatientSex, data.StudyDate = "X", "20200101"
    del data.PatientID
  scan = scan_of(tmp_path / "in", edit=odd)
  assert "seg_scale" in model().predict_one(scan, tmp_path)  # what no SEG may hold is empty there
  assert pydicom.dcmread(tmp_path / "p_mask.dcm").PatientSex == ""
  scan = scan_of(tmp_path / "bad", edit=lambda data, k: delattr(data, "SOPInstanceUID"))
  (tmp_path / "out").mkdir()
  assert "seg_scale" not in model().predict_one(scan, tmp_path / "out")
  assert (tmp_path / "out/p_anomaly.nii.gz").is_file() and not list((tmp_path / "out").glob("*.dcm"))
  with pytest.raises(UserError, match="no SOPInstanceUID: a DICOM object cannot refer to it"):
    model("True").predict_one(scan, tmp_path / "out")


def test_without_highdicom_one_line(tmp_path, monkeypatch, caplog):
  monkeypatch.setattr(dicom_seg, "available", lambda: False)
  with pytest.raises(UserError, match="dicom_seg=True: highdicom is not installed: pip install"):
    model("True")
  scan_of(tmp_path / "in")
  made = model()
  scan, = made.find_inputs(tmp_path / "in")
  assert caplog.text.count("No DICOM SEG is written") == 1
  assert "seg_scale" not in made.predict_one(scan, tmp_path)
  assert not list(tmp_path.glob("*.dcm")) and (tmp_path / "p_mask.nii.gz").is_file()
  monkeypatch.undo()
  model(False).predict_one(scan, tmp_path)
  assert not list(tmp_path.glob("*.dcm"))


def test_slices_keep_the_order_of_the_volume(tmp_path):
  files = series.write(tmp_path / "s", np.arange(40.0).reshape(2, 4, 5), LPS)
  heads = [pydicom.dcmread(f) for f in files]
  order, mm = dicom_series.along_normal(np.array([[float(v) for v in h.ImagePositionPatient] for h in heads]),
                                        heads[0].ImageOrientationPatient)
  array = dicom_series.read_series(files)[0]
  np.testing.assert_array_equal(np.stack([heads[i].pixel_array.T for i in order], -1), array)
  assert mm == pytest.approx(5)
