"""The rule for what must not be narrow: statistics, losses and outputs are at least float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def at_least_float32(x: jax.Array) -> jax.Array:
  """x in float32 where it is narrower; float64 stays."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
