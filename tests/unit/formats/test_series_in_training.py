"""DICOM series in training: the records of the same volumes in NIfTI, in every layout; the rest is named."""

import json
import re
import shutil

import nibabel
import numpy as np
from pydicom.uid import generate_uid
import pytest

from data_pipelines import dataset as datasets
from data_pipelines.brains import files, normalise, prepare, sequences, volumes
from data_pipelines.datasets import synthetic
from data_pipelines.errors import UserError
from data_pipelines.formats import dicom_series
from tests import dicom_series_files as series
from tests.brain_folders import SHAPE, config, everything, scan, volume_of
from tests.golden_cases import shared_data
from tests.stored_volumes import LPS, save, stored

NAMES = ("flair", "t1")
DESCRIPTION = {"flair": "t2_tirm_tra_dark-fluid", "t1": "Ax T1W"}
# Where a series lies below its scan's folder, and what it says of itself.
LABELS = {"folder": "seg.nii.gz", "prefix": "mask.nii.gz"}  # of other layouts P01_seg.nii.gz
LAYOUTS = {
    "folder": lambda s, m: (m, {}),
    "prefix": lambda s, m: (f"{s}_{m}", {}),
    "folder of series": lambda s, m: (f"{m.upper()}/1.2.826.{len(m)}", {}),
    "description": lambda s, m: ("dicom", {"SeriesDescription": DESCRIPTION[m]}),
    "protocol": lambda s, m: (f"study/ser{len(m)}", {"ProtocolName": f"{m} axial", "SeriesDescription": "5"}),
    "beside NIfTI": lambda s, m: (None if m == "flair" else m, {}),
}


@pytest.fixture(name="source", scope="module")
def whole_numbers(tmp_path_factory):
  """Six scans of two modalities with whole numbers, as a scanner stores them; nobody changes them."""
  source = tmp_path_factory.mktemp("master") / "scans"
  synthetic.write_nifti(source, 6, shape=SHAPE, splits=(3, 1, 2))
  for i in range(6):
    for m in NAMES:
      path = volume_of(scan(source, i), m)
      image = nibabel.load(path)
      nibabel.save(nibabel.Nifti1Image(np.round(image.get_fdata()).astype(np.uint16), image.affine), path)
  return source


def as_series(source, target, layouts, edit=None):
  """The scans with volumes as series, one layout each; labels stay NIfTI, with axes as converters do."""
  shutil.copytree(source, target, ignore=shutil.ignore_patterns("BraTS*"))
  for i, layout in enumerate(layouts):
    folder, study = scan(source, i), generate_uid()
    for m in NAMES:
      image = nibabel.load(volume_of(folder, m))
      place, fields = LAYOUTS[layout](folder.name, m)
      if place is None:
        (target / folder.name).mkdir(exist_ok=True)
        shutil.copy(volume_of(folder, m), target / folder.name)
        continue
      files = series.write(target / folder.name / place, np.asarray(image.dataobj), image.affine, study=study,
                           edit=edit and (lambda data, k: edit(folder.name, m, data, k)), **fields)
      if place == "dicom":  # both in one folder
        [f.rename(f.with_name(m + f.name)) for f in files]
    label = nibabel.load(volume_of(folder, "seg"))
    codes = "LPS" if layout == "beside NIfTI" else "RAS"
    array, affine = stored(np.asarray(label.dataobj), codes, label.affine)
    name = LABELS.get(layout, volume_of(folder, "seg").name)
    nibabel.save(nibabel.Nifti1Image(array, affine), target / folder.name / name)
  return target


@pytest.mark.parametrize("placement", ["scan", "anatomy"])
def test_series_prepare_to_the_records_of_nifti(source, tmp_path, caplog, placement):
  caplog.set_level("INFO")
  target = as_series(source, tmp_path / "dicom", LAYOUTS)
  options = {"modalities": NAMES, "placement": placement, "field_mm": 60.0}
  sets = [datasets.open_dataset(config(folder, tmp_path / folder.name, **options), 0)
          for folder in (source, target)]
  for split in ("val", "test"):
    want, got = (everything(s, split) for s in sets)
    assert want["mask"].any()
    for key in want:
      np.testing.assert_allclose(got[key], want[key], rtol=0, atol=2e-5 if placement == "anatomy" else 0)
  want, got = (s.train().read(np.arange(len(s.train())))["image"] for s in sets)
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
  assert not sets[1].describe()["left_out"]
  before = {p: p.stat().st_mtime_ns for p in (tmp_path / "dicom/prepared/records").iterdir()}
  datasets.open_dataset(config(target, tmp_path / "dicom", **options), 0)
  assert {p: p.stat().st_mtime_ns for p in before} == before  # nothing is read twice
  slice_of = next((target / scan(source).name / "flair").iterdir())
  slice_of.write_bytes(slice_of.read_bytes())  # a new time is a new file
  datasets.open_dataset(config(target, tmp_path / "dicom", **options), 0)
  assert {p.name.split(".")[0] for p in before if p.stat().st_mtime_ns != before[p]} == {scan(source).name}


