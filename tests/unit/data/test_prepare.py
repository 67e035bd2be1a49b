"""Preparation of brain volumes: forms of folders, wrong folders, real sets."""

import csv
import pathlib
import shutil

import nibabel
import numpy as np
import pytest

from data_pipelines import dataset as datasets
from data_pipelines.brains import fields, files, normalise, prepare
from data_pipelines.datasets import synthetic
from data_pipelines.formats import nifti
from data_pipelines.ops import resize
from tests.brain_folders import MODALITIES, SHAPE, SIZE, config, everything, scan, volume_of
from tests.golden_cases import shared_data


# --------------------------------------------------------------------------------- forms of folders
def test_split_files_are_used_as_they_are(source, tmp_path):
  dataset = datasets.open_dataset(config(source, tmp_path), 0)
  ids = sorted(d.name for d in source.iterdir() if d.name.startswith("BraTS"))
  assert {s.patient for s in dataset.scans["train"]} == set(ids[:3])
  assert {s.patient for s in dataset.scans["test"]} == set(ids[4:])
  assert dataset.synthetic and dataset.name == "synthetic_scans"  # marked by write_nifti


@pytest.mark.parametrize("unit", normalise.UNITS)
def test_numbers_are_those_of_volumes_prepare(source, tmp_path, unit):
  dataset = datasets.open_dataset(config(source, tmp_path, unit=unit), 0)
  test = dataset.split("test")
  got = everything(dataset)
  assert got["image"].dtype == np.float32 and got["image"].shape[1:] == (*SIZE, 4)
  start = 0
  for s in dataset.scans["test"]:
    folder = source / s.patient
    raw = [nibabel.load(volume_of(folder, m)).get_fdata() for m in MODALITIES]
    want = normalise.prepare(raw, nibabel.load(volume_of(folder, "seg")).get_fdata(), SIZE,
                             unit=unit)
    n = len(want.slices)
    np.testing.assert_array_equal(got["image"][start:start + n], want.image.astype(np.float32))
    np.testing.assert_array_equal(got["mask"][start:start + n], want.mask)
    assert [test.meta(start + i)["slice"] for i in range(n)] == want.slices.tolist()
    assert test.meta(start)["patient"] == s.patient
    start += n
  assert start == len(test)


def test_newer_naming_gives_the_same_numbers(source, tmp_path):
  old = datasets.open_dataset(config(source, tmp_path), 0)
  newer = tmp_path / "newer"
  names = synthetic.write_nifti(newer, 6, shape=SHAPE, style="brats2023", splits=(3, 1, 2))
  assert (newer / names[0] / f"{names[0]}-t2f.nii.gz").is_file()
  new = datasets.open_dataset(config(newer, tmp_path, prepared_dir=str(tmp_path / "p2")), 0)
  by_id = lambda d: [np.asarray(s.image) for s in sorted(d.scans["train"], key=lambda s: s.patient)]
  for a, b in zip(by_id(old), by_id(new), strict=True):
    np.testing.assert_array_equal(a, b)


def write_manifest(source, rows, columns):
  with (source / "manifest.csv").open("w", newline="") as f:
    writer = csv.DictWriter(f, columns)
    writer.writeheader()
    writer.writerows(rows)


def manifest_rows(source, modalities=("t2", "flair")):
  rows = []
  for i in range(4):
    folder = scan(source, i)
    rows.append({"patient": f"case/{i}", "split": ("train", "val", "test", "training")[i],
                 **{m: str(volume_of(folder, m).relative_to(source)) for m in modalities},
                 "mask": str(volume_of(folder, "seg").relative_to(source))})
  return rows


