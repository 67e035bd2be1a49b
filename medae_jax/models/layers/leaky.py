"""LeakyReLU as PyTorch defines it: at exactly 0 its derivative is the slope, where `flax.linen` has 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.models.layers.init import SLOPE


def leaky_relu(x: jax.Array, slope: float = SLOPE) -> jax.Array:
  """x where x > 0, slope x elsewhere; any shape."""
  return jnp.where(x > 0, x, slope * x)
