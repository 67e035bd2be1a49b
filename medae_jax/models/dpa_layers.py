"""Layers of the DPA and PIAD networks (Shvetsova et al. 2021, arXiv 2006.13265, public code).

NHWC. LeakyReLU slope 0.2, stride-1 convolutions with bias throughout. `train` chooses batch
statistics in the normalisations; `axis_name` makes them those of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models.layers import conv_forms, norm as norms
from medae_jax.models.layers.init import kaiming_normal, uniform_fan_in
from medae_jax.models.layers.leaky import leaky_relu
from medae_jax.models.layers.pool import avg_pool2x2, nearest


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
    bias = self.param("bias", uniform_fan_in(self.size**2 * x.shape[-1]), (self.features,))
    y = self._convolve(x.astype(self.dtype), kernel.astype(self.dtype))
    if self.use_wscale:
      y = y * scale.value.astype(self.dtype)
    return conv_forms.add_bias(y, bias.astype(self.dtype))

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
    return conv_forms.conv(x, kernel, p, tiles=False)


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
    h = resize(leaky_relu(norms.by_name(self.norm, train, axis_name, name="norm1")(x)))
    h = Conv(self.features, pad=self.pad, dtype=self.dtype, name="conv1")(h)
    h = leaky_relu(norms.by_name(self.norm, train, axis_name, name="norm2")(h))
    h = Conv(self.features, pad=self.pad, dtype=self.dtype, name="conv2")(h)
    skip = resize(x)
    if x.shape[-1] != self.features:
      skip = Conv(self.features, 1, 0, dtype=self.dtype, name="skip")(skip)
    return skip + h