def test_manifest_with_two_modalities_and_any_id(source, tmp_path):
  rows = manifest_rows(source)
  rows[3]["mask"] = ""  # an optional mask: nothing marked
  write_manifest(source, rows, list(rows[0]))
  dataset = datasets.open_dataset(config(source, tmp_path, modalities=("flair", "t2")), 0)
  described = dataset.describe()
  assert described["image_shape"] == [*SIZE, 2]
  assert [described["splits"][s]["patients"] for s in ("train", "val", "test")] == [2, 1, 1]
  unmarked = next(s for s in dataset.scans["train"] if s.patient == "case/3")
  assert unmarked.lesion_px.sum() == 0
  first = nibabel.load(volume_of(scan(source, 2), "flair")).get_fdata()
  image = everything(dataset)["image"]
  q = np.quantile(first[first > 0], 0.99)
  assert np.isclose(image[..., 0].max() * q, first.max(), rtol=0.3)  # channel 0 is flair


@pytest.mark.parametrize("change,match", [
    (lambda rows: rows[0].update(split="holdout"), "line 2.*holdout"),
    (lambda rows: rows[1].update(patient="case/0"), "line 3.*twice"),
    (lambda rows: rows.clear(), "lists nothing")])
def test_bad_manifests(source, tmp_path, change, match):
  rows = manifest_rows(source)
  columns = list(rows[0])
  change(rows)
  write_manifest(source, rows, columns)
  with pytest.raises(ValueError, match=match):
    datasets.open_dataset(config(source, tmp_path, modalities=("flair", "t2")), 0)


def test_manifest_without_the_modality_names_its_columns(source, tmp_path):
  rows = manifest_rows(source)
  write_manifest(source, rows, list(rows[0]))
  with pytest.raises(ValueError, match="no column 't1', 't1ce'; its columns are patient, split, t2"):
    datasets.open_dataset(config(source, tmp_path), 0)


def test_folder_without_split_files_uses_the_seeded_rule(source, tmp_path):
  shutil.rmtree(source / "data_splits")
  _, manifest = prepare.prepare_set(fields.resolve(config(source, tmp_path)))
  ids = sorted(d.name for d in source.iterdir() if d.name.startswith("BraTS"))
  want = files.split_by_rule(ids)
  assert {k: set(v) for k, v in manifest["splits"].items()} == {k: set(v) for k, v in want.items()}
  assert "seeded rule" in manifest["split_rule"]


def test_published_lists_are_used_for_published_ids():
  published = files.published_split()
  assert [len(published[s]) for s in ("train", "val", "test")] == [938, 62, 251]
  subset = published["train"][:5] + published["val"][:2] + published["test"][:3]
  lists, rule = files._split_lists(subset, pathlib.Path("/nonexistent"))
  assert "published" in rule and set(lists["val"]) == set(published["val"][:2])


# ------------------------------------------------------------------------------------ wrong folders
@pytest.mark.parametrize("make", [False, True])
def test_wrong_or_empty_folder_is_one_clear_line(tmp_path, make):
  folder = tmp_path / "nowhere"
  if make:
    folder.mkdir()
  with pytest.raises((FileNotFoundError, ValueError), match="config.data.dir=.*nowhere") as e:
    datasets.open_dataset(config(folder, tmp_path), 0)
  assert "\n" not in str(e.value)


@pytest.mark.parametrize("array,size", [((7, 9), (7, 9)), ((7, 9), (3, 4)), ((5, 4), (11, 9)),
                                        ((6, 1), (4, 3))])
def test_resize_against_its_definition(array, size):
  a = np.random.default_rng(0).standard_normal(array)
  want = np.zeros(size)
  def taps(i, n_in, n_out):
    src = max((i + 0.5) * n_in / n_out - 0.5, 0)
    j = int(np.floor(src))
    return ((j, 1 - (src - j)), (min(j + 1, n_in - 1), src - j))
  for i in range(size[0]):
    for k in range(size[1]):
      want[i, k] = sum(a[r, c] * wr * wc for r, wr in taps(i, array[0], size[0])
                       for c, wc in taps(k, array[1], size[1]))
  np.testing.assert_allclose(resize.bilinear(a, size), want, atol=1e-12)


