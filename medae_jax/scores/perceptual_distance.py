"""Distance of two images in the features of a frozen trunk, as a map: LPIPS without its learnt weights.

Zhang, Isola, Efros, Shechtman, Wang, CVPR 2018 (arXiv 1801.03924), eq. 1 with every weight 1: features
of each layer have unit length at each position, and the squared differences are summed over channels.
The trunk is the user's (weights/trunks.py); figures of another trunk, or of LPIPS proper, do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from medae_jax.losses.trunk import Trunk

_SMALL = 1e-10  # of a feature vector's length, as published


def distance_map(trunk: Trunk, image: jax.Array, recon: jax.Array, layers: Sequence[str]) -> jax.Array:
  """Where the images differ to the trunk: [B,H,W,C] x 2 -> float32 [B,H,W,1], sum over layers, each 0 to 4.

  Coarse layers are resized to the image (bilinear, half-pixel centres).
  """
  first, second = (trunk(trunk.input(x), layers) for x in (image, recon))
  total = jnp.zeros((*image.shape[:3], 1), jnp.float32)
  for layer in layers:
    away = (_unit(first[layer]) - _unit(second[layer])) ** 2
    total = total + to_image(away.sum(-1, keepdims=True), image.shape)
  return total


def distance(trunk: Trunk, image: jax.Array, recon: jax.Array, layers: Sequence[str]) -> jax.Array:
  """Mean over each layer's positions, sum over layers: [B]."""
  first, second = (trunk(trunk.input(x), layers) for x in (image, recon))
  return sum(((_unit(first[k]) - _unit(second[k])) ** 2).sum(-1).mean((1, 2)) for k in layers)


def planes(image: jax.Array) -> jax.Array:
  """[B,H,W,C] as a trunk takes it: channels that are neither grey nor RGB follow each other, [C*B,H,W,1]."""
  if image.shape[-1] in (1, 3):
    return image
  return jnp.moveaxis(image, -1, 0).reshape(-1, *image.shape[1:3], 1)


def to_image(values: jax.Array, shape: Sequence[int]) -> jax.Array:
  """[B,h,w,c] at the size of images of `shape` [B,H,W,C]: bilinear, half-pixel centres, no smoothing."""
  return jax.image.resize(values, (*shape[:3], values.shape[-1]), "bilinear", antialias=False)


def _unit(features):
  return features / (jnp.linalg.norm(features, axis=-1, keepdims=True) + _SMALL)
