"""Comparing several methods over several data sets by ranks (Demsar, JMLR 7:1-30, 2006)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Ranks of k methods over N blocks.

  average: [k], 1 = best. p: of Iman and Davenport's F, None where the ranks do not vary.
  difference: average ranks that lie further apart differ at level `alpha` (Nemenyi).
  """
  average: np.ndarray
  blocks: int
  chi2: float
  f: float | None
  p: float | None
  difference: float
  alpha: float


def compare(values: np.ndarray, alpha: float = 0.05) -> Comparison:
  """Friedman's test and Nemenyi's critical difference.

  Args:
    values: float [N, k], blocks (data sets) x methods, higher is better, without gaps; N, k >= 2.

  Raises:
    ValueError: fewer than two blocks or methods, or a value that is not finite.
  """
  from scipy import stats  # a second of import, which each report would pay
  values = np.asarray(values, np.float64)
  if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
    raise ValueError(f"ranks need at least two blocks and two methods without gaps, found {values.shape}")
  n, k = values.shape
  ranks = stats.rankdata(-values, axis=1)  # ties share the mean of their ranks
  average = ranks.mean(0)
  chi2 = 12 * n / (k * (k + 1)) * (np.sum(average**2) - k * (k + 1) ** 2 / 4)
  rest = n * (k - 1) - chi2
  # All blocks order the methods alike: F is infinite, its p-value 0 is that of so few blocks, k!^(1-N).
  f = float((n - 1) * chi2 / rest) if rest > 1e-9 else None
  p = float(stats.f.sf(f, k - 1, (k - 1) * (n - 1))) if f is not None else (
      float(math.factorial(k)) ** (1 - n))
  return Comparison(average, n, float(chi2), f, p, critical_difference(k, n, alpha), alpha)


def critical_difference(methods: int, blocks: int, alpha: float = 0.05) -> float:
  """Nemenyi: q_alpha sqrt(k (k + 1) / 6 N), q_alpha of the studentised range over sqrt(2)."""
  from scipy import stats
  q = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / math.sqrt(2)
  return float(q * math.sqrt(methods * (methods + 1) / (6 * blocks)))


def cliques(average, difference: float) -> list[tuple[int, int]]:
  """Groups of methods that are not told apart: [first, last] in the order of their ranks, none inside
  another, at least two methods each."""
  order = np.sort(np.asarray(average, np.float64))
  found: list[tuple[int, int]] = []
  for i in range(len(order)):
    last = int(np.searchsorted(order, order[i] + difference, side="right")) - 1
    if last > i and (not found or last > found[-1][1]):
      found.append((i, last))
  return found
