"""Bad scans: each named in one report with its reason, the rest prepared; strict stops."""

import gzip
import json
import re
import shutil

import nibabel
import numpy as np
import pytest

from data_pipelines import dataset as datasets
from data_pipelines.brains import prepare
from tests.brain_folders import config, rewrite, scan, volume_of


def _truncate(path):
  path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def _cut_plain(path):  # a sound gzip of a file that ends too early
  path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:900]))


def _with_nan(a):
  return np.where(np.arange(a.size).reshape(a.shape) == 7, np.nan, a).astype(np.float32)


def _claim_huge(path):
  """A header of 1 kB that claims 27e12 voxels."""
  header = nibabel.Nifti1Header()
  header.set_data_dtype(np.int16)
  header.set_data_shape((30000, 30000, 30000))
  header["vox_offset"] = 352
  path.write_bytes(gzip.compress(header.binaryblock + bytes(4)))


def _colour(path):
  shape = nibabel.load(path).shape
  colour = np.zeros(shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
  nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), path)


BAD = {
    "truncated": (lambda d: _truncate(volume_of(d, "t1")), "t1.*corrupt or truncated"),
    "cut": (lambda d: _cut_plain(volume_of(d, "t2")), "t2.*corrupt or truncated"),
    "not_nifti": (lambda d: volume_of(d, "flair").write_text("hello"), "flair.*corrupt"),
    "empty_file": (lambda d: volume_of(d, "flair").write_bytes(b""), "flair.*corrupt"),
    "all_zero": (lambda d: rewrite(volume_of(d, "t1ce"), lambda a: a * 0), "t1ce.*all zero"),
    "nan": (lambda d: rewrite(volume_of(d, "t2"), _with_nan), "t2.nii.gz holds 1 NaN"),
    "nan_seg": (lambda d: rewrite(volume_of(d, "seg"), _with_nan), "seg.nii.gz holds 1 NaN"),
    "misshaped": (lambda d: rewrite(volume_of(d, "t2"), lambda a: a[:-1]), "t2.*another grid.*shape"),
    "four_axes": (lambda d: rewrite(volume_of(d, "t1"), lambda a: np.stack([a, a], -1)),
                  "three axes"),
    "huge": (lambda d: _claim_huge(volume_of(d, "t1")), "t1.*claims 30000 x 30000 x 30000 voxels"),
    "colour": (lambda d: _colour(volume_of(d, "t1")), "t1.*not grey values"),
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


@pytest.mark.parametrize("count", [1, 2])
def test_a_scan_that_needs_all_the_memory_is_read_alone_and_then_left_out(monkeypatch, count):
  asked = []

  def run(module, jobs, processes):
    asked.append((len(jobs), processes))
    for job in jobs:
      short = job["patient"] == "big" or (job["patient"] == "middle" and processes > 1)
      yield job, {"memory": "out of memory"} if short else {"record": {}}
  monkeypatch.setattr(prepare.workers, "run", run)
  jobs = [{"patient": p} for p in ("big", "middle", "small")]
  found = {job["patient"]: result for job, result in prepare._results(jobs, count)}
  assert found == {"big": {"bad": "out of memory"}, "middle": {"record": {}}, "small": {"record": {}}}
  assert asked == ([(3, 1)] if count == 1 else [(3, 2), (2, 1)])


def test_nothing_left_is_an_error(source, tmp_path):
  for i in range(6):
    BAD["all_zero"][0](scan(source, i))
  with pytest.raises(ValueError, match="none of the 6 scans"):
    datasets.open_dataset(config(source, tmp_path), 0)


def test_slices_left_out_of_a_good_scan_stand_in_the_report_also_when_it_is_opened_again(source, tmp_path):
  def weak(volume):
    volume[:, :, -2:] = 0
    volume[4:6, 4:6, -1] = volume.max() // 50 + 1
    return volume
  for kind in ("flair", "t1", "t1ce", "t2"):
    rewrite(volume_of(scan(source), kind), weak)
  for _ in range(2):
    datasets.open_dataset(config(source, tmp_path), 0)
    report = json.loads((tmp_path / "prepared" / "report.json").read_text())
    assert report["left_out"] == 0
    assert [w["patient"] for w in report["warnings"]] == [scan(source).name]
    assert "hold anatomy and are left out" in report["warnings"][0]["warning"]
