"""Random windows, mirror images and gains as batch ops of `data_pipelines.dataset.Source`.

(batch, seed int32 [2], lo, hi, B) -> batch: drawn statelessly for the global batch B, rows lo:hi
kept. Augmentation is therefore drawn anew for every step and never frozen by a cache. The numbers
folded into the seed keep the draws of different ops apart; change one, and runs do not repeat.
"""

from __future__ import annotations

from data_pipelines.tf import tf


def window(value, top, left, size: int):
  """Windows [b,size,size,C] of a batch [b,H,W,C]; top, left: int32 [b]."""
  value = tf.gather(value, top[:, None] + tf.range(size), axis=1, batch_dims=1)
  return tf.gather(value, left[:, None] + tf.range(size), axis=2, batch_dims=1)


def mirror(value, chosen, axis: int):
  """A batch [b,H,W,C] with the chosen examples (bool [b]) mirrored along an axis."""
  return tf.where(chosen[:, None, None, None], tf.reverse(value, [axis]), value)


def random_crop(size: int):
  """Batch op: a window of "image" of size x size at a uniform place, one draw an example."""
  def op(batch, seed, lo, hi, total):
    image = batch["image"]
    def first(limit, salt):
      key = tf.random.experimental.stateless_fold_in(seed, salt)
      return tf.random.stateless_uniform([total], key, 0, limit + 1, tf.int32)[lo:hi]
    top, left = first(image.shape[1] - size, 11), first(image.shape[2] - size, 13)
    return {**batch, "image": window(image, top, left, size)}
  return op


def random_flip(axes=(2, 1)):
  """Batch op: "image" left-right (axis 2), then top-bottom (1), each with probability 1/2."""
  def op(batch, seed, lo, hi, total):
    image = batch["image"]
    for axis in axes:
      salt = {2: 17, 1: 19}[axis]
      key = tf.random.experimental.stateless_fold_in(seed, salt)
      image = mirror(image, tf.random.stateless_uniform([total], key)[lo:hi] < 0.5, axis)
    return {**batch, "image": image}
  return op


def random_gain(sigma: float):
  """Batch op: each channel of "image" times exp(sigma z), z ~ N(0, 1), one draw an example and channel."""
  def op(batch, seed, lo, hi, total):
    image = batch["image"]
    key = tf.random.experimental.stateless_fold_in(seed, 31)
    gain = tf.exp(sigma * tf.random.stateless_normal([total, 1, 1, image.shape[-1]], key))
    return {**batch, "image": image * gain[lo:hi]}
  return op


def paired_crop(size: int):
  """Batch op: one window of size x size for "image" and "mask"; writes it into "crop"."""
  def op(batch, seed, lo, hi, total):
    margin = batch["image"].shape[1] - size
    key = tf.random.experimental.stateless_fold_in(seed, 23)
    place = tf.random.stateless_uniform([total, 2], key, 0, margin + 1, tf.int32)[lo:hi]
    out = {name: window(batch[name], place[:, 0], place[:, 1], size) for name in ("image", "mask")}
    return {**batch, **out, "crop": tf.concat([place, tf.fill([hi - lo, 1], margin)], 1)}
  return op


def paired_flip():
  """Batch op: rows and columns mirrored with probability 1/2 each, "image" and "mask" alike."""
  def op(batch, seed, lo, hi, total):
    key = tf.random.experimental.stateless_fold_in(seed, 29)
    flip = tf.random.stateless_uniform([total, 2], key)[lo:hi] < 0.5
    out = {**batch, "flip": tf.cast(flip, tf.int32)}
    for name in ("image", "mask"):
      for axis in (1, 2):
        out[name] = mirror(out[name], flip[:, axis - 1], axis)
    return out
  return op
