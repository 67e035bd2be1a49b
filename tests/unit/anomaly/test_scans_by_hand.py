"""Calls on whole scans and on images: labels, cuts, unknown ones; counted by hand."""

import types

import ml_collections
import numpy as np
from PIL import Image
import pytest

from medae_jax.tasks import score_of
from medae_jax.tasks.anomaly import kept_maps, thresholds, whole_scans
from medae_jax.tasks.anomaly.whole_scans import Scans

OPTIONS = ml_collections.ConfigDict({"quantile": 0.5})


def scans(score, label, what="scan"):
  return Scans(np.array(score, float), np.array(label), what)


def test_what_is_said_of_a_whole_scan_goes_before_what_its_slices_show():
  score, label = np.array([0.1, 0.9, 0.2, 0.3, 0.4, 0.5]), np.array([0, 0, 0, -1, 1, 0])
  group = np.array([0, 0, 1, 1, 2, 2])
  metas = [{"slice": i} for i in range(6)]
  found = whole_scans.of_images(score, label, metas, group)
  assert found.score.tolist() == [0.9, 0.3, 0.5] and found.label.tolist() == [0, -1, 1]
  metas[0]["scan_label"], metas[1]["scan_label"] = 0, 1  # of two series of one patient one is abnormal
  metas[4]["scan_label"] = metas[5]["scan_label"] = 0
  assert whole_scans.of_images(score, label, metas, group).label.tolist() == [1, -1, 0]
  alone = whole_scans.of_images(score[:3], label[2:5], [{}, {"scan_label": 1}, {"scan_label": 0}], group[:3])
  assert alone.label.tolist() == [0, 1, 0] and alone.what == "image"
  assert alone.score.tolist() == [0.1, 0.9, 0.2]


@pytest.mark.parametrize("score, label, cut", [
    ([0.1, 0.5, 0.5, 0.9], [0, 0, 1, 1], 0.1),  # a scan at the cut is called normal
    ([0.1, 0.2, 0.4, 0.3], [0, 0, 1, -1], 0.2),
    ([0.5, 0.1, 0.05], [0, 1, -1], 0.5),        # no cut at the score of an unknown one
    ([0, 0, 6, 7, 7, 11, 4, 8], [0, 0, 0, 0, 0, 0, 1, 1], 0)])  # 1/3 + 1 and 5/6 + 1/2, but for rounding
def test_the_cut_is_the_lowest_score_with_the_most_right_calls(score, label, cut):
  found = whole_scans.calibrate(scans(score, label), 0.05)
  assert found["scan_threshold"] == cut and found["scan_unit"] == "scan"
  assert found["scan_scores"] == sorted(s for s, v in zip(score, label) if v == 0)
  found, _ = thresholds._image_threshold(np.array(score), np.array(label), OPTIONS)
  assert found == cut


def test_without_abnormal_images_the_normal_ones_decide_and_without_these_the_unknown():
  of = lambda score, label: thresholds._image_threshold(np.array(score), np.array(label), OPTIONS)[0]
  assert of([0.1, 0.2, 0.3, 9.0], [0, 0, 0, -1]) == pytest.approx(0.2)
  assert of([0.1, 0.5], [-1, -1]) == pytest.approx(0.3) and of([0.1], [1]) is None


def test_scans_of_unknown_label_are_in_no_number():
  of = scans([0.1, 0.4, 0.3, 0.8, 9.0, 0.0], [0, 0, 1, 1, -1, -1])
  found = whole_scans.metrics(of, {"scan_threshold": 0.4})
  assert found == {"n_normal_scans": 2, "n_abnormal_scans": 2, "scan_auroc": 0.75, "scan_sensitivity": 0.5,
                   "scan_false_alarms": 0.0}
  found = whole_scans.metrics(of, {"scan_threshold": 0.8})  # a scan at the cut is called normal
  assert (found["scan_sensitivity"], found["scan_false_alarms"]) == (0.0, 0.0)
  assert whole_scans.metrics(of, {"scan_threshold": 0.1})["scan_false_alarms"] == 0.5


def test_marks_of_a_restoration_are_its_mask():
  config = ml_collections.ConfigDict({"predict": {"threshold": 0.0}, "eval": {}})
  marks = np.zeros((1, 3, 3, 1), np.float32)
  marks[0, 1] = 1
  found = score_of.arrays(config, None, {"marks": marks, "map": marks}, single=True)
  np.testing.assert_array_equal(found.mask, marks[0, ..., 0] > 0)


def test_the_restored_picture_is_the_file_that_the_row_names(tmp_path):
  for name, value in (("a.png", 10), ("b/a.png", 20), ("compare/a.png", 30)):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(tmp_path / name)
  found = score_of.files(tmp_path, {"output": "a.png", "called_abnormal": 0})
  assert set(found.outputs) == {"restored"} and found["restored"].max() == 10 and found.verdict == "normal"
  assert found.picture == (tmp_path / "compare/a.png").read_bytes() and found.affine is None


def test_overlap_is_counted_over_all_volumes_of_a_patient():
  """Marks of one voxel are dropped by the component filter; equal to the threshold is not marked."""
  volumes = {0: ([[0.9, 0.9, 0.5]], [[1, 0, 1]]), 1: ([[0.9, 0.1, 0.9]], [[1, 1, 0]]),
             2: ([[0.1, 0.1, 0.1]], [[0, 1, 1]])}
  store = types.SimpleNamespace(get=lambda rows: tuple(
      np.array(a, t)[None] for a, t in zip(volumes[int(rows[0])], (np.float32, bool))))
  patients = [[np.array([0]), np.array([1])], [np.array([2])]]
  found = kept_maps.overlap_counts(store, patients, {"val": 0.5, "low": 0.05}, 1)
  assert {name: counts.tolist() for name, counts in found.items()} == {
      "val": [[2, 4, 4], [0, 0, 2]],             # both voxels of the first, both of the second volume
      "val_components": [[1, 2, 4], [0, 0, 2]],  # those of the second stand alone
      "low": [[4, 6, 4], [2, 3, 2]], "low_components": [[4, 6, 4], [2, 3, 2]]}


@pytest.mark.parametrize("failing", [0, 1])
def test_a_volume_that_cannot_be_read_is_no_empty_one(failing):
  """Threads count the patients: what fails in one of them is not lost."""
  def get(rows):
    if int(rows[0]) == failing:
      raise OSError("the scratch file cannot be read")
    return np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), bool)
  with pytest.raises(OSError, match="scratch file"):
    kept_maps.overlap_counts(types.SimpleNamespace(get=get), [[np.array([0])], [np.array([1])]],
                                 {"val": 0.5}, 1)


def test_the_reason_of_an_image_threshold_gives_sensitivity_before_specificity():
  """At 2: one of two abnormal images above, all four normal ones at it or below."""
  score, label = np.array([0.0, 0.5, 1.0, 2.0, 1.5, 3.0]), np.array([0, 0, 0, 0, 1, 1])
  found, why = thresholds._image_threshold(score, label, OPTIONS)
  specificity, sensitivity = np.mean(score[:4] <= found), np.mean(score[4:] > found)
  assert specificity != sensitivity
  assert why == f"best sensitivity + specificity on val, {sensitivity:.3f} + {specificity:.3f}"
