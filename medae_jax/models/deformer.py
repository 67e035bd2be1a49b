"""The deformer of MorphAEus: from maps of an encoder and a decoder to a velocity field, and what it warps.

Bercea et al. 2023 (MICCAI, LNCS 14224), section 2.2. Of both networks the convolution outputs before
normalisation are read, three levels by default, and brought up by transposed convolutions; a 3x3 convolution
drawn from N(0, 1e-5^2) gives a stationary velocity field v in pixels. phi_+ and phi_- integrate v and -v;
recon = prior o phi_+, and the image o phi_- should look like the prior.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models import conv_ae
from medae_jax.models.layers import warp
from medae_jax.models.layers.dtype import at_least_float32, of_last_layer

WIDTH = 32  # of the deformer's own maps
_SLOPE = 0.2


def pairs(encoder: Sequence[jax.Array],
          decoder: Sequence[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
  """Maps of encoder and decoder of equal size, deepest first; encoder maps one pixel wide are left out.

  Raises:
    UserError: the networks have no such pairs: the encoder does not end at one pixel.
  """
  deep = [x for x in reversed(encoder) if x.shape[2] != 1]
  found: list[jax.Array] = []
  for x in decoder:
    if len(found) < len(deep) and x.shape[1:3] == deep[len(found)].shape[1:3]:
      found.append(x)
  if encoder[-1].shape[1:3] != (1, 1) or len(found) < len(deep):
    sides = lambda maps: ", ".join("x".join(map(str, x.shape[1:3])) for x in maps)
    raise UserError("MorphAEus needs an encoder that halves images down to 1x1 and a decoder of the "
                    f"same sizes; here the encoder's maps are {sides(encoder)}, the decoder's "
                    f"{sides(decoder)}. Take square images of 2^L pixels (config.data.image_size) with L "
                    "strides of 2 (config.model.strides)")
  return list(zip(deep, found))


class Deformer(nn.Module):
  """Pairs of maps -> velocity field [B,H,W,2], float32.

  Attributes:
    levels: pairs that are read, the finest ones.
    channels, strides: of the encoder.
  """
  levels: int
  channels: tuple[int, ...]
  strides: tuple[int, ...]
  size: int = 3
  norm: str = "batch"
  act: str = "swish"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, maps, train: bool = False, axis_name: str | None = None):
    if not 1 <= self.levels <= len(maps):
      raise UserError(f"config.model.levels={self.levels}: the networks have {len(maps)} pairs of maps")
    act, h = conv_ae.activation(self.act, _SLOPE), None
    for i, (down, up) in enumerate(maps[len(maps) - self.levels:]):
      u = jnp.concatenate([down, up] if h is None else [down, up, h], -1)
      h = conv_ae.conv_transpose(WIDTH, self.size, self.strides[-1 - i], self.dtype, f"conv{i}")(u)
      h = act(conv_ae.normalise(h, self.norm, train, axis_name, f"norm{i}"))
    flow = nn.Conv(2, (3, 3), padding=[(1, 1)] * 2, dtype=of_last_layer(self.dtype), name="flow",
                   kernel_init=nn.initializers.normal(1e-5))
    return at_least_float32(flow(h))


def deform(image: jax.Array, prior: jax.Array, velocity: jax.Array, both: bool = True,
           steps: int = 7) -> dict[str, jax.Array]:
  """{"recon" = prior o phi_+, "reversed" = image o phi_-, "field" = phi_+}; both=False: reversed is recon.

  Args:
    image, prior: [B,H,W,C]. velocity: [B,H,W,2] in pixels.
  """
  if not both:
    field = warp.integrate(velocity, steps)
    recon = warp.warp(prior, field)
    return {"recon": recon, "reversed": recon, "field": field}
  n = image.shape[0]  # both directions in one pass over 2 B fields
  fields = warp.integrate(jnp.concatenate([velocity, -velocity]), steps)
  warped = warp.warp(jnp.concatenate([prior, image.astype(prior.dtype)]), fields)
  return {"recon": warped[:n], "reversed": warped[n:], "field": fields[:n]}


def shown_jacobian(field: jax.Array) -> jax.Array:
  """A picture [B,H,W,3] in [0, 1] of det d(x + u)/dx: white 1, orange 2 and more (stretched), blue 1/2 and
  less (squeezed), by the logarithm; pure red where it is not positive: a folding."""
  det = warp.jacobian_determinant(field)[..., None]
  level = jnp.clip(jnp.log2(jnp.maximum(det, 1e-6)), -1, 1)
  far = jnp.array([0.90, 0.45, 0.0]), jnp.array([0.05, 0.30, 0.75])
  colour = 1 - jnp.abs(level) * (1 - jnp.where(level > 0, *far))
  picture = jnp.where(det <= 0, jnp.array([1.0, 0.0, 0.0]), colour)
  return jnp.pad(picture, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")


def moved_grid(field: jax.Array, spacing: int = 0) -> jax.Array:
  """A picture [B,H,W,1] in [0, 1] of a square grid moved by displacements [B,H,W,2].

  Args:
    spacing: pixels between lines; 0 = an eighth of the height, at least 2.
  """
  height, width = field.shape[1:3]
  spacing = spacing or max(height // 8, 2)
  lines = (jnp.arange(height)[:, None] % spacing == 0) | (jnp.arange(width)[None] % spacing == 0)
  grid = jnp.broadcast_to(lines.astype(jnp.float32)[None, ..., None], (*field.shape[:3], 1))
  return jnp.clip(warp.warp(grid, field), 0, 1)
