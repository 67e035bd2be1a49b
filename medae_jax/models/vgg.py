"""Frozen VGG trunks: features by layer name (weights/vgg.py and weights/backbones.py read files).

Topology (Simonyan & Zisserman, arXiv 1409.1556): zero-padded 3x3 convolutions in groups, of VGG19 by
default (2, 2, 4, 4, 4; VGG16: 2, 2, 3, 3, 3), a ReLU after each, 2x2 max-pooling after each group.
Layer names are those of the perceptual losses: `cBI` convolution I of group B before its ReLU, `rBI`
after it, `pB` pooled.
The published weights are torchvision's ImageNet-1k V1, file vgg19-dcbb9e9d.pth; only the layers up
to the deepest one asked for are ever kept or computed. Widths are taken from the weights, so that
a narrow trunk works everywhere the published one does.

Parameters are a dict {"conv1_1": {"kernel" [3,3,I,O], "bias" [O]}, ...}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models.layers import conv_forms
from medae_jax.models.layers.dtype import at_least_float32
from medae_jax.models.layers.pool import max_pool2x2

GROUPS = (2, 2, 4, 4, 4)
WIDTHS = (64, 128, 256, 512, 512)
GROUPS_16 = (2, 2, 3, 3, 3)


def convolutions(groups=GROUPS) -> tuple[tuple[int, int], ...]:
  """(group, index) of all convolutions, from 1."""
  return tuple((b + 1, i + 1) for b, n in enumerate(groups) for i in range(n))


def layers(groups=GROUPS) -> tuple[str, ...]:
  """Names of all layers."""
  return tuple(f"{kind}{b}{i}" for b, i in convolutions(groups) for kind in "cr") + tuple(
      f"p{b}" for b in range(1, 6))


CONVS, LAYERS = convolutions(), layers()


def check_layers(names: Iterable[str], groups=GROUPS) -> None:
  """Raises UserError for a name that is not a layer of a VGG with these groups."""
  known = layers(groups)
  for layer in names:
    if layer not in known:
      last = f"5{groups[-1]}"
      raise UserError(f"{layer!r} is not a VGG{sum(groups) + 3} layer; names are c11..c{last} (convolution), "
                      f"r11..r{last} (after ReLU) and p1..p5 (pooled), e.g. r42")


def depth(layers: Iterable[str], groups=GROUPS) -> int:
  """How many of the convolutions are needed for these layers; 0 for none."""
  needed = 0
  for layer in layers:
    b = int(layer[1])
    last = (b, int(layer[2])) if layer[0] != "p" else (b, groups[b - 1])
    needed = max(needed, convolutions(groups).index(last) + 1)
  return needed


def features(params: Mapping, image: jax.Array, layers: Iterable[str], *,
             dtype=jnp.float32, groups=GROUPS) -> dict[str, jax.Array]:
  """Activations of the named layers; nothing beyond the deepest one is computed.

  No gradient reaches `params`; it does reach `image`.

  Args:
    params: weights, at least as deep as `layers` need.
    image: [B,H,W,3], normalised as the weights want it (losses.perceptual.network_input).
    layers: names such as "r32", "c42", "p1".
    dtype: of the convolutions; bfloat16 halves time and memory on accelerators, and moves scores by
      about 1e-3 relative.

  Returns:
    {layer: float32 [B,h,w,C]}.
  """
  layers = set(layers)
  check_layers(layers, groups)
  out, x = {}, image.astype(dtype)

  def keep(name, value):
    if name in layers:
      out[name] = at_least_float32(value)

  for b, i in convolutions(groups)[:depth(layers, groups)]:
    conv = jax.lax.stop_gradient(params[f"conv{b}_{i}"])
    x = conv_forms.conv(x, conv["kernel"].astype(dtype), 1) + conv["bias"].astype(dtype)
    keep(f"c{b}{i}", x)
    x = jax.nn.relu(x)
    keep(f"r{b}{i}", x)
    if i == groups[b - 1]:
      if f"p{b}" in layers or len(out) < len(layers):  # no pooling past the last layer asked for
        x = max_pool2x2(x)
      keep(f"p{b}", x)
  return out


def random_params(seed: int, widths=WIDTHS, layers: Iterable[str] = ("r54",)) -> dict:
  """He-normal weights, for tests and for runs that say so: these are not VGG19's."""
  rng = np.random.default_rng(seed)
  params, channels = {}, 3
  for b, i in CONVS[:depth(layers)]:
    width = int(widths[b - 1])
    kernel = rng.standard_normal((3, 3, channels, width)) * np.sqrt(2 / (9 * channels))
    params[f"conv{b}_{i}"] = {"kernel": kernel.astype(np.float32),
                              "bias": np.zeros(width, np.float32)}
    channels = width
  return params


def width(params: Mapping, layer: str) -> int:
  """Channels of a layer, from the weights."""
  index = layer[2] if layer[0] != "p" else "1"  # all convolutions of a group are equally wide
  return params[f"conv{layer[1]}_{index}"]["bias"].shape[0]
