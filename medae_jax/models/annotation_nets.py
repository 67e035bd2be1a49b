"""The four networks of annotation removal, as published, and their repaired product forms.

Source: the public repository `dtronmans/denoising-autoencoder` (newest state). Every network maps
[B,H,W,C] in [0,1] to [B,H,W,`out_channels`]. `width` is the number of channels of the first stage
(published: 64, JungUNet 128); all other widths are multiples of it. Submodules carry the names of
the reference, so that `weights.annotation.reference_name` finds the tensor of a published checkpoint by rule.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models.annotation_layers import Conv, SqueezeExcite
from medae_jax.models.layers.conv import ConvTranspose2x2
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer
from medae_jax.models.layers.norm import BatchNorm
from medae_jax.models.layers.pool import avg_pool2x2, max_pool2x2
from medae_jax.models.layers.resample import pad_to, upsample_aligned


def _head(x, head: str):
  if head not in ("sigmoid", "linear"):
    raise UserError(f"config.model.head={head!r}: use residual, sigmoid or linear")
  x = at_least_float32(x)
  return jax.nn.sigmoid(x) if head == "sigmoid" else x


class Autoencoder(nn.Module):
  """`Autoencoder` of the public code: three poolings, no skips; sides divisible by 8."""
  out_channels: int = 3
  width: int = 64
  head: str = "sigmoid"
  dtype: Any = jnp.float32
  train: bool = False
  stride = 8

  @nn.compact
  def __call__(self, x):
    w = self.width
    for i, features in zip((0, 3, 6), (w, 2 * w, 4 * w), strict=True):
      x = max_pool2x2(nn.relu(Conv(features, dtype=self.dtype, name=f"encoder_{i}")(x)))
    for i, features in zip((0, 2), (8 * w, 4 * w), strict=True):
      x = nn.relu(Conv(features, dtype=self.dtype, name=f"latent_{i}")(x))
    for i, features in zip((0, 2), (2 * w, w), strict=True):
      x = nn.relu(ConvTranspose2x2(features, dtype=self.dtype, name=f"decoder_{i}")(x))
    x = ConvTranspose2x2(self.out_channels, dtype=of_last_layer(self.dtype), name="decoder_4")(x)
    return _head(x, self.head)


class AutoencoderWithSkipConnections(nn.Module):
  """Two skips as published, or with `full_skip` the repaired form.

  As published the full-resolution skip does not exist and no convolution follows a concatenation,
  so that the last layer paints 2x2 blocks. `full_skip` adds a convolution after each concatenation
  and the missing skip.
  """
  out_channels: int = 3
  width: int = 64
  head: str = "sigmoid"
  full_skip: bool = False
  dtype: Any = jnp.float32
  train: bool = False
  stride = 8

  @nn.compact
  def __call__(self, x):
    w, skips = self.width, []
    for stage, features in enumerate((w, 2 * w, 4 * w), 1):
      for i in (0, 2):
        x = nn.relu(Conv(features, dtype=self.dtype, name=f"encoder_conv{stage}_{i}")(x))
      skips.append(x)
      x = max_pool2x2(x)
    x = nn.relu(Conv(8 * w, dtype=self.dtype, name="latent_conv1")(x))
    x = nn.relu(Conv(4 * w, dtype=self.dtype, name="latent_conv2")(x))
    up = lambda features, i, dtype=self.dtype: ConvTranspose2x2(
        features, dtype=dtype, name=f"decoder_upsample{i}")
    x = self._join(nn.relu(up(2 * w, 1)(x)), skips[2], 1)
    x = self._join(nn.relu(up(w, 2)(x)), skips[1], 2)
    if not self.full_skip:
      return _head(up(self.out_channels, 3, of_last_layer(self.dtype))(x), self.head)
    x = self._join(nn.relu(up(w, 3)(x)), skips[0], 3)
    return _head(Conv(self.out_channels, 1, dtype=of_last_layer(self.dtype), name="out")(x), self.head)

  def _join(self, x, skip, i):
    features = x.shape[-1]
    x = jnp.concatenate([x, skip], -1)
    if self.full_skip:
      x = nn.relu(Conv(features, dtype=self.dtype, name=f"refine{i}")(x))
    return x


class DoubleConv(nn.Module):
  """(3x3 convolution without bias, BatchNorm, ReLU) twice, `middle` channels between."""
  features: int
  middle: int
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    for i, features in zip((0, 3), (self.middle, self.features), strict=True):
      x = Conv(features, use_bias=False, dtype=self.dtype, name=f"double_conv_{i}")(x)
      x = nn.relu(self.norm(name=f"double_conv_{i + 1}")(x))
    return x


class _Block(nn.Module):
  """A DoubleConv under the name that the reference gives it in its down and up blocks."""
  inner: str
  features: int
  middle: int
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, skip=None):
    if skip is not None:
      if self.inner == "conv":  # transposed convolution; the bilinear form has no parameters here
        x = ConvTranspose2x2(x.shape[-1] // 2, dtype=self.dtype, name="up")(x)
      else:
        x = upsample_aligned(x)
      x = jnp.concatenate([skip, pad_to(x, *skip.shape[1:3])], -1)
    name = "maxpool_conv_1" if self.inner == "down" else "conv"
    return DoubleConv(self.features, self.middle, self.norm, self.dtype, name=name)(x)


class BasicUNet(nn.Module):
  """U-Net (Ronneberger 2015, arXiv 1505.04597) with BatchNorm; published without a bound on its output.

  Any side of 16 or more works: maps are zero-padded to their skips.
  """
  out_channels: int = 1
  width: int = 64
  head: str = "linear"
  bilinear: bool = False
  dtype: Any = jnp.float32
  train: bool = False
  axis_name: str | None = None
  unbiased: bool = False
  stride = 16

  @nn.compact
  def __call__(self, x):
    w, dtype = self.width, self.dtype
    norm = lambda name: BatchNorm(
        self.train, self.axis_name, unbiased=self.unbiased, dtype=dtype, name=name)
    x = DoubleConv(w, w, norm, dtype, name="inc")(x)
    skips = []
    for i in range(1, 5):
      skips.append(x)
      features = 8 * w if i == 4 and self.bilinear else w * 2**i
      x = _Block("down", features, features, norm, dtype, name=f"down{i}")(max_pool2x2(x))
    for i in range(1, 5):
      joined = w * 2 ** (5 - i)  # channels after the concatenation
      if self.bilinear:
        features, middle = (joined // 4 if i < 4 else w), joined // 2
      else:
        features = middle = joined // 2
      x = _Block("bilinear" if self.bilinear else "conv", features, middle, norm, dtype,
                 name=f"up{i}")(x, skips[4 - i])
    return _head(_OutConv(self.out_channels, of_last_layer(dtype), name="outc")(x), self.head)


class _OutConv(nn.Module):
  features: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    return Conv(self.features, 1, dtype=self.dtype, name="conv")(x)


class ConvNorm(nn.Module):
  """3x3 convolution without bias, BatchNorm, ReLU, and a gate: SqueezeExcite."""
  features: int
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x, gate):
    x = Conv(self.features, use_bias=False, dtype=self.dtype, name="conv")(x)
    x, *affine = self.norm(name="bn", applied=False)(x)
    return gate(x, affine, self.dtype)


class EncoderBlock(nn.Module):
  """(ConvNorm, squeeze-excitation) twice; also used in the decoder."""
  features: int
  norm: Any
  dtype: Any

  @nn.compact
  def __call__(self, x):
    for i in (1, 2):
      gate = SqueezeExcite(name=f"seb_{i}")
      x = ConvNorm(self.features, self.norm, self.dtype, name=f"conv_{i}")(x, gate)
    return x


class LatentBlock(nn.Module):
  """Four dilated branches (2, 4, 8, 16) beside the identity; linear apart from the gates."""
  width: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    c, dtype = self.width, self.dtype
    x = SqueezeExcite(name="se_block_1")(Conv(c, use_bias=False, dtype=dtype, name="conv_1")(x))
    branches = [Conv(c // 4, dilation=d, dtype=dtype, name=f"dilated_convs_{i}")(x)
                for i, d in enumerate((2, 4, 8, 16))]
    x = Conv(c, 1, dtype=dtype, name="conv1x1")(jnp.concatenate([x, *branches], -1))
    x = SqueezeExcite(name="se_block_2")(Conv(c, use_bias=False, dtype=dtype, name="conv_2")(x))
    return ConvTranspose2x2(c // 2, dtype=dtype, name="up_conv")(x)


class JungUNet(nn.Module):
  """U-Net with squeeze-excitation (Hu 2018, arXiv 1709.01507) and a dilated latent block.

  The public code's default. Sides divisible by 8.
  """
  out_channels: int = 1
  width: int = 128
  head: str = "sigmoid"
  dtype: Any = jnp.float32
  train: bool = False
  axis_name: str | None = None
  unbiased: bool = False
  stride = 8

  @nn.compact
  def __call__(self, x):
    w, dtype, skips = self.width, self.dtype, []
    norm = lambda name, **more: BatchNorm(
        self.train, self.axis_name, unbiased=self.unbiased, dtype=dtype, name=name, **more)
    for i, features in enumerate((w, 2 * w, 4 * w), 1):
      x = EncoderBlock(features, norm, dtype, name=f"encoder_{i}")(x)
      skips.append(x)
      x = avg_pool2x2(x)
    x = LatentBlock(4 * w, dtype, name="latent_block")(x)
    for i, features in enumerate((2 * w, w, w // 2), 4):
      x = jnp.concatenate([skips.pop(), x], -1)
      x = EncoderBlock(features, norm, dtype, name=f"encoder_{i}")(x)
      if i < 6:
        x = ConvTranspose2x2(features // 2, dtype=dtype, name=f"up_conv_{i - 3}")(x)
    return _head(Conv(self.out_channels, 1, dtype=of_last_layer(dtype), name="last_conv")(x), self.head)


NETWORKS = {
    "autoencoder": Autoencoder,
    "autoencoder_skip": AutoencoderWithSkipConnections,
    "basic_unet": BasicUNet,
    "jung_unet": JungUNet,
}
