"""Does a map point at a finding: pointing game, and boxes of the map against boxes of the finding.

Pointing game (Zhang et al., ECCV 2016): the highest pixel of the map lies in the finding. Box IoU (as for the
boxes of Wang et al., ChestX-ray8, CVPR 2017): bounding boxes of the components of the thresholded map; each
box of the finding takes the best of them.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage


def hits(scores: np.ndarray, mask: np.ndarray) -> bool | None:
  """Whether the highest pixel of `scores` [H,W] lies in `mask` [H,W]; None without a finding.

  Of several equal highest pixels the share in the mask must be more than half.
  """
  if not mask.any():
    return None
  return bool(mask[scores == scores.max()].mean() > 0.5)


def boxes(mask: np.ndarray) -> np.ndarray:
  """int [k,4]: rows and columns [top, left, bottom, right) of the components of [H,W], corners touching."""
  labels, _ = scipy.ndimage.label(mask, np.ones((3, 3)))
  found = scipy.ndimage.find_objects(labels)
  return np.array([[r.start, c.start, r.stop, c.stop] for r, c in found], np.int64).reshape(-1, 4)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes [k,4] and [l,4]: float64 [k,l]."""
  low = np.maximum(first[:, None, :2], second[None, :, :2])
  high = np.minimum(first[:, None, 2:], second[None, :, 2:])
  both = np.clip(high - low, 0, None).prod(-1)
  area = lambda b: (b[:, 2:] - b[:, :2]).prod(-1)
  return both / (area(first)[:, None] + area(second)[None, :] - both)


def best_ious(predicted: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """For each box of the finding the best IoU with a box of the prediction, 0 where there is none: [k]."""
  truth, found = boxes(mask), boxes(predicted)
  return iou(truth, found).max(1) if len(found) else np.zeros(len(truth))
