"""Resampling of arrays; every data set that changes the size of an image does it here.

`bilinear` and the Pillow filter differ where an image shrinks: the first takes two neighbours
whatever the factor (torch.nn.functional.interpolate, align_corners=False), the second widens its
filter.
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def bilinear(array: np.ndarray, size) -> np.ndarray:
  """[H,W,...] -> [h,w,...], bilinear, half-pixel centres, no anti-aliasing, float64.

  src = max((dst + 1/2) n_in / n_out - 1/2, 0); weights (1 - f, f) on floor(src) and the next.
  Slice by slice: a slice stays in the cache, where NIfTI's order [Z,W,H] lays it down together.
  """
  if array.ndim == 2:
    return _resize_slice(array, [_weights(n, m) for n, m in zip(array.shape, size)])
  flat = array.reshape(*array.shape[:2], -1)
  weights = [_weights(n, m) for n, m in zip(flat.shape, size)]
  result = np.empty((flat.shape[2], *size))
  for z in range(flat.shape[2]):
    result[z] = _resize_slice(flat[:, :, z], weights)
  return np.moveaxis(result, 0, -1).reshape(*size, *array.shape[2:])


def sample(array: np.ndarray, places) -> np.ndarray:
  """[H,W,...] -> [len(rows),len(columns),...], bilinear at given places, 0 outside, float64.

  Args:
    places: (rows, columns), each the positions along an axis in pixels of `array`, 0 = the middle
      of the first.
  """
  flat = array.reshape(*array.shape[:2], -1)
  rows, columns = (_at(p, n) for p, n in zip(places, array.shape))
  result = np.empty((flat.shape[2], rows.shape[0], columns.shape[0]))
  for z in range(flat.shape[2]):
    result[z] = rows @ flat[:, :, z] @ columns.T
  return np.moveaxis(result, 0, -1).reshape(len(rows), len(columns), *array.shape[2:])


def _at(places, n):
  """[len(places), n]: weights of the two neighbours of each place; none for those outside."""
  low = np.floor(places).astype(np.int64)
  weights = np.zeros((len(places), n))
  for index, share in ((low, 1 - (places - low)), (low + 1, places - low)):
    inside = np.flatnonzero((index >= 0) & (index < n))
    weights[inside, index[inside]] += share[inside]
  return weights


def _weights(n_in, n_out):
  """(low, next, f) of every output pixel; None where the size stays: src = dst exactly."""
  if n_in == n_out:
    return None
  src = np.maximum((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0)
  low = np.minimum(src.astype(np.int64), n_in - 1)
  return low, np.minimum(low + 1, n_in - 1), src - low


def _resize_slice(array, weights):
  turned = array.flags.f_contiguous  # `take` would copy it into the other order first
  array = array.T if turned else array
  for axis, weight in enumerate(weights):
    if weight is None:
      continue
    low, after, f = weight
    axis = 1 - axis if turned else axis
    f = f[None] if axis else f[:, None]
    array = array.take(low, axis) * (1 - f) + array.take(after, axis) * f
  return np.asarray(array.T if turned else array, np.float64)


def antialiased(image: np.ndarray, size) -> np.ndarray:
  """uint8 [H,W,C] -> [h,w,C] by Pillow's bilinear filter, widened where it shrinks.

  Args:
    size: (h, w), or one number for both.
  """
  height, width = (size, size) if np.ndim(size) == 0 else size
  if image.shape[:2] == (height, width):
    return image
  squeezed = image[..., 0] if image.shape[-1] == 1 else image
  out = np.asarray(Image.fromarray(squeezed).resize((width, height), Image.Resampling.BILINEAR))
  return out[..., None] if image.shape[-1] == 1 else out


def antialiased_float(image: np.ndarray, size) -> np.ndarray:
  """`antialiased` for float32 [H,W,C], channel by channel."""
  planes = [Image.fromarray(np.ascontiguousarray(image[..., c], np.float32)).resize(
      (size[1], size[0]), Image.Resampling.BILINEAR) for c in range(image.shape[-1])]
  return np.stack([np.asarray(p) for p in planes], -1)


def area(mask: np.ndarray, side: int) -> np.ndarray:
  """float32 [H,W] -> [side,side], each pixel the mean of the area it covers."""
  return np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.BOX), np.float32)


def unit_image(image: np.ndarray, size) -> np.ndarray:
  """float32 [H,W,C] in [0,1] -> [h,w,C]: Pillow's bilinear filter (widened when it shrinks) on
  values rounded to 8 bits where the image had 8 bits, which `image` tells by its values."""
  if tuple(image.shape[:2]) == tuple(size):
    return image
  planes = []
  for c in range(image.shape[-1]):
    plane = image[..., c]
    eight = np.round(plane * 255)
    is_8bit = np.allclose(plane * 255, eight, atol=1e-3)
    source = Image.fromarray(eight.astype(np.uint8) if is_8bit else plane.astype(np.float32))
    out = np.asarray(source.resize((size[1], size[0]), Image.Resampling.BILINEAR), np.float32)
    planes.append(out / 255 if is_8bit else np.clip(out, 0, 1))
  return np.stack(planes, -1).astype(np.float32)


def any_mark(mask: np.ndarray, size) -> np.ndarray:
  """float32 0/1 [H,W,1] -> [h,w,1]: 1 wherever a marked pixel contributes."""
  if tuple(mask.shape[:2]) == tuple(size):
    return mask
  plane = Image.fromarray(mask[..., 0].astype(np.float32))
  out = np.asarray(plane.resize((size[1], size[0]), Image.Resampling.BILINEAR))
  return (out > 1e-6).astype(np.float32)[..., None]
