"""The tissue of a slide: Otsu on a thumbnail at 1/256, borders off, opened, and which cells are all tissue.

The rule of the Camelyon16 preparation of ninatu/anomaly_detection. A thumbnail pixel is 256 x 256 pixels
of level 0; a cell is 3 x 3 thumbnail pixels, the field of one 768 x 768 patch. Published with it are the
bounds of the border, of which the right side of tall slides has none; `border` says another one.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage

DOWNSAMPLE = 256  # level-0 pixels along a thumbnail pixel
CELL = 3  # thumbnail pixels along a cell
_GREY = np.array([0.2125, 0.7154, 0.0721])
_TALL = 700  # rows of a thumbnail above which the border is another one
_BINS = 256


def grey(rgb: np.ndarray) -> np.ndarray:
  """float64 [H,W] in [0,1] of uint8 [H,W,3 or 4]; alpha is dropped."""
  return rgb[..., :3] @ _GREY / 255


def otsu(values: np.ndarray) -> float:
  """Otsu's threshold (1979): the centre of one of 256 bins between the least and the largest value.

  Raises:
    ValueError: all values are equal.
  """
  low, high = float(values.min()), float(values.max())
  if low == high:
    raise ValueError("all values are equal: there is no threshold")
  counts, edges = np.histogram(values, _BINS, (low, high))
  centres = (edges[:-1] + edges[1:]) / 2
  below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
  mean_below = np.cumsum(counts * centres) / below
  mean_above = (np.cumsum((counts * centres)[::-1]) / above[::-1])[::-1]
  between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2.0
  return float(centres[np.argmax(between)])


def dark(rgb: np.ndarray) -> np.ndarray:
  """bool [H,W]: grey value at most Otsu's threshold; all False where the thumbnail has one value only."""
  values = grey(rgb)
  if not values.size or values.min() == values.max():
    return np.zeros(values.shape, bool)
  return values <= otsu(values)


def tissue_mask(rgb: np.ndarray, border: int | None = None) -> np.ndarray:
  """Tissue of a thumbnail.

  Args:
    rgb: uint8 [H,W,3 or 4] at 1/256.
    border: pixels cleared on all four sides; None = as published: 30, and of thumbnails of more than 700
      rows 100 at the top and at the bottom and 50 on the left.

  Returns:
    bool [H,W].
  """
  return opened(without_border(dark(rgb), border))


def without_border(mask: np.ndarray, border: int | None = None) -> np.ndarray:
  """A copy with the borders of `tissue_mask` cleared."""
  height, width = mask.shape
  tall = border is None and height > _TALL
  side = 30 if border is None else border
  rows, left, right = (100, 50, 0) if tall else (side, side, side)
  kept = np.zeros_like(mask)
  kept[rows:max(rows, height - rows), left:max(left, width - right)] = 1
  return mask * kept


def opened(mask: np.ndarray) -> np.ndarray:
  """Morphological opening with a 3 x 3 square; what lies outside of the image counts as neither."""
  square = np.ones((3, 3), bool)
  return scipy.ndimage.binary_dilation(scipy.ndimage.binary_erosion(mask, square, border_value=1), square)


def cell_means(values: np.ndarray) -> np.ndarray:
  """float64: means over cells of 3 x 3; a last partial cell is filled with zeros."""
  height, width = (-(-n // CELL) for n in values.shape)
  padded = np.zeros((height * CELL, width * CELL))
  padded[:values.shape[0], :values.shape[1]] = values
  return padded.reshape(height, CELL, width, CELL).mean((1, 3))


def whole_cells(mask: np.ndarray) -> np.ndarray:
  """bool [ceil(H/3), ceil(W/3)]: cells that are tissue in all nine pixels."""
  return cell_means(mask) == 1


def cells(rgb: np.ndarray, border: int | None = None) -> np.ndarray:
  """bool [ceil(H/3), ceil(W/3)]: cells of 768 x 768 level-0 pixels that are all tissue."""
  return whole_cells(tissue_mask(rgb, border))
