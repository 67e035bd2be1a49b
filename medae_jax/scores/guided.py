"""The guided filter (He, Sun, Tang, "Guided image filtering", IEEE TPAMI 35, 2013): a map that follows edges.

In every box of the guide I the map p is fitted by a line, q = a I + b with
  a = cov(I, p) / (var(I) + eps),  b = mean(p) - a mean(I)     (equations 5 and 6),
and a pixel takes the mean of the lines of all boxes that hold it (equation 8). A lesion that is bright on the
guide so gets the guide's border instead of the blurred one that a residual has.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.losses.box import box_sum


def guided_filter(anomaly: jax.Array, guide: jax.Array, inside: jax.Array, radius: int,
                  eps: float) -> jax.Array:
  """`anomaly` smoothed along the edges of `guide`; boxes count the pixels of `inside` alone.

  Args:
    anomaly: [B,H,W,C], each channel by itself.
    guide: [B,H,W,1] in the unit of the images.
    inside: [B,H,W,1] of 0/1: the foreground.
    radius: pixels; boxes are 2 radius + 1 wide. 0 returns the map.
    eps: > 0, in squared units of the guide: variations far below its root are smoothed over.

  Returns:
    float32 [B,H,W,C], >= 0; 0 outside.
  """
  if not radius:
    return anomaly
  inside = inside.astype(jnp.float32)
  sums = lambda x: box_sum(x * inside, 2 * radius + 1, radius)
  count = jnp.maximum(sums(jnp.ones_like(inside)), 1)
  mean = lambda x: sums(x) / count
  # About the image's own mean, which changes nothing but rounding: variances keep their digits.
  guide = guide.astype(jnp.float32)
  total = jnp.maximum(inside.sum((1, 2), keepdims=True), 1)
  guide = guide - (guide * inside).sum((1, 2), keepdims=True) / total
  mean_guide, mean_map = mean(guide), mean(anomaly)
  variance = jnp.maximum(mean(guide * guide) - mean_guide ** 2, 0)
  slope = (mean(guide * anomaly) - mean_guide * mean_map) / (variance + eps)
  offset = mean_map - slope * mean_guide
  return jnp.maximum(mean(slope) * guide + mean(offset), 0) * inside


def guide_of(image: jax.Array, channel: int) -> jax.Array:
  """[B,H,W,1]: the modality whose edges count.

  Raises:
    UserError: there is no such channel.
  """
  if not 0 <= channel < image.shape[-1]:
    raise UserError(f"config.method.score.guide_channel={channel}: images have {image.shape[-1]} channels, "
                    "counted from 0")
  return image[..., channel:channel + 1]
