"""Anomaly scores: pure functions of image and reconstruction, per example, on the device.

The DAE's map (Kascenas, Pugeault, O'Neil, MIDL 2022, public scripts) is
  median_filter(residual_map(image - recon) * erode(foreground(image))).
Everything else here is an option on top of it. Maps are float32 [B,H,W,1], higher = more abnormal.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.losses import pixel
from medae_jax.losses.box import box_sum
from medae_jax.scores import guided

IMAGE_SCORES = ("mean", "max", "top1", "foreground_mean")
foreground = pixel.foreground


def residual_map(residual: jax.Array, weights_positive: Sequence[float] = (),
                 weights_negative: Sequence[float] = ()) -> jax.Array:
  """mean_c (w+_c max(r_c, 0) + w-_c max(-r_c, 0)): the mean absolute residual by default.

  Args:
    residual: image - recon, [B,H,W,C].
    weights_positive: w+, one number a channel, or one for all; () = 1. Weighs what is brighter
      than its reconstruction.
    weights_negative: w-, likewise, for what is darker.

  Returns:
    float32 [B,H,W,1], >= 0 when no weight is negative.

  Raises:
    ValueError: the number of weights is neither 0, 1 nor C.
  """
  residual = residual.astype(jnp.float32)
  positive = _weights(weights_positive, residual.shape[-1], "weights_positive")
  negative = _weights(weights_negative, residual.shape[-1], "weights_negative")
  if positive is None and negative is None:
    return jnp.mean(jnp.abs(residual), -1, keepdims=True)
  positive = 1.0 if positive is None else positive
  negative = 1.0 if negative is None else negative
  weighted = positive * jnp.maximum(residual, 0) + negative * jnp.maximum(-residual, 0)
  return jnp.mean(weighted, -1, keepdims=True)


def erode(mask: jax.Array, size: int) -> jax.Array:
  """1 where more than 95 % of a size x size box lies in the mask; zero padding counts.

  At size 5 at least 24 of 25 pixels: one missing pixel does not erode, and the outermost two rows
  and columns of the image always go.

  Args:
    mask: [B,H,W,1] of 0/1.
    size: odd; 0 and 1 return the mask.

  Returns:
    float32 [B,H,W,1] of 0/1.
  """
  _check_odd(size, "config.method.score.erosion")
  mask = mask.astype(jnp.float32)
  if size < 2:
    return mask
  count = box_sum(mask, size, size // 2)
  return (count > 0.95 * size * size).astype(jnp.float32)


def inside(mask: jax.Array, options) -> jax.Array:
  """Where a map is kept, float32 [B,H,W,1] of 0/1: the foreground `mask`, or with options.foreground=False
  every pixel; either is eroded by options.erosion."""
  return erode(mask if options.get("foreground", True) else jnp.ones_like(mask), options.erosion)


def median_filter(image: jax.Array, size: int) -> jax.Array:
  """Exact median over size x size boxes, edges mirrored without repeating the border pixel.

  A network of minima and maxima, without data-dependent branches: the columns of every box are
  sorted once and shared by the boxes that overlap; then the rows; in the square that is sorted
  both ways only a band around the anti-diagonal can hold the middle element.

  Args:
    image: [B,H,W,C]; H and W larger than size // 2.
    size: odd; 0 and 1 return the image.
  """
  _check_odd(size, "config.method.score.median")
  if size < 2:
    return image
  half, (height, width) = size // 2, image.shape[1:3]
  if min(height, width) <= half:
    raise UserError(f"a {size}x{size} median needs images larger than {half} px, "
                     f"got {height}x{width}; see config.method.score.median")
  padded = jnp.pad(image, ((0, 0), (half, half), (half, half), (0, 0)), mode="reflect")
  columns = _sort([padded[:, i:i + height] for i in range(size)])
  # Without the barrier XLA fuses the column sorts into all `size` users and does them again.
  columns = jax.lax.optimization_barrier(columns)
  rows = [_sort([c[:, :, j:j + width] for j in range(size)]) for c in columns]
  middle = (size * size + 1) // 2
  # Element (i, j) has (i+1)(j+1) - 1 elements that are not larger, and (n-i)(n-j) - 1 not smaller.
  band = [rows[i][j] for i in range(size) for j in range(size)
          if (i + 1) * (j + 1) <= middle and (size - i) * (size - j) <= middle]
  return _middle(band)


def gaussian_filter(image: jax.Array, sigma: float) -> jax.Array:
  """Gaussian of `sigma` pixels, cut at four sigma, edges mirrored with the border pixel (as scipy.ndimage).

  Args:
    image: [B,H,W,C]; H and W at least 4 sigma.
    sigma: >= 0; 0 returns the image.

  Raises:
    UserError: the image is too small.
  """
  reach = int(4 * sigma + 0.5)
  if not reach:
    return image
  if min(image.shape[1:3]) < reach:
    raise UserError(f"config.method.score.gaussian={sigma} needs images of at least {reach} px, "
                    f"got {image.shape[1]}x{image.shape[2]}")
  taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
  taps = (taps / taps.sum()).astype(np.float32)
  for axis in (1, 2):
    rim = [(reach, reach) if a == axis else (0, 0) for a in range(4)]
    padded, size = jnp.pad(image, rim, mode="symmetric"), image.shape[axis]
    image = functools.reduce(jnp.add, [float(t) * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
                                       for i, t in enumerate(taps)])
  return image


def saturated(anomaly: jax.Array, level: float) -> jax.Array:
  """level tanh(map / level): faint pixels stay as they are, none exceeds `level`; 0 returns the map.

  A few very bright pixels would otherwise decide what a smoothing filter makes of their neighbours.
  """
  return level * jnp.tanh(anomaly / level) if level else anomaly


def finished(raw: jax.Array, image: jax.Array, kept: jax.Array, options) -> jax.Array:
  """Filters of config.method.score, in this order: median, saturation, guided filter, Gaussian.

  Args:
    raw: [B,H,W,K], each by itself. image: [B,H,W,C]. kept: [B,H,W,1] of 0/1, of `inside`.
  """
  found = saturated(median_filter(raw * kept, options.median), options.get("saturation", 0.0))
  if options.get("guided", 0):
    found = guided.guided_filter(found, guided.guide_of(image, options.guide_channel), foreground(image),
                                 options.guided, options.guided_eps)
  return gaussian_filter(found, options.get("gaussian", 0.0))


def image_score(anomaly: jax.Array, how: str = "mean", mask: jax.Array | None = None) -> jax.Array:
  """One number an image out of its map.

  Args:
    anomaly: [B,H,W,1].
    how: "mean" over all pixels; "max"; "top1": mean of the highest 1 % of the pixels;
      "foreground_mean": mean over `mask` (which it needs).
    mask: [B,H,W,1] of 0/1.

  Returns:
    float32 [B].
  """
  flat = anomaly.reshape(anomaly.shape[0], -1)
  if how == "mean":
    return flat.mean(-1)
  if how == "max":
    return flat.max(-1)
  if how == "top1":
    return jax.lax.top_k(flat, max(1, round(0.01 * flat.shape[1])))[0].mean(-1)
  if how == "foreground_mean" and mask is not None:
    inside = mask.reshape(flat.shape)
    return (flat * inside).sum(-1) / jnp.maximum(inside.sum(-1), 1)
  raise UserError(f"config.method.score.image_score={how!r}: use one of {', '.join(IMAGE_SCORES)}")


def intensity_map(image: jax.Array, channel: int = 0, median: int = 0) -> jax.Array:
  """The threshold baseline: intensity of one channel inside the foreground, [B,H,W,1].

  Lesions are bright on FLAIR, the first channel of BraTS-like data, so a plain threshold on it is
  the simplest detector there is (`median` = 5 also removes its specks).

  Args:
    image: [B,H,W,C], background 0.
    channel: which modality.
    median: size of the median filter, 0 = none.
  """
  bright = jnp.maximum(image[..., channel:channel + 1], 0).astype(jnp.float32)
  return median_filter(bright * foreground(image), median)


def _weights(weights, channels, name):
  weights = np.atleast_1d(np.asarray(weights, np.float32))
  if not weights.size:
    return None
  if weights.size not in (1, channels):
    raise UserError(f"config.method.score.{name} has {weights.size} numbers, the image has "
                     f"{channels} channels; give one a channel, or one for all")
  return jnp.asarray(weights)


def _check_odd(size, name):
  if size < 0 or (size > 1 and size % 2 == 0):
    raise UserError(f"{name}={size} must be odd (or 0 for none)")


def _sort(values):
  """Sorts n arrays elementwise by odd-even transposition: n rounds of neighbours in turn."""
  values = list(values)
  for turn in range(len(values)):
    for i in range(turn % 2, len(values) - 1, 2):
      low, high = jnp.minimum(values[i], values[i + 1]), jnp.maximum(values[i], values[i + 1])
      values[i], values[i + 1] = low, high
  return values


def _middle(values):
  """The median of an odd number of arrays: of any k/2 + 2 of k, the extremes cannot be it."""
  waiting = list(values)
  held = [waiting.pop() for _ in range(min(len(values), len(values) // 2 + 2))]
  while len(held) > 1:
    held = _drop_extremes(held)
    if waiting:
      held.append(waiting.pop())
  return held[0]


def _drop_extremes(values):
  """All but the smallest and the largest, elementwise, in about 3/2 n comparisons."""
  values, n = list(values), len(values)
  half = n // 2
  for i in range(half):  # the smaller ones first, the larger ones last
    a, b = values[i], values[n - 1 - i]
    values[i], values[n - 1 - i] = jnp.minimum(a, b), jnp.maximum(a, b)
  for i in range(1, n - half):  # the smallest to the front (an odd one out may be it)
    a, b = values[0], values[i]
    values[0], values[i] = jnp.minimum(a, b), jnp.maximum(a, b)
  for i in range(n - 2, half - 1, -1):
    a, b = values[n - 1], values[i]
    values[n - 1], values[i] = jnp.maximum(a, b), jnp.minimum(a, b)
  return values[1:-1]
