"""`swish_norm.swish_group_norm` as kernels of our own for GPUs (Pallas, by Triton), with its gradient.

  forward   sums of tiles -> y, padded as it is written                 (2 kernels)
  backward  sums of tiles -> dx, read through the fold of the padding   (2 kernels, one of XLA adds up)

A group that one block can hold in its registers (`kernels.HELD` values) takes a single kernel each way,
which reads x once. Swish is computed again wherever it is needed; no atomics, every sum has a fixed order.
Each tile is summed about its own mean (Chan, Golub, LeVeque 1983): nothing cancels. Arithmetic is float32.
"""

from __future__ import annotations

import functools
import math

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

from medae_jax.models.layers import swish_norm_kernels as kernels
from medae_jax.models.layers.swish_norm_kernels import TILE, Plan


def refusal(shape, dtype, groups: int) -> str:
  """Why these kernels do not take x of this shape [B,H,W,C] and type; "" where they do."""
  power = lambda n: n & (n - 1) == 0
  if not all(isinstance(n, int) for n in shape):
    return "sizes that are not known"
  if not (power(shape[-1]) and power(groups) and shape[-1] <= TILE):
    return f"{shape[-1]} channels in {groups} groups (powers of two, up to {TILE} channels)"
  if min(shape[1:3]) < 2:
    return f"images of {shape[1]}x{shape[2]}"
  if dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
    return f"the type {jnp.dtype(dtype).name}"
  return ""


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def swish_group_norm(x, bias, scale, shift, groups: int, pad: bool = False, eps: float = 1e-5,
                     interpret: bool = False):
  """As `swish_norm.swish_group_norm`.

  Args:
    x: [B,H,W,C] that `refusal` does not refuse; bias, scale, shift: float32 [C].
    interpret: run by JAX instead of compiled, on any device: for tests.
  """
  return _forward(x, bias, scale, shift, groups, pad, eps, interpret)[0]


def _forward(x, bias, scale, shift, groups, pad, eps, interpret):
  plan = Plan(*x.shape[1:], groups, pad, eps, interpret)
  flat = x.reshape(x.shape[0], plan.pixels, plan.channels)
  if plan.held(1):
    y, statistics = _whole(plan, flat, bias, scale, shift)
  else:
    statistics = _statistics(plan, flat, bias)
    y = _normalise(plan, flat, bias, scale, shift, statistics)
  return y.reshape(x.shape[0], *plan.out, plan.channels), (x, bias, scale, statistics)


def _backward(groups, pad, eps, interpret, saved, grad):
  x, bias, scale, statistics = saved
  plan = Plan(*x.shape[1:], groups, pad, eps, interpret)
  flat = x.reshape(x.shape[0], plan.pixels, plan.channels)
  grad = grad.reshape(x.shape[0], -1, plan.channels)
  if plan.held(2):
    dx, rows = _whole_gradient(plan, flat, grad, bias, scale, statistics)
  else:
    sums = _gradient_sums(plan, flat, grad, bias, scale, statistics)
    dx, rows = _gradient(plan, flat, grad, bias, scale, statistics, *sums)
  return dx.reshape(x.shape), *jnp.sum(rows, tuple(range(rows.ndim - 2)))


swish_group_norm.defvjp(_forward, _backward)


def _call(kernel, plan: Plan, grid, out, values: int, *operands):
  """Runs `kernel` on a grid of programs, each of which works on `values` numbers at once."""
  body = lambda *refs: kernel(plan, (pl.program_id(0), pl.program_id(1)), *refs)
  return pl.pallas_call(
      body, grid=grid, out_shape=out, interpret=plan.interpret, name=f"swish_norm_{kernel.__name__}",
      compiler_params=triton.CompilerParams(num_warps=min(16, max(4, values // 2048)), num_stages=1),
  )(*operands)


def _float32(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _statistics(plan, x, bias):
  """[B,parts,2,G]: mean and sum of squared deviations of each part of each group."""
  parts = plan.parts(plan.pixels)
  out = _float32(len(x), parts, 2, plan.groups)
  return _call(kernels.statistics, plan, (len(x), parts), out, TILE, x, bias)


def _normalise(plan, x, bias, scale, shift, statistics):
  pixels = math.prod(plan.out)
  out = jax.ShapeDtypeStruct((len(x), pixels, plan.channels), x.dtype)
  return _call(kernels.normalise, plan, (len(x), plan.parts(pixels)), out, TILE,
               x, bias, scale, shift, statistics)


def _gradient_sums(plan, x, grad, bias, scale, statistics):
  """[B,parts,2,C] sums of g and g x^ of each part; [B,parts,2,G] the same, times scale, of groups."""
  head = (len(x), plan.parts(plan.pixels), 2)
  out = _float32(*head, plan.channels), _float32(*head, plan.groups)
  return _call(kernels.gradient_sums, plan, head[:2], out, TILE, x, grad, bias, scale, statistics)


def _gradient(plan, x, grad, bias, scale, statistics, rows, sums):
  """dx; [B,parts,3,C] parts of the gradients of bias, scale and shift."""
  head = (len(x), plan.parts(plan.pixels))
  return _call(kernels.gradient, plan, head, (x, _float32(*head, 3, plan.channels)), TILE,
               x, grad, bias, scale, statistics, rows, sums)


def _whole(plan, x, bias, scale, shift):
  """y and [B,2,G]: mean and 1 / standard deviation."""
  out = jax.ShapeDtypeStruct((len(x), math.prod(plan.out), plan.channels), x.dtype)
  return _call(kernels.whole, plan, (len(x), plan.groups), (out, _float32(len(x), 2, plan.groups)),
               plan.size * pl.next_power_of_2(plan.pixels), x, bias, scale, shift)


def _whole_gradient(plan, x, grad, bias, scale, statistics):
  """dx; [B,3,C] as of `_gradient`."""
  return _call(kernels.whole_gradient, plan, (len(x), plan.groups), (x, _float32(len(x), 3, plan.channels)),
               2 * plan.size * pl.next_power_of_2(plan.pixels), x, grad, bias, scale, statistics)
