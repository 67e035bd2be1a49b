"""Convolutional encoder and decoder of the chest X-ray autoencoders (Bercea et al. 2023, MICCAI, LNCS 14224).

Encoder: convolution (kernel k, stride s_i, padding (k-1)/2) -> normalisation -> activation, widths
`channels` and one more copy of the last, as many layers as there are strides. Decoder: the mirror image, by
bilinear up-sampling with aligned corners and a convolution ("resize") or by transposed convolutions
("transposed"), then a 1x1 convolution and a sigmoid. Both also return their convolutions' outputs before
normalisation, which the deformer of MorphAEus reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError, shown
from medae_jax.models.layers import conv_forms, norm as norms
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer
from medae_jax.models.layers.init import uniform_fan_in
from medae_jax.models.layers.leaky import leaky_relu
from medae_jax.models.layers.resample import upsample_aligned

UPSAMPLING = ("resize", "transposed")
NORMS = ("batch", "frozen", "group", "none")


def activation(name: str, slope: float) -> Callable[[jax.Array], jax.Array]:
  """"swish", "relu" or "leaky_relu" with this slope of the negative side.

  Raises:
    UserError: another name.
  """
  if name == "leaky_relu":
    return lambda x: leaky_relu(x, slope)
  if name not in ("swish", "relu"):
    raise UserError(f"config.model.act={name!r}: use swish, relu or leaky_relu")
  return nn.swish if name == "swish" else nn.relu


def conv(features: int, size: int, stride: int, fan_in: int, dtype, name: str) -> nn.Conv:
  """k x k convolution with padding (k-1)/2 on every side, never "SAME", as PyTorch draws it.

  Args:
    fan_in: channels that it reads.
  """
  uniform, pad = uniform_fan_in(size**2 * fan_in), (size - 1) // 2
  return nn.Conv(features, (size, size), (stride, stride), [(pad, pad)] * 2, dtype=dtype, name=name,
                 kernel_init=uniform, bias_init=uniform, conv_general_dilated=conv_forms.general)


def conv_transpose(features: int, size: int, stride: int, dtype, name: str) -> nn.ConvTranspose:
  """Transposed k x k convolution, padding (k-1)/2, output padding s-1: [B,h,w,I] -> [B,sh,sw,O].

  The kernel [k,k,I,O] is the one that is correlated with the dilated input: PyTorch's, turned by 180 degrees.
  """
  uniform = uniform_fan_in(size**2 * features)  # PyTorch counts the output channels here
  low = size - 1 - (size - 1) // 2
  return nn.ConvTranspose(features, (size, size), (stride, stride), [(low, low + stride - 1)] * 2, name=name,
                          dtype=dtype, kernel_init=uniform, bias_init=uniform)


def normalise(x, kind: str, train: bool, axis_name, name: str):
  """One of NORMS, inside a compact module. "frozen": batch normalisation that never learns its statistics.

  "group": groups of at most 8 channels' share, Wu & He 2018 (arXiv 1803.08494).

  Raises:
    UserError: an unknown kind.
  """
  if kind not in NORMS:
    raise UserError(f"config.model.norm={kind!r}: use {', '.join(NORMS)}")
  if kind == "none":
    return x
  if kind == "group":
    groups = next(g for g in (8, 4, 2, 1) if x.shape[-1] % g == 0)
    return nn.GroupNorm(groups, epsilon=1e-5, dtype=x.dtype, name=name)(x)
  return norms.BatchNorm(train and kind == "batch", axis_name, unbiased=True, name=name)(x)


def check_strides(channels, strides) -> None:
  """Raises UserError where strides or widths would be left over: one more stride repeats the last width."""
  if not len(channels) <= len(strides) <= len(channels) + 1:
    raise UserError(f"config.model.strides={shown(tuple(strides))}: give {len(channels)} of them, or one "
                    f"more, to the {len(channels)} of config.model.widths={shown(tuple(channels))}")


class Encoder(nn.Module):
  """image [B,H,W,C] -> (code [B,h,w,channels[-1]], convolution outputs before normalisation)."""
  channels: tuple[int, ...]
  strides: tuple[int, ...]
  size: int = 3
  norm: str = "batch"
  act: str = "swish"
  slope: float = 0.01
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image, train: bool = False, axis_name: str | None = None):
    check_strides(self.channels, self.strides)
    act, x, raw = activation(self.act, self.slope), image, []
    for i, (width, stride) in enumerate(zip((*self.channels, self.channels[-1]), self.strides)):
      x = conv(width, self.size, stride, x.shape[-1], self.dtype, f"conv{i}")(x)
      raw.append(x)
      x = act(normalise(x, self.norm, train, axis_name, f"norm{i}"))
    return x, raw


class Decoder(nn.Module):
  """code [B,h,w,c] -> (image [B,H,W,out] in (0, 1), float32; convolution outputs before normalisation)."""
  channels: tuple[int, ...]
  strides: tuple[int, ...]
  out: int
  size: int = 3
  norm: str = "batch"
  act: str = "swish"
  slope: float = 0.01
  upsampling: str = "resize"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, code, train: bool = False, axis_name: str | None = None):
    if self.upsampling not in UPSAMPLING:
      raise UserError(f"config.model.upsampling={self.upsampling!r}: use {' or '.join(UPSAMPLING)}")
    act, x, raw = activation(self.act, self.slope), code, []
    widths = (*reversed(self.channels), self.channels[0])
    for i, (width, stride) in enumerate(zip(widths, reversed(self.strides))):
      if self.upsampling == "resize":
        x = upsample_aligned(x, stride) if stride > 1 else x
        x = conv(width, self.size, 1, x.shape[-1], self.dtype, f"conv{i}")(x)
      else:
        x = conv_transpose(width, self.size, stride, self.dtype, f"conv{i}")(x)
      raw.append(x)
      x = act(normalise(x, self.norm, train, axis_name, f"norm{i}"))
    x = conv(self.out, 1, 1, x.shape[-1], of_last_layer(self.dtype), "last")(x)
    return nn.sigmoid(at_least_float32(x)), raw
