"""Preparation of brain volumes: forms of folders, caching, kill and resume, bad scans."""

import csv
import gzip
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest

from data_pipelines import brats, datasets, nifti, prepare, records, scan_files, synthetic, volumes
from tests.golden_cases import shared_data

SIZE = (24, 20)
SHAPE = (30, 26, 6)
MODALITIES = ("flair", "t1", "t1ce", "t2")


@pytest.fixture(name="master", scope="module")
def master_fixture(tmp_path_factory):
  folder = tmp_path_factory.mktemp("master")
  synthetic.write_nifti(folder, 6, shape=SHAPE, splits=(3, 1, 2))
  return folder


@pytest.fixture(name="source")
def source_fixture(master, tmp_path):
  return pathlib.Path(shutil.copytree(master, tmp_path / "scans"))


def config(source, tmp_path, **changes):
  return {"name": "brats", "dir": str(source), "image_size": SIZE, "workers": 1,
          "prepared_dir": str(tmp_path / "prepared"), **changes}


def everything(dataset, name="test"):
  split = dataset.split(name)
  return split.read(np.arange(len(split)))


def scan(source, number=0):
  return sorted(d for d in source.iterdir() if d.name.startswith("BraTS"))[number]


def volume_of(folder, kind):
  return folder / f"{folder.name}_{kind}.nii.gz"


def rewrite(path, change):
  image = nibabel.load(path)
  nibabel.save(nibabel.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)


# --------------------------------------------------------------------------------- forms of folders
def test_split_files_are_used_as_they_are(source, tmp_path):
  dataset = datasets.open_dataset(config(source, tmp_path), 0)
  ids = sorted(d.name for d in source.iterdir() if d.name.startswith("BraTS"))
  assert {s.patient for s in dataset.scans["train"]} == set(ids[:3])
  assert {s.patient for s in dataset.scans["test"]} == set(ids[4:])
  assert dataset.synthetic and dataset.name == "synthetic_scans"  # marked by write_nifti


def test_numbers_are_those_of_volumes_prepare(source, tmp_path):
  dataset = datasets.open_dataset(config(source, tmp_path), 0)
  test = dataset.split("test")
  got = everything(dataset)
  assert got["image"].dtype == np.float32 and got["image"].shape[1:] == (*SIZE, 4)
  start = 0
  for s in dataset.scans["test"]:
    folder = source / s.patient
    raw = [nibabel.load(volume_of(folder, m)).get_fdata() for m in MODALITIES]
    want = volumes.prepare(raw, nibabel.load(volume_of(folder, "seg")).get_fdata(), SIZE)
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
    (lambda rows: rows.clear(), "lists no scan")])
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
  with pytest.raises(ValueError, match="no column t1, t1ce; its columns are patient, split, t2"):
    datasets.open_dataset(config(source, tmp_path), 0)


def test_folder_without_split_files_uses_the_seeded_rule(source, tmp_path):
  shutil.rmtree(source / "data_splits")
  _, manifest = prepare.prepare_set(brats.resolve(config(source, tmp_path)))
  ids = sorted(d.name for d in source.iterdir() if d.name.startswith("BraTS"))
  want = scan_files.split_by_rule(ids)
  assert {k: set(v) for k, v in manifest["splits"].items()} == {k: set(v) for k, v in want.items()}
  assert "seeded rule" in manifest["split_rule"]


def test_published_lists_are_used_for_published_ids():
  published = scan_files.published_split()
  assert [len(published[s]) for s in ("train", "val", "test")] == [938, 62, 251]
  subset = published["train"][:5] + published["val"][:2] + published["test"][:3]
  lists, rule = scan_files._split_lists(subset, pathlib.Path("/nonexistent"))
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


# ----------------------------------------------------------------------------------------- bad scans
def _truncate(path):
  path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def _cut_plain(path):  # a sound gzip of a file that ends too early
  path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:900]))


def _with_nan(a):
  return np.where(np.arange(a.size).reshape(a.shape) == 7, np.nan, a).astype(np.float32)


