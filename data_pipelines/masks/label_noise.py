r"""Wrong annotations made from right ones, for studies on a fully labelled set.

A kind is written "name" or "name:number":
  polygon:3     outline reduced to k corners, least important first (k = 3, 7, any k >= 3)
  box:0.1       bounding box, each side moved by up to +-0.1 of its length (default 0)
  whole         everything but a thin border: the "unsupervised" extreme of the paper
  dilate:4, erode:4   by a disc of r pixels; an erosion never removes the whole lesion
  shift:0.2     moved by 0.2 of the lesion's extent in a random direction
  jitter:0.1    boundary displaced by a smooth random field, sd 0.1 of the lesion's radius
  threshold     no annotation at all: Otsu's threshold on the image, darker side
  none          the true mask (full supervision, for comparison)
A mixture is "polygon:3*0.5+box*0.3+whole*0.2": one kind an image, in these proportions.

Noise is a function of (mask, image, kind, seed, id): made once, the same in every epoch and run.
data_pipelines/prepare/noisy_study.py writes such a study to disk, with the Dice of every noisy mask.
"""

from __future__ import annotations

import zlib

import numpy as np
import scipy.ndimage

from data_pipelines.errors import UserError
from data_pipelines.masks import polygons

# name -> default number; None: the kind takes no number
KINDS = {"polygon": 7.0, "box": 0.0, "whole": None, "dilate": 3.0, "erode": 3.0, "shift": 0.2,
         "jitter": 0.1, "threshold": None, "none": None}


def parse(text: str) -> list[tuple[str, float | None, float]]:
  """"polygon:3*0.5+box" -> [(name, number, proportion)], proportions summing to 1.

  Raises:
    UserError: an unknown kind, with those there are, or a number out of its range.
  """
  kinds = []
  for part in text.split("+"):
    kind, _, share = part.partition("*")
    name, colon, number = kind.strip().partition(":")
    if name not in KINDS:
      raise UserError(f"config.data.noise={text!r}: {name!r} is no kind of label noise; "
                       f"use {', '.join(KINDS)} (data_pipelines/masks/label_noise.py)")
    try:
      value = float(number) if colon else KINDS[name]
      weight = float(share) if share else 1.0
    except ValueError:
      raise UserError(f"config.data.noise={text!r}: {part!r} holds no number") from None
    if (colon and KINDS[name] is None) or weight <= 0 or (value is not None and value < 0) or (
        name == "polygon" and (value < 3 or value != int(value))):
      raise UserError(f"config.data.noise={text!r}: bad number in {part!r}; polygons need a whole "
                       "number of corners >= 3, lengths and proportions are not negative")
    kinds.append((name, value, weight))
  total = sum(weight for _, _, weight in kinds)
  return [(name, value, weight / total) for name, value, weight in kinds]


def apply(mask: np.ndarray, text: str, seed: int, ident: str, image=None) -> np.ndarray:
  """The noisy version of one mask.

  Args:
    mask: bool [H,W]; an empty one stays empty (except for "whole" and "threshold").
    text: kind or mixture, as in the module's docstring.
    seed, ident: of the study and of the image; together they fix all draws.
    image: uint8 [H,W,C], for "threshold".

  Returns:
    bool [H,W].
  """
  kinds = parse(text)
  rng = np.random.default_rng([int(seed), zlib.crc32(ident.encode())])
  chosen = int(np.searchsorted(np.cumsum([k[2] for k in kinds]), rng.random(), side="right"))
  name, value, _ = kinds[min(chosen, len(kinds) - 1)]
  if name == "none":
    return mask
  if name == "whole":
    return whole(mask.shape)
  if name == "threshold":
    if image is None:
      raise UserError("label noise 'threshold' needs the image")
    return otsu(image)
  if not mask.any():
    return np.zeros_like(mask, bool)
  makers = {"polygon": lambda: polygon(mask, int(value)), "box": lambda: box(mask, value, rng),
            "dilate": lambda: grow(mask, value), "erode": lambda: grow(mask, -value),
            "shift": lambda: shift(mask, value, rng), "jitter": lambda: jitter(mask, value, rng)}
  return makers[name]()


# ------------------------------------------------------------------------------------ the kinds
def polygon(mask: np.ndarray, k: int) -> np.ndarray:
  """The outline with k corners; that of the bounding box where the polygon covers no pixel."""
  filled = polygons.fill(polygons.simplify(polygons.outline(mask), k), mask.shape)
  return filled if filled.any() else box(mask, 0.0, None)


def box(mask: np.ndarray, amount: float, rng) -> np.ndarray:
  """Bounding box; each of its four sides moved by up to +-amount of the box's extent."""
  (y, x) = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  edges = np.array([y[0], y[-1] + 1, x[0], x[-1] + 1], float)
  if amount:
    extent = np.array([edges[1] - edges[0]] * 2 + [edges[3] - edges[2]] * 2)
    edges += rng.uniform(-amount, amount, 4) * extent
  top, bottom, left, right = np.round(edges).astype(int)
  out = np.zeros(mask.shape, bool)
  out[max(top, 0):max(bottom, top + 1, 1), max(left, 0):max(right, left + 1, 1)] = True
  return out


def whole(shape) -> np.ndarray:
  """Ones but for a border of round(0.02 min(H, W)) pixels, at least 1."""
  border = max(1, round(0.02 * min(shape)))
  out = np.zeros(shape, bool)
  out[border:-border, border:-border] = True
  return out


def grow(mask: np.ndarray, radius: float) -> np.ndarray:
  """Dilation by a disc of `radius` pixels, erosion where it is negative (the core pixel stays)."""
  if radius >= 0:
    return scipy.ndimage.distance_transform_edt(~mask) <= radius
  depth = scipy.ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
  return depth > min(-radius, depth.max() - 1e-6)


def shift(mask: np.ndarray, amount: float, rng) -> np.ndarray:
  """Moved in a random direction by `amount` of the lesion's extent, and cut at the image's rim."""
  extent = np.sqrt(mask.sum())
  angle = rng.uniform(0, 2 * np.pi)
  offset = np.round(amount * extent * np.array([np.sin(angle), np.cos(angle)]))
  return scipy.ndimage.shift(mask.astype(np.uint8), offset, order=0).astype(bool)


def jitter(mask: np.ndarray, amount: float, rng) -> np.ndarray:
  """Boundary moved by a smooth Gaussian field of sd `amount` times the lesion's mean radius."""
  radius = np.sqrt(mask.sum() / np.pi)
  outside = scipy.ndimage.distance_transform_edt(~mask)
  inside = scipy.ndimage.distance_transform_edt(mask)
  signed = np.where(mask, inside - 0.5, 0.5 - outside)  # > 0 inside, in pixels
  field = scipy.ndimage.gaussian_filter(rng.standard_normal(mask.shape), max(radius / 3, 1))
  field *= amount * radius / max(field.std(), 1e-12)
  out = signed + field > 0
  return out if out.any() else mask.copy()


def otsu(image: np.ndarray) -> np.ndarray:
  """The side darker than Otsu's threshold of the grey image: uint8 [H,W,C] -> bool [H,W]."""
  grey = np.round(image.astype(np.float64).mean(-1)).astype(int)
  counts = np.bincount(grey.ravel(), minlength=256).astype(float)
  below, total = np.cumsum(counts), counts.sum()
  mass = np.cumsum(counts * np.arange(256))
  with np.errstate(divide="ignore", invalid="ignore"):
    between = (mass[-1] * below / total - mass) ** 2 / (below * (total - below))
  return grey <= int(np.nanargmax(between)) if (np.isfinite(between)).any() else grey < 0
