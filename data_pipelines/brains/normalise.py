"""Numeric part of the preparation of brain volumes: intensities, slice range, size, labels.

Kascenas et al., MIDL 2022, as their published code runs it. float64 until the very end. Pure numpy,
so that worker processes never load TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from data_pipelines.brains import placement
from data_pipelines.errors import UserError
from data_pipelines.ops import anatomy as outlines

PERCENTILE = 0.99  # of the positive voxels of a modality: the published unit of intensity
# "median": twice the median of the positive voxels, near the percentile of a healthy scan, and hardly moved
# by a lesion. "balanced": the geometric mean of both.
UNITS = ("percentile", "median", "balanced")
SLICE_SUM = 0.5  # a slice is "on" above this sum of the mean of the normalised modalities
NEGATIVE = 0.05  # share of the voxels that are not 0: more is no ringing
LABEL = 0.5  # a voxel is lesion above it: in the stored labels, and again after the resize


class BadScan(UserError):
  """A scan that cannot be prepared; the message is the reason in the preparation report."""


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A prepared scan: n kept slices of one size.

  Attributes:
    image: [n,h,w,C] float64, in `scale`; background 0; not clipped.
    soft: [n,h,w,1] float64 in [0,1], the label resized with the same bilinear rule.
    slices: int64 [n], slice numbers in the volume, consecutive.
    scale: float64 [C], the unit of each modality.
    slice_sum: float64 [Z], sums that decided the range ("scan").
    place: how slices were brought to their size, and maps come back.
    left_out: "" or a line for users: slices with anatomy beyond the published range ("scan").
  """

  image: np.ndarray
  soft: np.ndarray
  slices: np.ndarray
  scale: np.ndarray
  slice_sum: np.ndarray
  place: placement.Placement
  left_out: str = ""

  @property
  def mask(self) -> np.ndarray:
    """uint8 [n,h,w,1]: lesion after the resize. Lesions below about a pixel disappear here."""
    return (self.soft > LABEL).astype(np.uint8)

  @property
  def healthy(self) -> np.ndarray:
    """bool [n]: slices whose resized label is empty: what the method trains on."""
    return np.logical_not(self.mask.any(axis=(1, 2, 3)))


def prepare(volumes, seg, size, spacing=(1.0, 1.0, 1.0), place: str = "scan",
            field_mm: float = 0.0, unit: str = "percentile", names: Sequence[str] = ()) -> Prepared:
  """Normalises, cuts and resizes one scan.

  Args:
    volumes: sequence of C arrays [H,W,Z], one a modality, any dtype; 0 outside the brain.
    seg: [H,W,Z], lesion where > 0.5; None = nothing marked.
    size: (h, w) of the result.
    spacing: mm between neighbours along the three axes.
    place: of placement.NAMES; field_mm: mm of the longer side of the result for "anatomy".
    names: of the volumes, in messages.
    unit: of UNITS. Which slices are kept is decided in units of the percentile.

  Raises:
    BadScan: mis-shaped, non-finite, all-zero, negative where it should not be, too large.
  """
  check_shapes(volumes, seg)
  stack, scale, change = [], [], []
  for i, volume in enumerate(volumes):
    volume, name = np.asarray(volume, np.float64), names[i] if i < len(names) else f"modality {i}"
    if not np.isfinite(volume).all():
      raise BadScan(f"{name} holds NaN or infinite voxels")
    volume = _on_zero(volume, name)
    flat = volume.ravel(order="K")  # as it lies in memory; the quantile does not mind the order
    positive = flat[flat > 0]
    if not positive.size:
      raise BadScan(f"{name} has no positive voxel (all zero)")
    published = np.quantile(positive, PERCENTILE)
    scale.append(_unit(positive, published, unit))
    change.append(published / scale[-1])
    stack.append(volume / published)
  mean = stack[0].copy(order="K")
  for volume in stack[1:]:
    mean += volume
  mean /= len(stack)
  slice_sum = mean.sum(axis=(0, 1))
  if place == "anatomy":
    anatomy = np.logical_or.reduce([v > 0 for v in stack])
    on = np.flatnonzero(anatomy.any((0, 1)))
    first, last = int(on[0]), int(on[-1])
    try:
      where = placement.of_anatomy(anatomy.any(2), spacing[:2], size, field_mm)
    except UserError as e:
      raise BadScan(str(e)) from None
  else:
    first, last = slice_range(slice_sum)
    where = placement.of_scan(mean.shape[:2], size)
  kept = slice(first, last + 1)
  slices = lambda v: np.moveaxis(where.forward(v), 2, 0)
  image = np.stack([slices(v[:, :, kept]) for v in stack], axis=-1)  # [n,h,w,C]
  if unit != "percentile":
    image *= change
  lesion = np.zeros_like(stack[0][:, :, kept])
  if seg is not None:
    if not np.isfinite(np.asarray(seg, np.float64)).all():
      raise BadScan("seg holds NaN or infinite voxels")
    lesion = (np.asarray(seg)[:, :, kept] > LABEL).astype(np.float64)
  return Prepared(image, slices(lesion)[..., None],
                  np.arange(first, last + 1, dtype=np.int64), np.array(scale), slice_sum,
                  where, _left_out(stack, first, last))


def _unit(positive, published, name):
  if name == "percentile":
    return published
  median = 2 * np.median(positive)
  return median if name == "median" else np.sqrt(median * published)


def _left_out(stack, first, last):
  there = np.logical_or.reduce([(v > 0).any((0, 1)) for v in stack])
  out = [int(z) for z in np.flatnonzero(there) if not first <= z <= last]
  if not out:
    return ""
  return (f"slices {', '.join(map(str, out))} hold anatomy and are left out, their signal being weak, as "
          'published (config.data.placement="anatomy" keeps them)')


def _on_zero(volume, name):
  """The volume with its background at 0, which is what the network knows as background.

  A constant background is the value of all eight corners, where nothing lies below it (air in CT at
  -1024, stored offsets). A few negative voxels are ringing of a resampling, and stay.

  Raises:
    BadScan: negative voxels otherwise (standardised intensities): what is background is not known; a
      background that is bright.
  """
  if why := outlines.bright_background(volume):
    raise BadScan(f"{name} {why}")
  lowest = volume.min()
  if (outlines.corners(volume) == lowest).all():
    return volume - lowest if lowest else volume
  negative = (volume < 0).mean() / max((volume != 0).mean(), 1e-12)
  if negative > NEGATIVE:
    raise BadScan(f"{name} has negative values in {negative:.0%} of its anatomy (down to "
                  f"{lowest:.4g}), as standardised intensities have: give values that are 0 outside the "
                  "anatomy and positive inside")
  return volume


def check_shapes(volumes, seg):
  """Raises BadScan unless all volumes and the label are 3-D of one shape."""
  shapes = [tuple(v.shape) for v in volumes] + ([tuple(seg.shape)] if seg is not None else [])
  if any(len(s) != 3 for s in shapes):
    raise BadScan(f"volumes must have three axes, found shapes {shapes}")
  if len(set(shapes)) != 1:
    raise BadScan(f"modalities and label differ in shape: {shapes}")


def slice_range(slice_sum: np.ndarray) -> tuple[int, int]:
  """First and last slice whose sum exceeds 0.5; every slice between is kept, empty or not.

  Raises:
    BadScan: no such slice (the published code would keep all of them).
  """
  on = np.flatnonzero(slice_sum > SLICE_SUM)
  if not on.size:
    raise BadScan("no slice holds enough signal (all zero)")
  return int(on[0]), int(on[-1])
