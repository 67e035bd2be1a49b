"""The rule for what must not be narrow: statistics, losses and outputs are at least float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
  """x in float32 where it is narrower; float64 stays."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def of_last_layer(dtype):
  """The type in which a network's last layer computes: bfloat16 would round the picture to 8 bits."""
  return jnp.promote_types(dtype, jnp.float32)
