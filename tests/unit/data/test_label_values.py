"""Values of label volumes: which are lesion, and which nobody can know."""

import json
import logging

import ml_collections
import numpy as np
import pytest

from data_pipelines import dataset as datasets
from data_pipelines.brains import fields, labels, prepare
from data_pipelines.datasets.synthetic import write_nifti
from medae_jax.core import upgrade
from tests.brain_folders import config, rewrite, scan, volume_of


def volume(*values, dtype=np.uint8):
  return np.array([0, *values, 0], dtype).reshape(1, 1, -1)


@pytest.mark.parametrize("values,dtype", [
    ((), np.uint8), ((1,), np.uint8), ((1, 2, 4), np.int16), ((1, 2, 3), np.float32), ((3, 4), np.float64),
    ((255, 255), np.uint8), ((1.0004,), np.float64)])  # the last: what a scale factor leaves of 1
def test_known_values(values, dtype):
  found = labels.lesions(volume(*values, dtype=dtype))
  assert found.dtype == np.uint8 and found.ravel().tolist() == [0, *[1] * len(values), 0]


@pytest.mark.parametrize("values,words", [
    ((5,), r"the values 5; known are 0 to 4.*lesion_values='\(5,\)'"), ((1, 255), "values 1, 255"),
    ((1.02,), "no whole numbers"),
    ((-1, 1), "values -1, 1"), ((0.5, 1), r"no whole numbers \(0.5\)"),
    (tuple(np.linspace(0.1, 0.9, 9)), r"no whole numbers \(0.1, 0.2, 0.3, 0.4, 0.5, 0.6 and 3 more\)"),
    ((np.nan,), "NaN"), (tuple(range(1, 40)), "1, 2, 3, 4, 5, 6 and 33 more")])
def test_other_values_are_named(values, words):
  with pytest.raises(labels.BadScan, match=words) as e:
    labels.lesions(volume(*values, dtype=np.float64))
  assert "\n" not in str(e.value)


def test_what_resampling_leaves_of_background_is_no_lesion():
  """Every voxel of a spline's 1e-5 was lesion."""
  for values in ((), (1, 2)):
    found = labels.lesions(volume(1e-5, 1.0002, -4e-4, 2, dtype=np.float64), values)
    assert found.ravel().tolist() == [0, 0, 1, 0, 1, 0]


def test_all_values_that_may_be_lesion_are_offered():
  with pytest.raises(labels.BadScan, match=r"all of them: --config.data.lesion_values='\(1, 2, 5\)'"):
    labels.lesions(volume(5, 2, 1))


def test_a_label_that_marks_the_corners_is_inverted():
  seg = np.zeros((5, 4, 3))
  seg[1:3, 1, 1] = 1
  for odd in (1 - seg, seg + 1, 255 - 255 * seg):
    with pytest.raises(labels.BadScan, match="all eight corners.*lesion_values"):
      labels.lesions(odd)
  assert labels.lesions(seg + 1, (2,)).sum() == labels.lesions(seg).sum() == 2
  seg[0, 0, 0] = 1
  assert labels.lesions(seg).sum() == 3


def test_the_config_says_which_are_lesion():
  assert labels.lesions(volume(1, 2, 17, -1, dtype=np.int16), (2, -1)).ravel().tolist() == [0, 0, 1, 0, 1, 0]
  with pytest.raises(labels.BadScan, match="no whole numbers"):
    labels.lesions(volume(0.7, 2, dtype=np.float32), (2,))


@pytest.mark.parametrize("wrong", [(0,), (1, 1), (0.5,), ("a",), (True,)])
def test_values_that_no_config_can_mean(wrong):
  with pytest.raises(ValueError, match="lesion_values="):
    fields.resolve(ml_collections.ConfigDict({"name": "brats", "lesion_values": wrong}))


def test_a_run_of_before_the_field_has_it():
  assert upgrade.config({"data": {"name": "brats"}})["data"]["lesion_values"] == []


def test_values_of_a_set_are_counted():
  """A second kind of lesion (WMH: 2 = other pathology) counted as the first, and nothing said so."""
  scans = [labels.counts(volume(1, 1, 2, 1e-5, dtype=np.float64)), labels.counts(volume(1))]
  assert scans == [{"1": 2, "2": 1}, {"1": 1}]
  both = "1 (in 2 scans, 3 voxels), 2 (in 1 scans, 1 voxels)"
  assert labels.described(scans) == f"values taken for lesion: {both}"
  assert labels.described(scans, (2,)) == (
      "values taken for lesion: 2 (in 1 scans, 1 voxels); not: 1 (in 2 scans, 3 voxels)")
  assert labels.described(scans, (7,)) == f"values taken for lesion: none; not: {both}"


def test_a_probability_map_as_label_is_left_out_with_its_reason(tmp_path, caplog):
  """And where the config says which values are lesion, the set is another one; the log names them."""
  source = tmp_path / "raw"
  write_nifti(source, 3, shape=(24, 24, 6), splits=(1, 1, 1))
  rewrite(volume_of(scan(source, 0), "seg"), lambda a: (a > 0) * np.float32(0.7))
  rewrite(volume_of(scan(source, 1), "seg"), lambda a: (10 * a).astype(np.int16))
  datasets.open_dataset(config(source, tmp_path), 0)
  report = json.loads((tmp_path / "prepared/report.json").read_text())
  reasons = {r["patient"]: r["reason"] for r in report["scans"]}
  assert "no whole numbers (0.7)" in reasons[scan(source, 0).name]
  assert "holds the values" in reasons[scan(source, 1).name] and "20" in reasons[scan(source, 1).name]
  with pytest.raises(ValueError, match="another lesion_values"):
    datasets.open_dataset(config(source, tmp_path, lesion_values=(10, 20, 40)), 0)
  caplog.clear()
  with caplog.at_level(logging.INFO):
    found = datasets.open_dataset(config(source, tmp_path, lesion_values=(10, 20, 40),
                                         prepared_dir=str(tmp_path / "other")), 0)
  said = [r.getMessage() for r in caplog.records if "taken for lesion" in r.getMessage()]
  assert len(said) == 1 and "labels of 2 of 2 scans, values taken for lesion: 10 (in 1 scans, " in said[0]
  assert "; not: 1 (in 1 scans, " in said[0] and "where that is wrong" in said[0]
  assert scan(source, 1).name in {s.patient for scans in found.scans.values() for s in scans}


def test_values_that_no_label_holds_are_said(caplog):
  """lesion_values=(4,) of labels of BraTS 2023, which has 3 there: all tumours were healthy."""
  record = {"label_values": {"1": 5, "3": 2}}
  for values, said in (((4,), True), ((1, 4), False), ((), False)):
    caplog.clear()
    prepare._say({}, {"P1": record, "P2": {}}, {"lesion_values": values, "strict": False}, None)
    assert ("lesion_values=(4,) are in none of the 1 labels, which hold 1, 3: nothing" in caplog.text) == said
