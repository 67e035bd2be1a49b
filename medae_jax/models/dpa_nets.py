"""Encoder, decoder and discriminator of DPA and PIAD: three families, plain or growing.

Source: Shvetsova et al. 2021 (arXiv 2006.13265) as its public code builds them. Families (`kind`):
"residual18" (DPA), "residual9" (PIAD, one residual block fewer per resolution) and "regular"
(progressive-GAN style). Outputs are linear. Normalisation "none" in every published configuration.

A network belongs to a stage: stable (`transition=False`) or transition at resolution `res`. Stages
share blocks by name, so growing is a matter of keeping the parameters whose names stay:

  encoder  from_image_<r>, res_<r> for r = res .. f   (f = coarsest: 4, or latent_res if > 1)
  decoder  res_<r> for r = f .. res, to_image_<r>

A transition network has from_image / to_image at res/2 as well and blends both branches with alpha,
which may be traced: one compilation per stage. Widths are indexed from the coarse end:
n(r) = widths[-(log2 r - log2 f) - 1] in encoders, widths[log2 r - log2 f] in decoders.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.models.dpa_layers import Conv, ResBlock
from medae_jax.models.layers import init, norm as norms, resample
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer
from medae_jax.models.layers.leaky import leaky_relu
from medae_jax.models.layers.pool import avg_pool2x2, max_pool2x2, nearest

KINDS = ("regular", "residual9", "residual18")


def coarsest(latent_res: int) -> int:
  """Resolution f of the coarsest block: 4 for a 1x1 latent, else latent_res."""
  return 4 if latent_res == 1 else latent_res


def needed_widths(max_res: int, latent_res: int) -> int:
  """log2(max_res / f) + 1 widths."""
  return int(math.log2(max_res // coarsest(latent_res))) + 1


def _block_names(kind: str) -> tuple[str, ...]:
  return ("block0", "block1") if kind == "residual18" else ("block0",)


class _RegularBlock(nn.Module):
  """Convolutions, each followed by norm and LeakyReLU: the body of the regular family.

  Attributes:
    spec: ((features, size, padding), ...).
    linear_last: features of a final linear 1x1 convolution, 0 for none.
  """
  spec: tuple[tuple[int, int, int], ...]
  linear_last: int = 0
  norm: str = "none"
  pad: str = "zero"
  use_wscale: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, train, axis_name=None):
    for i, (features, size, padding) in enumerate(self.spec):
      x = Conv(features, size, padding, self.pad, init.xavier_uniform(init.GAIN),
               self.use_wscale, self.dtype, name=f"conv{i}")(x)
      x = leaky_relu(norms.by_name(self.norm, train, axis_name, name=f"norm{i}")(x))
    if self.linear_last:
      x = Conv(self.linear_last, 1, 0, self.pad, init.xavier_uniform(1.0), self.use_wscale,
               self.dtype, name=f"conv{len(self.spec)}")(x)
    return x


class Encoder(nn.Module):
  """Image [B,res,res,C] -> latent [B,latent_res,latent_res,latent_dim] (float32).

  With latent_res=1 and latent_dim=1 it is the image discriminator.

  Attributes:
    widths: fine -> coarse; the last entry is the coarsest.
    res: resolution of this stage; max_res: of the last one (0: the same).
    transition: whether this is the network that fades `res` in.
    use_mbstddev: minibatch standard deviation before the last block (regular family only).
  """
  widths: tuple[int, ...]
  res: int
  latent_dim: int
  latent_res: int = 1
  kind: str = "residual18"
  transition: bool = False
  max_res: int = 0
  norm: str = "none"
  pad: str = "zero"
  use_wscale: bool = False
  use_mbstddev: bool = False
  pool: str = "avg"
  dtype: Any = jnp.float32

  def width(self, res: int) -> int:
    """n(res)."""
    return self.widths[-int(math.log2(res // coarsest(self.latent_res))) - 1]

  @nn.compact
  def __call__(self, image: jax.Array, alpha=1.0, *, train: bool = False,
               axis_name: str | None = None) -> jax.Array:
    f = coarsest(self.latent_res)
    x = self._from_image(image, self.res, train, axis_name)
    block_res = self.res
    if self.transition:
      x = self._block(x, self.res, train, axis_name)
      low = self._from_image(avg_pool2x2(image), self.res // 2, train, axis_name)
      x = resample.fade(low, x, alpha)
      block_res //= 2
    while block_res > f:
      x = self._block(x, block_res, train, axis_name)
      block_res //= 2
    return at_least_float32(self._last(x, train, axis_name))

  def _from_image(self, image, res, train, axis_name):
    name = f"from_image_{res}"
    if self.kind == "regular":
      width = self.width(min(2 * res, self.max_res or self.res))
      return leaky_relu(Conv(width, 1, 0, self.pad, init.xavier_uniform(init.GAIN),
                             self.use_wscale, self.dtype, name=name)(image))
    return _FromImage(self.width(res), _block_names(self.kind), self.norm, self.pad, self.dtype,
                      name=name)(image, train, axis_name)

  def _block(self, x, res, train, axis_name):
    name = f"res_{res}"
    if self.kind == "regular":
      width = self.width(res)
      x = _RegularBlock(((width, 3, 1), (width, 3, 1)), 0, self.norm, self.pad, self.use_wscale,
                        self.dtype, name=name)(x, train, axis_name)
      return max_pool2x2(x) if self.pool == "max" else avg_pool2x2(x)
    return _Stack(self.width(res // 2), "down", _block_names(self.kind), self.norm, self.pad,
                  self.dtype, name=name)(x, train, axis_name)

  def _last(self, x, train, axis_name):
    f = coarsest(self.latent_res)
    if self.use_mbstddev:
      x = norms.minibatch_std(x, axis_name)
    if self.kind == "regular":
      second = (self.width(f), 4, 0) if self.latent_res == 1 else (self.width(f), 3, 1)
      return _RegularBlock(((self.width(f), 3, 1), second), self.latent_dim, self.norm, self.pad,
                           self.use_wscale, self.dtype, name=f"res_{f}")(x, train, axis_name)
    if self.latent_res == 1:
      return _Last(self.latent_dim, 0, 4, self.pad, self.dtype, name=f"res_{f}")(x)
    return _Stack(self.latent_dim, "none", ("block0",), self.norm, self.pad, self.dtype,
                  name=f"res_{f}")(x, train, axis_name)


class Decoder(nn.Module):
  """Latent [B,latent_res,latent_res,latent_dim] -> image [B,res,res,channels] (float32, linear).

  Attributes:
    widths: coarse -> fine; the first entry is the coarsest.
  """
  widths: tuple[int, ...]
  res: int
  channels: int
  latent_res: int = 1
  kind: str = "residual18"
  transition: bool = False
  norm: str = "none"
  pad: str = "zero"
  use_wscale: bool = False
  normalize_latents: bool = False
  upsample: str = "nearest"
  dtype: Any = jnp.float32

  def width(self, res: int) -> int:
    """n(res)."""
    return self.widths[int(math.log2(res // coarsest(self.latent_res)))]

  @nn.compact
  def __call__(self, latent: jax.Array, alpha=1.0, *, train: bool = False,
               axis_name: str | None = None) -> jax.Array:
    x = self._first(latent, train, axis_name)
    res = coarsest(self.latent_res)
    last = self.res // 2 if self.transition else self.res
    while res < last:
      res *= 2
      x = self._block(x, res, train, axis_name)
    if self.transition:
      low = nearest(self._to_image(x, res))
      high = self._to_image(self._block(x, self.res, train, axis_name), self.res)
      return at_least_float32(resample.fade(low, high, alpha))
    return at_least_float32(self._to_image(x, self.res))

  def _first(self, latent, train, axis_name):
    f = coarsest(self.latent_res)
    name = f"res_{f}"
    if self.kind == "regular":
      if self.normalize_latents:
        latent = norms.pixel_norm(latent)
      size, padding = (4, 3) if self.latent_res == 1 else (3, 1)
      return _RegularBlock(((self.width(f), size, padding), (self.width(f), 3, 1)), 0, self.norm,
                           self.pad, self.use_wscale, self.dtype, name=name)(
                               latent, train, axis_name)
    if self.latent_res == 1:  # always zero-padded: a 1x1 map has nothing to reflect
      return _Last(self.width(f), 3, 4, "zero", self.dtype, name=name)(latent)
    return _Stack(self.width(f), "none", ("block0",), self.norm, self.pad, self.dtype, name=name)(
        latent, train, axis_name)

  def _block(self, x, res, train, axis_name):
    name = f"res_{res}"
    if self.kind == "regular":
      x = resample.bilinear(x) if self.upsample == "bilinear" else nearest(x)
      return _RegularBlock(((self.width(res), 3, 1), (self.width(res), 3, 1)), 0, self.norm,
                           self.pad, self.use_wscale, self.dtype, name=name)(x, train, axis_name)
    return _Stack(self.width(res), "up", _block_names(self.kind), self.norm, self.pad, self.dtype,
                  name=name)(x, train, axis_name)

  def _to_image(self, x, res):
    name, dtype = f"to_image_{res}", of_last_layer(self.dtype)
    if self.kind == "regular":
      return Conv(self.channels, 1, 0, self.pad, init.xavier_uniform(1.0), self.use_wscale,
                  dtype, name=name)(x)
    return _Last(self.channels, 1, 3, self.pad, dtype, name=name)(x)


class LatentDiscriminator(nn.Module):
  """Latent [B,h,w,C] -> score [B,1,1,1]: 1x1 convolutions on the flattened latent (PIAD's D_z).

  Flattens in the order C, H, W, as the public weights expect; Xavier-uniform kernels.
  """
  widths: tuple[int, ...]
  norm: str = "none"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latent, *, train: bool = False, axis_name: str | None = None):
    x = latent.transpose(0, 3, 1, 2).reshape(latent.shape[0], 1, 1, -1)
    x = _RegularBlock(tuple((w, 1, 0) for w in self.widths), 1, self.norm, dtype=self.dtype,
                      name="body")(x, train, axis_name)
    return at_least_float32(x)


class _FromImage(nn.Module):
  """3x3 convolution without activation, then residual blocks of the same width."""
  features: int
  blocks: tuple[str, ...]
  norm: str
  pad: str
  dtype: Any

  @nn.compact
  def __call__(self, image, train, axis_name=None):
    x = Conv(self.features, pad=self.pad, dtype=self.dtype, name="conv")(image)
    for name in self.blocks:
      x = ResBlock(self.features, "none", self.norm, self.pad, self.dtype, name=name)(
          x, train, axis_name)
    return x


class _Stack(nn.Module):
  """Residual blocks of which the first changes width and resolution."""
  features: int
  resize: str
  blocks: tuple[str, ...]
  norm: str
  pad: str
  dtype: Any

  @nn.compact
  def __call__(self, x, train, axis_name=None):
    for i, name in enumerate(self.blocks):
      x = ResBlock(self.features, "none" if i else self.resize, self.norm, self.pad, self.dtype,
                   name=name)(x, train, axis_name)
    return x


class _Last(nn.Module):
  """LeakyReLU, then one convolution."""
  features: int
  padding: int
  size: int
  pad: str
  dtype: Any

  @nn.compact
  def __call__(self, x):
    return Conv(self.features, self.size, self.padding, self.pad, dtype=self.dtype, name="conv")(
        leaky_relu(x))
