"""Networks of PIAD as the 2019 code builds them (arXiv 1909.05904, ninatu/piad).

They differ from the residual networks of `dpa_nets` (which the 2021 code uses) in the down block
(convolutions before the pooling), in the first and last layers, and in the width lists: encoder and
image critic have blocks d_0 -> d_0, d_0 -> d_1 ... and their last entry is the width of the 4x4
convolution. NHWC, LeakyReLU 0.2, zero padding, no normalisation, linear outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models import dpa_family, dpa_nets
from medae_jax.models.dpa_layers import Conv, ResBlock
from medae_jax.models.layers import norm as norms
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer
from medae_jax.models.layers.leaky import leaky_relu
from medae_jax.models.layers.pool import avg_pool2x2

NETS = ("enc", "dec", "critic_image", "critic_latent")


def needed_widths(res: int, latent_res: int) -> int:
  """log2(2 res / max(latent_res, 4)): widths in every list."""
  return int(math.log2(2 * res // max(latent_res, 4)))


def check(role: str, widths: Sequence[int], res: int, latent_res: int) -> None:
  """Raises ValueError, naming config.model.<role>, for sizes that no network of 2019 has."""
  power = lambda n: n > 0 and n & (n - 1) == 0
  if not power(res) or res < 8 or (latent_res != 1 and (latent_res < 4 or not power(latent_res)
                                                        or latent_res > res // 2)):
    raise UserError(f"config.model.{role}: res={res} must be a power of two from 8, latent_res="
                     f"{latent_res} 1 or a power of two from 4 below it")
  if len(widths) != needed_widths(res, latent_res):
    raise UserError(f"config.model.{role}: {len(widths)} widths {tuple(widths)}, but {res} px "
                     f"with latent_res={latent_res} needs {needed_widths(res, latent_res)}")


class DownBlock(nn.Module):
  """pool(conv(lrelu(conv(lrelu(x))))) + conv1x1(pool(x)); the pooling comes last."""
  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    h = Conv(self.features, dtype=self.dtype, name="conv1")(leaky_relu(x))
    h = Conv(self.features, dtype=self.dtype, name="conv2")(leaky_relu(h))
    skip = avg_pool2x2(x)
    if x.shape[-1] != self.features:
      skip = Conv(self.features, 1, 0, dtype=self.dtype, name="skip")(skip)
    return avg_pool2x2(h) + skip


class PlainBlock(nn.Module):
  """conv(lrelu(conv(x))) + skip(x): a residual block without activation in front."""
  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    h = Conv(self.features, dtype=self.dtype, name="conv1")(x)
    h = Conv(self.features, dtype=self.dtype, name="conv2")(leaky_relu(h))
    skip = x
    if x.shape[-1] != self.features:
      skip = Conv(self.features, 1, 0, dtype=self.dtype, name="skip")(x)
    return skip + h


class Encoder(nn.Module):
  """Image [B,R,R,C] -> [B,latent_res,latent_res,latent_dim] (float32).

  With latent_res=1, latent_dim=1 and mbstd it is the image critic: a statistic of the whole batch
  (of all devices, with axis_name) then enters every example's score.
  """
  widths: tuple[int, ...]
  latent_dim: int
  latent_res: int = 1
  mbstd: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, *, axis_name: str | None = None) -> jax.Array:
    x = Conv(self.widths[0], dtype=self.dtype, name="first")(image)
    for i, width in enumerate(self.widths[:-1]):
      x = DownBlock(width, self.dtype, name=f"block{i}")(x)
    if self.latent_res == 1:
      x = norms.minibatch_std(x, axis_name) if self.mbstd else x
      x = Conv(self.widths[-1], 4, 0, dtype=self.dtype, name="last")(leaky_relu(x))
    else:
      x = ResBlock(self.widths[-1], dtype=self.dtype, name="last")(x, False)
    x = Conv(self.latent_dim, 1, 0, dtype=self.dtype, name="out")(leaky_relu(x))
    return at_least_float32(x)


class Decoder(nn.Module):
  """Latent [B,latent_res,latent_res,latent_dim] -> image [B,R,R,channels] (float32, linear)."""
  widths: tuple[int, ...]
  channels: int
  latent_res: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latent: jax.Array) -> jax.Array:
    if self.latent_res == 1:
      x = Conv(self.widths[0], 4, 3, dtype=self.dtype, name="first")(latent)
    else:
      x = PlainBlock(self.widths[0], self.dtype, name="first")(latent)
    for i, width in enumerate(self.widths[1:]):
      x = ResBlock(width, "up", dtype=self.dtype, name=f"block{i}")(x, False)
    x = ResBlock(self.widths[-1], dtype=self.dtype, name="last")(x, False)
    x = Conv(self.channels, 1, 0, dtype=of_last_layer(self.dtype), name="out")(leaky_relu(x))
    return at_least_float32(x)


def build(m) -> dict[str, nn.Module]:
  """The four Linen modules of `config.model`.

  Raises:
    ValueError: sizes that do not fit each other, naming the field.
  """
  dtype, widths = jnp.dtype(m.dtype), {k: tuple(m[k]) for k in NETS}
  latent = dpa_nets.LatentDiscriminator(widths["critic_latent"], dtype=dtype)
  if m.variant == "2019":
    for net in ("enc", "dec", "critic_image"):
      check(net, widths[net], m.res, 1 if net == "critic_image" else m.latent_res)
    return {"enc": Encoder(widths["enc"], m.latent_dim, m.latent_res, dtype=dtype),
            "dec": Decoder(widths["dec"], m.channels, m.latent_res, dtype=dtype),
            "critic_image": Encoder(widths["critic_image"], 1, mbstd=True, dtype=dtype),
            "critic_latent": latent}
  for net in ("enc", "dec", "critic_image"):
    critic = net == "critic_image"
    dpa_family.check(kind="residual9", max_res=m.res, latent_res=1 if critic else m.latent_res,
                   widths=widths[net], role=net, latent_dim=1 if critic else m.latent_dim)
  enc = lambda w, dim, res: dpa_nets.Encoder(w, m.res, dim, res, "residual9", dtype=dtype)
  return {"enc": enc(widths["enc"], m.latent_dim, m.latent_res),
          "dec": dpa_nets.Decoder(widths["dec"], m.res, m.channels, m.latent_res, "residual9",
                                  dtype=dtype),
          "critic_image": enc(widths["critic_image"], 1, 1), "critic_latent": latent}
