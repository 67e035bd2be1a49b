"""Poolings in forms that XLA runs and differentiates fast; all take and return [B,H,W,C]."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def avg_pool2x2(x):
  """Mean of 2x2 blocks, [B,H,W,C] -> [B,H//2,W//2,C]; an odd last row or column is dropped."""
  b, h, w, c = x.shape
  x = x[:, :h // 2 * 2, :w // 2 * 2]
  if jax.default_backend() == "cpu":
    return 0.25 * _block_sum(x)
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def nearest(x):
  """Each pixel four times, [B,h,w,C] -> [B,2h,2w,C]: nearest-neighbour up-sampling."""
  if jax.default_backend() == "cpu":
    return _doubled(x)
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


# Each is the gradient of the other. XLA's code for CPUs sums small blocks 3 to 13 times as slowly
# (docs/performance_trials.md), and rounds bfloat16 in between. No forward-mode derivative.
@jax.custom_vjp
def _block_sum(x):
  parts = [part.astype(jnp.promote_types(x.dtype, jnp.float32)) for part in _corners(x)]
  return (parts[0] + parts[1] + (parts[2] + parts[3])).astype(x.dtype)


@jax.custom_vjp
def _doubled(x):
  b, h, w, c = x.shape
  return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


_block_sum.defvjp(lambda x: (_block_sum(x), None), lambda _, grad: (_doubled(grad),))
_doubled.defvjp(lambda x: (_doubled(x), None), lambda _, grad: (_block_sum(grad),))


@jax.custom_vjp
def max_pool2x2(x):
  """Maximum of 2x2 blocks, [B,H,W,C] -> [B,H//2,W//2,C]; an odd last row or column is dropped.

  The gradient goes to the first of equal maxima, as PyTorch's does. It is written out: XLA's own,
  select-and-scatter, takes 8 to 40 times as long on a CPU. No forward-mode derivative.
  """
  a, b, c, d = _corners(x)
  return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _corners(x):
  """Upper left, upper right, lower left, lower right pixel of every block."""
  h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
  return [x[:, i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)]


def _max_pool_backward(x, grad):
  a, b, c, d = _corners(x)
  # Comparisons, not equality with the maximum: XLA may compute x twice, with other roundings.
  left, lower_left = a >= b, c >= d
  upper = jnp.maximum(a, b) >= jnp.maximum(c, d)
  parts = [jnp.where(chosen, grad, jnp.zeros_like(grad)) for chosen in (
      upper & left, upper & ~left, ~upper & lower_left, ~upper & ~lower_left)]
  b, h, w, c = grad.shape
  rows = [jnp.stack(pair, 3).reshape(b, h, 2 * w, c) for pair in (parts[:2], parts[2:])]
  dx = jnp.stack(rows, 2).reshape(b, 2 * h, 2 * w, c)
  return (jnp.pad(dx, ((0, 0), (0, x.shape[1] - 2 * h), (0, x.shape[2] - 2 * w), (0, 0))),)


max_pool2x2.defvjp(lambda x: (max_pool2x2(x), x), _max_pool_backward)
