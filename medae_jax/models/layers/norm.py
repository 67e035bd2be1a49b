"""Normalisations: one BatchNorm for every network, instance and pixel normalisation by name.

Parameters and statistics are float32 (float64 where the input is); results have the dtype of the
input, or the one asked for.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core import parallel
from medae_jax.core.errors import UserError
from medae_jax.models.layers.dtype import at_least_float32

KINDS = ("none", "bn", "in", "pixel")


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015, arXiv 1502.03167).

  y = (x - mean) / sqrt(var + eps) * scale + bias. "batch_stats" holds "mean" and "var", running
  averages r <- (1 - momentum) r + momentum * batch; they change only in training, outside `init`,
  and where the collection is mutable.

  Attributes:
    train: normalise by the batch and update the running averages; False: frozen, normalise by the
      running averages.
    axis_name: mapped axis over which batch statistics are averaged, in training: they are those of
      the global batch, alike on all devices.
    unbiased: feed the running variance n/(n-1) times the batch variance, n counted over all
      devices, as PyTorch does. The normalisation itself always uses the biased one.
    dtype: of the result; None: that of the input.
    eps, momentum: in PyTorch's sense (another framework's momentum 0.9 is 0.1 here).
    twice: with `unbiased`, that factor and once more n/(n-1-1e-5): Keras 2.3.1 on TensorFlow 1.
    applied: False: returns x (float32 or wider), mean, gain and bias [C]: y = (x - mean) gain + bias.
  """
  train: bool
  axis_name: str | None = None
  unbiased: bool = False
  dtype: Any = None
  eps: float = 1e-5
  momentum: float = 0.1
  twice: bool = False
  applied: bool = True

  @nn.compact
  def __call__(self, x):
    dtype, channels = self.dtype or x.dtype, x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (channels,))
    bias = self.param("bias", nn.initializers.zeros, (channels,))
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
    running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
    x = at_least_float32(x)
    mean, var = running_mean.value, running_var.value
    if self.train:
      mean, var, count = self._moments(x)
      if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
        factor = count / max(count - 1, 1) if self.unbiased else 1.0
        factor *= count / max(count - 1 - 1e-5, 1) if self.twice else 1.0
        keep = 1 - self.momentum
        running_mean.value = keep * running_mean.value + self.momentum * mean
        running_var.value = keep * running_var.value + self.momentum * var * factor
    gain = scale * jax.lax.rsqrt(var + self.eps)
    if not self.applied:
      return x, mean, gain, bias
    return ((x - mean) * gain + bias).astype(dtype)

  def _moments(self, x):
    """Mean and biased variance [C] over the global batch; its number of values a channel."""
    axes, count = tuple(range(x.ndim - 1)), math.prod(x.shape[:-1])
    # inside init the modules run outside the mapped step: no axis there
    axis_name = None if self.is_initializing() else self.axis_name
    if axis_name is not None:
      count = count * jax.lax.axis_size(axis_name)
    if x.ndim == 4 and jax.default_backend() != "cpu":
      own, own_var = _one_pass(x)
      mean = parallel.pmean(own, axis_name)
      return mean, parallel.pmean(own_var + (own - mean) ** 2, axis_name), count
    mean = parallel.pmean(jnp.mean(x, axes), axis_name)
    # E[(x - m)^2], not E[x^2] - m^2: float32 cancels in the latter where a channel's mean is large
    return mean, parallel.pmean(jnp.mean((x - mean) ** 2, axes), axis_name), count


def _one_pass(x):
  """Mean and biased variance [C] of [B,H,W,C] from sums about the mean m of the middle rows.

  As those are 1/H of the images, (mean - m)^2 <= H variance: what cancels is at most log2(H) bits. The
  gradient saves a pass as well: that of two passes sums x - mean once more, which is 0.
  """
  shift = jax.lax.stop_gradient(jnp.mean(x[:, x.shape[1] // 2], (0, 1)))
  deviation = x - shift
  first, second = jnp.mean(deviation, (0, 1, 2)), jnp.mean(deviation**2, (0, 1, 2))
  return shift + first, jnp.maximum(second - first**2, 0.0)


def instance_norm(x: jax.Array, eps: float = 1e-5) -> jax.Array:
  """Each example and channel of [B,H,W,C] to mean 0, variance 1; not affine, no running averages."""
  dtype, x = x.dtype, at_least_float32(x)
  mean = x.mean((1, 2), keepdims=True)
  var = ((x - mean)**2).mean((1, 2), keepdims=True)
  return ((x - mean) * jax.lax.rsqrt(var + eps)).astype(dtype)


def pixel_norm(x: jax.Array, eps: float = 1e-8) -> jax.Array:
  """x / sqrt(mean over channels of x^2 + eps), Karras et al. 2018 (arXiv 1710.10196)."""
  dtype, x = x.dtype, at_least_float32(x)
  return (x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + eps)).astype(dtype)


def by_name(kind: str, train: bool, axis_name: str | None = None, *,
            name: str) -> Callable[[jax.Array], jax.Array]:
  """A normalisation of `KINDS`; "bn" (running variance unbiased) is a submodule called `name`.

  Raises:
    UserError: an unknown kind.
  """
  if kind == "bn":
    return BatchNorm(train, axis_name, unbiased=True, name=name)
  if kind not in KINDS:
    raise UserError(f"config.model.norm={kind!r}: use {', '.join(KINDS)}")
  return {"none": lambda x: x, "in": instance_norm, "pixel": pixel_norm}[kind]


def minibatch_std(x: jax.Array, axis_name: str | None) -> jax.Array:
  """Appends the channel mean_CHW sqrt(var_B(x) + 1e-8), one number of the global batch."""
  mean = parallel.pmean(x.mean(0, keepdims=True), axis_name)
  var = parallel.pmean(((x - mean)**2).mean(0), axis_name)
  return jnp.concatenate(
      [x, jnp.broadcast_to(jnp.sqrt(var + 1e-8).mean(), (*x.shape[:-1], 1))], axis=-1)
