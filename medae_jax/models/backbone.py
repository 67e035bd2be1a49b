"""Frozen networks whose features methods read, by name: what a tap is called, how images enter.

  net = get("vgg16")
  maps = net.features(params, net.enter(image, 0, 1), ("r22", "r33"), jnp.float32)
weights/backbones.py has the parameters. A convention (order of channels, range, mean) belongs to the
weights that were trained with it: it is part of the name here, so that no file enters with another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models import efficientnet_lite, inception_resnet_v2, vgg


@dataclasses.dataclass(frozen=True)
class Backbone:
  """A network without its head.

  Attributes:
    name: as `config.method.backbone` has it. title: with data and authors, for results.
    taps: names of the maps, shallow to deep. widths: {tap: channels}, of all layers that `features` knows.
    least_size: side of the smallest image that every tap exists for.
    entry: in words, how images enter.
    features: (params, entered image [B,H,W,3], taps, dtype) -> {tap: [B,h,w,C]}; nothing beyond the
      deepest tap is computed, no gradient reaches the parameters.
    enter: (image [B,H,W,3] RGB, low, high) -> the same image as the network wants it.
    shapes: taps -> {layer: shape of its kernel [h,w,I,O]} up to the deepest tap.
    names: raises UserError for names that `features` does not know; None: they are the taps.
  """

  name: str
  title: str
  taps: tuple[str, ...]
  widths: Mapping[str, int]
  least_size: int
  entry: str
  features: Callable[..., dict[str, jax.Array]]
  enter: Callable[..., jax.Array]
  shapes: Callable[[tuple[str, ...]], Mapping[str, tuple[int, ...]]]
  names: Callable[[Iterable[str]], None] | None = None

  def check(self, layers: Iterable[str]) -> None:
    """Raises UserError for a name that `features` does not know."""
    if self.names is not None:
      self.names(layers)
    elif unknown := [layer for layer in layers if layer not in self.taps]:
      raise UserError(f"{unknown[0]!r} is no tap of {self.name}; it has {', '.join(self.taps)}")

  def init(self, seed: int, taps) -> dict[str, dict[str, np.ndarray]]:
    """He-normal kernels and zero biases, for runs that say so: these are nobody's published weights."""
    rng, params = np.random.default_rng(seed), {}
    for name, shape in self.shapes(tuple(taps)).items():
      kernel = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:3]))
      params[name] = {"kernel": kernel.astype(np.float32), "bias": np.zeros(shape[3], np.float32)}
    return params


def get(name: str, field: str = "config.method.backbone") -> Backbone:
  """The backbone of that name.

  Args:
    field: of the config, for the message.

  Raises:
    UserError: there is none, with the names that exist.
  """
  if name not in _ALL:
    raise UserError(f"{field}={name!r} is no backbone: use {', '.join(_ALL)}")
  return _ALL[name]


def names() -> tuple[str, ...]:
  """Names of all backbones."""
  return tuple(_ALL)


# -------------------------------------------------------------------------------------- entrances
def _unit(image, low, high):
  return (image - low) / (high - low)


def _enter_caffe(image, low, high):
  """Blue, green, red in 0 ... 255 minus the mean of ImageNet."""
  mean = jnp.asarray((103.939, 116.779, 123.68), image.dtype)
  return 255 * _unit(image, low, high)[..., ::-1] - mean


def _enter_torch(image, low, high):
  """Red, green, blue in 0 ... 1, minus mean, by deviation of ImageNet."""
  mean, std = (jnp.asarray(v, image.dtype) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
  return (_unit(image, low, high) - mean) / std


def _enter_symmetric(image, low, high):
  """Red, green, blue in -1 ... 1."""
  return 2 * _unit(image, low, high) - 1


def _enter_lite(image, low, high):
  """Red, green, blue in 0 ... 255, minus 127, by 128."""
  return (255 * _unit(image, low, high) - 127) / 128


# ------------------------------------------------------------------------------------------- VGG
def _vgg_shapes(groups, taps):
  shapes, channels = {}, 3
  for b, i in vgg.convolutions(groups)[:vgg.depth(taps, groups)]:
    shapes[f"conv{b}_{i}"] = (3, 3, channels, vgg.WIDTHS[b - 1])
    channels = vgg.WIDTHS[b - 1]
  return shapes


def _vgg_features(groups, params, image, taps, dtype):
  """Maps after the ReLU of convolution I of group B, "rBI", and the other names of models/vgg.py."""
  return vgg.features(params, jnp.asarray(image), taps, dtype=dtype, groups=groups)


def _vgg(name, title, groups, entry, enter):
  taps = tuple(f"r{b}{i}" for b, i in vgg.convolutions(groups))
  widths = {layer: vgg.WIDTHS[int(layer[1]) - 1] for layer in vgg.layers(groups)}
  return Backbone(name, title, taps, widths, 16, entry, functools.partial(_vgg_features, groups), enter,
                  functools.partial(_vgg_shapes, groups), functools.partial(vgg.check_layers, groups=groups))


def _efficientnet_lite(size):
  return Backbone(
      f"efficientnet_lite{size}", f"EfficientNet-Lite{size} (ImageNet)", efficientnet_lite.TAPS,
      efficientnet_lite.widths(size), 32, "RGB, 0 to 255, minus 127, by 128",
      functools.partial(efficientnet_lite.features, size), _enter_lite,
      functools.partial(efficientnet_lite.shapes, size))


_NETS = (
    _vgg("vgg16", "VGG16 (ImageNet, Oxford)", vgg.GROUPS_16, "BGR, 0 to 255, minus the mean", _enter_caffe),
    _vgg("vgg19", "VGG19 (ImageNet, torchvision)", vgg.GROUPS, "RGB, 0 to 1, minus mean, by deviation",
         _enter_torch),
    Backbone("inception_resnet_v2", "InceptionResNetV2 (ImageNet)", inception_resnet_v2.TAPS,
             inception_resnet_v2.WIDTHS, inception_resnet_v2.LEAST_SIZE, "RGB, -1 to 1",
             inception_resnet_v2.features, _enter_symmetric, inception_resnet_v2.shapes),
    *(_efficientnet_lite(size) for size in efficientnet_lite.SIZES))
_ALL = {net.name: net for net in _NETS}
