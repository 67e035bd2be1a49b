"""Whole scans: their scores and labels, thresholds with words, verdicts and p-values."""

import numpy as np
import pytest

from medae_jax.tasks.anomaly import whole_scans


def slices(label_of_scan=None):
  """Three volumes of two, three and one slices; scan 1 has a lesion in one slice."""
  scores = np.array([1.0, 2, 3, 9, 4, 5])
  label = np.array([0, 0, 0, 1, 0, -1])
  metas = [{"slice": i} | ({} if label_of_scan is None else {"scan_label": label_of_scan}) for i in range(6)]
  return scores, label, metas, np.array([0, 0, 1, 1, 1, 2])


def test_a_volume_has_the_highest_score_of_its_slices_and_their_label():
  scans = whole_scans.of_images(*slices())
  assert scans.what == "scan"
  np.testing.assert_array_equal(scans.score, [2, 9, 5])
  np.testing.assert_array_equal(scans.label, [0, 1, -1])
  np.testing.assert_array_equal(whole_scans.of_images(*slices(1)).label, [1, 1, 1])


def test_images_stand_alone_whoever_they_belong_to():
  scores, label, _, group = slices()
  scans = whole_scans.of_images(scores, label, [{}] * 6, group)
  assert scans.what == "image" and scans.score.tolist() == scores.tolist()


def test_normal_scans_alone_give_a_promise_and_too_few_none():
  normal = whole_scans.Scans(np.arange(40.0), np.zeros(40, int), "scan")
  found = whole_scans.calibrate(normal, 0.05)
  assert found["scan_threshold"] == 38 and "from 40 normal scans" in found["scan_threshold_rule"]
  few = whole_scans.calibrate(whole_scans.Scans(np.arange(5.0), np.zeros(5, int), "scan"), 0.05)
  assert few["scan_threshold"] is None and "too few" in few["scan_threshold_rule"]
  assert whole_scans.verdict(few, 10.0, "scan") == {"p_value": pytest.approx(1 / 6)}
  assert whole_scans.verdict(found, 39.0, "scan") == {
      "p_value": pytest.approx(2 / 41), "called_abnormal": 1, "verdict": "abnormal"}
  assert whole_scans.verdict(found, 38.0, "scan")["verdict"] == "normal"


def test_a_threshold_of_slices_says_nothing_of_scans():
  images = whole_scans.calibrate(whole_scans.Scans(np.arange(40.0), np.zeros(40, int), "image"), 0.05)
  assert whole_scans.verdict(images, 39.0, "scan") == {}
  assert whole_scans.verdict({"image_threshold": 0.5}, 39.0, "scan") == {}


def test_abnormal_scans_in_val_choose_the_threshold():
  scans = whole_scans.Scans(np.array([1.0, 2, 3, 4, 5, 6]), np.array([0, 0, 0, 1, 0, 1]), "scan")
  found = whole_scans.calibrate(scans, 0.05)
  assert found["scan_threshold"] == 3 and "sensitivity" in found["scan_threshold_rule"]
  assert whole_scans.metrics(scans, found) == {
      "n_normal_scans": 4, "n_abnormal_scans": 2, "scan_auroc": pytest.approx(7 / 8),
      "scan_sensitivity": 1.0, "scan_false_alarms": 0.25}


def test_many_normal_scores_are_thinned_evenly():
  kept = whole_scans.calibrate(whole_scans.Scans(np.arange(20001.0), np.zeros(20001, int), "scan"), 0.05)
  assert len(kept["scan_scores"]) == 5000 and kept["scan_scores"][-1] == 20000
  assert whole_scans.verdict(kept, 19000.0, "scan")["p_value"] == pytest.approx(0.05, abs=1e-3)
