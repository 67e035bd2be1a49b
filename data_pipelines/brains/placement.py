"""Where a scan's slices lie on the network's canvas: squeezed as published, or true to scale.

"scan": the whole slice is resized to the canvas, whatever its shape (Kascenas et al. 2022, whose
slices are all square and of one field of view). "anatomy": the middle of what is not background lies in
the middle of the canvas, and a pixel is as many mm in both directions as in every other scan: a scan
that is cropped, padded or has oblong voxels shows the network the same picture.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.ops import resize

NAMES = ("scan", "anatomy")


@dataclasses.dataclass(frozen=True)
class Placement:
  """Slices of `shape` on a canvas of `size`; both (rows, columns).

  Attributes:
    source: for each axis, where in the slice (in its pixels) the canvas' pixels lie; None = "scan".
  """

  shape: tuple[int, int]
  size: tuple[int, int]
  source: tuple[np.ndarray, np.ndarray] | None = None

  def pixel_mm(self, spacing) -> tuple[float, float]:
    """mm from one row, and from one column, of the canvas to the next; spacing: the same of the slice."""
    if self.source is None:
      rows, columns = (n / m for n, m in zip(self.shape, self.size))
    else:
      rows, columns = ((at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else 1.0 for at in self.source)
    return float(spacing[0] * rows), float(spacing[1] * columns)

  def forward(self, array: np.ndarray) -> np.ndarray:
    """[H,W,...] -> [h,w,...] float64, bilinear; background (0) where the slice ends."""
    if self.source is None:
      return resize.bilinear(array, self.size)
    return resize.sample(array, self.source)

  def back(self, array: np.ndarray) -> np.ndarray:
    """[h,w,...] -> [H,W,...] float64, bilinear; 0 where the canvas ends."""
    if self.source is None:
      return resize.bilinear(array, self.shape)
    places = []
    for n, at in zip(self.shape, self.source):
      step = (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else 1.0
      places.append((np.arange(n) - at[0]) / step)
    return resize.sample(array, places)


def of_scan(shape, size) -> Placement:
  """The published form: the whole slice is the canvas."""
  return Placement(tuple(shape), tuple(size))


def of_anatomy(anatomy: np.ndarray, spacing, size, field_mm: float) -> Placement:
  """The middle of the anatomy in the middle of the canvas.

  Args:
    anatomy: bool [H,W], where any slice has anatomy.
    spacing: mm between rows and between columns.
    size: (rows, columns) of the canvas, whose longer side is `field_mm` mm.

  Raises:
    UserError: the anatomy is larger than the canvas, or there is none.
  """
  mm = field_mm / max(size)
  source = []
  for axis, (n, step) in enumerate(zip(size, spacing)):
    there = np.flatnonzero(anatomy.any(1 - axis))
    if not there.size:
      raise UserError("there is no anatomy (all zero)")
    extent = (there[-1] - there[0] + 1) * step
    if extent > n * mm * (1 + 1e-6):
      raise UserError(f"its anatomy is {extent:.0f} mm {('high', 'wide')[axis]}, the field {n * mm:.0f} mm: "
                      "set config.data.field_mm to more than the largest scan")
    middle = (there[0] + there[-1]) / 2
    source.append(middle + (np.arange(n) - (n - 1) / 2) * mm / step)
  return Placement(anatomy.shape, tuple(size), tuple(source))
