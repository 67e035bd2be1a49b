"""Trajectories in float64, where only the rounding of the stored numbers separates us from them."""

import contextlib
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

LARGE = 10**7  # multiplications of a convolution that `fast` writes as matrix products


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


@contextlib.contextmanager
def fast():
  """64 bits, with large plain convolutions as a matrix product for each position of the kernel.

  XLA's CPU backend has no library call for convolutions in float64: its loop took 31 s for the gradient of
  a U-Net of full width, 0.3 s with the products. Small ones stay, the products take longer to compile. Passes
  in float32 run the primitive at every width. What is compiled inside must not be called outside.
  """
  primitive = jax.lax.conv_general_dilated
  with jax.enable_x64(True), mock.patch.object(jax.lax, "conv_general_dilated",
                                               functools.partial(_convolution, primitive)):
    yield


def _convolution(primitive, lhs, rhs, window_strides, padding, **how):
  """[B,H,W,C] with [h,w,C,D]; what is small, strided, dilated, grouped or laid out otherwise: `primitive`."""
  layout = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, how.get("dimension_numbers"))
  dilations = (*(how.get("lhs_dilation") or ()), *(how.get("rhs_dilation") or ()))
  if (lhs.dtype != jnp.float64 or lhs.ndim != 4 or lhs.size // lhs.shape[-1] * rhs.size < LARGE
      or layout != jax.lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
      or {*window_strides, *dilations, how.get("feature_group_count", 1),
          how.get("batch_group_count", 1)} != {1}):
    return primitive(lhs, rhs, window_strides, padding, **how)
  high, wide = rhs.shape[:2]
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(lhs.shape[1:3], (high, wide), (1, 1), padding)
  x = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
  h, w = x.shape[1] - high + 1, x.shape[2] - wide + 1
  return sum(jnp.tensordot(x[:, i:i + h, j:j + w], rhs[i, j], 1) for i in range(high) for j in range(wide))
