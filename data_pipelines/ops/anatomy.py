"""What the voxels of a volume say themselves: against its header, its label and the volumes beside it.

Limits come from 75 scans of gliomas and of multiple sclerosis: their labels mark 27 % of the anatomy at most
and lie beyond it by 4 % at most, their modalities have one outline. Where the background is not 0 (noise in
the air) there is no outline, and only the background and the slab are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import itertools
import logging

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.ops import overlap

_SHARE, _BRIGHT = 0.05, 0.05  # of the voxels, of the 99th percentile: a background that is more is no noise
MOST, _OUTSIDE = 0.5, 0.3  # of the anatomy that a lesion marks; of a label that lies beyond it
_EMPTY = 0.1  # share of zeros from which they are a background
_SAME, _BETTER, _APART = 0.95, 3, 0.6  # Dice of a mirror image, by how much its rest is less; of two heads
_FAR = 0.1  # of the voxels of an axis: no head moves so far between two sequences
_THIN, _LEAST, _NEAR = 4, 64, 1.5  # times fewer voxels; voxels of the others; ratio of their distances
_INSIDE, _LESION = 0.7, 1.1  # of a label that is turned round and stays in the brain; of the brain's median


def corners(volume: np.ndarray) -> np.ndarray:
  """The voxels of [H,W,Z] at its eight corners, [2,2,2]."""
  return volume[np.ix_(*[(0, -1)] * 3)]


def bright_background(volume: np.ndarray) -> str:
  """Why the background of [H,W,Z] is none, reads on after its name; "" of others.

  Padding such as 4095, black and white turned round, an offset that something lies below.
  """
  low, high, value = volume.min(), volume.max(), volume[0, 0, 0]
  if low < value and (corners(volume) == value).all() and (
      (volume == value).mean() > _SHARE and value > _BRIGHT * np.quantile(volume, 0.99)):
    return (f"has {value:g} at all corners, as a background, and values down to {low:g}: is it padding, or "
            "are black and white turned round? Write 0 where nothing was measured")
  for axis, end in itertools.product(range(3), (0, -1)):
    if low < high > 0 and volume.shape[axis] > 1 and (volume.take(end, axis) == high).all():
      return (f"has its largest value, {high:g}, in all of its {('first', 'last')[end]} plane across axis "
              f"{axis + 1}, as padding has: write 0 where nothing was measured")
  return ""


def check_label(lesion: np.ndarray, volumes: Sequence[np.ndarray], most: float = MOST) -> None:
  """Refuses a label that lies beyond the anatomy, or marks nearly all of it.

  Args:
    lesion: [H,W,Z], above 0 = lesion. volumes: the modalities, [H,W,Z] each.
    most: share of the anatomy that it may mark.

  Raises:
    UserError: it is of another scan, mirrored or shifted; it is of tissues or of the brain.
  """
  anatomy, lesion = np.logical_or.reduce([v > v.min() for v in volumes]), lesion > 0
  marked, there = np.count_nonzero(lesion), np.count_nonzero(anatomy)
  if not marked or there > (1 - _EMPTY) * anatomy.size:
    return
  inside = np.count_nonzero(lesion & anatomy)
  if marked - inside > _OUTSIDE * marked:
    raise UserError(f"seg lies by {1 - inside / marked:.0%} outside the anatomy, where all modalities are 0: "
                    "is it of another scan, mirrored or shifted?")
  if inside > most * there:
    raise UserError(f"seg marks {inside / there:.0%} of the anatomy: is it a mask of the brain or of tissues "
                    "(FAST calls them _seg)? Say which values are lesion by --config.data.lesion_values")


def mirrored(lesion: np.ndarray, flair: np.ndarray) -> str:
  """Why a label looks turned round within the brain, reads on after the scan's name; "" of others.

  In FLAIR lesions are brighter than what lies at their mirror image: of 73 labels of gliomas and of multiple
  sclerosis none is called so, and turned round along one of three axes 190 of 202 that stay in the brain.

  Args:
    lesion: [H,W,Z], above 0 = lesion. flair: [H,W,Z].
  """
  brain, lesion = flair > flair.min(), lesion > 0
  if not (lesion & brain).any():
    return ""
  median = np.median(flair[brain])
  own = flair[lesion & brain].mean() / median if median > 0 else np.inf
  for axis in range(3):
    other = np.flip(lesion, axis) & ~lesion
    inside = other & brain
    if np.count_nonzero(inside) > _INSIDE * max(1, int(np.count_nonzero(other))):
      there = flair[inside].mean() / median
      if there > _LESION and there > own + _LESION - 1:
        return (f"seg marks what is {own:.2f} times as bright in FLAIR as the brain's median, and turned "
                f"round along axis {axis + 1} {there:.2f} times: is it mirrored?")
  return ""


def check_outlines(volumes: Mapping[str, np.ndarray]) -> None:
  """Refuses modalities of one scan whose outlines are mirror images, or far from one another; says where they
  show two places.

  Args:
    volumes: {name: [H,W,Z]}, on one grid by their headers.

  Raises:
    UserError: which two, and along which axis.
  """
  outlines = {name: v > 0 for name, v in volumes.items()
              if v.min() == 0 and _EMPTY < np.count_nonzero(v) / v.size < 1 - _EMPTY}
  for (first, a), (second, b) in itertools.combinations(outlines.items(), 2):
    found = overlap.dice(a, b)
    if found == 1:
      continue
    mirrored, axis = max((overlap.dice(a, np.flip(b, axis)), axis) for axis in range(3))
    if mirrored > _SAME and 1 - mirrored < (1 - found) / _BETTER:
      raise UserError(f"{second} is {first} turned round along axis {axis + 1} by their outlines (Dice "
                      f"{found:.3f}, mirrored {mirrored:.3f}), and their headers say one grid: one is wrong")
    by, axis, moved = _moved(a, b)
    if moved > _SAME and 1 - moved < (1 - found) / _BETTER:
      raise UserError(f"{second} is {first} moved by {abs(by)} voxels along axis {axis + 1} by their "
                      f"outlines (Dice {found:.3f}, moved back {moved:.3f}), and their headers say one grid: "
                      "one is wrong")
    if found < _APART:
      logging.warning("%s and %s share little of their outlines (Dice %.2f), and their headers say one grid: "
                      "are they of one scan, and registered?", first, second, found)


def _moved(a: np.ndarray, b: np.ndarray) -> tuple[int, int, float]:
  """(voxels, axis, Dice) of the move of `b` that makes it most like `a`; Dice 0 where that is not far."""
  far = lambda by, axis: abs(by) > _FAR * a.shape[axis]
  shifts = [(_shift(a, b, axis), axis) for axis in range(3)]
  if not any(far(*shift) for shift in shifts):  # to roll takes longer than to look
    return 0, 0, 0.0
  moved, by, axis = max((overlap.dice(a, np.roll(b, *shift)), *shift) for shift in shifts)
  return by, axis, moved if far(by, axis) else 0.0


def _shift(a: np.ndarray, b: np.ndarray, axis: int) -> int:
  """By how many voxels `b` [H,W,Z] has to be rolled along an axis for its profile to be most like `a`'s."""
  others = tuple(i for i in range(3) if i != axis)
  spectra = [np.fft.rfft(outline.sum(others)) for outline in (a, b)]
  n = a.shape[axis]
  best = int(np.argmax(np.fft.irfft(spectra[0] * np.conj(spectra[1]), n)))
  return best - n if best > n // 2 else best


def check_slab(name: str, shape: Sequence[int], spacing: Sequence[float]) -> None:
  """Refuses a volume whose slices, along its third axis, are thin strips of a slab: of exchanged axes.

  Stacks of a few thick slices lie far apart; an array in the order z, y, x under an affine of x, y, z has its
  slices as near as pixels.

  Args:
    shape, spacing: voxels and mm along the axes in which the network sees it.

  Raises:
    UserError: with the file.
  """
  for axis in (0, 1):
    others = [n for i, n in enumerate(shape) if i != axis]
    near = spacing[axis] <= _NEAR * min(s for i, s in enumerate(spacing) if i != axis)
    if near and min(others) >= max(_LEAST, _THIN * shape[axis]):
      raise UserError(f"{name} has {' x '.join(map(str, shape))} voxels of "
                      f"{' x '.join(f'{s:.4g}' for s in spacing)} mm in config.data.orientation: slices are "
                      f"strips of {shape[axis]} voxels. Are its axes exchanged (z, y, x, as SimpleITK gives "
                      "arrays)? Write it again, or set config.data.orientation='' to take them as stored")
