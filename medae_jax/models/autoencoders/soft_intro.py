"""Residual encoder and decoder of the soft-introspective VAE (Daniel & Tamar, CVPR 2021).

LeakyReLU 0.2. Widths w_1 ... w_n; the image is halved once a width. Blocks have the names of the public code:
the side of their maps in the encoder, 4, 8, 16 ... in the decoder whatever the side is.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medae_jax.models.autoencoders.parts import conv, flat, halved, linear, unflat
from medae_jax.models.conv_ae import normalise
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer
from medae_jax.models.layers.leaky import leaky_relu
from medae_jax.models.layers.pool import avg_pool2x2, nearest


class Residual(nn.Module):
  """[B,H,W,I] -> [B,H,W,features]; a 1x1 convolution in the skip where widths differ, or where `expand`."""
  features: int
  expand: bool = False
  norm: str = "batch"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool = False, axis_name: str | None = None):
    options = dict(bias=False, dtype=self.dtype)
    skip = x
    if self.expand or x.shape[-1] != self.features:
      skip = conv(x, self.features, 1, name="conv_expand", **options)
    x = conv(x, self.features, 3, 1, 1, name="conv1", **options)
    x = leaky_relu(normalise(x, self.norm, train, axis_name, "bn1"), 0.2)
    x = conv(x, self.features, 3, 1, 1, name="conv2", **options)
    return leaky_relu(normalise(x, self.norm, train, axis_name, "bn2") + skip, 0.2)


def expands(before: int, after: int, by_identity: bool) -> bool:
  """Whether the published code takes two entries of its list of widths for different numbers.

  It compares objects: of Python's integers only those up to 256 are the same object each time.
  """
  return by_identity and before == after > 256


class Encoder(nn.Module):
  """image [B,H,W,C] -> (mean [B,latent], log variance [B,latent]), float32."""
  widths: tuple[int, ...]
  latent: int
  by_identity: bool = False
  norm: str = "batch"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image, train: bool = False, axis_name: str | None = None):
    halved(image.shape[1:], len(self.widths), "config.model.widths")
    block = lambda width, side, expand: Residual(width, expand, self.norm, self.dtype, name=f"res_in_{side}")
    x = conv(image, self.widths[0], 5, 1, 2, bias=False, dtype=self.dtype, name="conv")
    x = avg_pool2x2(leaky_relu(normalise(x, self.norm, train, axis_name, "norm"), 0.2))
    side, before = image.shape[1] // 2, self.widths[0]
    for width in self.widths[1:]:
      x = avg_pool2x2(block(width, side, expands(before, width, self.by_identity))(x, train, axis_name))
      side, before = side // 2, width
    x = flat(block(before, side, False)(x, train, axis_name))
    x = linear(x, 2 * self.latent, dtype=of_last_layer(self.dtype), name="fc")
    return tuple(jnp.split(at_least_float32(x), 2, -1))


class Decoder(nn.Module):
  """z [B,latent] -> image [B,H,W,out] in (0, 1), float32.

  Attributes:
    extent: H and W halved once a width.
  """
  widths: tuple[int, ...]
  extent: tuple[int, int]
  out: int
  by_identity: bool = False
  norm: str = "batch"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z, train: bool = False, axis_name: str | None = None):
    block = lambda width, side, expand: Residual(width, expand, self.norm, self.dtype, name=f"res_in_{side}")
    x = nn.relu(linear(z, self.widths[-1] * self.extent[0] * self.extent[1], dtype=self.dtype, name="fc"))
    x, side = unflat(x, *self.extent), 4
    for i, width in enumerate(reversed(self.widths)):
      expand = i > 0 and expands(self.widths[-i], width, self.by_identity)
      x = nearest(block(width, side, expand)(x, train, axis_name))
      side *= 2
    x = block(self.widths[0], side, False)(x, train, axis_name)
    x = conv(x, self.out, 5, 1, 2, dtype=of_last_layer(self.dtype), name="predict")
    return nn.sigmoid(at_least_float32(x))