def test_cells_of_a_manifest_name_folders_or_slices(source, tmp_path):
  target = as_series(source, tmp_path / "dicom", list(LAYOUTS))
  rows = []
  for i, layout in enumerate(LAYOUTS):
    name = scan(source, i).name
    cells = {m: f"{name}/{LAYOUTS[layout](name, m)[0]}" for m in NAMES}
    if layout == "beside NIfTI":
      cells["flair"] = f"{name}/{volume_of(scan(source, i), 'flair').name}"
    if layout == "prefix":  # one slice stands for its series
      cells["t1"] += "/" + sorted((target / cells["t1"]).iterdir())[2].name
    label = f"{name}/{LABELS.get(layout, volume_of(scan(source, i), 'seg').name)}"
    rows.append(f"p{i},{('train', 'val', 'test')[i % 3]},{cells['flair']},{cells['t1']},{label}")
  table = target / "manifest.csv"
  table.write_text("patient,split,flair,t1,seg\n" + "\n".join(rows) + "\n")
  options = {"modalities": NAMES}
  manifest = prepare.prepare_set(_resolved(config(target, tmp_path / "a", **options)))[1]
  want = prepare.prepare_set(_resolved(config(source, tmp_path / "b", **options)))[1]
  sums = lambda m: [s["files"]["image"]["sha256"] for s in sorted(m["scans"], key=lambda s: s["patient"])]
  assert sums(manifest) == sums(want) and not manifest["left_out"]
  prefix, name = scan(source, 1).name, scan(source, 0).name  # a folder of two series that say nothing
  text = table.read_text().replace(f"{prefix}/{prefix}_flair", prefix)
  table.write_text(text.replace("/seg.nii.gz", "/flair"))
  left = prepare.prepare_set(_resolved(config(target, tmp_path / "c", **options)))[1]["left_out"]
  assert "a label is a NIfTI volume" in left["p0"] and set(left) == {"p0", "p1"}
  assert "holds 2 series, and none of them say flair" in left["p1"]
  table.write_text(text.replace(f"{name}/t1", f"{name}/flair"))
  with pytest.raises(UserError, match=f"line 2: {name}/flair/.* is listed twice, first in line 2"):
    prepare.prepare_set(_resolved(config(target, tmp_path / "d", **options)))


def _resolved(cfg):
  return datasets.module("brats").resolve(cfg)


def test_what_is_no_regular_series_is_left_out_by_name_and_the_counts_add_up(source, tmp_path, caplog):
  caplog.set_level("INFO")
  of = {scan(source, i).name: i for i in range(6)}

  def spoil(name, modality, data, k):
    if modality == "t1":
      return
    position = [float(v) for v in data.ImagePositionPatient]
    if of[name] == 0 and k == 3:
      data.ImagePositionPatient = [*position[:2], position[2] + 500]
    if of[name] == 1 and k == 2:
      data.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
    if of[name] == 2 and k == 5:
      data.SeriesInstanceUID = "1.2.3.4"  # a slice of another series in the folder
  target = as_series(source, tmp_path / "dicom", ["folder"] * 5 + ["description"], spoil)
  files = lambda i, m: sorted((target / scan(source, i).name / m).iterdir())
  shutil.copy(files(3, "flair")[0], files(3, "flair")[0].with_name("copy.dcm"))
  shutil.rmtree(target / scan(source, 4).name / "t1")
  folder, manifest = prepare.prepare_set(_resolved(config(target, tmp_path, modalities=NAMES)))
  reasons = [manifest["left_out"].get(scan(source, i).name, "") for i in range(6)]
  words = ("slices are missing", "another orientation", "several series of a modality", "same position",
           "no t1 volume", "")
  for reason, word in zip(reasons, words):
    assert word in reason and bool(word) == bool(reason)
  assert [s["patient"] for s in manifest["scans"]] == [scan(source, 5).name]
  report = json.loads((folder / "report.json").read_text())
  assert (report["prepared"], report["left_out"]) == (1, 5)
  table = re.search(r"Files:\n((?:  .*\n?)+)", caplog.text)[1].splitlines()
  *parts, total = (int(line.split()[0]) for line in table if line.split()[0].isdigit())
  assert sum(parts) == total == sum(p.is_file() for p in target.rglob("*"))


def test_one_patient_id_is_one_patient(source, tmp_path):
  target = as_series(source, tmp_path / "dicom", ["folder"] * 6,
                     lambda name, m, data, k: setattr(data, "PatientID", f"ID{int(name[-2:]) // 2}"))
  shutil.rmtree(target / "data_splits", ignore_errors=True)
  (target / "manifest.csv").unlink(missing_ok=True)
  found = files.find_scans(target, NAMES)
  assert len({s.group for s in found.scans}) == 3
  assert len({(s.group, s.split) for s in found.scans}) == 3


