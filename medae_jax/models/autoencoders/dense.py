"""The dense bottleneck of AE-D (Baur et al., Medical Image Analysis 2021) between encoder and decoder."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medae_jax.models.autoencoders.parts import conv, flat, linear, unflat


class Dense(nn.Module):
  """code [B,h,w,C] -> (code' [B,h,w,C], z [B,latent]): 1x1 convolution, linear, linear, 1x1 convolution.

  No activation between; sizes follow from the code (published: 8x8x128 -> 16 channels -> 128 numbers).
  """
  latent: int = 128
  squeeze: int = 16
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, code, train: bool = False, axis_name: str | None = None):
    height, width, channels = code.shape[1:]
    x = flat(conv(code, self.squeeze, 1, dtype=self.dtype, name="conv_in"))
    z = linear(x, self.latent, dtype=self.dtype, name="linear_in")
    x = unflat(linear(z, x.shape[-1], dtype=self.dtype, name="linear_out"), height, width)
    return conv(x, channels, 1, dtype=self.dtype, name="conv_out"), z
