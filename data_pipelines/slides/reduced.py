"""Patches at half and a quarter of their size: antialiased as scikit-image's rescale is."""

from __future__ import annotations

import numpy as np
import scipy.ndimage

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
  values = image.astype(np.float64) / 255
  for axis in (0, 1):
    values = scipy.ndimage.gaussian_filter1d(values, (factor - 1) / 2, axis, mode="mirror", truncate=4)
    middle = [slice(None)] * 3
    middle[axis] = slice(factor // 2 - 1, None, factor)
    other = list(middle)
    other[axis] = slice(factor // 2, None, factor)
    values = (values[tuple(middle)] + values[tuple(other)]) / 2
  return np.rint(values * 255).astype(np.uint8)