BAD = {
    "truncated": (lambda d: _truncate(volume_of(d, "t1")), "t1.*corrupt or truncated"),
    "cut": (lambda d: _cut_plain(volume_of(d, "t2")), "t2.*corrupt or truncated"),
    "not_nifti": (lambda d: volume_of(d, "flair").write_text("hello"), "flair.*corrupt"),
    "empty_file": (lambda d: volume_of(d, "flair").write_bytes(b""), "flair.*corrupt"),
    "all_zero": (lambda d: rewrite(volume_of(d, "t1ce"), lambda a: a * 0), "t1ce.*all zero"),
    "nan": (lambda d: rewrite(volume_of(d, "t2"), _with_nan), "t2 holds NaN"),
    "nan_seg": (lambda d: rewrite(volume_of(d, "seg"), _with_nan), "seg holds NaN"),
    "misshaped": (lambda d: rewrite(volume_of(d, "t2"), lambda a: a[:-1]), "differ in shape"),
    "four_axes": (lambda d: rewrite(volume_of(d, "t1"), lambda a: np.stack([a, a], -1)),
                  "three axes"),
    "missing": (lambda d: volume_of(d, "t1ce").unlink(), "no t1ce volume"),
    "missing_seg": (lambda d: volume_of(d, "seg").unlink(), "no seg volume"),
    "missing_folder": (shutil.rmtree, "has no folder"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_scan_is_named_and_the_rest_prepared(source, tmp_path, caplog, kind):
  spoil, reason = BAD[kind]
  name = scan(source).name
  spoil(scan(source))
  dataset = datasets.open_dataset(config(source, tmp_path), 0)
  report = json.loads((tmp_path / "prepared" / "report.json").read_text())
  assert report["prepared"] == 5 and report["left_out"] == 1
  assert report["scans"][0]["patient"] == name
  assert re.search(reason, report["scans"][0]["reason"]), report
  assert name in caplog.text
  assert len(dataset.scans["train"]) == 2 and name in dataset.describe()["left_out"]
  with pytest.raises(ValueError, match=f"strict.*{name}") as e:
    datasets.open_dataset(config(source, tmp_path, strict=True), 0)
  assert "\n" not in str(e.value)


def test_all_bad_kinds_in_one_report(source, tmp_path):
  kinds = ("truncated", "all_zero", "nan", "misshaped", "missing")
  for i, kind in enumerate(kinds):
    BAD[kind][0](scan(source, i))
  dataset = datasets.open_dataset(config(source, tmp_path, workers=2), 0)
  report = json.loads((tmp_path / "prepared" / "report.json").read_text())
  assert report["prepared"] == 1 and report["left_out"] == 5
  assert dataset.splits == ("test",)
  with pytest.raises(ValueError, match="no healthy slice in its train split"):
    dataset.train()
  with pytest.raises(ValueError, match="no split 'val'"):
    dataset.split("val")


def test_nothing_left_is_an_error(source, tmp_path):
  for i in range(6):
    BAD["all_zero"][0](scan(source, i))
  with pytest.raises(ValueError, match="none of the 6 scans"):
    datasets.open_dataset(config(source, tmp_path), 0)


# ------------------------------------------------------------------------------- caching and resume
def mtimes(tmp_path):
  return {f.name: f.stat().st_mtime_ns for f in (tmp_path / "prepared" / "records").iterdir()}


@pytest.mark.parametrize("cache", [True, False])
def test_a_second_open_prepares_nothing_and_a_changed_scan_alone_again(source, tmp_path, cache):
  open_it = lambda: everything(datasets.open_dataset(config(source, tmp_path, cache=cache), 0))
  first = open_it()
  before = mtimes(tmp_path)
  second = open_it()
  assert mtimes(tmp_path) == before
  np.testing.assert_array_equal(first["image"], second["image"])
  changed = scan(source, 4)
  rewrite(volume_of(changed, "t1"), lambda a: np.where(a > 300, a, 0))
  third = open_it()
  after = mtimes(tmp_path)
  assert {k.split(".")[0] for k in before if before[k] != after[k]} == {changed.name}
  assert not np.array_equal(first["image"], third["image"])


def test_a_damaged_record_is_prepared_again(source, tmp_path):
  want = everything(datasets.open_dataset(config(source, tmp_path), 0))
  record = tmp_path / "prepared" / "records" / f"{scan(source, 4).name}.image.npy"
  record.write_bytes(record.read_bytes()[:-10])
  got = everything(datasets.open_dataset(config(source, tmp_path), 0))
  np.testing.assert_array_equal(want["image"], got["image"])
  assert not records.verify(tmp_path / "prepared")
  content = bytearray(record.read_bytes())
  content[-1] ^= 1
  record.write_bytes(content)
  assert records.verify(tmp_path / "prepared") == [f"records/{record.name}"]


def test_other_parameters_do_not_share_a_folder(source, tmp_path):
  datasets.open_dataset(config(source, tmp_path), 0)
  with pytest.raises(ValueError, match="prepared_dir.*image_size"):
    datasets.open_dataset(config(source, tmp_path, image_size=(16, 16)), 0)


def test_default_folder_depends_on_parameters_and_can_be_written(source, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  folders = set()
  for size in (SIZE, (16, 16)):
    dataset = datasets.open_dataset(config(source, tmp_path, prepared_dir="", image_size=size), 0)
    folders.add(dataset.describe()["prepared_dir"])
  assert len(folders) == 2 and all(f.startswith(str(tmp_path / "cache")) for f in folders)


def test_workers_and_storage_change_no_number(source, tmp_path):
  one = everything(datasets.open_dataset(config(source, tmp_path), 0))
  options = {"workers": 3, "cache": False, "prepared_dir": str(tmp_path / "p3")}
  three = everything(datasets.open_dataset(config(source, tmp_path, **options), 0))
  np.testing.assert_array_equal(one["image"], three["image"])
  np.testing.assert_array_equal(one["mask"], three["mask"])
  half = everything(datasets.open_dataset(
      config(source, tmp_path, storage="float16", prepared_dir=str(tmp_path / "p4")), 0))
  assert half["image"].dtype == np.float32
  np.testing.assert_allclose(one["image"], half["image"], atol=1e-3)


def test_workers_load_neither_tensorflow_nor_jax():
  code = ("import sys, data_pipelines.prepare_worker as w; "
          "sys.exit(any(m in sys.modules for m in ('tensorflow', 'jax', 'flax')))")
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_kill_and_resume(source, tmp_path):
  """kill -9 in the middle; the next run goes on and ends with the numbers of an unbroken one."""
  for d in [d for d in source.iterdir() if d.name.startswith("BraTS")]:
    for copy in range(4):  # 30 scans
      target = source / f"{d.name}{copy}"
      shutil.copytree(d, target)
      for f in target.iterdir():
        f.rename(target / f.name.replace(d.name, target.name))
  shutil.rmtree(source / "data_splits")
  cfg = config(source, tmp_path, workers=2)
  code = f"from data_pipelines import brats; brats.open({cfg!r}, 0)"
  process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
  made = tmp_path / "prepared" / "records"
  deadline = time.time() + 60
  while len(list(made.glob("*.json"))) < 4 and time.time() < deadline:
    time.sleep(0.005)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  (made / ".left.image.npy.123.tmp").write_bytes(b"half a file")
  done = {f.name: f.stat().st_mtime_ns for f in made.glob("*.json")}
  assert 4 <= len(done) < 30 and not (tmp_path / "prepared" / "manifest.json").exists()
  resumed = everything(datasets.open_dataset(cfg, 0))
  after = {f.name: f.stat().st_mtime_ns for f in made.glob("*.json")}
  assert len(after) == 30 and all(after[k] == v for k, v in done.items())
  assert not list(made.glob(".*"))
  unbroken = everything(datasets.open_dataset({**cfg, "prepared_dir": str(tmp_path / "other")}, 0))
  for key in unbroken:
    np.testing.assert_array_equal(resumed[key], unbroken[key])


def test_workers_end_when_the_program_is_killed(source, tmp_path):
  worker = subprocess.Popen([sys.executable, "-m", "data_pipelines.prepare_worker"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  worker.stdin.close()
  assert worker.wait(timeout=60) == 0


def test_a_full_disk_stops_with_one_line(source, tmp_path, monkeypatch):
  def full(*unused):
    raise OSError(28, "No space left on device")
  monkeypatch.setattr(records, "write_record", full)
  with pytest.raises(OSError, match="No space left on device.*run again"):
    datasets.open_dataset(config(source, tmp_path), 0)


def test_a_worker_that_dies_names_its_scan(source, tmp_path, monkeypatch):
  real = prepare._Worker.run
  victim = scan(source, 1).name
  def run(self, job):
    if job["patient"] == victim:
      job = {**job, "size": "no size"}  # makes the process end with an error
    return real(self, job)
  monkeypatch.setattr(prepare._Worker, "run", run)
  datasets.open_dataset(config(source, tmp_path, workers=2), 0)
  report = json.loads((tmp_path / "prepared" / "report.json").read_text())
  assert report["prepared"] == 5 and report["scans"][0]["patient"] == victim
  assert "ended with code" in report["scans"][0]["reason"]


# ------------------------------------------------------------------------------------------ options
def test_order_of_scans_follows_the_published_code(source, tmp_path):
  for seed in (0, 5):
    dataset = datasets.open_dataset(config(source, tmp_path), seed)
    ids = sorted(s.patient for s in dataset.scans["train"])
    random.Random(seed).shuffle(ids)
    assert [s.patient for s in dataset.scans["train"]] == ids
    limited = datasets.open_dataset(config(source, tmp_path, limit_train=2), seed)
    assert [s.patient for s in limited.scans["train"]] == ids[:2]


def test_files_may_be_plain_nii(source, tmp_path):
  want = everything(datasets.open_dataset(config(source, tmp_path), 0))
  for path in source.glob("*/*.nii.gz"):
    nibabel.save(nibabel.load(path), str(path)[:-3])
    path.unlink()
  got = everything(datasets.open_dataset(
      config(source, tmp_path, prepared_dir=str(tmp_path / "p2")), 0))
  np.testing.assert_array_equal(want["image"], got["image"])


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
  np.testing.assert_allclose(volumes.resize(a, size), want, atol=1e-12)


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
