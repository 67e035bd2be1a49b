"""Layers of the DPA and PIAD networks (Shvetsova et al. 2021, arXiv 2006.13265, public code).

NHWC. LeakyReLU slope 0.2, stride-1 convolutions with bias throughout. `train` chooses batch
statistics in the normalisations; `axis_name` makes them those of the global batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core import parallel
from medae_jax.core.errors import UserError
from medae_jax.models.layers.conv import avg_pool2x2

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # of a LeakyReLU, for Xavier initialisation


def leaky_relu(x: jax.Array) -> jax.Array:
  """LeakyReLU with slope 0.2."""
  return nn.leaky_relu(x, SLOPE)


# -------------------------------------------------------------------------------- initialisation
def kaiming_normal(key, shape, dtype=jnp.float32):
  """N(0, 2 / (1.04 k^2 C_out)): fan-out, slope 0.2; `shape` is [k,k,C_in,C_out]."""
  std = math.sqrt(2 / ((1 + SLOPE**2) * shape[0] * shape[1] * shape[3]))
  return std * jax.random.normal(key, shape, dtype)


def xavier_uniform(gain: float) -> Callable:
  """U(+-gain sqrt(6 / (fan_in + fan_out))) for kernels [k,k,C_in,C_out]."""
  def init(key, shape, dtype=jnp.float32):
    bound = gain * math.sqrt(6 / (shape[0] * shape[1] * (shape[2] + shape[3])))
    return jax.random.uniform(key, shape, dtype, -bound, bound)
  return init


def _bias_init(fan_in: int) -> Callable:
  """U(+-1/sqrt(fan_in)), PyTorch's default."""
  def init(key, shape, dtype=jnp.float32):
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(key, shape, dtype, -bound, bound)
  return init


# ------------------------------------------------------------------------------------ resampling
def nearest(x: jax.Array) -> jax.Array:
  """Each pixel doubled: [B,h,w,C] -> [B,2h,2w,C]."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def bilinear(x: jax.Array) -> jax.Array:
  """Bilinear x2 with half-pixel centres: [B,h,w,C] -> [B,2h,2w,C]."""
  return jax.image.resize(x, (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], x.shape[3]), "bilinear")


def downscale(x: jax.Array, factor: int, *, antialias: bool = False) -> jax.Array:
  """Bilinear down-scaling by 1, 2, 4, 8 ... as the reference runs it, without anti-aliasing.

  With half-pixel centres that is the mean of the central 2x2 pixels of each factor x factor cell;
  antialias=True takes the mean of the whole cell instead (better practice, not the reference).
  """
  if factor == 1:
    return x
  b, h, w, c = x.shape
  cells = x.reshape(b, h // factor, factor, w // factor, factor, c)
  if not antialias:
    mid = slice(factor // 2 - 1, factor // 2 + 1)
    cells = cells[:, :, mid, :, mid]
  return cells.mean((2, 4))


def mix_resolution(image: jax.Array, res: int, *, transition: bool = False, alpha=1.0,
                   antialias: bool = False) -> jax.Array:
  """The image a growing stage sees, out of the full-resolution one.

  Stable at `res`: downscale(image). Transition to `res`: (1 - alpha) nearest(downscale to res/2)
  + alpha downscale to res. [B,R,R,C] -> [B,res,res,C].

  Raises:
    ValueError: R is not res times a power of two.
  """
  full = image.shape[1]
  if image.shape[2] != full or full % res or (full // res) & (full // res - 1):
    raise UserError(f"images are {image.shape[1]}x{image.shape[2]}; a network at {res} px needs "
                     f"squares of {res}, {2 * res}, {4 * res} ... pixels")
  high = downscale(image, full // res, antialias=antialias)
  if not transition:
    return high
  low = nearest(downscale(image, 2 * full // res, antialias=antialias))
  return fade(low, high, alpha)


def fade(low: jax.Array, high: jax.Array, alpha) -> jax.Array:
  """(1 - alpha) low + alpha high, alpha clipped to [0, 1]; alpha may be traced."""
  alpha = jnp.clip(jnp.asarray(alpha, low.dtype), 0, 1)
  return (1 - alpha) * low + alpha * high


def at_least_float32(x: jax.Array) -> jax.Array:
  """x in float32 where it is narrower; float64 stays."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


