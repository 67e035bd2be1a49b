"""Trajectories in float64, where only the rounding of the stored numbers separates us from them.

After `large_convolutions_as_products` large convolutions in float64 run as one product of matrices. XLA's CPU
backend has no library call for them: its loop took 31 s for the gradient of a U-Net of full width, 0.3 s with
products, and is slower still without the passes of LLVM. Small ones stay: products compile longer. Passes in
float32 run the primitive at every width.
"""

import math

import jax
from jax._src.lax import convolution  # the rule of a primitive for one platform: JAX has no public way
from jax.interpreters import mlir
import jax.numpy as jnp
import numpy as np

LARGE = 10**6  # multiplications of a convolution that runs as a product
SLICES = 64  # at most, out of which its left side is put together


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


def large_convolutions_as_products() -> None:
  """For this process, from now on."""
  mlir.register_lowering(convolution.conv_general_dilated_p, _lower, platform="cpu")


def _lower(ctx, lhs, rhs, **how):
  """The rule of `conv_general_dilated` for CPUs: gradients and transposed convolutions come here too."""
  (left, right), (out,) = ctx.avals_in, ctx.avals_out
  layout, groups = how["dimension_numbers"], (how["feature_group_count"], how["batch_group_count"])
  window, found = ([shape[d] for d in spec[2:]] for shape, spec in
                   ((right.shape, layout.rhs_spec), (out.shape, layout.out_spec)))
  work = out.size * right.size // max(1, right.shape[layout.rhs_spec[0]])
  if (left.dtype != jnp.float64 or work < LARGE or groups != (1, 1)
      or min(math.prod(window), math.prod(found)) > SLICES or len(window) != 2):
    return convolution._conv_general_dilated_lower(ctx, lhs, rhs, expand_complex_convolutions=True, **how)
  product = lambda a, b: as_product(a, b, found, **{k: how[k] for k in (
      "window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers")})
  return mlir.lower_fun(product, multiple_results=False)(ctx, lhs, rhs)


def as_product(lhs, rhs, found, *, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers):
  """The convolution without groups; `found` is (h, w) of its result."""
  layout = dimension_numbers
  batch, channels, *sides = layout.lhs_spec
  x = jnp.transpose(lhs, (batch, *sides, channels))
  kernel = jnp.transpose(rhs, (*layout.rhs_spec[2:], layout.rhs_spec[1], layout.rhs_spec[0]))
  around = [(low, high, d - 1) for (low, high), d in zip(padding, lhs_dilation)]
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *around, (0, 0, 0)])
  window = kernel.shape[:2]
  by_window = math.prod(window) <= math.prod(found)
  (few, step), (many, stride) = ((window, rhs_dilation), (found, window_strides))[::1 if by_window else -1]
  slices = [x[:, i * step[0]:i * step[0] + (many[0] - 1) * stride[0] + 1:stride[0],
              j * step[1]:j * step[1] + (many[1] - 1) * stride[1] + 1:stride[1]]
            for i in range(few[0]) for j in range(few[1])]  # each [B, *many, C]
  patches = jnp.stack(slices, 3 if by_window else 1)  # [B, h, w, window, C]: windows of each place
  rows = patches.reshape(len(x) * math.prod(found), -1)
  y = (rows @ kernel.reshape(-1, kernel.shape[-1])).reshape(len(x), *found, -1)
  return jnp.transpose(y, np.argsort((layout.out_spec[0], *layout.out_spec[2:], layout.out_spec[1])))
