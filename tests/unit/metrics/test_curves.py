"""Curves against scikit-learn, bands around them, and the p-values' chart."""

import numpy as np
from sklearn import metrics

from medae_jax.metrics import curves, detection


def drawn(n=60, seed=0, levels=12):
  rng = np.random.default_rng(seed)
  label = rng.random(n) < 0.4
  return np.round(rng.normal(label * 1.0, 1) * levels / 4) / levels, label, rng.integers(0, 9, n)


def test_curves_pass_through_the_points_of_scikit_learn():
  score, label, _ = drawn()
  counts = detection.sorted_counts(score, label)
  false, hits, _ = metrics.roc_curve(label, score, drop_intermediate=False)
  keep = np.r_[np.diff(false) > 0, True]  # the highest sensitivity of each false-positive rate
  np.testing.assert_allclose(curves.roc(counts, false[keep]), hits[keep], atol=1e-12)
  middle = (false[keep][1:] + false[keep][:-1]) / 2
  assert (np.diff(curves.roc(counts, np.sort(np.r_[false[keep], middle]))) >= -1e-12).all()
  precision, recall, _ = metrics.precision_recall_curve(label, score)
  first = {r: p for p, r in zip(precision[:-1], recall[:-1])}  # of equal recalls the highest threshold
  np.testing.assert_allclose(curves.precision_recall(counts, np.array(list(first))),
                             list(first.values()), atol=1e-12)


def test_both_curves_of_three_scores_by_hand():
  # by falling score: a lesion, a normal image, a lesion
  counts = np.array([[0, 1, 0], [1, 0, 1]])
  np.testing.assert_allclose(curves.roc(counts, np.array([0, 0.25, 0.5, 1])), [0.5, 0.5, 0.5, 1])
  np.testing.assert_allclose(curves.precision_recall(counts, np.array([0, 0.5, 0.51, 1])),
                             [1, 1, 2 / 3, 2 / 3])
  both = curves.roc(np.stack([counts, counts[::-1]]), np.array([0, 0.5, 1]))
  np.testing.assert_allclose(both, [[0.5, 0.5, 1], [0, 1, 1]])


def test_area_of_the_fine_curve_is_the_auroc():
  score, label, _ = drawn(400, 1, 1000)
  counts, grid = detection.sorted_counts(score, label), np.linspace(0, 1, 20001)
  assert abs(np.trapezoid(curves.roc(counts, grid), grid) - detection.auroc(counts)) < 1e-3


def test_bands_hold_the_curve_and_need_two_patients():
  score, label, group = drawn()
  _, place = np.unique(score, return_inverse=True)
  grouped = np.zeros((9, 2, place.max() + 1), int)
  np.add.at(grouped, (group, label.astype(int), place), 1)
  found = curves.with_bands(grouped)
  assert curves.of_scores(score, label, group) == found
  y, low, high = (np.array(found["roc"][k]) for k in ("y", "low", "high"))
  assert np.mean((low <= y + 1e-9) & (y <= high + 1e-9)) > 0.9
  assert "low" not in curves.with_bands(grouped[:1].repeat(1, 0))["roc"]
  assert "low" not in curves.of_scores(score, label, np.zeros(60))["roc"]
  assert curves.with_bands(grouped * np.array([1, 0])[:, None]) == {}


def test_histogram_counts_every_image_once():
  score, label, _ = drawn()
  found = curves.histogram(score, np.where(np.arange(60) < 5, -1, label.astype(int)))
  assert sum(map(sum, (found[k] for k in ("normal", "abnormal", "unknown")))) == 60
  assert sum(found["unknown"]) == 5 and len(found["edges"]) == 31
  assert curves.histogram(np.ones(3), np.zeros(3, int))["normal"][0] == 3
