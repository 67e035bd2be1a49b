"""Bad scans: each named in one report with its reason, the rest prepared; strict stops."""

import gzip
import json
import re
import shutil

import numpy as np
import pytest

from data_pipelines import dataset as datasets
from tests.brain_folders import config, rewrite, scan, volume_of


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
