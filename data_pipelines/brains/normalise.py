"""Numeric part of the preparation of brain volumes: intensities, slice range, size, labels.

Kascenas et al., MIDL 2022, as their published code runs it. float64 until the very end. Pure numpy,
so that worker processes never load TensorFlow.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.ops import resize

PERCENTILE = 0.99  # of the positive voxels of a modality: the unit of intensity
SLICE_SUM = 0.5  # a slice is "on" above this sum of the mean of the normalised modalities
LABEL = 0.5  # a voxel is lesion above it: in the stored labels, and again after the resize


class BadScan(UserError):
  """A scan that cannot be prepared; the message is the reason in the preparation report."""


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A prepared scan: n kept slices of one size.

  Attributes:
    image: [n,h,w,C] float64, unit = 99th percentile of the modality; background 0; not clipped.
    soft: [n,h,w,1] float64 in [0,1], the label resized with the same bilinear rule.
    slices: int64 [n], slice numbers in the volume, consecutive.
    scale: float64 [C], the 99th percentiles.
    slice_sum: float64 [Z], sums that decided the range.
  """

  image: np.ndarray
  soft: np.ndarray
  slices: np.ndarray
  scale: np.ndarray
  slice_sum: np.ndarray

  @property
  def mask(self) -> np.ndarray:
    """uint8 [n,h,w,1]: lesion after the resize. Lesions below about a pixel disappear here."""
    return (self.soft > LABEL).astype(np.uint8)

  @property
  def healthy(self) -> np.ndarray:
    """bool [n]: slices whose resized label is empty: what the method trains on."""
    return np.logical_not(self.mask.any(axis=(1, 2, 3)))


def prepare(volumes, seg, size) -> Prepared:
  """Normalises, cuts and resizes one scan.

  Args:
    volumes: sequence of C arrays [H,W,Z], one a modality, any dtype; 0 outside the brain.
    seg: [H,W,Z], lesion where > 0.5; None = nothing marked.
    size: (h, w) of the result.

  Raises:
    BadScan: mis-shaped, non-finite, all-zero.
  """
  check_shapes(volumes, seg)
  stack, scale = [], []
  for i, volume in enumerate(volumes):
    volume = np.asarray(volume, np.float64)
    if not np.isfinite(volume).all():
      raise BadScan(f"modality {i} holds NaN or infinite voxels")
    flat = volume.ravel(order="K")  # as it lies in memory; the quantile does not mind the order
    positive = flat[flat > 0]
    if not positive.size:
      raise BadScan(f"modality {i} has no positive voxel (all zero)")
    scale.append(np.quantile(positive, PERCENTILE))
    stack.append(volume / scale[-1])
  mean = stack[0].copy(order="K")
  for volume in stack[1:]:
    mean += volume
  mean /= len(stack)
  slice_sum = mean.sum(axis=(0, 1))
  first, last = slice_range(slice_sum)
  kept = slice(first, last + 1)
  slices = lambda v: np.moveaxis(resize.bilinear(v, size), 2, 0)
  image = np.stack([slices(v[:, :, kept]) for v in stack], axis=-1)  # [n,h,w,C]
  lesion = np.zeros_like(stack[0][:, :, kept])
  if seg is not None:
    if not np.isfinite(np.asarray(seg, np.float64)).all():
      raise BadScan("seg holds NaN or infinite voxels")
    lesion = (np.asarray(seg)[:, :, kept] > LABEL).astype(np.float64)
  return Prepared(image, slices(lesion)[..., None],
                  np.arange(first, last + 1, dtype=np.int64), np.array(scale), slice_sum)


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
