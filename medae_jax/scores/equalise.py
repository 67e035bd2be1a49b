"""Histogram equalisation of an image, and of its reconstruction by the image's own histogram."""

from __future__ import annotations

import jax
import jax.numpy as jnp

BINS = 256


def equalise(values: jax.Array, image: jax.Array, bins: int = BINS) -> jax.Array:
  """`values` through the cumulative histogram of `image`, channel by channel: in [0, 1].

  With values = image it is skimage.exposure.equalize_hist: the share of pixels up to a bin at the bin's
  centre, linear in between, the first and last share outside. One curve for both images keeps their
  difference a difference of grey levels.

  Args:
    values, image: [B,H,W,C], finite.

  Returns:
    float32 [B,H,W,C].
  """
  flat = lambda x: jnp.moveaxis(x.astype(jnp.float32), -1, 1).reshape(x.shape[0], x.shape[-1], -1)
  out = jax.vmap(jax.vmap(lambda v, i: _one(v, i, bins)))(flat(values), flat(image))
  shape = (values.shape[0], values.shape[-1], *values.shape[1:3])
  return jnp.moveaxis(out.reshape(shape), 1, -1)


def _one(values, image, bins):
  """[n] through the curve of [m]."""
  low, high = image.min(), image.max()
  # A constant image has numpy's bins: one unit around its value.
  low, high = jnp.where(high > low, low, low - 0.5), jnp.where(high > low, high, high + 0.5)
  width = (high - low) / bins
  place = jnp.clip(((image - low) / width).astype(jnp.int32), 0, bins - 1)
  share = jnp.cumsum(jnp.zeros(bins, jnp.float32).at[place].add(1.0)) / image.size
  centres = low + width * (jnp.arange(bins) + 0.5)
  return jnp.interp(values, centres, share)