@pytest.mark.parametrize("text, modality", [
    ("AX FLAIR", "flair"), ("AX T2 FLAIR", "flair"), ("t2_tirm_tra_dark-fluid", "flair"),
    ("T2W_FLAIR", "flair"), ("t1 FLAIR T2", None),
    ("Sag T1 MPRAGE", "t1"), ("T1W_TSE", "t1"), ("T1 pre contrast", "t1"), ("T1 w/o contrast", "t1"),
    ("T1 post GD", "t1ce"), ("AX T1 +C", "t1ce"), ("t1c", "t1ce"), ("t1ce t1", "t1ce"), ("T2 TSE", "t2"),
    ("t2w", "t2"), ("T1 FLAIR", None), ("T2* GRE", None), ("t2_swi", None), ("T1 map", None),
    ("survey", None), ("5", ""), ("", ""), ("flair and t1", None)])
def test_what_descriptions_name(text, modality):
  found, reason = sequences.described(("", text), sequences.KNOWN)
  assert found == (modality or "") and bool(reason) == (modality is None)


def test_descriptions_of_other_sequences_and_other_organs():
  assert sequences.described(("T1 post",), ("flair", "t1")) == ("", sequences.UNUSED)
  assert sequences.described(("T2 level, thorax",), ("ct",)) == ("", "")
  assert sequences.described(("ADC map",), ("dwi", "adc"))[0] == "adc"


@pytest.mark.parametrize("name", ["brain_ms/mscs_07", "brain_lgg/TCGA_CS_4941"])
def test_real_volumes(tmp_path, name):
  """The middle of a real scan as NIfTI and as series, its label in another order of axes: one record."""
  scan_name = name.split("/")[1]
  kinds = {m: nibabel.load(shared_data(name.split("/")[0]) / scan_name / f"{scan_name}_{m}.nii.gz")
           for m in (*NAMES, "seg")}
  kept = slice(kinds["t1"].shape[2] // 2 - 3, kinds["t1"].shape[2] // 2 + 3)
  arrays = {m: np.round(np.asarray(i.dataobj, np.float64)[:, :, kept]) for m, i in kinds.items()}
  affine = kinds["t1"].affine
  for m, array in arrays.items():
    save(tmp_path / f"{m}.nii", array, affine)
  save(tmp_path / "turned.nii", *stored(arrays["seg"], "ASR", affine))
  files = {m: series.write(tmp_path / m, arrays[m], affine) for m in NAMES}
  want = volumes.read({m: tmp_path / f"{m}.nii" for m in NAMES}, "LPS", tmp_path / "seg.nii")
  got = volumes.read(files, "LPS", tmp_path / "turned.nii")
  options = ((48, 48), want.spacing, "anatomy", 260.0)
  one, two = (normalise.prepare(v.arrays, v.seg, *options) for v in (want, got))
  np.testing.assert_array_equal(two.image, one.image)
  np.testing.assert_array_equal(two.soft, one.soft)
  np.testing.assert_allclose(got.spacing, want.spacing, rtol=1e-5)


def test_a_label_without_a_place_cannot_be_laid_over_a_series(tmp_path):
  array = np.ones((6, 5, 4))
  files = series.write(tmp_path / "s", array, LPS)
  save(tmp_path / "label.nii", array, LPS, codes=(0, 0))
  with pytest.raises(UserError, match="label.nii says nothing of its place.*over a DICOM series"):
    volumes.read({"t1": files}, "LPS", tmp_path / "label.nii")
  save(tmp_path / "label.nii", array, np.diag([-2.0, -2, 5, 1]))
  with pytest.raises(UserError, match="another grid"):
    volumes.read({"t1": files}, "LPS", tmp_path / "label.nii")


@pytest.mark.parametrize("name, first, other, alike", [
    ("SequenceName", "SE_M_1/2", "SE_M_2/2", True),
    ("SeriesDescription", "AX T2  FLAIR ", "Ax T2_Flair", True),
    ("ProtocolName", "FLAIR 3 of 24", "FLAIR 12 of 24", True),
    ("SequenceName", "*tse2d1_15", "*tse2d1_9", False), ("SequenceName", "*ep_b0", "*ep_b1000#1", False),
    ("SeriesDescription", "T2 1/2", "T1 2/2", False)])
def test_how_a_text_is_written_parts_no_series(tmp_path, name, first, other, alike):
  """Scanners count slices in these texts, and people write them again: such series were refused."""
  series.write(tmp_path, np.ones((5, 4, 6)), LPS,
               edit=lambda data, k: setattr(data, name, first if k % 2 else other))
  files = sorted(tmp_path.iterdir())
  if alike:
    assert dicom_series.read_series(files)[0].shape == (5, 4, 6)
    return
  with pytest.raises(UserError, match="is no volume: .* has another"):
    dicom_series.read_series(files)


def test_slices_that_lost_their_intercept_alone(tmp_path):
  """They were read 1000 units brighter than the others."""
  def edit(data, k):
    data.RescaleSlope, data.RescaleIntercept = 1, -1000
    if k == 2:
      del data.RescaleIntercept
  series.write(tmp_path, np.ones((5, 4, 6)), LPS, edit=edit)
  with pytest.raises(UserError, match="another rescaling .* than the first slice"):
    dicom_series.read_series(sorted(tmp_path.iterdir()))
