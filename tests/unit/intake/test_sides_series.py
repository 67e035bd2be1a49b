"""One's own folder of DICOM: series of slices with places are volumes, others images; the rest is refused."""

import shutil

import nibabel
import numpy as np
from pydicom.uid import generate_uid
import pytest

from data_pipelines import dataset as datasets, fields
from data_pipelines.datasets import own_folder
from data_pipelines.errors import UserError
from data_pipelines.intake import sides
from tests import dicom_series_files as series

AFFINE = np.diag([-1.0, -1, 3, 1])


def volume(seed, lesion=False):
  array = np.zeros((16, 20, 6))
  array[3:13, 4:16, 1:5] = np.random.default_rng(seed).integers(50, 60, (10, 12, 4))
  if lesion:
    array[6:8, 6:9, 2] = 90
  return array


def opened(root, **given):
  given = {"prepared_dir": str(root.parent / f"prepared_{root.name}"), **given}
  cfg = fields.changed(own_folder.defaults(), dir=str(root), image_size=(16, 16), noise_res=2, workers=1,
                       field_mm=24.0, **given)
  return datasets.open_dataset(cfg, 0)


@pytest.fixture(name="root")
def six_patients(tmp_path):
  for i in range(6):
    series.write(tmp_path / "set" / "normal" / f"P{i}", volume(i), AFFINE, study=generate_uid())
  return tmp_path / "set"


def everything(data, split="test"):
  source = data.split(split)
  return source.read(np.arange(len(source)))


def test_series_are_the_volumes_of_nifti(root, tmp_path):
  label = np.zeros((16, 20, 6), np.uint8)
  label[6:8, 6:9, 2] = 1
  series.write(root / "abnormal" / "P7", volume(7, True), AFFINE, study=generate_uid())
  (root / "masks").mkdir()
  nibabel.save(nibabel.Nifti1Image(label, AFFINE), root / "masks" / "P7.nii.gz")
  other = tmp_path / "nifti"
  for name in [*(f"normal/P{i}" for i in range(6)), "abnormal/P7"]:
    (other / name).parent.mkdir(parents=True, exist_ok=True)
    array = volume(int(name[-1]), name.startswith("ab")).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), other / f"{name}.nii.gz")
  shutil.copytree(root / "masks", other / "masks")
  data, want = opened(root), opened(other)
  assert data.decided == {"modalities": ("image",), "dicom": "volumes"}
  assert (data.name, want.name) == ("set", "nifti") and not data.synthetic
  assert {r["file"]: (r["split"], r["patient"]) for r in data.listing} == {
      r["file"].removesuffix(".nii.gz"): (r["split"], r["patient"]) for r in want.listing}
  assert data.has_lesions("test")
  found, expected = everything(data), everything(want)
  for key in expected:
    np.testing.assert_allclose(found[key], expected[key], atol=1e-5)
  for one in (root, other):  # a run goes on with what was found out
    again = opened(one, modalities=("image",))
    np.testing.assert_allclose(everything(again)["image"], found["image"], atol=1e-5)
  (root / "masks/P7.nii.gz").rename(root / "abnormal/P7/lesion_ground_truth.nii.gz")
  assert opened(root, prepared_dir=str(tmp_path / "beside")).has_lesions("test")
  shutil.copy(other / "masks/P7.nii.gz", root / "masks")
  with pytest.raises(UserError, match=r"masks/P7.nii.gz and .*ground_truth.nii.gz are masks of one scan"):
    opened(root, prepared_dir=str(tmp_path / "twice"))


def test_modalities_by_description_and_what_is_no_volume_is_named(tmp_path, caplog):
  caplog.set_level("INFO")
  root = tmp_path / "set"
  for i in range(4):
    study = generate_uid()
    for text, kind in (("AX FLAIR", "ORIGINAL"), ("AX T1", "ORIGINAL"), ("survey", "LOCALIZER"),
                       ("AX T2", "ORIGINAL")):
      if text != "AX T2" or i:
        files = series.write(root / f"P{i}" / "dicom", volume(i), AFFINE, study=study, SeriesDescription=text,
                             ImageType=["ORIGINAL", "PRIMARY", kind])
        [f.rename(f.with_name(text[-2:] + f.name)) for f in files]
  data = opened(root, dicom="volumes")
  assert data.decided["modalities"] == ("flair", "t1") and len(data.listing) == 4
  for count, reason in ((48, "used"), (24, "is a localizer"), (18, "of a series that is none of flair, t1")):
    assert f"{count}  " in caplog.text and reason in caplog.text
  assert "90  found in" in caplog.text
  with pytest.raises(UserError, match="1 of 4 scans lack a modality.*P0"):
    opened(root, modalities=("flair", "t2"))
  series.write(root / "P1" / "more", volume(1), AFFINE, study=study, SeriesDescription="FLAIR")
  with pytest.raises(UserError, match="several series of a modality"):
    opened(root)
  shutil.rmtree(root / "P1" / "more")
  series.write(root / "P9", volume(1), AFFINE, study=generate_uid(), SeriesDescription="what")
  with pytest.raises(UserError, match="1 series are, the first: .*P9.*modalities='"):
    opened(root)
  assert len(opened(root, modalities=("image",), prepared_dir=str(tmp_path / "all")).listing) == 12


