"""Image transforms of the one-class benchmark, exact to the grey level.

Deterministic ones work on uint8 numpy images [H,W,C] through Pillow, whose integer arithmetic the
published numbers were made with. Random ones are batch_ops of `data_pipelines.datasets.Source`:
(batch, seed int32 [2], lo, hi, B) -> batch, drawn statelessly for the global batch B, rows lo:hi
kept. Augmentation is therefore drawn anew for every step and never frozen by a cache.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from data_pipelines.brains import normalise
from data_pipelines.errors import UserError


def grayscale(image: np.ndarray) -> np.ndarray:
  """uint8 [H,W,3] or [H,W,1] -> [H,W,1], ITU-R 601-2 luma in Pillow's integer weights."""
  if image.shape[-1] == 1:
    return image
  return np.asarray(Image.fromarray(image).convert("L"))[..., None]


def equalize(image: np.ndarray) -> np.ndarray:
  """Histogram equalisation of every channel, uint8 [H,W,C]; Pillow's ImageOps.equalize."""
  channels = [np.asarray(ImageOps.equalize(Image.fromarray(image[..., c])))
              for c in range(image.shape[-1])]
  return np.stack(channels, -1)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
  """[H,W,C] -> [size,size,C] at offset round((H - size)/2), halves to even.

  Raises:
    ValueError: the image is smaller (the reference would pad with black silently).
  """
  height, width = image.shape[:2]
  if min(height, width) < size:
    raise UserError(f"config.data.crop_size={size} exceeds an image of {height}x{width} pixels")
  top, left = int(round((height - size) / 2.0)), int(round((width - size) / 2.0))
  return image[top:top + size, left:left + size]


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """uint8 [H,W,C] -> [size,size,C], Pillow's bilinear filter with anti-aliasing."""
  if image.shape[:2] == (size, size):
    return image
  squeezed = image[..., 0] if image.shape[-1] == 1 else image
  out = np.asarray(Image.fromarray(squeezed).resize((size, size), Image.Resampling.BILINEAR))
  return out[..., None] if image.shape[-1] == 1 else out


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
  full[top:top + crop, left:left + crop] = normalise.resize(values, (crop, crop))
  return normalise.resize(full, shape)


def read_image(path, channels: int) -> np.ndarray:
  """uint8 [H,W,channels] of an image file (JPEG, PNG, TIFF ...), 1 = grey by Pillow's luma.

  Raises:
    FileNotFoundError: no such file. ValueError: it is not an image.
  """
  try:
    with Image.open(path) as image:
      if channels == 1 and image.mode.startswith("I;16"):
        raise UserError(f"{path} has 16-bit pixels; convert it to 8 bits first")
      array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
  except FileNotFoundError:
    raise FileNotFoundError(f"no image {path}; check config.data.image_root") from None
  except OSError as e:
    raise UserError(f"{path} is not a readable image: {e}") from None
  return array[..., None] if channels == 1 else array


# ----------------------------------------------------------------------------- random, on the batch
def random_crop(size: int):
  """Batch op: a window of size x size at a uniform place, one draw an example."""
  import tensorflow as tf  # pylint: disable=import-outside-toplevel

  def op(batch, seed, lo, hi, total):
    image = batch["image"]
    def rows(limit, salt):
      key = tf.random.experimental.stateless_fold_in(seed, salt)
      first = tf.random.stateless_uniform([total], key, 0, limit + 1, tf.int32)
      return first[lo:hi, None] + tf.range(size)
    tops, lefts = rows(image.shape[1] - size, 11), rows(image.shape[2] - size, 13)
    image = tf.gather(image, tops, axis=1, batch_dims=1)
    return {**batch, "image": tf.gather(image, lefts, axis=2, batch_dims=1)}
  return op


def random_flip():
  """Batch op: mirrored left-right with probability 1/2, then top-bottom with probability 1/2."""
  import tensorflow as tf  # pylint: disable=import-outside-toplevel

  def op(batch, seed, lo, hi, total):
    image = batch["image"]
    for axis, salt in ((2, 17), (1, 19)):
      key = tf.random.experimental.stateless_fold_in(seed, salt)
      draw = tf.random.stateless_uniform([total], key)[lo:hi] < 0.5
      image = tf.where(draw[:, None, None, None], tf.reverse(image, [axis]), image)
    return {**batch, "image": image}
  return op


def equalize_batch():
  """Batch op: `equalize` of uint8 [b,H,W,C], each image and channel by itself, grey-level exact."""
  import tensorflow as tf  # pylint: disable=import-outside-toplevel

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
  import tensorflow as tf  # pylint: disable=import-outside-toplevel

  def op(batch, seed, lo, hi, total):
    del seed, lo, hi, total
    return {**batch, "image": (tf.cast(batch["image"], tf.float32) / 255.0 - 0.5) / 0.5}
  return op