# -------------------------------------------------------------------------------------- real brains
def test_brain_lgg(tmp_path):
  folder = shared_data("brain_lgg")
  with (folder / "manifest.csv").open(newline="") as f:
    rows = list(csv.DictReader(f))
  dataset = datasets.open_dataset({"name": "brats", "dir": str(folder), "image_size": (32, 32),
                                   "modalities": ("flair", "t1", "t1ce"),
                                   "prepared_dir": str(tmp_path)}, 0)
  described = dataset.describe()
  assert dataset.name == "brain_lgg" and not dataset.synthetic and not described["left_out"]
  for split in ("train", "val", "test"):
    mine = [r for r in rows if r["split"] == split]
    assert described["splits"][split]["patients"] == len(mine)
    assert described["splits"][split]["slices"] == sum(int(r["n_slices"]) for r in mine)
    # At 32 px some lesions vanish in the resize, as the preparation says.
    assert described["splits"][split]["healthy_slices"] >= sum(
        int(r["n_slices_healthy"]) for r in mine)


def test_brain_ms_names_the_scans_without_t1ce(tmp_path):
  folder = shared_data("brain_ms")
  cfg = {"name": "brats", "dir": str(folder), "image_size": (32, 32)}
  dataset = datasets.open_dataset({**cfg, "prepared_dir": str(tmp_path / "four")}, 0)
  assert set(dataset.describe()["left_out"]) == {
      f"mslong_{v}" for v in ("01_visit1", "01_visit2", "12_visit1", "12_visit2", "04_visit1")}
  assert dataset.splits == ("test",) and len(dataset.scans["test"]) == 2
  assert dataset.split("test").read(np.arange(4))["image"].shape == (4, 32, 32, 4)
  with pytest.raises(ValueError, match="strict"):
    datasets.open_dataset({**cfg, "prepared_dir": str(tmp_path / "four"), "strict": True}, 0)


def test_read_volume_keeps_the_array_as_stored(source):
  path = volume_of(scan(source), "t1")
  np.testing.assert_array_equal(nifti.read_volume(path), nibabel.load(path).get_fdata())


def test_folders_without_any_label_are_normal_scans_but_not_one_among_marked_ones(source, tmp_path, caplog):
  """`seg` is optional: where nobody marked anything all slices are healthy, with a line that says so."""
  ids = sorted(d for d in source.iterdir() if d.name.startswith("BraTS"))
  volume_of(ids[0], "seg").unlink()
  assert list(files.find_scans(source, MODALITIES).incomplete) == [ids[0].name]
  for folder in ids[1:]:
    volume_of(folder, "seg").unlink()
  found = files.find_scans(source, MODALITIES)
  assert len(found.scans) == 6 and not found.incomplete and "taken for normal" in caplog.text
  dataset = datasets.open_dataset(config(source, tmp_path), 0)
  assert not everything(dataset)["label"].any() and len(dataset.train())


def test_one_volume_under_two_names_is_said(tmp_path, caplog):
  """Copies were looked for byte for byte: one that a program had written again was another patient."""
  synthetic.write_nifti(tmp_path / "set", 5, shape=SHAPE, splits=(3, 1, 1))
  ids = sorted(d.name for d in (tmp_path / "set").iterdir() if d.name.startswith("BraTS"))
  datasets.open_dataset(config(tmp_path / "set", tmp_path), 0)
  assert "hold the same voxels" not in caplog.text
  for name in MODALITIES:
    image = nibabel.load(volume_of(tmp_path / "set" / ids[0], name))
    again = nibabel.Nifti1Image(4 * np.asarray(image.dataobj, np.float32), image.affine)
    for other in (ids[1], ids[4]):
      nibabel.save(again, volume_of(tmp_path / "set" / other, name))
  datasets.open_dataset(config(tmp_path / "set", tmp_path), 0)
  said = f"2 scans hold the same voxels as another one, the first {ids[0]} (train) and {ids[4]} ("
  assert said in caplog.text
