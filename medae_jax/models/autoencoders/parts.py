"""Layers of these networks: convolutions, transposed convolutions and linear maps with named initialisers.

Every network has the signature (x, train=False, axis_name=None), whether it normalises or not.
"""

from __future__ import annotations

from collections.abc import Callable
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models.layers import conv_forms
from medae_jax.models.layers.init import uniform_fan_in

Init = Callable[[int], tuple[Callable, Callable]]  # fan-in -> initialisers of kernel and bias


def torch_init(fan_in: int):
  """PyTorch's default for kernels and biases: U(-1/sqrt(f), 1/sqrt(f))."""
  return (uniform_fan_in(fan_in),) * 2


def he_init(fan_in: int):
  """Kernels N(0, 2/f), biases 0 (He et al. 2015, arXiv 1502.01852)."""
  return _normal(math.sqrt(2 / fan_in)), nn.initializers.zeros


def dcgan_init(fan_in: int):
  """Kernels N(0, 0.02^2), biases 0 (Radford et al. 2016, arXiv 1511.06434)."""
  del fan_in
  return _normal(0.02), nn.initializers.zeros


def _normal(std):
  return lambda key, shape, dtype=jnp.float32: std * jax.random.normal(key, shape, dtype)


def _pair(size):
  return (size, size) if isinstance(size, int) else tuple(size)


def conv(x, features: int, size, stride: int = 1, pad: int = 0, *, dtype, name: str, bias: bool = True,
         init: Init = torch_init):
  """Convolution [B,H,W,I] -> [B,h,w,features], zero-padded by `pad` on every side; size: k or (kh, kw)."""
  size = _pair(size)
  kernel_init, bias_init = init(math.prod(size) * x.shape[-1])
  return nn.Conv(features, size, (stride, stride), [(pad, pad)] * 2, use_bias=bias, dtype=dtype, name=name,
                 kernel_init=kernel_init, bias_init=bias_init, conv_general_dilated=conv_forms.general)(x)


def conv_transpose(x, features: int, size, stride: int = 1, pad: int = 0, *, dtype, name: str,
                   bias: bool = True, init: Init = torch_init):
  """PyTorch's transposed convolution without output padding: side n -> (n-1) stride - 2 pad + k.

  The kernel [kh,kw,I,O] is correlated with the dilated input: PyTorch's, turned by 180 degrees, whose fan-in
  counts the output channels.
  """
  size = _pair(size)
  kernel_init, bias_init = init(math.prod(size) * features)
  around = [(k - 1 - pad, k - 1 - pad) for k in size]
  return nn.ConvTranspose(features, size, (stride, stride), around, use_bias=bias, dtype=dtype, name=name,
                          kernel_init=kernel_init, bias_init=bias_init)(x)


def linear(x, features: int, *, dtype, name: str, init: Init = torch_init):
  """[B,I] -> [B,features]."""
  kernel_init, bias_init = init(x.shape[-1])
  return nn.Dense(features, dtype=dtype, name=name, kernel_init=kernel_init, bias_init=bias_init)(x)


def flat(x):
  """[B,h,w,C] -> [B,C h w], channels first, as published weights of a linear map that follows want it."""
  return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def unflat(x, height: int, width: int):
  """The inverse of `flat`: [B,C h w] -> [B,h,w,C]."""
  return x.reshape(x.shape[0], -1, height, width).transpose(0, 2, 3, 1)


def halved(shape, times: int, what: str) -> tuple[int, int]:
  """Sides of an image [H,W,C] halved `times` times.

  Raises:
    UserError: they are no multiples of 2^times; `what` names the field that says how often.
  """
  height, width = shape[:2]
  if height % 2**times or width % 2**times:
    raise UserError(f"images of {height}x{width} cannot be halved {times} times ({what}): make "
                    f"config.data.image_size a multiple of {2**times}")
  return height // 2**times, width // 2**times


def square_levels(shape, smallest: int) -> int:
  """How often a square image [S,S,C], S = smallest 2^n, is halved to `smallest`: n.

  Raises:
    UserError: another size.
  """
  height, width = shape[:2]
  levels = max(height // smallest, 1).bit_length() - 1
  if height != width or height != smallest * 2**levels:
    raise UserError(f"images of {height}x{width}: this network wants squares of {smallest}, {2 * smallest}, "
                    f"{4 * smallest} ... pixels; change config.data.image_size")
  return levels
