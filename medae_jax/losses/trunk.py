"""A frozen network of features as losses need it: how images enter it, statistics of its channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Trunk:
  """The frozen network whose features are compared, and how images enter it.

  Attributes:
    features: (params, input [B,H,W,3], layer names, dtype=...) -> {layer: float32 [B,h,w,C]}, such
      as models.vgg.features; without gradient to `params`.
    params: its weights.
    stats: {layer: {"mean" [C], "std" [C]}}; may be empty without feature normalisation.
    dtype: of the trunk's arithmetic.
    low, high, mean, std: see `network_input`.
    enter: (RGB [B,H,W,3], low, high) -> what the network reads, in place of mean and std; for
      weights with a convention of their own (models/backbone.py).
  """
  features: Callable
  params: Mapping
  stats: Mapping
  dtype: jnp.dtype = jnp.float32
  low: float = -1.0
  high: float = 1.0
  mean: Sequence[float] | None = IMAGENET_MEAN
  std: Sequence[float] | None = IMAGENET_STD
  enter: Callable | None = None

  def input(self, image: jax.Array) -> jax.Array:
    """`network_input` of an image, or what `enter` makes of it."""
    if self.enter is not None:
      unit = network_input(image, self.low, self.high, None, None)
      return self.enter(unit, 0.0, 1.0)
    return network_input(image, self.low, self.high, self.mean, self.std)

  def __call__(self, network_image: jax.Array, layers: Iterable[str]) -> dict[str, jax.Array]:
    """Features of what `input` returned."""
    return self.features(self.params, network_image, layers, dtype=self.dtype)


def network_input(image: jax.Array, low: float = -1.0, high: float = 1.0,
                  mean: Sequence[float] | None = IMAGENET_MEAN,
                  std: Sequence[float] | None = IMAGENET_STD) -> jax.Array:
  """What a trunk sees of images in [low, high]: [B,H,W,1|3] -> [B,H,W,3], gray repeated.

  [low, high] goes to [0, 1]; then minus `mean`, divided by `std`, per channel of RGB (ImageNet's by
  default, as torchvision's weights want it); None = not normalised.
  """
  if image.shape[-1] not in (1, 3):
    raise UserError(f"features of a network need 1 or 3 channels, the images have {image.shape[-1]}")
  image = (jnp.broadcast_to(image, (*image.shape[:-1], 3)) - low) / (high - low)
  if mean is not None:
    image = image - jnp.asarray(mean, image.dtype)
  return image if std is None else image / jnp.asarray(std, image.dtype)


def measure_stats(trunk: Trunk, images: Iterable[np.ndarray], layers: Iterable[str]) -> dict:
  """Channel statistics of `layers` over batches of images, rows and columns, in float64."""
  layers = tuple(layers)
  apply = jax.jit(lambda image: trunk(trunk.input(image), layers))
  count, total, square = {}, {}, {}
  for image in images:
    for layer, feature in apply(jnp.asarray(image)).items():
      flat = np.asarray(feature, np.float64).reshape(-1, feature.shape[-1])
      count[layer] = count.get(layer, 0) + len(flat)
      total[layer] = total.get(layer, 0) + flat.sum(0)
      square[layer] = square.get(layer, 0) + (flat**2).sum(0)
  if not count:
    raise UserError("no images to measure feature statistics on")
  return {layer: moments_to_stats(total[layer] / count[layer], square[layer] / count[layer])
          for layer in layers}


def moments_to_stats(mean, square, floor: float = 1e-2):
  """{"mean", "std"} from E[f] and E[f^2]; std is at least `floor` times the layer's mean std.

  A channel of random weights may never fire; dividing by its zero would make every score NaN.
  """
  np_ = jnp if isinstance(mean, jax.Array) else np
  std = np_.sqrt(np_.maximum(square - mean**2, 0.0))
  std = np_.maximum(std, floor * std.mean() + 1e-12)
  return {"mean": np_.asarray(mean, np_.float32), "std": np_.asarray(std, np_.float32)}
