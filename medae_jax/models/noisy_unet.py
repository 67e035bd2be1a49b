"""The U-Net of learning to segment from noisy annotations (Mirikharaji et al. 2019).

Four pooling stages, two 3x3 convolutions with bias and ReLU a block, 2x2 transposed convolutions,
and no normalisation layer at all: 31,031,745 parameters at width 64. As in the published code the
transposed convolutions of the centre and of up1-3 are followed by a ReLU, and up4 has none.
Concatenation order: decoder first, skip second.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models.layers import conv
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer

POOLS = 4
MULTIPLE = 2**POOLS  # sides the network handles without resizing its skips


class NoisyUNet(nn.Module):
  """image [B,H,W,C] (already normalised) -> logits [B,H,W,1] float32.

  Attributes:
    width: channels of the first block; the published network has 64.
    dtype: of the computation; parameters stay float32. bfloat16 changes the sign of some meta
      gradients: the method runs those in float32 (config.method.meta_dtype).
    precision: of the products, e.g. "highest" where the accelerator's default is TF32.
    sides: what happens to sides that 16 does not divide. "pad": the image is continued by its edge
      pixels and the logits are cut to the image. "ceil": the reference's ceil-mode pooling and
      bilinear skips, whose logits are *larger* than the image (for parity only).
  """
  width: int = 64
  dtype: Any = jnp.float32
  precision: Any = None
  sides: str = "pad"

  def _conv(self, x, features, name, size=3, relu=True, dtype=None):
    x = nn.Conv(features, (size, size), padding="SAME", dtype=dtype or self.dtype, precision=self.precision,
                name=name)(x)
    return nn.relu(x) if relu else x

  def _up(self, x, features, name):
    return nn.relu(conv.ConvTranspose2x2(features, dtype=self.dtype, precision=self.precision,
                                           name=name)(x))

  @nn.compact
  def __call__(self, image):
    height, width = image.shape[1:3]
    x = image.astype(self.dtype)
    if self.sides == "pad":
      x = pad_to_multiple(x)
    elif self.sides != "ceil":
      raise UserError(f"config.model.sides={self.sides!r}: use pad or ceil")

    skips = []
    for i in range(POOLS):
      x = max_pool(x) if i else x
      x = self._conv(x, self.width * 2**i, f"down{i + 1}_conv1")
      x = self._conv(x, self.width * 2**i, f"down{i + 1}_conv2")
      skips.append(x)
    deepest = self.width * 2**POOLS
    x = self._conv(max_pool(x), deepest, "center_conv1")
    x = self._conv(x, deepest, "center_conv2")
    x = self._up(x, deepest // 2, "center_up")

    for i, skip in enumerate(reversed(skips), start=1):
      last, features = i == POOLS, self.width * 2**(POOLS - i)
      if skip.shape[1:3] != x.shape[1:3]:
        skip = jax.image.resize(skip, (*x.shape[:3], skip.shape[3]), "bilinear", antialias=False)
      x = jnp.concatenate([x, skip], axis=-1)
      x = self._conv(x, features, f"up{i}_conv1", relu=not last)
      x = self._conv(x, features, f"up{i}_conv2", relu=not last)
      x = x if last else self._up(x, features // 2, f"up{i}_up")
    logits = self._conv(x, 1, "output", size=1, relu=False, dtype=of_last_layer(self.dtype))
    if self.sides == "pad":
      logits = logits[:, :height, :width]
    return at_least_float32(logits)


def initial_params(net: NoisyUNet, rng, image, scheme: str):
  """Fresh parameters, float32, cut from a single draw: 46 draws would compile for a quarter minute.

  Args:
    image: [B,H,W,C], for its shape.
    scheme: "torch": kernels and biases U(+-1/sqrt(fan_in)), what the published network really
      starts from (its own N(0, 0.02) routine is called with shifted arguments and does nothing);
      "he": kernels U(+-sqrt(6/fan_in)), biases 0.

  Raises:
    UserError: another scheme.
  """
  if scheme not in ("torch", "he"):
    raise UserError(f"config.model.init={scheme!r}: use torch (the reference's) or he")
  shapes = jax.eval_shape(net.init, jax.random.key(0), image)["params"]
  total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  draw, place, params = jax.random.uniform(rng, (total,), minval=-1, maxval=1), 0, {}
  for layer in sorted(shapes):
    shape = shapes[layer]["kernel"].shape
    fan_in = shape[0] * shape[1] * shape[2]
    if layer.endswith("_up"):  # [I,2,2,O]; PyTorch counts its fan-in from the *output* channels
      fan_in = 4 * shape[3] if scheme == "torch" else shape[0]
    bounds = {"kernel": (1 if scheme == "torch" else 6) ** 0.5 * fan_in ** -0.5,
              "bias": fan_in ** -0.5 if scheme == "torch" else 0.0}
    params[layer] = {}
    for part, bound in bounds.items():
      leaf = shapes[layer][part]
      params[layer][part] = bound * draw[place:place + leaf.size].reshape(leaf.shape)
      place += leaf.size
  return params


def pad_to_multiple(x):
  """[B,H,W,C] -> [B,H',W',C], sides up to the next multiple of 16 by repeating the edge pixels."""
  pads = [(0, -side % MULTIPLE) for side in x.shape[1:3]]
  return jnp.pad(x, [(0, 0), *pads, (0, 0)], mode="edge") if any(p[1] for p in pads) else x


def max_pool(x):
  """2x2 maximum, ceil mode: [B,H,W,C] -> [B,ceil(H/2),ceil(W/2),C].

  Written as maxima of strided slices: its reverse derivative is 17 times faster on CPU than that of
  a window reduction, its forward derivative twice. It halves a tie's gradient where PyTorch gives
  it to the first pixel; behind a ReLU ties are zeros, whose gradient vanishes anyway.
  """
  h, w = x.shape[1:3]
  if h % 2 or w % 2:
    lowest = jnp.finfo(x.dtype).min
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), constant_values=lowest)
  rows = jnp.maximum(x[:, ::2], x[:, 1::2])
  return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])
