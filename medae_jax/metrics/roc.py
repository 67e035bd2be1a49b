"""The ROC curve of image scores with its thresholds, its best one, and DeLong's interval of its area."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from medae_jax.metrics import detection

# Seeds of the resamples behind "mean +- deviation" in the tables of Bercea et al. 2023.
PUBLISHED_SEEDS = (101822, 101922, 102022, 102122, 102222)


def points(scores, positive) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(false-positive rate, true-positive rate, threshold) of "score >= threshold", thresholds falling.

  As scikit-learn's roc_curve: begins at (0, 0, infinity); points between two others on one line are left out.

  Args:
    scores: [n]. positive: [n] bool, both kinds.
  """
  counts = detection.sorted_counts(scores, positive)
  false, true = np.cumsum(counts[0][::-1]), np.cumsum(counts[1][::-1])
  cuts = np.unique(np.ravel(scores))[::-1]
  if len(cuts) > 2:
    kept = np.r_[True, (np.diff(false, 2) != 0) | (np.diff(true, 2) != 0), True]
    false, true, cuts = false[kept], true[kept], cuts[kept]
  false, true = np.r_[0, false], np.r_[0, true]
  with np.errstate(invalid="ignore", divide="ignore"):
    return false / false[-1], true / true[-1], np.r_[np.inf, cuts]


def fpr_at(scores, positive, tpr: float) -> tuple[float, float]:
  """(false-positive rate, threshold) of the first point of `points` with at least `tpr` of the positives.

  (NaN, NaN) without both kinds. FPR@95TPR and FPR@99TPR of Bercea et al. 2023.
  """
  positive = np.ravel(positive).astype(bool)
  if positive.all() or not positive.any():
    return np.nan, np.nan
  false, true, cuts = points(scores, positive)
  first = int(np.argmax(true >= tpr))
  return float(false[first]), float(cuts[first])


def best_cut(normal: np.ndarray, abnormal: np.ndarray) -> tuple[float, float, float]:
  """(cut, sensitivity, specificity) of "score > cut" where their sum is highest, of equals the lowest cut.

  Args:
    normal, abnormal: [m], [n] scores, neither empty; cuts are these scores.
  """
  cuts = np.unique(np.concatenate([normal, abnormal]))
  at_most = lambda scores: np.searchsorted(np.sort(scores), cuts, side="right")
  right, found = at_most(normal), len(abnormal) - at_most(abnormal)
  best = int(np.argmax(right * len(abnormal) + found * len(normal)))  # whole numbers: equals are equal
  return float(cuts[best]), float(found[best] / len(abnormal)), float(right[best] / len(normal))


def delong(scores, positive, level: float = 0.95) -> list[float] | None:
  """Interval [low, high] of the AUROC, normal approximation with DeLong's variance, cut to [0, 1].

  DeLong, DeLong, Clarke-Pearson, Biometrics 44 (1988); by midranks as Sun and Xu, IEEE SPL 21 (2014).
  It takes images for independent: where patients have several, bootstrap over patients is right and this
  is too narrow.

  Returns:
    None with fewer than two of either kind.
  """
  area, variance = _area_and_variance(scores, positive)
  if not np.isfinite(variance):
    return None
  half = float(special.ndtri((1 + level) / 2)) * np.sqrt(variance)
  return [float(max(0.0, area - half)), float(min(1.0, area + half))]


def _area_and_variance(scores, positive):
  scores, positive = np.ravel(np.asarray(scores, np.float64)), np.ravel(positive).astype(bool)
  x, y = scores[positive], scores[~positive]
  m, n = len(x), len(y)
  if m < 2 or n < 2:
    return np.nan, np.nan
  from scipy.stats import rankdata as rank  # here: a second of import
  together = rank(np.concatenate([x, y]))
  above = (together[:m] - rank(x)) / n          # share of negatives below each positive, ties half
  below = 1 - (together[m:] - rank(y)) / m
  return float(above.mean()), float(above.var(ddof=1) / m + below.var(ddof=1) / n)


def published_spread(scores, positive, seeds: Sequence[int] = PUBLISHED_SEEDS) -> dict[str, float]:
  """Mean and population deviation of the AUROC over one resample of the images a seed.

  What the tables of Bercea et al. 2023 show behind +-: the spread of one trained model, negatives first, then
  positives, drawn by numpy's legacy generator.

  Returns:
    {"auroc_mean", "auroc_std"}.
  """
  scores, positive = np.ravel(scores), np.ravel(positive).astype(bool)
  scores = np.concatenate([scores[~positive], scores[positive]])
  positive = np.sort(positive)
  drawn = [np.random.RandomState(seed).choice(len(scores), len(scores), replace=True) for seed in seeds]
  areas = [detection.auroc(detection.sorted_counts(scores[i], positive[i])) for i in drawn]
  return {"auroc_mean": float(np.mean(areas)), "auroc_std": float(np.std(areas))}
