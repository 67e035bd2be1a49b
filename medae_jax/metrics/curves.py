"""ROC and precision-recall curves on a fixed grid, with percentile bands over resampled patients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from medae_jax.metrics import bootstrap, detection

GRID = np.linspace(0, 1, 101)
RESAMPLES = 200  # a band of 2.5 and 97.5 % needs no more; intervals of numbers have their own


def roc(counts: np.ndarray, grid: np.ndarray = GRID) -> np.ndarray:
  """Sensitivity at every false-positive rate of the grid, linear between thresholds.

  Args:
    counts: [..., 2, bins], negatives and positives by increasing score.

  Returns:
    float64 [..., len(grid)]; NaN without either class.
  """
  return _each(counts, grid, _roc)


def precision_recall(counts: np.ndarray, grid: np.ndarray = GRID) -> np.ndarray:
  """Precision at the first threshold that reaches every recall of the grid, as average precision sums it.

  Args and returns as `roc`; the value at recall 0 is that of the highest score.
  """
  return _each(counts, grid, _precision)


def _each(counts, grid, one):
  counts = np.asarray(counts, np.float64)[..., ::-1]
  flat = counts.reshape(-1, *counts.shape[-2:])
  return np.stack([one(c[0], c[1], grid) for c in flat]).reshape(*counts.shape[:-2], len(grid))


def _roc(negative, positive, grid):
  if not negative.sum() or not positive.sum():
    return np.full(len(grid), np.nan)
  false = np.concatenate([[0], np.cumsum(negative)]) / negative.sum()
  hits = np.concatenate([[0], np.cumsum(positive)]) / positive.sum()
  # Of the thresholds with one false-positive rate the curve takes the last: the grid is read from the right.
  last = np.r_[np.flatnonzero(np.diff(false)), len(false) - 1]
  first = np.r_[0, last[:-1] + 1]
  right = np.interp(grid, np.ravel(np.column_stack([false[first], false[last]])),
                    np.ravel(np.column_stack([hits[first], hits[last]])))
  at = np.searchsorted(false[last], grid)
  same = np.isclose(false[last][np.minimum(at, len(last) - 1)], grid, atol=1e-12)
  return np.where(same, hits[last][np.minimum(at, len(last) - 1)], right)


def _precision(negative, positive, grid):
  if not positive.sum():
    return np.full(len(grid), np.nan)
  hits, calls = np.cumsum(positive), np.cumsum(positive + negative)
  seen = calls > 0
  hits, calls = hits[seen], calls[seen]
  recall = hits / hits[-1]
  # A small slack: 0.3 of the grid is the recall 3/10.
  at = np.searchsorted(recall, grid - 1e-12)
  return (hits / calls)[np.minimum(at, len(recall) - 1)]


_CURVES = {"roc": roc, "pr": precision_recall}


def with_bands(grouped: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, dict[str, Any]]:
  """Both curves of the summed counts, and their bands over groups drawn with replacement.

  Args:
    grouped: [groups, 2, bins], counts of each patient.

  Returns:
    {"roc" | "pr": {"x", "y", "low", "high"}}: lists over the grid; "low" and "high" only with two groups
    and more; {} where one of the classes is missing.
  """
  return _with_bands(np.asarray(grouped).sum(0), len(grouped), seed, resamples,
                     lambda weights: bootstrap.resample_counts(grouped, weights, _CURVES))


def of_scores(scores: np.ndarray, positive: np.ndarray, group: np.ndarray, seed: int = 0,
              resamples: int = RESAMPLES) -> dict[str, dict[str, Any]]:
  """As `with_bands`, of scores [n] of images: positive [n] bool or 0/1, group [n] their patients."""
  groups, group = np.unique(group, return_inverse=True)
  return _with_bands(detection.sorted_counts(scores, positive), len(groups), seed, resamples,
                     lambda weights: bootstrap.resample_scores(scores, positive, group, weights, _CURVES))


def _with_bands(total, groups: int, seed: int, resamples: int, resampled: Callable):
  if not total.sum(-1).all():
    return {}
  drawn = {}
  if groups > 1 and resamples:
    drawn = resampled(bootstrap.resample_weights(groups, resamples, seed))
  found = {}
  for name, curve in _CURVES.items():
    found[name] = {"x": GRID.tolist(), "y": curve(total).tolist()}
    if name in drawn:
      low, high = np.nanquantile(drawn[name], [0.025, 0.975], axis=0)
      found[name] |= {"low": low.tolist(), "high": high.tolist()}
  return found


def histogram(scores: np.ndarray, label: np.ndarray, bins: int = 30) -> dict[str, list]:
  """Scores of both classes in common bins: {"edges", "normal", "abnormal", "unknown"}.

  Args:
    label: 0 normal, 1 abnormal, -1 not known.
  """
  low, high = float(np.min(scores)), float(np.max(scores))
  edges = np.linspace(low, high if high > low else low + 1, bins + 1)
  count = lambda value: np.histogram(scores[label == value], edges)[0].tolist()
  return {"edges": edges.tolist(), "normal": count(0), "abnormal": count(1), "unknown": count(-1)}
