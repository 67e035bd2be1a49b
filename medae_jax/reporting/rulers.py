"""How large and which way round: a bar of so many cm or mm, and the letters of the patient's sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medae_jax.reporting import panels

_LENGTHS = (100, 50, 20, 10, 5, 2, 1)  # mm
_SHARE, _LEAST = 0.4, 60  # a bar is at most so much of the width; narrower pictures have no room for letters
_MOST = 4096
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def square(shape: Sequence[int], mm: Sequence[float], least: int) -> tuple[tuple[int, int], float]:
  """((rows, columns) of a picture whose pixels are square, mm from one column of it to the next).

  Not square is one that would have more than _MOST pixels along a side: some header is wrong then.

  Args:
    shape: rows and columns of the array. mm: from one row, and from one column, to the next.
    least: pixels of the longer side, at least; it is enlarged by a whole number.
  """
  size = [max(1, round(n * m / min(mm))) for n, m in zip(shape, mm)]
  size = list(shape) if max(size) > max(_MOST, *shape) else size
  factor = max(1, -(-least // max(size)))
  return (size[0] * factor, size[1] * factor), mm[1] * shape[1] / (size[1] * factor)


def length_for(width: int, mm: float) -> int:
  """mm of the bar for a picture of `width` pixels of `mm` each; 0 where none of the lengths fits."""
  return next((n for n in _LENGTHS if 12 <= n / mm <= _SHARE * width), 0)


def ruler(picture: np.ndarray, mm: float) -> np.ndarray:
  """A bar with its length at the lower left of uint8 [H,W,3], whose pixels are `mm` wide."""
  height, width = picture.shape[:2]
  length = length_for(width, mm)
  if not length or min(height, width) < _LEAST:
    return picture
  end = 6 + round(length / mm)
  picture = picture.copy()
  picture[height - 9:height - 4, 5:end + 1] = _BLACK
  picture[height - 8:height - 5, 6:end] = _WHITE
  words = f"{length // 10} cm" if length >= 10 else f"{length} mm"
  return _outlined(picture, words, (6, height - 24))


def sides(picture: np.ndarray, left: str, right: str) -> np.ndarray:
  """The letters of the sides (R, L, A, P ...) in the upper corners of uint8 [H,W,3]."""
  if min(picture.shape[:2]) < _LEAST:
    return picture
  return _outlined(_outlined(picture, left, (5, 2)), right, (picture.shape[1] - 15, 2))


def _outlined(picture, words, xy):
  return panels.text(picture, words, xy, 13, _WHITE, rim=_BLACK)
