"""Stain augmentation as a batch op of `data_pipelines.dataset.Source`."""

from __future__ import annotations

from data_pipelines.tf import tf


def stain_jitter(sigma: float):
  """Batch op: amounts of the two stains of "image" uint8 [b,H,W,3] varied; takes "stains" [b,2,3] away.

  Optical density x = -ln(I/255) is split into amounts c of the example's stains W by least squares; an
  amount becomes (1 + a) c + b min(1, c_1 + c_2), with a and b uniform in [-sigma, sigma], one draw an
  example and stain (Tellez et al., IEEE TMI 37(9), 2018; b grows with the tissue so that glass stays
  white). What the stains do not explain is kept. Stains of zeros change nothing.
  """
  def op(batch, seed, lo, hi, total):
    batch = dict(batch)
    stains = tf.cast(batch.pop("stains"), tf.float32)
    key = tf.random.experimental.stateless_fold_in(seed, 31)
    drawn = tf.random.stateless_uniform([total, 2, 2], key, -sigma, sigma)[lo:hi, :, :]
    density = -tf.math.log(tf.maximum(tf.cast(batch["image"], tf.float32), 1.0) / 255.0)
    known = tf.cast(tf.reduce_any(stains != 0, [1, 2]), tf.float32)[:, None, None]
    square = tf.linalg.matmul(stains, stains, transpose_b=True)
    square += (1 - known) * tf.eye(2)
    split = tf.linalg.matmul(stains, tf.linalg.inv(square), transpose_a=True)  # [b,3,2]
    shape = tf.shape(density)
    amounts = tf.maximum(tf.linalg.matmul(tf.reshape(density, [shape[0], -1, 3]), split), 0.0)
    tissue = tf.minimum(tf.reduce_sum(amounts, -1, keepdims=True), 1.0)
    more = drawn[:, None, :, 0] * amounts + drawn[:, None, :, 1] * tissue
    change = tf.reshape(tf.linalg.matmul(more, stains), shape)
    light = 255.0 * tf.exp(-(density + change))
    return {**batch, "image": tf.cast(tf.clip_by_value(tf.round(light), 0.0, 255.0), tf.uint8)}
  return op
