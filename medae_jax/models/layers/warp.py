"""Warps of images by displacement fields, and the integration of stationary velocity fields.

Fields are [B,H,W,2] in pixels: channel 0 along rows, channel 1 along columns. Everything computes in at
least float32. Sources: spatial transformer, Jaderberg et al. 2015 (arXiv 1506.02025); scaling and squaring,
Arsigny et al. 2006, as VoxelMorph uses it (Dalca et al. 2019, arXiv 1903.03545).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.models.layers.dtype import at_least_float32
from medae_jax.models.layers.resample import aligned_matrix


def warp(image: jax.Array, field: jax.Array) -> jax.Array:
  """image sampled at (row + field[..., 0], column + field[..., 1]): [B,H,W,C], [B,H,W,2] -> [B,H,W,C].

  Bilinear; each of the four neighbours that lies outside of the image counts as 0. The derivative by the
  field at whole positions is that of the cell to the right and below.
  """
  image, field = at_least_float32(image), at_least_float32(field)
  batch, height, width, channels = image.shape
  grid = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
  place = [g.astype(field.dtype) + field[..., i] for i, g in enumerate(grid)]
  # far outside all four neighbours are 0 anyway; int32 could not hold a diverging field
  place = [jnp.clip(p, -2, side + 1) for p, side in zip(place, (height, width))]
  low = [jnp.floor(p) for p in place]
  part = [(p - jax.lax.stop_gradient(f))[..., None] for p, f in zip(place, low)]
  row, column = (f.astype(jnp.int32) for f in low)
  flat = image.reshape(batch, height * width, channels)

  def neighbour(down, right):
    r, c = row + down, column + right
    inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
    index = (jnp.clip(r, 0, height - 1) * width + jnp.clip(c, 0, width - 1)).reshape(batch, -1, 1)
    found = jnp.take_along_axis(flat, index, axis=1).reshape(image.shape)
    weight = (part[0] if down else 1 - part[0]) * (part[1] if right else 1 - part[1])
    return jnp.where(inside[..., None], found, 0) * weight
  return neighbour(0, 0) + neighbour(0, 1) + neighbour(1, 0) + neighbour(1, 1)


def integrate(velocity: jax.Array, steps: int) -> jax.Array:
  """Displacement [B,H,W,2] at time 1 of a stationary velocity field: v / 2^steps, `steps` times added to
  itself warped by itself."""
  field = at_least_float32(velocity) / 2**steps
  # a loop: seven copies of the warp and of its gradient would be compiled otherwise
  return jax.lax.scan(lambda u, _: (u + warp(u, u), None), field, length=steps)[0]


def resize_field(field: jax.Array, factor: float) -> jax.Array:
  """A displacement field on a grid `factor` times as fine, its values scaled with it (aligned corners)."""
  rows, columns = (jnp.asarray(aligned_matrix(int(n * factor), n), field.dtype) for n in field.shape[1:3])
  return factor * jnp.einsum("Hh,Ww,bhwc->bHWc", rows, columns, field)


def jacobian_determinant(field: jax.Array) -> jax.Array:
  """det d(x + u)/dx of displacements [B,H,W,2] by forward differences: [B,H-1,W-1]; <= 0 is a folding."""
  down, right = jnp.diff(field, axis=1)[:, :, :-1], jnp.diff(field, axis=2)[:, :-1]
  return (1 + down[..., 0]) * (1 + right[..., 1]) - down[..., 1] * right[..., 0]