def without_place(data, k):
  del data.ImagePositionPatient, data.ImageOrientationPatient
  data.SeriesInstanceUID = generate_uid()


@pytest.mark.parametrize("edit", [
    without_place, lambda data, k: setattr(data, "SeriesInstanceUID", generate_uid()),
    lambda data, k: setattr(data, "ImagePositionPatient", [0, 0, 0])])
def test_files_without_places_or_alone_are_images(tmp_path, edit):
  for i in range(4):
    series.write(tmp_path / "set" / f"P{i}", volume(i), AFFINE, edit=edit, WindowCenter=50, WindowWidth=100)
  def segmentation(data, k):
    data.Modality, data.SeriesInstanceUID = "SEG", "1.9"
  series.write(tmp_path / "set/P0/seg", volume(1)[:, :, :1], AFFINE, edit=segmentation)  # met while testing
  data = opened(tmp_path / "set")
  assert len(opened(tmp_path / "set", dicom="images").listing) == 24
  assert data.decided == {"modalities": (), "dicom": "images"} and len(data.listing) == 24


@pytest.mark.parametrize("spoil, reason", [
    (lambda d: series.write(d / "normal" / "few", volume(9)[:, :, :2], AFFINE), "1 series that may.*few"),
    (lambda d: series.write(d / "normal" / "x", volume(9), AFFINE, edit=without_place), "6 images"),
    (lambda d: nibabel.save(nibabel.Nifti1Image(volume(9), AFFINE), d / "normal" / "v.nii.gz"), "both NIfTI"),
    (lambda d: shutil.move(next((d / "normal/P1").iterdir()), d / "abnormal"), "in normal and in abnormal"),
    (lambda d: shutil.move(d / "normal/P1", d / "masks"), "belong to no image")])
def test_what_is_neither_is_one_line(root, spoil, reason):
  if "abnormal" in reason:
    (root / "abnormal").mkdir()
  spoil(root)
  with pytest.raises(UserError, match=reason) as error:
    opened(root)
  assert "\n" not in str(error.value)


def test_saying_what_dicom_files_are(root):
  few = series.write(root / "normal" / "few", volume(9)[:, :, :2], AFFINE, study="1.9")
  assert len(opened(root, dicom="volumes").listing) == 7
  lone = series.write(root / "normal" / "lone", volume(9), AFFINE, edit=without_place)
  assert len(opened(root, dicom="volumes", strict=True).listing) == 7
  assert len(opened(root, dicom="images").listing) == 36 + len(few) + len(lone)


def test_scans_of_one_patient_id_stay_together(tmp_path):
  for i in range(8):
    series.write(tmp_path / "set" / f"scan_{'abcdefgh'[i]}", volume(i), AFFINE, study=generate_uid(),
                 PatientID=f"ID{i // 2}")
  found = opened(tmp_path / "set").listing
  assert {r["patient"] for r in found} == {"ID0", "ID1", "ID2", "ID3"}
  assert len({(r["patient"], r["split"]) for r in found}) == 4


@pytest.mark.parametrize("declared", [False, True])
def test_single_dicom_pictures_belong_to_whom_their_headers_name(tmp_path, declared):
  """Names of scanners tell nobody; pictures are no series, whose PatientIDs were read before."""
  members, people = [], "ABCDE"
  for k, person in enumerate(people * 2):
    path = series.write(tmp_path / f"{k}", np.ones((4, 5, 1)), np.eye(4), PatientID=person)[0]
    path = path.rename(tmp_path / f"IM{k:04d}.dcm")
    members.append(sides.Member(path.name, path, 0, files=(path,) if declared else (),
                                person=person if declared else ""))
  cfg = {"group_pattern": "", "grouping": "patient", "val_share": 0.2, "test_share": 0.2, "split_seed": 0,
         "split_table": "", "normal_words": (), "anomaly_words": ()}
  found = sides.assign(members, cfg, tmp_path)
  assert [m.patient for m in found] == list(people * 2)
  assert all(a.split == b.split for a, b in zip(found[:5], found[5:])) and {m.split for m in found} == {
      "train", "val", "test"}
