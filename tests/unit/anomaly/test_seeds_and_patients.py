"""Resamples follow the seed of the run, and values belong to the patients that they are of.

Images of unknown label come first and are of patients of their own: a row too many moves every patient.
"""

import numpy as np
import pytest
from sklearn import metrics

from medae_jax.metrics import bootstrap, ranking
from medae_jax.tasks.anomaly import figures, findings, intervals, measures, scan_measures
from tests.unit.anomaly import by_hand

SEED = 17
LABEL = np.array([-1, -1, 0, 0, 0, 1, 1, 0, 1])
SCORE = np.array([9.0, 8.0, 1.0, 2.0, 3.5, 3.0, 4.0, 2.5, 5.0])
PATIENTS = "aabbccddd"


def images():
  seen = by_hand.evaluator(SCORE, LABEL, PATIENTS, baselines={"mean": -SCORE})
  seen.metas = [{"finding": "x"} for _ in LABEL]
  seen.config.seed = SEED
  return seen


def scans(asked):
  mask = np.zeros((4, 9, 9))
  mask[1:, 3:6, 3:6] = 1
  seen = by_hand.with_maps(0.9 * mask, mask, "aabc")
  seen.config.seed, seen.calibration = SEED, {"threshold": 0.5}
  return scan_measures.measure(seen, (asked,), {}, {}, {})


@pytest.mark.parametrize("resampled", [
    lambda: intervals.of_images(images(), SCORE), lambda: intervals.intervals(images(), {}),
    lambda: figures.curves(images()), lambda: findings.measure(images()), lambda: scans("aupro"),
    lambda: scans("boxes"), lambda: scans("surface"), lambda: scans("lesions")])
def test_resamples_follow_the_seed_of_the_run(resampled, monkeypatch):
  seeds, plain = [], bootstrap.resample_weights
  monkeypatch.setattr(bootstrap, "resample_weights", lambda groups, resamples, seed=None: seeds.append(
      seed) or plain(groups, resamples, seed))
  resampled()
  assert seeds and set(seeds) == {SEED}


def test_images_count_with_the_weight_of_their_own_patient():
  seen, known = images(), LABEL >= 0
  weights = plain = bootstrap.resample_weights(4, 12, 1)
  weights = weights[[w[1:].min() > 0 for w in plain]]  # both kinds are in each
  found = intervals._images(seen, weights)
  want = [metrics.roc_auc_score(LABEL[known], SCORE[known], sample_weight=w[seen.group[known]])
          for w in weights]
  np.testing.assert_allclose(found["image_auroc"], want)


def test_only_patients_of_images_that_are_counted_are_told(monkeypatch):
  seen, told = images(), []
  known = LABEL >= 0
  monkeypatch.setattr(ranking, "of_images", lambda score, label, group, weights: told.append(group))
  intervals.of_images(seen, SCORE)
  monkeypatch.setattr(figures._curves, "of_scores", lambda score, label, group, **_: told.append(group) or {})
  figures.curves(seen)
  for group in told:
    np.testing.assert_array_equal(group, seen.group[known])
  assert len(told) == 2


def test_likeness_of_abnormal_images_is_resampled_over_their_patients(monkeypatch):
  seen, told = images(), {}
  of = object.__new__(measures.Measures)
  of._evaluator, of._images = seen, {"mae": np.where(np.arange(9) == 3, np.nan, SCORE)}
  monkeypatch.setattr(scan_measures, "interval", lambda e, values, patients: told.update(
      {len(values): patients.tolist()}))
  of._likenesses({}, {})
  assert told == {5: seen.group[[0, 1, 2, 4, 7]].tolist(), 3: seen.group[LABEL == 1].tolist()}


def test_a_distance_that_there_is_none_of_takes_no_patient_of_another(monkeypatch):
  """The first scan is missed whole: it has a Dice of surfaces, 0, and no distance. The last has no lesion."""
  mask, told = np.zeros((4, 9, 9)), []
  mask[:3, 3:6, 3:6] = 1
  maps = 0.9 * mask
  maps[0] = 0
  seen = by_hand.with_maps(maps, mask, "abcd")
  seen.calibration = {"threshold": 0.5}
  monkeypatch.setattr(scan_measures, "interval", lambda e, values, patients: told.append(
      (values.tolist(), patients.tolist())))
  scan_measures.measure(seen, ("surface",), {}, {}, {})
  assert told == [([0, 1, 1], [0, 1, 2]), ([0, 0], [1, 2])]
