"""Overlap of a map with each lesion on its own: AUPRO, exact over every float16 threshold.

Bergmann, Fauser, Sattlegger, Steger, CVPR 2020 (Uninformed Students), IJCV 129 (2021): the per-region overlap
PRO(t) is the mean over lesions of the share of the lesion above t; AUPRO its area over false-positive rates
of the other pixels up to a limit, divided by it. As a sum over pixels, a pixel of lesion k weighs 1 over
its size: two histograms hold all there is to know, so that maps are counted scan by scan in constant memory.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from medae_jax.metrics import detection

LIMIT = 0.3  # of the false-positive rate, as published


def counts(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """float64 [2, CODES] of one scan: other pixels by float16 code, and weights of lesion pixels.

  The second row sums to the number of lesions: components that touch, corners included.

  Args:
    scores: [...] >= 0. mask: bool, the same shape: an image [H,W] or a volume [Z,H,W].
  """
  mask = np.asarray(mask, bool)
  code = detection.code_of(scores)
  found = np.zeros((2, detection.CODES))
  found[0] = np.bincount(code[~mask], minlength=detection.CODES)
  if mask.any():
    labels, _ = scipy.ndimage.label(mask, np.ones((3,) * mask.ndim))
    inside = labels[mask]
    found[1] = np.bincount(code[mask], 1 / np.bincount(inside)[inside], detection.CODES)
  return found


def aupro(counted: np.ndarray, limit: float = LIMIT) -> np.ndarray:
  """Area under PRO against the false-positive rate from 0 to `limit`, over `limit`; linear in between.

  Args:
    counted: [..., 2, bins] by increasing score, sums of `counts`.

  Returns:
    float64 [...]; NaN without lesions or without other pixels.
  """
  counted = np.asarray(counted, np.float64)
  flat = counted.reshape(-1, *counted.shape[-2:])
  return np.array([_one(c, limit) for c in flat]).reshape(counted.shape[:-2])


def _one(counted, limit):
  false, overlap = (np.r_[0, np.cumsum(row[::-1])] for row in counted)
  if not false[-1] or not overlap[-1]:
    return np.nan
  false, overlap = false / false[-1], overlap / overlap[-1]
  # What rises at one false-positive rate is a step: the trapezoids have width 0 there.
  inside = false <= limit
  x, y = false[inside], overlap[inside]
  if x[-1] < limit:
    after = len(x)
    share = (limit - x[-1]) / (false[after] - x[-1])
    x, y = np.r_[x, limit], np.r_[y, y[-1] + share * (overlap[after] - y[-1])]
  return float(np.trapezoid(y, x) / limit)
