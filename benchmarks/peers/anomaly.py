"""Evaluation of the published DAE as its public scripts do it (Kascenas 2022), in NumPy and SciPy.

A sort of all pixels for AP, one pass over all pixels for each of 1000 thresholds, the median filter
on the host, every component filled on its own.
"""

import numpy as np
from scipy import ndimage
import sklearn.metrics


def score_map(image, recon):
  """Score of one slice, float32 [H,W]; image and recon [H,W,C]."""
  inside = (image.sum(-1) > 0.01).astype(np.float32)
  inside = ndimage.uniform_filter(inside, 5, mode="constant") > 0.95
  error = np.abs((image - recon) * inside[..., None]).mean(-1)
  return ndimage.median_filter(error, 5, mode="mirror")


def dice(above, labels):
  """2 |A & B| / (|A| + |B|) of boolean arrays."""
  return 2 * (above & labels).sum() / (above.sum() + labels.sum())


def average_precision(scores, labels):
  """Over all pixels; scores float16 [n], labels bool [n]."""
  return float(sklearn.metrics.average_precision_score(labels, scores))


def best_dice(scores, labels):
  """(Dice, threshold) of the best of k/1000, one pass a threshold; float16 scores [n]."""
  thresholds = np.arange(1000) / 1000
  found = [dice(scores > np.float16(t), labels) for t in thresholds]
  best = int(np.argmax(found))
  return float(found[best]), float(thresholds[best])


def component_dice(scans, threshold, max_voxels=20):
  """Dice over all pixels of scans [(float32 maps [n,H,W], bool masks)], small components deleted."""
  around, kept, labels = np.ones((3, 3, 3), bool), [], []
  for maps, mask in scans:
    above = maps > np.float32(threshold)
    numbers, _ = ndimage.label(above, around)
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
      part = numbers[box] == number
      if ndimage.binary_fill_holes(part, around).sum() <= max_voxels:
        above[box] &= ~part
    kept.append(above.ravel())
    labels.append(mask.ravel())
  return float(dice(np.concatenate(kept), np.concatenate(labels)))
