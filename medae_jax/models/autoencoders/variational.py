"""Networks of the VAE (Zimmerer et al., MICCAI 2019) and of the beta-VAE (Higgins et al., ICLR 2017).

Convolutions of side 4 and stride 2 without normalisation; the linear output is not squashed.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medae_jax.models.autoencoders.parts import (
  conv,
  conv_transpose,
  halved,
  he_init,
  linear,
  square_levels,
)
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer
from medae_jax.models.layers.leaky import leaky_relu


class Encoder(nn.Module):
  """VAE: image [B,H,W,C] -> (mean [B,latent], log standard deviation [B,latent]), float32; no biases."""
  widths: tuple[int, ...]
  latent: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image, train: bool = False, axis_name: str | None = None):
    x, extent = image, halved(image.shape[1:], len(self.widths), "config.model.widths")
    for i, width in enumerate(self.widths):
      x = leaky_relu(conv(x, width, 4, 2, 1, bias=False, dtype=self.dtype, name=f"conv{i}"), 0.01)
    x = conv(x, 2 * self.latent, extent, bias=False, dtype=of_last_layer(self.dtype), name="last")
    return tuple(jnp.split(at_least_float32(x[:, 0, 0]), 2, -1))


class Decoder(nn.Module):
  """VAE: z [B,latent] -> image [B,H,W,out], linear, float32; no biases.

  Attributes:
    extent: sides of the map that z becomes, H and W halved once a width.
  """
  widths: tuple[int, ...]
  extent: tuple[int, int]
  out: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z, train: bool = False, axis_name: str | None = None):
    options = dict(bias=False, dtype=self.dtype)
    x = leaky_relu(
        conv_transpose(z[:, None, None], self.widths[-1], self.extent, name="conv0", **options), 0.01)
    for i, width in enumerate(reversed(self.widths[:-1])):
      x = leaky_relu(conv_transpose(x, width, 4, 2, 1, name=f"conv{i + 1}", **options), 0.01)
    return at_least_float32(conv_transpose(x, self.out, 4, 2, 1, bias=False, name="last",
                                           dtype=of_last_layer(self.dtype)))


class BetaEncoder(nn.Module):
  """beta-VAE: image [B,S,S,C], S = 4 2^n -> (mean [B,latent], log variance [B,latent]), float32."""
  latent: int
  width: int = 32
  hidden: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image, train: bool = False, axis_name: str | None = None):
    x, options = image, dict(dtype=self.dtype, init=he_init)
    for i in range(square_levels(image.shape[1:], 4)):
      x = nn.relu(conv(x, self.width, 4, 2, 1, name=f"conv{i}", **options))
    x = nn.relu(conv(x, self.hidden, 4, name="to_vector", **options))[:, 0, 0]
    x = linear(x, 2 * self.latent, dtype=of_last_layer(self.dtype), init=he_init, name="linear")
    return tuple(jnp.split(at_least_float32(x), 2, -1))


class BetaDecoder(nn.Module):
  """beta-VAE: z [B,latent] -> image [B,S,S,out], S = 4 2^levels, linear, float32."""
  levels: int
  out: int
  width: int = 32
  hidden: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z, train: bool = False, axis_name: str | None = None):
    x = nn.relu(linear(z, self.hidden, dtype=self.dtype, init=he_init, name="linear"))[:, None, None]
    x = nn.relu(conv_transpose(x, self.width, 4, dtype=self.dtype, name="from_vector"))
    for i in range(self.levels - 1):
      x = nn.relu(conv_transpose(x, self.width, 4, 2, 1, dtype=self.dtype, name=f"conv{i}"))
    x = conv_transpose(x, self.out, 4, 2, 1, dtype=of_last_layer(self.dtype), name="last")
    return at_least_float32(x)
