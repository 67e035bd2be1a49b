"""SYNTHETIC lesions drawn on healthy slices: what a score is fitted to where nobody has marked real ones.

A lesion is a lobed blob in the brain with a soft border. What it does to a modality is what oedema and
infiltration do: brighter on FLAIR and T2, darker on T1, either on T1 after contrast, in units of the
modality's 99th percentile, with a smooth texture on top. None of it is taken from a data set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from data_pipelines.brains import sequences
from data_pipelines.dataset import Source
from data_pipelines.errors import UserError

# Change of the signal in the middle of a lesion: drawn evenly from (low, high).
CHANGE = {"flair": (0.15, 0.6), "t2": (0.15, 0.6), "t1": (-0.3, -0.05), "t1ce": (-0.3, 0.15)}
RADIUS = (0.03, 0.13)  # of the longer side of the image
_TEXTURE = 0.25        # sd of the smooth field that the change is multiplied by, around 1


class DrawnLesions(Source):
  """Healthy slices, each with one lesion: "image" [h,w,C] float32 and "mask" [h,w,1] float32 of 0/1.

  Lesion i depends on i and `seed` alone.

  Args:
    healthy: source of "image" with background 0, unit = 99th percentile of each modality.
    modalities: names of the channels.

  Raises:
    UserError: none of the modalities has a known look of lesions.
  """

  def __init__(self, healthy: Source, modalities: Sequence[str], seed: int = 0):
    self._healthy, self._seed = healthy, seed
    self._changes = [_change(m) for m in modalities]
    if not known(modalities):
      raise UserError(f"config.eval.fit_lesions='drawn': it is known of {', '.join(CHANGE)} how lesions look "
                      f"there, and config.data.modalities are {', '.join(modalities)}; mark lesions in val, "
                      "or set config.eval.fit_residual=False")

  def __len__(self):
    return len(self._healthy)

  def meta(self, i):
    return self._healthy.meta(i)

  def read(self, indices):
    image = np.array(self._healthy.read(indices)["image"], np.float32)
    mask = np.zeros((*image.shape[:3], 1), np.float32)
    for row, i in enumerate(np.asarray(indices)):
      image[row], mask[row, ..., 0] = draw(np.random.default_rng([self._seed, int(i)]), image[row],
                                           self._changes)
    return {"image": image, "mask": mask}


def known(modalities: Sequence[str]) -> bool:
  """Whether it is known how lesions look on any of them."""
  return any(_change(m) for m in modalities)


def _change(modality):
  return CHANGE.get(sequences.described([modality], sequences.KNOWN)[0])


def draw(rng: np.random.Generator, image: np.ndarray, changes) -> tuple[np.ndarray, np.ndarray]:
  """One lesion in a slice.

  Args:
    image: [h,w,C] float32, background 0 in all channels.
    changes: a channel's (low, high), None = as it is.

  Returns:
    the changed slice, and its lesion float32 [h,w] of 0/1: where the blob is more than half; empty where
    the slice has no brain.
  """
  brain = image.max(-1) > 0
  places = np.argwhere(ndimage.binary_erosion(brain, iterations=3))
  if not len(places):
    return image, np.zeros(image.shape[:2], np.float32)
  blob = _blob(rng, brain, places[rng.integers(len(places))])
  texture = 1 + _TEXTURE * _smooth(rng, image.shape[:2], 2.0)
  changed = image.copy()
  for c, change in enumerate(changes):
    amount = rng.uniform(*change) if change else 0.0
    lesion = np.maximum(image[..., c] + amount * blob * texture, 0.01)
    changed[..., c] = np.where(brain, lesion, image[..., c])
  return changed.astype(np.float32), (blob > 0.5).astype(np.float32)


def _blob(rng, brain, centre):
  """float [h,w], 1 inside and 0 outside, about three pixels of border: an ellipse with a lobed edge."""
  side = max(brain.shape)
  a, b = side * rng.uniform(*RADIUS, 2)
  angle = rng.uniform(0, np.pi)
  y, x = np.indices(brain.shape) - np.reshape(centre, (2, 1, 1))
  u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
  distance = (1 - np.sqrt((u / a)**2 + (v / b)**2)) * min(a, b)
  distance += 0.35 * min(a, b) * _smooth(rng, brain.shape, min(a, b) / 2)
  return np.clip(distance / 3 + 0.5, 0, 1) * brain


def _smooth(rng, shape, sigma):
  """Random field of mean 0 and sd 1."""
  field = ndimage.gaussian_filter(rng.standard_normal(shape), max(sigma, 0.5))
  return field / (field.std() + 1e-9)