# ---------------------------------------------------------------------------------------- layers
class Conv(nn.Module):
  """Convolution with bias, stride 1; optional reflection padding and weight scaling.

  Attributes:
    padding: pixels on each side.
    pad: "zero" or "reflect".
    kernel_init: initialiser of [k,k,C_in,C_out].
    use_wscale: equalised learning rate with a data-dependent constant: s = sqrt(mean(w^2)) of the
      initial kernel is kept in "batch_stats" (state that is not trained), the kernel is divided by
      it, and the layer computes s conv(x, w) + b.
  """
  features: int
  size: int = 3
  padding: int = 1
  pad: str = "zero"
  kernel_init: Callable = kaiming_normal
  use_wscale: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    shape = (self.size, self.size, x.shape[-1], self.features)
    if self.use_wscale:
      first = self.kernel_init(self.make_rng("params"), shape) if self.is_initializing() else None
      scale = self.variable("batch_stats", "scale", lambda: jnp.sqrt(jnp.mean(first**2)))
      # Outside `init` flax calls the initialiser for its shape only.
      kernel = self.param("kernel", lambda key: jnp.zeros(shape) if first is None
                          else first / scale.value)
    else:
      kernel = self.param("kernel", self.kernel_init, shape)
    bias = self.param("bias", _bias_init(self.size**2 * x.shape[-1]), (self.features,))
    y = self._convolve(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.use_wscale:
      y = y * scale.value.astype(self.dtype)
    return y + bias.astype(self.dtype)

  def _convolve(self, x, kernel):
    p = self.padding
    if self.pad == "zero" and x.shape[1:3] == (1, 1) and p == self.size - 1:
      # A 1x1 map padded by k-1 meets each tap once: a matrix product with the kernel flipped.
      return jnp.einsum("bc,ijco->bijo", x[:, 0, 0], kernel[::-1, ::-1])
    if self.pad == "reflect" and p:
      if x.shape[1] <= p:
        raise UserError(f"a {x.shape[1]}x{x.shape[2]} map cannot be reflect-padded by {p}; "
                         "use pad_type='zero' with latent_res=1")
      x, p = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)), mode="reflect"), 0
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((p, p), (p, p)),
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))


class Norm(nn.Module):
  """"none", "bn", "in" or "pixel".

  bn: eps 1e-5, running averages with momentum 0.1 in "batch_stats", the variance among them
  unbiased, as PyTorch keeps it. in: per example and channel, eps 1e-5, not affine, no running
  statistics. pixel: x / sqrt(mean over channels of x^2 + 1e-8).
  """
  kind: str = "none"

  @nn.compact
  def __call__(self, x, train: bool, axis_name: str | None = None):
    if self.kind == "none":
      return x
    dtype, x = x.dtype, at_least_float32(x)
    if self.kind == "pixel":
      y = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-8)
    elif self.kind == "in":
      mean = x.mean((1, 2), keepdims=True)
      var = ((x - mean)**2).mean((1, 2), keepdims=True)
      y = (x - mean) * jax.lax.rsqrt(var + 1e-5)
    elif self.kind == "bn":
      y = self._batch_norm(x, train, axis_name)
    else:
      raise UserError(f"norm={self.kind!r}: use none, bn, in or pixel")
    return y.astype(dtype)

  def _batch_norm(self, x, train, axis_name):
    c = x.shape[-1]
    gamma = self.param("scale", nn.initializers.ones, (c,))
    beta = self.param("bias", nn.initializers.zeros, (c,))
    mean_avg = self.variable("batch_stats", "mean", jnp.zeros, (c,))
    var_avg = self.variable("batch_stats", "var", jnp.ones, (c,))
    mean, var = mean_avg.value, var_avg.value
    if train:
      mean = parallel.pmean(x.mean((0, 1, 2)), axis_name)
      var = parallel.pmean(((x - mean)**2).mean((0, 1, 2)), axis_name)
      if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
        n = parallel.psum(jnp.asarray(x.size // c, x.dtype), axis_name)
        mean_avg.value = 0.9 * mean_avg.value + 0.1 * mean
        var_avg.value = 0.9 * var_avg.value + 0.1 * var * n / (n - 1)
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * gamma + beta


class ResBlock(nn.Module):
  """Pre-activation residual block: skip(x) + conv(lrelu(norm(conv(resize(lrelu(norm(x))))))).

  Attributes:
    resize: "none", "down" (2x2 mean) or "up" (nearest x2), after the first activation; the skip
      path is resized too, then a 1x1 convolution where the width changes.
  """
  features: int
  resize: str = "none"
  norm: str = "none"
  pad: str = "zero"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, train: bool, axis_name: str | None = None):
    resize = {"none": lambda t: t, "down": avg_pool2x2, "up": nearest}[self.resize]
    h = resize(leaky_relu(Norm(self.norm, name="norm1")(x, train, axis_name)))
    h = Conv(self.features, pad=self.pad, dtype=self.dtype, name="conv1")(h)
    h = leaky_relu(Norm(self.norm, name="norm2")(h, train, axis_name))
    h = Conv(self.features, pad=self.pad, dtype=self.dtype, name="conv2")(h)
    skip = resize(x)
    if x.shape[-1] != self.features:
      skip = Conv(self.features, 1, 0, dtype=self.dtype, name="skip")(skip)
    return skip + h


def minibatch_std(x: jax.Array, axis_name: str | None = None) -> jax.Array:
  """Appends the channel mean_CHW sqrt(var_B(x) + 1e-8), one number of the global batch."""
  mean = parallel.pmean(x.mean(0, keepdims=True), axis_name)
  var = parallel.pmean(((x - mean)**2).mean(0), axis_name)
  return jnp.concatenate(
      [x, jnp.broadcast_to(jnp.sqrt(var + 1e-8).mean(), (*x.shape[:-1], 1))], axis=-1)
