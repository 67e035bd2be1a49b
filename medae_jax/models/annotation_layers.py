"""Layers of the annotation-removal networks beside those of `layers`.

Parameters, batch statistics and normalisation are float32; products run in `dtype`.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models.layers.conv import uniform_fan_in


def _conv(x, kernel, dilation):
  pad = dilation * (kernel.shape[0] // 2)
  return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), [(pad, pad)] * 2, rhs_dilation=(dilation, dilation),
      dimension_numbers=("NHWC", "HWIO", "NHWC"))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dilated_conv(x, kernel, dilation):
  """_conv with a kernel gradient of shifted products.

  XLA for GPUs knows no kernel gradient with dilation and makes it a forward convolution whose
  kernel is the image, with the batch for channels.
  """
  return _conv(x, kernel, dilation)


def _dilated_backward(dilation, saved, grad):
  x, kernel = saved
  size, (_, height, width, channels) = kernel.shape[0], x.shape
  pad = dilation * (size // 2)
  padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

  def tap(i, j):
    part = padded[:, i * dilation:i * dilation + height, j * dilation:j * dilation + width]
    return jnp.dot(part.reshape(-1, channels).T, grad.reshape(-1, grad.shape[-1]),
                   preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))
  d_kernel = jnp.stack([jnp.stack([tap(i, j) for j in range(size)]) for i in range(size)])
  _, pull = jax.vjp(lambda x: _conv(x, kernel, dilation), x)
  return *pull(grad), d_kernel.astype(kernel.dtype)


_dilated_conv.defvjp(lambda x, kernel, dilation: (_conv(x, kernel, dilation), (x, kernel)),
                     _dilated_backward)


class Conv(nn.Module):
  """Stride-1 convolution that keeps the size by zero padding; kernel [k,k,I,O]."""
  features: int
  size: int = 3
  dilation: int = 1
  use_bias: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    init = uniform_fan_in(x.shape[-1] * self.size**2)
    kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.features))
    conv = _conv if self.dilation == 1 else _dilated_conv
    y = conv(x.astype(self.dtype), kernel.astype(self.dtype), self.dilation)
    if self.use_bias:
      y = y + self.param("bias", init, (self.features,)).astype(self.dtype)
    return y


class BatchNorm(nn.Module):
  """Batch normalisation over B, H, W with float32 statistics; eps 1e-5, momentum 0.1.

  Attributes:
    train: normalise by the batch and update the running statistics; else use these.
    axis_name: mapped axis over which batch statistics are averaged, in training.
    unbiased: feed the running variance n/(n-1) times the batch variance, n counted over all
      devices, as PyTorch does. The normalisation itself always uses the biased one.
  """
  train: bool
  axis_name: str | None = None
  unbiased: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    c = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (c,))
    bias = self.param("bias", nn.initializers.zeros, (c,))
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, (c,))
    running_var = self.variable("batch_stats", "var", jnp.ones, (c,))
    x = x.astype(jnp.promote_types(jnp.float32, x.dtype))
    mean, var = running_mean.value, running_var.value
    if self.train:
      mean, var, count = self._moments(x)
      if not self.is_initializing():
        factor = count / max(count - 1, 1) if self.unbiased else 1.0
        running_mean.value = 0.9 * running_mean.value + 0.1 * mean
        running_var.value = 0.9 * running_var.value + 0.1 * var * factor
    y = (x - mean) * (scale * jax.lax.rsqrt(var + 1e-5)) + bias
    return y.astype(self.dtype)

  def _moments(self, x):
    """Mean and biased variance [C] over the global batch; its number of values a channel."""
    axes, count = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
    # inside init the modules run outside the mapped step: no axis there
    axis_name = None if self.is_initializing() else self.axis_name
    mean = jnp.mean(x, axes)
    if axis_name is not None:
      mean = jax.lax.pmean(mean, axis_name)
      count = count * jax.lax.axis_size(axis_name)
    # E[(x - m)^2], not E[x^2] - m^2: float32 cancels in the latter where a channel's mean is large
    var = jnp.mean((x - mean) ** 2, axes)
    if axis_name is not None:
      var = jax.lax.pmean(var, axis_name)
    return mean, var, count


class SqueezeExcite(nn.Module):
  """Channel gate x * sigmoid(W2 relu(W1 mean(x))), no biases, hidden width C // 16."""

  @nn.compact
  def __call__(self, x):
    c = x.shape[-1]
    if c < 16:
      raise UserError(f"config.model.width is too small: a squeeze-excitation block of {c} channels "
                       "has no hidden channel (C // 16 = 0); every block needs 16 or more.")
    z = jnp.mean(x, (1, 2), jnp.promote_types(jnp.float32, x.dtype))  # [B,C]
    first = self.param("excitation_0", uniform_fan_in(c), (c, c // 16))
    second = self.param("excitation_2", uniform_fan_in(c // 16), (c // 16, c))
    gate = jax.nn.sigmoid(jnp.dot(nn.relu(jnp.dot(z, first)), second))
    return x * gate[:, None, None, :].astype(x.dtype)


def upsample_aligned(x):
  """Bilinear doubling with aligned corners: output i samples the input at i (n-1)/(2n-1)."""
  rows, cols = (jnp.asarray(_aligned_matrix(n), x.dtype) for n in x.shape[1:3])
  x = jnp.einsum("Hh,bhwc->bHwc", rows, x)
  return jnp.einsum("Ww,bhwc->bhWc", cols, x)


def _aligned_matrix(n: int) -> np.ndarray:
  """Interpolation weights [2n, n]."""
  at = np.arange(2 * n) * (n - 1) / (2 * n - 1)
  low = np.minimum(np.floor(at).astype(int), n - 1)
  high = np.minimum(low + 1, n - 1)
  matrix = np.zeros((2 * n, n))
  np.add.at(matrix, (np.arange(2 * n), low), 1 - (at - low))
  np.add.at(matrix, (np.arange(2 * n), high), at - low)
  return matrix


def pad_to(x, height: int, width: int):
  """Zero-pads [B,h,w,C] to [B,height,width,C], floor of the difference before, the rest after.

  Raises:
    ValueError: the map is larger than its target.
  """
  dh, dw = height - x.shape[1], width - x.shape[2]
  if dh < 0 or dw < 0:
    raise UserError(f"a decoder map of {x.shape[1]}x{x.shape[2]} meets a skip of {height}x{width}; "
                     "use image sides divisible by 16.")
  return jnp.pad(x, ((0, 0), (dh // 2, dh - dh // 2), (dw // 2, dw - dw // 2), (0, 0)))
