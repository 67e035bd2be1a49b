"""Patches at half and a quarter of their size: antialiased as scikit-image's rescale is."""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import UserError


def reduced(image: np.ndarray, factor: int) -> np.ndarray:
  """Every `factor` x `factor` pixels become one.

  Gaussian of sigma (factor - 1) / 2, mirrored at the border and cut at four sigmas, then bilinear at
  half-pixel centres: for an even factor the mean of the middle 2 x 2 pixels. The defaults of scikit-image
  0.26 (0.16, of the published patches, may differ by one grey level).

  Args:
    image: uint8 [H,W,C], sides multiples of `factor`.
    factor: 2 or 4.

  Returns:
    uint8 [H/factor,W/factor,C], rounded.

  Raises:
    UserError: other sides or another factor.
  """
  if factor not in (2, 4) or image.shape[0] % factor or image.shape[1] % factor:
    raise UserError(f"an image of {image.shape[1]} x {image.shape[0]} cannot be reduced by {factor}")
  radius = int(4 * (factor - 1) / 2 + 0.5)
  bell = np.exp(-0.5 * (np.arange(-radius, radius + 1) / ((factor - 1) / 2)) ** 2)
  bell /= bell.sum()
  weights = (np.append(bell, 0) + np.append(0, bell)) / 2  # around two neighbours, whose mean is meant
  values = image.astype(np.float64) / 255
  for axis in (0, 1):
    values = np.moveaxis(values, axis, 0)
    first = radius - (factor // 2 - 1)  # so many mirrored pixels before the first one that is weighted
    padded = np.pad(values, ((first, radius), (0, 0), (0, 0)), "reflect")
    count = len(values) // factor
    total = weights[0] * padded[:factor * count:factor]
    for k in range(1, len(weights)):
      total += weights[k] * padded[k:k + factor * (count - 1) + 1:factor]
    values = np.moveaxis(total, 0, axis)
  return np.rint(values * 255).astype(np.uint8)
