"""Frames as numpy arrays: colour to grey, resizing of images and of masks."""

from __future__ import annotations

import numpy as np
from PIL import Image


def grey(pixels: np.ndarray) -> np.ndarray:
  """uint8 or uint16 [H,W,3] -> [H,W,1]: (19595 R + 38470 G + 7471 B + 32768) >> 16, exact."""
  if pixels.shape[-1] == 1:
    return pixels
  weighted = pixels.astype(np.uint64) @ np.array([19595, 38470, 7471], np.uint64)
  return ((weighted + 32768) >> np.uint64(16)).astype(pixels.dtype)[..., None]


def resize_image(image: np.ndarray, size) -> np.ndarray:
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


def resize_mask(mask: np.ndarray, size) -> np.ndarray:
  """float32 0/1 [H,W,1] -> [h,w,1]: 1 wherever a marked pixel contributes."""
  if tuple(mask.shape[:2]) == tuple(size):
    return mask
  plane = Image.fromarray(mask[..., 0].astype(np.float32))
  out = np.asarray(plane.resize((size[1], size[0]), Image.Resampling.BILINEAR))
  return (out > 1e-6).astype(np.float32)[..., None]
