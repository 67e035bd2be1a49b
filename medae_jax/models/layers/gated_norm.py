"""Normalisation, ReLU and squeeze-excitation as one operation with its gradient written out.

  z = relu((x - m) a + b),  y = z gate,  gate = sigmoid(W2 relu(W1 mean(z)))  [B,C]

Automatic differentiation takes three passes over the activations for sums, writing the gradient of z between
them. All that is needed are sums over an image: with c = x - m and k = [z > 0], of k and k c, which give
mean(z), and of k dy and k c dy, which give the gradient of the gate; what that adds to the gradient of z, the
same at each pixel, needs the first two again. So x is read once to sum (XLA joins two sums to a pass), and x
and dy once to sum and once to write dx.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


def gate_of(mean, first, second):
  """Gates [B,C] of the means [B,C] of an image's channels (Hu 2018, arXiv 1709.01507)."""
  return jax.nn.sigmoid(jnp.dot(jax.nn.relu(jnp.dot(mean, first)), second))


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def gated_norm(x, mean, gain, bias, first, second, dtype):
  """y [B,H,W,C] in `dtype`; z is rounded to it as well.

  Args:
    x: [B,H,W,C], float32 or wider; mean, gain, bias: [C]; first, second: [C,hidden], [hidden,C].
  """
  return _forward(x, mean, gain, bias, first, second, dtype)[0]


def _forward(x, mean, gain, bias, first, second, dtype):
  centred = x - mean
  z = jax.nn.relu((centred * gain + bias).astype(dtype))
  on = z > 0
  k, k_x = _sum(on.astype(x.dtype)), _sum(jnp.where(on, centred, 0))
  means = (gain * k_x + bias * k) / (x.shape[1] * x.shape[2])
  gate = gate_of(means, first, second)
  return z * _each_pixel(gate).astype(dtype), (x, mean, gain, bias, first, second, means, k, k_x)


def _backward(dtype, saved, grad):
  x, mean, gain, bias, first, second, means, k, k_x = saved
  centred, grad = x - mean, grad.astype(x.dtype)
  on = (centred * gain + bias).astype(dtype) > 0
  g, g_x = (_sum(jnp.where(on, v, 0)) for v in (grad, grad * centred))
  gate, pull = jax.vjp(gate_of, means, first, second)
  d_means, d_first, d_second = pull(gain * g_x + bias * g)
  gate, even = gate.astype(dtype).astype(x.dtype), d_means / (x.shape[1] * x.shape[2])
  total = jnp.sum(gate * g + even * k, 0)
  dx = jnp.where(on, grad * _each_pixel(gate) + _each_pixel(even), 0) * gain
  return dx, -gain * total, jnp.sum(gate * g_x + even * k_x, 0), total, d_first, d_second


def _sum(x):
  return jnp.sum(x, (1, 2))


def _each_pixel(vector):
  return vector[:, None, None, :]


gated_norm.defvjp(_forward, _backward)
