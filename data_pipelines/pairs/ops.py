"""Operations on (image, clean, mask) triples: each draws its numbers once, for all three alike.

Example ops of `data_pipelines.dataset.Source`: (example, seed int32 [2]) -> example, stateless.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.tf import tf

_KEYS = ("image", "clean", "mask")


def _uniform(seed, salt, low, high):
  key = tf.random.experimental.stateless_fold_in(seed, salt)
  return tf.random.stateless_uniform([], key, low, high)


def _reflect(index, n):
  """Indices outside 0..n-1 mirrored at the border pixels, however far outside."""
  period = tf.maximum(2 * (n - 1), 1)
  index = tf.math.floormod(index, period)
  return tf.minimum(index, period - index)


def crop(size, mark_centred: float, scale=(1.0, 1.0)):
  """Example op: one window of `size` (h, w) for all three, mirrored where the frame is smaller.

  Args:
    mark_centred: probability that the window is centred (give or take a quarter of its size) on a
      random marked pixel, where there is one; else its place is uniform.
    scale: (low, high) magnification, drawn log-uniformly; the window then covers size / scale
      pixels. Images are interpolated, the mask is 1 wherever a marked pixel contributes.
  """
  height, width = int(size[0]), int(size[1])
  fixed = tuple(scale) == (1.0, 1.0)

  def op(example, seed):
    factor = tf.exp(_uniform(seed, 1, *(float(np.log(s)) for s in scale)))
    want = [height, width] if fixed else [
        tf.cast(tf.round(n / factor), tf.int32) for n in (float(height), float(width))]
    marked = tf.where(example["mask"][..., 0] > 0)
    count = tf.shape(marked)[0]
    on_mark = tf.logical_and(count > 0, _uniform(seed, 2, 0.0, 1.0) < mark_centred)
    pick = tf.cast(_uniform(seed, 3, 0.0, 1.0) * tf.cast(count, tf.float32), tf.int32)
    centre = tf.cond(on_mark, lambda: tf.cast(marked[tf.minimum(pick, count - 1)], tf.int32),
                     lambda: tf.zeros([2], tf.int32))
    rows_cols = []
    for axis in (0, 1):
      n, w = tf.shape(example["mask"])[axis], want[axis]
      room = tf.maximum(n - w, 0)
      anywhere = tf.cast(_uniform(seed, 4 + axis, 0.0, 1.0) * tf.cast(room + 1, tf.float32), tf.int32)
      jitter = _uniform(seed, 6 + axis, -0.25, 0.25) * tf.cast(w, tf.float32)
      here = centre[axis] - w // 2 + tf.cast(jitter, tf.int32)
      start = tf.clip_by_value(tf.where(on_mark, here, anywhere), 0, room)
      start = start - tf.maximum(w - n, 0) // 2  # smaller frames lie in the middle
      rows_cols.append(_reflect(start + tf.range(w), n))
    out = {}
    for key in _KEYS:
      value = tf.gather(tf.gather(example[key], rows_cols[0], axis=0), rows_cols[1], axis=1)
      if not fixed:
        value = tf.image.resize(value, (height, width), antialias=True)
        value = tf.cast(value > 1e-4, tf.float32) if key == "mask" else tf.clip_by_value(value, 0, 1)
      value.set_shape([height, width, example[key].shape[-1]])
      out[key] = value
    return {**example, **out}
  return op


def flip(left_right: float, up_down: float):
  """Example op: mirrors what there is of the three, with these probabilities."""
  def op(example, seed):
    out = dict(example)
    for axis, share, salt in ((1, left_right, 11), (0, up_down, 12)):
      chosen = _uniform(seed, salt, 0.0, 1.0) < share
      for key in set(_KEYS) & set(example):
        out[key] = tf.cond(chosen, lambda v=out[key], a=axis: tf.reverse(v, [a]),
                           lambda v=out[key]: v)
    return out
  return op


def jitter(gain=(1.0, 1.0), gamma=(1.0, 1.0)):
  """Example op: x <- clip(gain x^gamma), the same draw for the annotated and the clean image."""
  def op(example, seed):
    g, power = _uniform(seed, 21, *gain), _uniform(seed, 22, *gamma)
    change = lambda x: tf.clip_by_value(g * tf.pow(x, power), 0.0, 1.0)
    return {**example, **{k: change(example[k]) for k in ("image", "clean") if k in example}}
  return op
