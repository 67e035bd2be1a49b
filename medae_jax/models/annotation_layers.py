"""Layers of the annotation-removal networks beside those of `layers`.

Parameters, batch statistics and normalisation are float32; products run in `dtype`.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models.layers import conv_forms
from medae_jax.models.layers.gated_norm import gate_of, gated_norm
from medae_jax.models.layers.init import uniform_fan_in
from medae_jax.models.layers.same_conv import plain_conv, same_conv

_FEW = 4  # channels of a picture


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _dilated_conv(x, kernel, dilation):
  """plain_conv with a kernel gradient of shifted products.

  XLA for GPUs knows no kernel gradient with dilation and makes it a forward convolution whose
  kernel is the image, with the batch for channels.
  """
  return plain_conv(x, kernel, dilation)


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
  _, pull = jax.vjp(lambda x: plain_conv(x, kernel, dilation), x)
  return *pull(grad), d_kernel.astype(kernel.dtype)


_dilated_conv.defvjp(lambda x, kernel, dilation: (plain_conv(x, kernel, dilation), (x, kernel)),
                     _dilated_backward)


def _few_sums(x, kernel):
  """A 1x1 convolution to a few channels as sums: x, which may be narrower, is not written in their type."""
  return jnp.stack([jnp.sum(x.astype(kernel.dtype) * column, -1) for column in kernel.T], -1)


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
    if self.size == 1 and self.features <= _FEW and jax.default_backend() != "cpu":
      y = _few_sums(x, kernel[0, 0].astype(self.dtype))
    else:
      x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
      y = same_conv(x, kernel) if self.dilation == 1 else _dilated_conv(x, kernel, self.dilation)
    if self.use_bias:
      y = conv_forms.add_bias(y, self.param("bias", init, (self.features,)).astype(self.dtype))
    return y


class SqueezeExcite(nn.Module):
  """Channel gate x * sigmoid(W2 relu(W1 mean(x))), no biases, hidden width C // 16."""

  @nn.compact
  def __call__(self, x, norm=None, dtype=None):
    """The gated x; with `norm`, (mean, gain, bias) [C]: the gated relu((x - mean) gain + bias) in `dtype`."""
    c = x.shape[-1]
    if c < 16:
      raise UserError(f"config.model.width is too small: a squeeze-excitation block of {c} channels "
                       "has no hidden channel (C // 16 = 0); every block needs 16 or more.")
    first = self.param("excitation_0", uniform_fan_in(c), (c, c // 16))
    second = self.param("excitation_2", uniform_fan_in(c // 16), (c // 16, c))
    if norm is not None:
      return gated_norm(x, *norm, first, second, dtype)
    gate = gate_of(jnp.mean(x, (1, 2), jnp.promote_types(jnp.float32, x.dtype)), first, second)
    return x * gate[:, None, None, :].astype(x.dtype)
