"""How smooth a velocity or displacement field is: penalties of its differences (VoxelMorph's forms)."""

from __future__ import annotations

from collections.abc import Callable

import jax

from medae_jax.losses.pixel import absolute
from medae_jax.models.layers.dtype import at_least_float32


def _central(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Central differences along rows and columns on the interior: [B,H,W,2] -> 2 x [B,H-2,W-2,2]."""
  return (x[:, 2:, 1:-1] - x[:, :-2, 1:-1]) / 2, (x[:, 1:-1, 2:] - x[:, 1:-1, :-2]) / 2


def gradient_l2(field: jax.Array) -> jax.Array:
  """mean(d_r^2 + d_c^2) / 2 over the interior and both components: [B,H,W,2] -> [B]."""
  rows, columns = _central(at_least_float32(field))
  return (rows**2 + columns**2).mean((1, 2, 3)) / 2


def gradient_l1(field: jax.Array) -> jax.Array:
  """mean(|d_r| + |d_c|) / 2: [B,H,W,2] -> [B]."""
  rows, columns = _central(at_least_float32(field))
  return (absolute(rows) + absolute(columns)).mean((1, 2, 3)) / 2


def bending(field: jax.Array) -> jax.Array:
  """mean(d_rr^2 + d_cc^2 + 2 d_rc^2), the bending energy: [B,H,W,2] -> [B]."""
  rows, columns = _central(at_least_float32(field))
  (rr, rc), (_, cc) = _central(rows), _central(columns)
  return (rr**2 + cc**2 + 2 * rc**2).mean((1, 2, 3))


PENALTIES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gradient_l2": gradient_l2, "gradient_l1": gradient_l1, "bending": bending}
