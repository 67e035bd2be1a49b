"""Whether probabilities mean what they say: Brier score and expected calibration error, streaming.

Brier, Monthly Weather Review 78 (1950): mean (p - y)^2. Expected calibration error (Naeini et al., AAAI 2015;
Guo et al., ICML 2017) of the probability p of the positive class: over `bins` equal bins of p, the mean of
|mean p - share of positives|, weighted by how many fall into each.
"""

from __future__ import annotations

import numpy as np
import scipy.optimize


class Reliability:
  """Sums of probabilities that come in batches; memory: three numbers a bin.

  Args:
    bins: of equal width on [0, 1]; 1 belongs to the last.
  """

  def __init__(self, bins: int = 15):
    self._bins = bins
    self.count, self.sum, self.positive = (np.zeros(bins) for _ in range(3))
    self._square = 0.0

  def add(self, p, y) -> None:
    """Takes probabilities [...] and outcomes of the same shape, 0 or 1."""
    p, y = np.ravel(np.asarray(p, np.float64)), np.ravel(np.asarray(y, np.float64))
    place = np.minimum((p * self._bins).astype(np.int64), self._bins - 1)
    self.count += np.bincount(place, minlength=self._bins)
    self.sum += np.bincount(place, p, self._bins)
    self.positive += np.bincount(place, y, self._bins)
    self._square += float(((p - y) ** 2).sum())

  def brier(self) -> float:
    """Mean squared difference; NaN of nothing."""
    n = self.count.sum()
    return self._square / n if n else np.nan

  def ece(self) -> float:
    """Expected calibration error; NaN of nothing."""
    n = self.count.sum()
    return float(np.abs(self.sum - self.positive).sum() / n) if n else np.nan


def fit_logistic(scores, positive) -> list[float] | None:
  """[slope, intercept] of P(positive) = 1 / (1 + exp(-(slope * score + intercept))) (Platt, 1999).

  Platt's targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) keep it finite where val separates the two.

  Args:
    scores: [n]. positive: [n] bool.

  Returns:
    None without both kinds.
  """
  x, y = np.ravel(np.asarray(scores, np.float64)), np.ravel(positive).astype(bool)
  n1, n0 = int(y.sum()), int((~y).sum())
  if not n1 or not n0:
    return None
  target = np.where(y, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
  middle, scale = x.mean(), x.std() or 1.0
  z = (x - middle) / scale

  def loss(w):
    t = w[0] * z + w[1]
    p = 1 / (1 + np.exp(-t))
    return (np.logaddexp(0, t) - target * t).sum(), np.array([((p - target) * z).sum(), (p - target).sum()])
  w = scipy.optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-8}).x
  return [float(w[0] / scale), float(w[1] - w[0] * middle / scale)]


def logistic(scores, weights) -> np.ndarray:
  """Probabilities of `fit_logistic`'s model: float64 [n]."""
  t = weights[0] * np.asarray(scores, np.float64) + weights[1]
  return 1 / (1 + np.exp(-np.clip(t, -700, 700)))


def uniformity(p_values) -> tuple[float, float]:
  """(Kolmogorov-Smirnov distance of p-values of normal scans to uniform, its own p-value); NaN of nothing.

  Conformal p-values of new normal scans are uniform up to steps of 1 / (n + 1): a large distance says that
  test's normal scans are not like val's.
  """
  values = np.ravel(p_values)
  if not len(values):
    return np.nan, np.nan
  from scipy import stats  # a second of import
  found = stats.kstest(values, "uniform")
  return float(found.statistic), float(found.pvalue)
