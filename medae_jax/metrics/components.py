"""Connected components of a detection: small ones are taken away."""

from __future__ import annotations

import numpy as np
import scipy.ndimage


def remove_small_components(volume: np.ndarray, max_voxels: int = 20) -> np.ndarray:
  """Deletes 26-connected components whose *filled* volume is at most max_voxels.

  The rule of the DAE's public code (Kascenas 2022; max_voxels = 20 there).

  Filled = voxels plus cavities that a 26-connected background cannot leave; cavities count
  towards the size and are not filled in the result.

  Args:
    volume: bool [Z,H,W] of one scan.
    max_voxels: the largest volume that is deleted; 0 deletes nothing.
  """
  kept = np.array(volume, bool)
  box = _bounding_box(kept)
  inside = kept[box]  # a view: what is deleted in it is deleted in `kept`
  if not max_voxels or not inside.size:
    return kept
  around = np.ones((3,) * kept.ndim, bool)
  labels, _ = scipy.ndimage.label(inside, around)
  found = labels[inside]  # of the voxels that are on: a few percent, as a rule
  sizes = np.bincount(found)
  doomed = sizes <= max_voxels
  if max_voxels >= 26:  # to shut in one voxel takes its 26 neighbours
    boxes = scipy.ndimage.find_objects(labels)
    for label in np.flatnonzero(doomed & (sizes >= 26)):
      filled = scipy.ndimage.binary_fill_holes(labels[boxes[label - 1]] == label, around)
      doomed[label] = filled.sum() <= max_voxels
  inside[inside] = ~doomed[found]
  return kept


def _bounding_box(volume):
  """Slices around what is on; empty ones where nothing is."""
  box = []
  for axis in range(volume.ndim):
    on = np.flatnonzero(volume.any(tuple(a for a in range(volume.ndim) if a != axis)))
    box.append(slice(on[0], on[-1] + 1) if on.size else slice(0))
  return tuple(box)
