"""Bias, Swish, GroupNorm and reflect padding as one operation with its gradient written out.

  z = x + bias,  s = z sigmoid(z),  y = (s - mean_g(s)) / sqrt(var_g(s) + eps) * scale + shift

Activations pass through memory once to sum, once to sum squares (both at once except on CPUs) and once to be
written; backwards once to sum and once to be written, from x alone: neither z nor s nor y is kept. Automatic
differentiation of the plain form keeps several of them and takes 2.3 times as long on a CPU core.
Statistics and arithmetic are float32 even where x is narrower (float64 where it is that). No
forward-mode derivative.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from medae_jax.models.layers.dtype import at_least_float32
from medae_jax.models.layers.reflect_pad import fold, reflect_pad


def plain(x, bias, scale, shift, groups: int, eps: float = 1e-5):
  """The definition, for tests: differentiated automatically."""
  s = _swish(x, bias)
  grouped = s.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
  mean = jnp.mean(grouped, (1, 2, 4), keepdims=True)
  variance = jnp.mean((grouped - mean) ** 2, (1, 2, 4), keepdims=True)
  y = ((grouped - mean) * jax.lax.rsqrt(variance + eps)).reshape(x.shape)
  return (y * scale + shift).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def swish_group_norm(x, bias, scale, shift, groups: int, pad: bool = False, eps: float = 1e-5):
  """GroupNorm(swish(x + bias)) over contiguous blocks of C / groups channels; biased variance.

  Args:
    x: [B,H,W,C]; bias, scale, shift: float32 [C].
    pad: reflect-pad the result by one pixel.

  Returns:
    [B,H,W,C], padded [B,H+2,W+2,C], in the dtype of x.
  """
  return _forward(x, bias, scale, shift, groups, pad, eps)[0]


def _forward(x, bias, scale, shift, groups, pad, eps):
  mean, variance = (_two_passes if jax.default_backend() == "cpu" else _one_pass)(x, bias, groups)
  inverse = jax.lax.rsqrt(variance + eps)
  on_cpu = jax.default_backend() == "cpu"
  # Equal either way. Elsewhere XLA would pass twice over what takes arithmetic to pad it.
  last = reflect_pad(x) if pad and not on_cpu else x
  y = (_swish(last, _after(bias, inverse)) - mean) * (inverse * scale) + shift
  y = y.astype(x.dtype)
  return reflect_pad(y) if pad and on_cpu else y, (x, bias, scale, mean, inverse)


def _two_passes(x, bias, groups):
  """Mean and biased variance of swish(x + bias) over groups, each [B,1,1,C]."""
  channels_of = lambda rows: _group_means(rows, x.shape, groups)
  mean = channels_of(_row_sums(_swish(x, bias)))
  # Deviations from the mean, not E[s^2] - mean^2: float32 cancels where the mean is large.
  return mean, channels_of(_row_sums((_swish(x, bias) - mean) ** 2))


def _one_pass(x, bias, groups):
  """The same from sums about the mean m of the middle row: E[(s - m)^2] - E[s - m]^2.

  As that row is 1/H of an image, (mean - m)^2 <= H variance: what cancels is at most log2(H) bits.
  """
  at = x.shape[1] // 2
  row = x[:, at:at + 1]
  middle = _group_means(jnp.sum(_swish(row, bias), 2), row.shape, groups)
  deviation = _swish(x, _after(bias, middle)) - middle
  first, second = _together(lambda rows: _group_means(rows, x.shape, groups),
                            _row_sums(deviation), _row_sums(deviation**2))
  return middle + first, jnp.maximum(second - first**2, 0.0)


def _backward(groups, pad, eps, saved, grad):
  del eps
  x, bias, scale, mean, inverse = saved
  grad = at_least_float32(fold(grad) if pad else grad)
  channels_of = lambda rows: _group_means(scale * rows, x.shape, groups)
  normal = (_swish(x, _after(bias, mean + inverse)) - mean) * inverse
  shift_rows, scale_rows = _row_sums(grad), _row_sums(grad * normal)
  offset, tilt = _together(channels_of, shift_rows, scale_rows)
  z = at_least_float32(x) + _after(bias, offset)
  gate = jax.nn.sigmoid(z)
  normal = (z * gate - mean) * inverse
  dx = inverse * (grad * scale - offset - normal * tilt) * gate * (1 + z * (1 - gate))
  return dx.astype(x.dtype), *_totals(_row_sums(dx), scale_rows, shift_rows)


def _together(fn, *rows):
  """fn of each; except on CPUs, of all as one batch: half the kernels."""
  if jax.default_backend() == "cpu":
    return [fn(r) for r in rows]
  return jnp.split(fn(jnp.concatenate(rows)), len(rows))


def _totals(*rows):
  """Sums [C] of rows [B,H,C]; except on CPUs, all in one kernel."""
  if jax.default_backend() == "cpu":
    return [jnp.sum(jnp.sum(r, 1), 0) for r in rows]
  return list(jnp.sum(jnp.stack(rows), (1, 2)))


def _swish(x, bias):
  return jax.nn.swish(at_least_float32(x) + bias)


def _after(value, other):
  """`value`; except on CPUs the compiler knows it only once it knows `other`, finite.

  XLA would see that several passes need the same swish and, on GPUs, write it out in float32 for
  all of them: a third of the memory traffic of a bfloat16 step. An optimization_barrier does not
  keep it from that.
  """
  return value if jax.default_backend() == "cpu" else value + 0.0 * other


def _row_sums(x):
  """[B,H,W,C] -> [B,H,C].

  Row by row, since XLA on CPU adds one by one, and a single sum over a whole image loses a digit
  against the reference (2.4e-5 instead of 4e-6 in the golden networks).
  """
  return jnp.sum(x, 2)


def _group_means(rows, shape, groups):
  """Row sums [B,H,C] -> means over groups, spread to their channels: [B,1,1,C]."""
  _, height, width, channels = shape
  size = channels // groups
  total = jnp.sum(rows.reshape(-1, height, groups, size), (1, 3)) / (height * width * size)
  return jnp.repeat(total, size, 1)[:, None, None, :]


swish_group_norm.defvjp(_forward, _backward)
