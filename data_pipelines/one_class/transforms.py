"""Image transforms of the one-class benchmark, exact to the grey level.

They work on uint8 numpy images [H,W,C] through Pillow, whose integer arithmetic the published
numbers were made with. Two of them exist as batch ops (`data_pipelines.dataset.Source`) as well, for
training sets whose random ops (data_pipelines/ops/augment.py) work on uint8 batches.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from data_pipelines.errors import UserError
from data_pipelines.ops import resize


def equalize(image: np.ndarray) -> np.ndarray:
  """Histogram equalisation of every channel, uint8 [H,W,C]; Pillow's ImageOps.equalize."""
  channels = [np.asarray(ImageOps.equalize(Image.fromarray(image[..., c])))
              for c in range(image.shape[-1])]
  return np.stack(channels, -1)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
  """[H,W,C] -> [size,size,C] at offset round((H - size)/2), halves to even.

  Raises:
    UserError: the image is smaller (the reference would pad with black silently).
  """
  height, width = image.shape[:2]
  if min(height, width) < size:
    raise UserError(f"config.data.crop_size={size} exceeds an image of {height}x{width} pixels")
  top, left = int(round((height - size) / 2.0)), int(round((width - size) / 2.0))
  return image[top:top + size, left:left + size]


def normalize(image: np.ndarray) -> np.ndarray:
  """uint8 -> float32 in [-1, 1]: (x/255 - 0.5)/0.5."""
  return (image.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def uncrop(values: np.ndarray, crop: int, prepared, shape) -> np.ndarray:
  """A map [h,w] of a centre crop, back on the image: resized to the crop, zero around it.

  Args:
    crop: side of the crop. prepared: (H, W) the crop was taken from. shape: (H, W) of the file,
      of which the prepared image is a resized copy.

  Returns:
    float64 [*shape].
  """
  top, left = (int(round((n - crop) / 2.0)) for n in prepared)
  full = np.zeros(prepared)
  full[top:top + crop, left:left + crop] = resize.bilinear(values, (crop, crop))
  return resize.bilinear(full, shape)


def equalize_batch():
  """Batch op: `equalize` of uint8 [b,H,W,C], each image and channel by itself, grey-level exact."""
  from data_pipelines.tf import tf

  def op(batch, seed, lo, hi, total):
    del seed, total
    image = batch["image"]
    height, width, channels = image.shape[1:]
    n = (hi - lo) * channels
    flat = tf.reshape(tf.transpose(tf.cast(image, tf.int32), [0, 3, 1, 2]), [n, height * width])
    counts = tf.math.bincount(flat, minlength=256, maxlength=256, axis=-1)  # [n,256]
    # Pillow spreads what lies below the brightest occupied level over 255 steps.
    last = 255 - tf.argmax(tf.cast(tf.reverse(counts, [1]) > 0, tf.int32), 1, tf.int32)
    brightest = tf.gather(counts, last, axis=1, batch_dims=1)
    step = (height * width - brightest) // 255
    below = tf.cumsum(counts, axis=1, exclusive=True)
    table = (below + step[:, None] // 2) // tf.maximum(step[:, None], 1)
    table = tf.where(step[:, None] > 0, tf.minimum(table, 255), tf.range(256)[None])
    out = tf.gather(table, flat, axis=1, batch_dims=1)
    out = tf.transpose(tf.reshape(out, [hi - lo, channels, height, width]), [0, 2, 3, 1])
    return {**batch, "image": tf.cast(out, tf.uint8)}
  return op


def normalize_batch():
  """Batch op: `normalize`, for sources whose random ops work on uint8."""
  from data_pipelines.tf import tf

  def op(batch, seed, lo, hi, total):
    del seed, lo, hi, total
    return {**batch, "image": (tf.cast(batch["image"], tf.float32) / 255.0 - 0.5) / 0.5}
  return op
