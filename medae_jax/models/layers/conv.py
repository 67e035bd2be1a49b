"""Convolutions that several networks share, in forms that XLA runs fast.

All take and return NHWC. Parameters and kernel standardisation are float32; products run in `dtype`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medae_jax.models.layers import conv_forms
from medae_jax.models.layers.init import uniform_fan_in


def standardise(kernel, eps: float = 1e-5):
  """(W - mean) / (sd + eps) per output channel, sd unbiased; kernel [kh,kw,I,O] float32."""
  mean = jnp.mean(kernel, axis=(0, 1, 2), keepdims=True)
  n = kernel[..., 0].size
  variance = jnp.sum((kernel - mean) ** 2, axis=(0, 1, 2), keepdims=True) / (n - 1)
  return (kernel - mean) / (jnp.sqrt(variance) + eps)


class WSConv3x3(nn.Module):
  """Weight-standardised 3x3 convolution without gain: [B,H+2,W+2,I] -> [B,H,W,O], its bias [O].

  The bias goes to the next operation, which reads the product anyway (layers/swish_norm.py).

  Attributes:
    ready: the kernel given is standardised already (layers/joined_kernels.py).
  """
  features: int
  dtype: Any = jnp.float32
  precision: Any = None
  ready: bool = False

  @nn.compact
  def __call__(self, x):
    fan_in = 9 * x.shape[-1]
    kernel = self.param("kernel", uniform_fan_in(fan_in), (3, 3, x.shape[-1], self.features))
    bias = self.param("bias", uniform_fan_in(fan_in), (self.features,))
    kernel = (kernel if self.ready else standardise(kernel)).astype(self.dtype)
    return conv_forms.conv(x.astype(self.dtype), kernel, precision=self.precision), bias


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
