"""Thresholds and p-values from normal scans alone, with a guarantee for finite samples.

Split conformal prediction (Vovk, Gammerman and Shafer, 2005; as anomaly detection: Bates et al.,
Annals of Statistics 2023): if a new normal scan and the n held-out normal ones are exchangeable, its
p-value is at most alpha with probability at most alpha, whatever the distribution of the scores.
"""

from __future__ import annotations

import math

import numpy as np


def threshold(normal: np.ndarray, alpha: float) -> float | None:
  """The ceil((n+1)(1-alpha))-th smallest of n normal scores: a new normal one is above it with
  probability at most `alpha`.

  Args:
    normal: [n] scores, higher = more anomalous. alpha: share of false alarms, in (0, 1).

  Returns:
    None where n is too small: below 1/alpha - 1 no threshold keeps the promise.
  """
  scores = np.sort(np.asarray(normal, np.float64))
  # The product is rounded first: (19 + 1) * 0.95 is 19, not a hair more.
  k = math.ceil(round((len(scores) + 1) * (1 - alpha), 9))
  return float(scores[k - 1]) if 1 <= k <= len(scores) else None


def p_value(normal, score: float) -> float:
  """(1 + number of normal scores >= score) / (n + 1), in [1/(n+1), 1]; 1 without normal scores."""
  scores = np.asarray(normal, np.float64)
  return float((1 + np.count_nonzero(scores >= score)) / (len(scores) + 1))


def rule(n: int, alpha: float, what: str) -> str:
  """The promise in words, or why there is none."""
  if math.ceil(round((n + 1) * (1 - alpha), 9)) <= n:
    return (f"conformal, from {n} normal {what}s of val: at most {alpha:.3g} of new normal {what}s from the "
            "same source are above it, whatever their scores' distribution")
  least = f"; {n} allow config.eval.alpha={math.ceil(1000 / (n + 1)) / 1000:g} at the least" if n else ""
  return (f"none: {n} normal {what}s of val are too few for a share of false alarms of {alpha:.3g} (at least "
          f"{math.ceil(round(1 / alpha - 1, 9))} are needed{least})")
