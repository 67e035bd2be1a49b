"""What perceptual losses need of the frozen network that `config.method.trunk` names.

"vgg19" is the published one, with torchvision's file, channel statistics over ImageNet, and narrow random
trunks (`vgg_widths`); every other name is a backbone of models/backbone.py with its own entrance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import functools
import pathlib

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models import backbone, vgg
from medae_jax.weights import backbones, vgg as vgg_weights

PUBLISHED = "vgg19"
# Means and deviations of the layers of groups 1 to 4 of Oxford's VGG16 over 400 images of CIFAR-10; the file
# says which, and the SHA-256 of the weights that they belong to (docs/weights.md).
NATURAL_FILE = vgg_weights.STATS_FILE.with_name("vgg16_feature_stats.npz")


class Source:
  """The network behind a perceptual loss, without its parameters.

  Args:
    field: that names the network, for messages.

  Attributes:
    features: as losses.trunk.Trunk wants it. enter: entrance, None = that of torchvision's weights.

  Raises:
    UserError: no such network.
  """

  def __init__(self, method: Mapping, field: str = "config.method.trunk"):
    self.name = method.get("trunk", PUBLISHED)
    # Beginning of the fields of its weights and widths: config.method.trunk has config.method.vgg_weights.
    self._fields = vgg_weights.FIELDS if field == "config.method.trunk" else field
    self.weights, self._widths = method["vgg_weights"], method["vgg_widths"]
    self._net = None if self.name == PUBLISHED else backbone.get(self.name, field)
    self.features: Callable = vgg.features if self._net is None else functools.partial(_features, self._net)
    self.enter = None if self._net is None else self._net.enter

  def check(self, layers: Iterable[str]) -> None:
    """Raises UserError for a name that is no layer of the network."""
    (vgg.check_layers if self._net is None else self._net.check)(layers)

  def zeros(self, layers) -> dict:
    """Zeros in the shapes of `load`."""
    if self._net is None:
      return vgg_weights.zeros(self.weights, layers, self._widths, self._fields)
    return backbones.zeros(self.name, self.weights, layers)

  def load(self, layers) -> dict:
    """Parameters up to the deepest layer.

    Raises:
      UserError, FileNotFoundError: as weights.vgg.load and weights.backbones.load.
    """
    if self._net is None:
      return vgg_weights.load(self.weights, layers, self._widths, self._fields)
    return backbones.load(self.name, self.weights, layers, f"{self._fields}_weights")[0]

  def check_stats(self, choice: str) -> None:
    """Raises UserError for statistics of another network, or of random weights."""
    if choice == "natural" and (self.name != "vgg16" or self.weights.startswith("random:")):
      raise UserError("config.method.vgg_stats='natural' are statistics of VGG16's ImageNet weights; "
                      f"with trunk={self.name}, vgg_weights={self.weights!r} set vgg_stats='running'")
    if choice == "published" and (self._net is not None or self.weights.startswith("random:")):
      raise UserError(f"config.method.vgg_stats='published' are statistics of VGG19's ImageNet weights; with "
                      f"trunk={self.name}, vgg_weights={self.weights!r} set vgg_stats='running'")

  def stats(self, layers, choice: str) -> dict:
    """{layer: {"mean", "std"}}: the published ones, VGG16's over natural images, or those of a file.

    Raises:
      UserError: layers that it lacks; "natural" with other weights than those it was measured with.
    """
    if choice == "natural":
      self._check_natural()
      return vgg_weights.load_stats(layers, NATURAL_FILE)
    return vgg_weights.load_stats(layers, vgg_weights.STATS_FILE if choice == "published" else choice)

  def _check_natural(self):
    with np.load(NATURAL_FILE, allow_pickle=False) as arrays:
      wanted = str(arrays["weights"])
    found = backbones.original_digest(pathlib.Path(self.weights))
    if found != wanted:
      raise UserError(f"config.method.vgg_stats='natural' belong to the weights with SHA-256 {wanted[:16]}; "
                      f"{self._fields}_weights={self.weights} are those of {found[:16]}: set "
                      "vgg_stats='running'")

  def width(self, params, layer: str) -> int:
    """Channels of a layer, from the weights where they may be narrow."""
    return vgg.width(params, layer) if self._net is None else self._net.widths[layer]

  def cut(self, params, layers) -> dict:
    """What of the parameters these layers need."""
    if self._net is None:
      return {f"conv{b}_{i}": params[f"conv{b}_{i}"] for b, i in vgg.CONVS[:vgg.depth(layers)]}
    return {name: params[name] for name in self._net.shapes(tuple(layers))}


def _features(net, params, image, layers, *, dtype):
  return net.features(params, image, tuple(layers), dtype)
