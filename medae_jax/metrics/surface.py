"""Distances between the surfaces of two masks in mm: HD95 and surface Dice.

The surface of a mask is its pixels with a neighbour outside it (faces alone; beyond the image is outside).
HD95: the larger of both directions' 95th percentiles of the distance from one surface to the other, as MONAI
has it. Surface Dice (Nikolov et al., arXiv 1809.04430): share of both surfaces within `tolerance` of the
other; here surface pixels count alike, not by their area.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.ndimage


def distances(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]
              ) -> tuple[np.ndarray, np.ndarray] | None:
  """(from each surface pixel of `first` to the surface of `second`, the other way round), in mm.

  Args:
    first, second: bool [H,W] or [Z,H,W]. spacing: mm between neighbours along each axis.

  Returns:
    None where either is empty.
  """
  if not first.any() or not second.any():
    return None
  box = scipy.ndimage.find_objects((first | second).astype(np.int8))[0]  # the rest is far from both
  first, second = (np.pad(m[box], 1) for m in (first, second))
  a, b = (m & ~scipy.ndimage.binary_erosion(m) for m in (first, second))
  to = lambda surface: scipy.ndimage.distance_transform_edt(~surface, spacing)
  return to(b)[a], to(a)[b]


def hd95(apart: tuple[np.ndarray, np.ndarray]) -> float:
  """Larger of the two 95th percentiles of `distances`."""
  return float(max(np.percentile(apart[0], 95), np.percentile(apart[1], 95)))


def surface_dice(apart: tuple[np.ndarray, np.ndarray], tolerance: float) -> float:
  """Share of the surface pixels of both masks within `tolerance` mm of the other's surface."""
  near = sum(int((d <= tolerance).sum()) for d in apart)
  return near / sum(len(d) for d in apart)
