"""The marks that the original generator draws (dtronmans/denoising-autoencoder), for `style=reference`.

Two caliper pairs with dotted lines on every frame and, with probability 0.6, a side label. Caliper
pixels equal OpenCV 4's; the label is set in this project's stroke font at the same size.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from data_pipelines.errors import UserError
from data_pipelines.marks.font import text_polylines
from data_pipelines.marks.layers import Layer, Mark, Stroke, paint

_COLOURS = {"cyan": (0, 1, 1), "yellow": (1, 1, 0), "white": (1, 1, 1)}
_TEXTS = ("Rt. Ovary", "LL Ovary", "Li Ov", "Lt. Ovary")
_CROSS = np.add.outer(np.abs(np.arange(-7, 8)), np.abs(np.arange(-7, 8))) <= 7
# the sign is two 3 px thick segments with round ends: rows 0, 1, 2 off the axis reach 7, 6, 5 px
_CROSS &= np.minimum.outer(np.abs(np.arange(-7, 8)), np.abs(np.arange(-7, 8))) <= 2
_DOT = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)


def region(frame: np.ndarray) -> np.ndarray:
  """Pixels where points may lie: the largest outline of everything not black, filled.

  Args:
    frame: [H,W,C]; integer or float.

  Returns:
    bool [H,W].

  Raises:
    UserError: the frame is black.
  """
  labels, count = ndimage.label(np.any(frame > 0, -1), np.ones((3, 3)))
  if not count:
    raise UserError("the frame is black: there is no region to draw on")
  filled = [ndimage.binary_fill_holes(labels == i) for i in range(1, count + 1)]
  return max(filled, key=np.count_nonzero)


def caliper_mask(points, dots: int, size: tuple[int, int]) -> np.ndarray:
  """Pixels of two cross-hairs and the dotted line between them: bool [H,W].

  Args:
    points: two (row, col). dots: N; N + 1 dots divide the line, whatever its length.
  """
  mask = np.zeros(size, bool)
  p, q = np.asarray(points, np.int64)
  for i in range(dots + 1):
    t = i / dots
    _stamp(mask, _DOT, np.trunc((1 - t) * p + t * q).astype(int))
  for point in (p, q):
    _stamp(mask, _CROSS, point)
  return mask


def draw(rng: np.random.Generator, frame: np.ndarray) -> list[Mark]:
  """The marks of one frame, as the original's loop draws them; frame float32 [H,W,C]."""
  size = frame.shape[:2]
  candidates = np.argwhere(region(frame))
  if len(candidates) < 2:
    raise UserError("the frame has fewer than two pixels that are not black")
  pairs = [candidates[rng.integers(len(candidates), size=2)] for _ in range(3)]
  first, second = (_COLOURS[_colour(rng.random())] for _ in range(2))
  marks = []
  if rng.random() <= 0.6:
    row, col = pairs[0][0]
    lines, _ = text_polylines(_TEXTS[rng.integers(len(_TEXTS))], 11.0)
    layer = paint([Stroke(p + (col, row - 10), 2.0) for p in lines], size, first, antialias=False)
    marks += [Mark("label", [layer])] if layer is not None else []
  for pair in pairs[1:]:
    alpha = caliper_mask(pair, 15, size).astype(np.float32)
    marks.append(Mark("calipers", [Layer(0, 0, alpha, np.asarray(second, np.float32))]))
  return marks


def _colour(u: float) -> str:
  return "cyan" if u < 0.3 else "yellow" if 0.3 < u < 0.66 else "white"


def _stamp(mask, shape, centre):
  """Ors a small square pattern into the mask, cut at the border."""
  r = len(shape) // 2
  rows, cols = (np.arange(c - r, c + r + 1) for c in centre)
  keep_r = (rows >= 0) & (rows < mask.shape[0])
  keep_c = (cols >= 0) & (cols < mask.shape[1])
  mask[np.ix_(rows[keep_r], cols[keep_c])] |= shape[np.ix_(keep_r, keep_c)]
