"""Percentile intervals by resampling groups (patients, scans) with replacement."""

from __future__ import annotations

import numpy as np


def resample_weights(groups: int, resamples: int, seed: int = 0) -> np.ndarray:
  """How often each group is drawn in each resample with replacement: int64 [resamples, groups]."""
  rng = np.random.default_rng(seed)
  return rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples)


def resample_counts(grouped: np.ndarray, weights: np.ndarray, functions, chunk: int = 32) -> dict:
  """{name: float64 [resamples]} of functions of the resampled, summed counts.

  Args:
    grouped: [groups, 2, bins]; weights: [resamples, groups]; functions: {name: counts -> [...]}.
    chunk: resamples held in memory at a time.
  """
  used = grouped.any((0, 1))
  flat = grouped[..., used].reshape(len(grouped), -1).astype(np.float64)  # sums stay exact
  return _resampled(lambda drawn: (drawn @ flat).reshape(-1, 2, int(used.sum())), weights, functions, chunk)


def resample_scores(scores, positive, group, weights: np.ndarray, functions, chunk: int = 32) -> dict:
  """As `resample_counts`, of scores [n]: each its own bin. Counts by group would be groups times n numbers.

  Args:
    positive: [n] bool or 0/1. group: [n], the column of `weights` that each score is drawn with.
  """
  _, place = np.unique(scores, return_inverse=True)
  bins = int(place.max(initial=-1)) + 1
  place = place + bins * np.asarray(positive, bool)
  counted = lambda drawn: np.stack([np.bincount(place, w[group], 2 * bins) for w in drawn])
  return _resampled(lambda drawn: counted(drawn).reshape(-1, 2, bins), weights, functions, chunk)


def _resampled(counts_of, weights, functions, chunk):
  found = {name: [] for name in functions}
  for begin in range(0, len(weights), chunk):
    counts = counts_of(weights[begin:begin + chunk])
    for name, function in functions.items():
      found[name].append(function(counts))
  return {name: np.concatenate(values) for name, values in found.items()}


def interval(values, level: float = 0.95) -> list[float] | None:
  """Percentile interval [low, high]; None when fewer than half of the resamples are defined."""
  values = np.asarray(values, np.float64)
  good = values[np.isfinite(values)]
  if good.size < max(2, values.size / 2):
    return None
  return [float(q) for q in np.quantile(good, [(1 - level) / 2, (1 + level) / 2])]


def of_share(values, groups: int) -> list[float] | None:
  """95 % `interval` of a share in [0, 1]; exact binomial of `groups` draws where resamples are all or none.

  A share of 0 or 1 stays what it is in any resample: its percentile interval has no width and says nothing of
  how few were seen (Clopper and Pearson 1934 of 0 or `groups` hits; groups: independent units, patients).
  """
  found = interval(values)
  if found is None or found[0] != found[1] or found[0] not in (0.0, 1.0):
    return found
  edge = 0.025 ** (1 / groups)
  return [edge, 1.0] if found[0] else [0.0, 1 - edge]
