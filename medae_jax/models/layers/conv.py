"""Layers that several networks share: convolution forms that XLA runs fast, PyTorch's initialisers.

All take and return NHWC. Parameters, standardisation and normalisation statistics are float32; the
products run in `dtype`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.models.layers.swish_norm import swish_group_norm


def uniform_fan_in(fan_in: int):
  """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): the reference framework's default for kernels and biases."""
  bound = fan_in ** -0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def standardise(kernel, eps: float = 1e-5):
  """(W - mean) / (sd + eps) per output channel, sd unbiased; kernel [kh,kw,I,O] float32."""
  mean = jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
  n = kernel[..., 0].size
  variance = jnp.sum((kernel - mean) ** 2, axis=(0, 1, 2), keepdims=True) / (n - 1)
  return (kernel - mean) / (jnp.sqrt(variance) + eps)


class WSConv3x3(nn.Module):
  """Weight-standardised 3x3 convolution without gain: [B,H+2,W+2,I] -> [B,H,W,O], its bias [O].

  The bias goes to the next operation, which reads the product anyway (models/swish_norm.py).
  """
  features: int
  dtype: Any = jnp.float32
  precision: Any = None

  @nn.compact
  def __call__(self, x):
    fan_in = 9 * x.shape[-1]
    kernel = self.param("kernel", uniform_fan_in(fan_in), (3, 3, x.shape[-1], self.features))
    bias = self.param("bias", uniform_fan_in(fan_in), (self.features,))
    kernel = standardise(kernel).astype(self.dtype)
    x = jax.lax.conv_general_dilated(
        x.astype(self.dtype), kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=self.precision)
    return x, bias


class ConvTranspose2x2(nn.Module):
  """2x2 transposed convolution, stride 2: [B,H,W,I] -> [B,2H,2W,O].

  Written as a matrix product to 4 O channels followed by depth-to-space: the same operator (the
  2x2 patches do not overlap), 30 times faster to differentiate on CPU and the faster form on GPU.
  """
  features: int
  use_bias: bool = True
  dtype: Any = jnp.float32
  precision: Any = None

  @nn.compact
  def __call__(self, x):
    init = uniform_fan_in(4 * self.features)  # the reference framework's fan-in of such a kernel
    kernel = self.param("kernel", init, (x.shape[-1], 2, 2, self.features))
    b, h, w, c = x.shape
    y = jnp.dot(x.astype(self.dtype).reshape(-1, c), kernel.astype(self.dtype).reshape(c, -1),
                precision=self.precision)
    y = y.reshape(b, h, w, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(b, 2 * h, 2 * w, self.features)
    if self.use_bias:
      y = y + self.param("bias", init, (self.features,)).astype(self.dtype)
    return y


class Conv1x1(nn.Module):
  """1x1 convolution with bias."""
  features: int
  dtype: Any = jnp.float32
  precision: Any = None

  @nn.compact
  def __call__(self, x):
    init = uniform_fan_in(x.shape[-1])
    kernel = self.param("kernel", init, (x.shape[-1], self.features))
    bias = self.param("bias", init, (self.features,))
    y = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype), precision=self.precision)
    return y + bias.astype(self.dtype)


class SwishGroupNorm(nn.Module):
  """GroupNorm(swish(x + bias)) over contiguous channel blocks, reflect-padded if asked (`pad`)."""
  groups: int
  pad: bool = False
  eps: float = 1e-5

  @nn.compact
  def __call__(self, x, bias):
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    shift = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
    return swish_group_norm(x, bias, scale, shift, self.groups, self.pad, self.eps)


def avg_pool2x2(x):
  """Mean of 2x2 blocks, [B,H,W,C] -> [B,H//2,W//2,C]; an odd last row or column is dropped."""
  b, h, w, c = x.shape
  x = x[:, :h // 2 * 2, :w // 2 * 2]
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


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
