"""Trajectories in float64, where only the rounding of the stored numbers separates us from them."""

import jax
import jax.numpy as jnp
import numpy as np


def double(tree):
  """Floating leaves of a tree as float64 arrays; within `jax.enable_x64(True)`.

  Raises:
    AssertionError: outside of it, where JAX would make float32 of them without a word.
  """
  def one(x):
    if not jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating):
      return x
    x = jnp.asarray(np.asarray(x), jnp.float64)
    assert x.dtype == jnp.float64, "use `with jax.enable_x64(True)`"
    return x
  return jax.tree.map(one, tree)
