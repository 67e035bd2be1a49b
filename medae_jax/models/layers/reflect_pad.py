"""Reflect padding by one pixel with its gradient, in forms that XLA runs fast on CPUs and GPUs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError


@jax.custom_vjp
def reflect_pad(x):
  """[B,H,W,C] -> [B,H+2,W+2,C], mirrored without repeating the edge. No forward-mode derivative.

  In parts, since XLA on CPU builds and differentiates jnp.pad slowly (2.1 instead of 4.0 ms for
  16 MB, its transpose 0.9 instead of 7.0), and on GPUs moves the whole image twice for it.

  Raises:
    UserError: a side below 2 (nothing to reflect).
  """
  if min(x.shape[1:3]) < 2:
    raise UserError(f"a {x.shape[1]}x{x.shape[2]} map cannot be reflect-padded; the image is too "
                     "small for config.model.depth")
  row = lambda x: jnp.concatenate([x[:, :, 1:2], x, x[:, :, -2:-1]], 2)
  x = jnp.concatenate([row(x[:, 1:2]), row(x), row(x[:, -2:-1])], 1)
  if jax.default_backend() == "cpu":  # else built a second time, slowly, for the kernel gradient
    x = jax.lax.optimization_barrier(x)
  return x


def fold(full):
  """The transpose of reflect_pad, [B,H+2,W+2,C] -> [B,H,W,C]: the rim joins what it mirrors."""
  height, width = full.shape[1] - 2, full.shape[2] - 2
  y = full[:, 1:-1, 1:-1]
  y = _add(y, _fold_columns(full[:, :1]), 1, 0)  # rows with their corners
  y = _add(y, _fold_columns(full[:, -1:]), height - 2, 0)
  y = _add(y, full[:, 1:-1, :1], 0, 1)  # columns without
  return _add(y, full[:, 1:-1, -1:], 0, width - 2)


reflect_pad.defvjp(lambda x: (reflect_pad(x), None), lambda _, grad: (fold(grad),))


def _add(y, part, top, left):
  """y with `part` added in place, its first pixel at (top, left)."""
  at = (0, top, left, 0)
  return jax.lax.dynamic_update_slice(y, jax.lax.dynamic_slice(y, at, part.shape) + part, at)


def _fold_columns(full):
  """[B,h,W+2,C] -> [B,h,W,C]: the reflected columns' gradient joins the columns they mirror."""
  width = full.shape[2] - 2
  zeros = lambda x, left, right: jnp.pad(x, ((0, 0), (0, 0), (left, right), (0, 0)))
  return (full[:, :, 1:-1] + zeros(full[:, :, :1], 1, width - 2)
          + zeros(full[:, :, -1:], width - 2, 1))
