"""Networks of the adversarial autoencoder (Pidhorskyi et al., NeurIPS 2018, GPND).

Convolutions of side 4 and stride 2, widths d, ..., d, 4d, 4d. Images of 32 px have no extra layer of width d,
64 px one, 128 px two. Generator and critics return logits: sigmoid(2a) = (tanh(a) + 1) / 2.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medae_jax.models.autoencoders.parts import (
  conv,
  conv_transpose,
  dcgan_init,
  linear,
  square_levels,
  torch_init,
)
from medae_jax.models.conv_ae import normalise
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer
from medae_jax.models.layers.leaky import leaky_relu


class Down(nn.Module):
  """image [B,S,S,C], S = 32 2^n -> [B,out]; LeakyReLU 0.2, normalised but for the first and last layer.

  Attributes:
    widths: of the first layer, of the extra ones, of the last two before the output: (d, d, 4d, 4d) for the
      encoder, (d, d, 2d, 4d) for the critic.
    init_std: True: N(0, 0.02^2), as intended; False: PyTorch's default, as published.
  """
  widths: tuple[int, int, int, int]
  out: int
  norm: str = "batch"
  init_std: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image, train: bool = False, axis_name: str | None = None):
    init = dcgan_init if self.init_std else torch_init
    first, extra, third, fourth = self.widths
    x = leaky_relu(conv(image, first, 4, 2, 1, dtype=self.dtype, init=init, name="conv1_1"), 0.2)
    levels = square_levels(image.shape[1:], 32)
    names = [(f"conv1_{i + 2}", f"conv1_bn{i + 2}", extra) for i in range(levels)]
    for name, norm, width in [*names, ("conv2", "conv2_bn", third), ("conv3", "conv3_bn", fourth)]:
      x = conv(x, width, 4, 2, 1, dtype=self.dtype, init=init, name=name)
      x = leaky_relu(normalise(x, self.norm, train, axis_name, norm), 0.2)
    x = conv(x, self.out, 4, dtype=of_last_layer(self.dtype), init=init, name="conv4")
    return at_least_float32(x[:, 0, 0])


class Generator(nn.Module):
  """z [B,latent] -> logits of the image [B,S,S,out], S = 32 2^extra, float32."""
  width: int
  extra: int
  out: int
  norm: str = "batch"
  init_std: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z, train: bool = False, axis_name: str | None = None):
    init, d = dcgan_init if self.init_std else torch_init, self.width
    act = lambda x, name: nn.relu(normalise(x, self.norm, train, axis_name, name))
    x = conv_transpose(z[:, None, None], 4 * d, 4, dtype=self.dtype, init=init, name="deconv1_1")
    x = act(x, "deconv1_1_bn")
    names = [(f"deconv3_{i + 1}", f"deconv3_bn{i + 1}", 2 * d) for i in range(self.extra)]
    for name, norm, width in [("deconv2", "deconv2_bn", 4 * d), ("deconv3", "deconv3_bn", 2 * d), *names]:
      x = act(conv_transpose(x, width, 4, 2, 1, dtype=self.dtype, init=init, name=name), norm)
    x = conv_transpose(x, self.out, 4, 2, 1, dtype=of_last_layer(self.dtype), init=init, name="deconv4")
    return 2 * at_least_float32(x)


class LatentCritic(nn.Module):
  """z [B,latent] -> logit [B,1], float32."""
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, z, train: bool = False, axis_name: str | None = None):
    x = z
    for i in (1, 2):
      x = leaky_relu(linear(x, self.width, dtype=self.dtype, init=dcgan_init, name=f"linear{i}"), 0.2)
    return at_least_float32(linear(x, 1, dtype=of_last_layer(self.dtype), init=dcgan_init, name="linear3"))
