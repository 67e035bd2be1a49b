"""Detection metrics over whole data sets: average precision, AUROC, Dice.

Pixel scores are rounded to float16 as the DAE's public code does (Kascenas 2022). A non-negative float16 has
31,745 codes, so two integer histograms (lesion and normal pixels) hold all there is to know: AP,
AUROC and the Dice of *every* threshold follow from them exactly. `Histograms` fills them on the
device, batch by batch, in constant memory. `sorted_counts` counts float scores without rounding, for
the same functions: thousands of image scores, weighted by a bootstrap.

A metric that is undefined (no positives, no negatives) is NaN; writers turn it into null.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError

CODES = 31_745           # float16 values 0 ... inf
_FLUSH = 2**30           # pixels after which device counts (int32) move to the host (int64)


# --------------------------------------------------------------------------- float16 histograms
def code_of(value) -> np.ndarray:
  """Code (0 ... 31744) of float16(value), for non-negative values: keeps their order."""
  return np.asarray(np.float16(value)).view(np.uint16).astype(np.int64)


def value_of(code) -> np.ndarray:
  """The float16 value of a code, as float64."""
  return np.asarray(code, np.uint16).view(np.float16).astype(np.float64)


class Histograms:
  """Counts of float16 codes of lesion and normal pixels, over all and per group (patient).

  Args:
    groups: number of groups; 0 = only the overall counts.
    max_bytes: bound on the per-group counts. They are exact while groups * 254 kB fit; beyond it
      neighbouring codes share a bin (`shift` low bits are dropped). The overall counts stay exact.
  """

  def __init__(self, groups: int = 0, max_bytes: int = 192 * 2**20):
    self.groups, self.shift = groups, 0
    while groups and groups * 2 * self._bins() * 4 > max_bytes:
      self.shift += 1
    self._host = np.zeros((2, CODES + 1), np.int64)
    self._total = jnp.zeros((2, CODES + 1), jnp.int32)
    self._grouped = jnp.zeros((max(groups, 1), 2, self._bins()), jnp.int32)
    self._pending = 0

  def _bins(self):
    return (CODES >> self.shift) + 1

  def add(self, scores, positive, valid, group=None) -> None:
    """Counts a batch.

    Args:
      scores: [B, ...] float, >= 0.
      positive: [B, ...] bool or 0/1 of the same shape.
      valid: bool [B]; rows that are False are padding.
      group: int32 [B] in [0, groups).
    """
    group = np.zeros(len(valid), np.int32) if group is None else group
    self._total, self._grouped = _count(self._total, self._grouped, scores, positive,
                                        np.asarray(valid), np.asarray(group, np.int32), self.shift,
                                        bool(self.groups))
    self._pending += int(np.prod(np.shape(scores)))
    if self._pending > _FLUSH:
      self._flush()

  def counts(self) -> np.ndarray:
    """int64 [2, CODES]: normal, lesion pixels of every code.

    Raises:
      UserError: a score was NaN or negative.
    """
    self._flush()
    bad = int(self._host[:, CODES].sum())
    if bad:
      raise UserError(f"{bad} pixel scores are NaN or negative: the model or its input is broken "
                       "(train longer, check the data for NaN)")
    return self._host[:, :CODES].copy()

  def grouped(self) -> np.ndarray:
    """int32 [groups, 2, bins]: per group, code c in bin c >> shift."""
    return np.asarray(self._grouped)

  def _flush(self):
    self._host += np.asarray(self._total)
    self._total = jnp.zeros_like(self._total)
    self._pending = 0


@functools.partial(jax.jit, donate_argnums=(0, 1), static_argnums=(6, 7))
def _count(total, grouped, scores, positive, valid, group, shift, by_group):
  size = scores.shape[0]
  scores = scores.reshape(size, -1).astype(jnp.float32)
  positive = (positive.reshape(size, -1) > 0).astype(jnp.int32)
  code = jax.lax.bitcast_convert_type(scores.astype(jnp.float16), jnp.uint16).astype(jnp.int32)
  code = jnp.where(scores == 0, 0, code)                       # -0 is 0
  code = jnp.where((scores < 0) | (code >= CODES), CODES, code)  # a bin of its own for NaN and < 0
  drop = jnp.iinfo(jnp.int32).max                              # padding: outside, so not counted
  one = lambda histogram, place: histogram.reshape(-1).at[
      jnp.where(valid[:, None], place, drop).reshape(-1)].add(1, mode="drop").reshape(
          histogram.shape)
  total = one(total, positive * (CODES + 1) + code)
  if by_group:
    bins = grouped.shape[-1]
    grouped = one(grouped, (group[:, None] * 2 + positive) * bins + (code >> shift))
  return total, grouped


# --------------------------------------------------------------- from counts: [..., 2, bins] each
def average_precision(counts) -> np.ndarray:
  """AP = sum_k (R_k - R_{k-1}) P_k over distinct scores in decreasing order, ties grouped.

  Args:
    counts: [..., 2, bins], normal and lesion pixels by increasing score.

  Returns:
    float64 [...]; NaN without positives.
  """
  negative, positive = _descending(counts)
  hits, calls = np.cumsum(positive, -1), np.cumsum(positive + negative, -1)
  with np.errstate(invalid="ignore", divide="ignore"):
    precision = np.where(calls > 0, hits / calls, 0.0)
    return (positive * precision).sum(-1) / positive.sum(-1)


def auroc(counts) -> np.ndarray:
  """Area under the ROC curve: P(lesion > normal) + P(tie)/2; NaN without either class."""
  negative, positive = _descending(counts)
  above = np.cumsum(positive, -1)
  with np.errstate(invalid="ignore", divide="ignore"):
    return (negative * (above - positive / 2)).sum(-1) / (positive.sum(-1) * negative.sum(-1))


def dice_curve(counts) -> np.ndarray:
  """Dice 2|A&B|/(|A|+|B|) of "score > bin k", for every bin k: float64 [..., bins]."""
  counts = np.asarray(counts, np.float64)
  positive, total = counts[..., 1, :], counts.sum(-2)
  hits = positive.sum(-1, keepdims=True) - np.cumsum(positive, -1)
  calls = total.sum(-1, keepdims=True) - np.cumsum(total, -1)
  with np.errstate(invalid="ignore", divide="ignore"):
    return 2 * hits / (calls + positive.sum(-1, keepdims=True))


def dice_at(counts, thresholds) -> np.ndarray:
  """Dice of float16(score) > float16(threshold); counts over all CODES."""
  return dice_curve(counts)[..., code_of(thresholds)]


def best_dice(counts, thresholds=None) -> tuple[float, float]:
  """Highest Dice and the smallest threshold that attains it; (NaN, NaN) without positives.

  Args:
    counts: [2, CODES].
    thresholds: which to try; None = k/1000, k = 0..999, as the reference. "all" = every float16.
  """
  if isinstance(thresholds, str) and thresholds == "all":
    thresholds = value_of(np.arange(CODES - 1))
  elif thresholds is None:
    thresholds = np.arange(1000) / 1000
  if not np.asarray(counts)[1].sum():
    return np.nan, np.nan
  curve = dice_at(counts, thresholds)
  best = int(np.nanargmax(curve))
  return float(curve[best]), float(thresholds[best])


def quantile(counts, q: float) -> float:
  """Smallest float16 value with at least a share q of the counted scores at or below it."""
  total = np.asarray(counts, np.int64).sum(0)
  if not total.sum():
    return np.nan
  return float(value_of(np.searchsorted(np.cumsum(total), q * total.sum())))


def _descending(counts):
  counts = np.asarray(counts, np.float64)[..., ::-1]
  return counts[..., 0, :], counts[..., 1, :]


# ------------------------------------------------------------------------- exact, by sorting
def sorted_counts(scores, positive, weights=None) -> np.ndarray:
  """Exact counts of distinct float scores, [2, distinct] by increasing score: any sign, any scale.

  Args:
    scores: [n]. positive: [n] bool. weights: [n] or None (1 each).

  Raises:
    UserError: a score is NaN.
  """
  scores, positive = np.ravel(scores), np.ravel(positive).astype(bool)
  if np.isnan(scores).any():
    raise UserError(f"{int(np.isnan(scores).sum())} scores are NaN: the model or its input is "
                     "broken")
  weights = np.ones(scores.size) if weights is None else np.ravel(weights)
  _, place = np.unique(scores, return_inverse=True)
  bins = int(place.max(initial=-1)) + 1
  count = lambda which: np.bincount(place[which], weights[which], bins)
  return np.stack([count(~positive), count(positive)])
