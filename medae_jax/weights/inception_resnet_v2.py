"""InceptionResNetV2 out of the published PyTorch or Keras file: normalisation folded in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import pathlib
import re

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models.inception_resnet_v2 import TAPS, shapes
from medae_jax.weights import batch_norm
from medae_jax.weights.known import arrays

PUBLISHED_FILE = "inceptionresnetv2-520b38e4.pth"


def load(path: pathlib.Path, layers: Iterable[str]) -> dict:
  """{layer: {"kernel" [h,w,I,O], "bias" [O]}} of the layers, from a state dict in a file.

  Raises:
    UserError: a tensor is missing, with its name.
  """
  layers = tuple(layers)
  keras = arrays.load(path, _is_keras)
  if keras:
    return convert(from_keras(keras, str(path)), layers, str(path))
  known = {f"{layer}.{part}" for layer in layers for part in (
      "conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "weight", "bias")}
  return convert(arrays.load(path, known.__contains__), layers, str(path))


def convert(tensors: Mapping[str, np.ndarray], layers: Iterable[str], where: str = "the file") -> dict:
  """As `load`, from {name: array} with the published names.

  The residual blocks' projections ("...conv2d") have a bias and no normalisation.
  """
  get = batch_norm.getter(tensors, where)
  return {name: batch_norm.layer(get(f"{name}.weight"), get(f"{name}.bias")) if name.endswith(".conv2d")
          else batch_norm.folded(get, f"{name}.conv", f"{name}.bn") for name in layers}


# --------------------------------------------------------------------------------- Keras's names
_KERAS = re.compile(r"(conv2d|batch_normalization)(_\d+)?/|block\d+_\d+_conv/|conv_7b(_bn)?/")
_STATISTICS = (("beta", "bias"), ("moving_mean", "running_mean"), ("moving_variance", "running_var"))


def _is_keras(name: str) -> bool:
  return _KERAS.search(name) is not None


def units() -> list[str]:
  """Names of the 203 numbered units (convolution and normalisation) in the order in which Keras makes them.

  Within a module: branch after branch. The last unit, conv2d_7b, and the projections have names in Keras.
  """
  modules: dict[str, list[str]] = {}
  for name in shapes(TAPS):
    if not name.endswith(".conv2d") and name != "conv2d_7b":
      modules.setdefault(name.partition(".branch")[0], []).append(name)
  return [name for module in modules.values() for name in sorted(module)]


def from_keras(tensors: Mapping[str, np.ndarray], where: str = "the file") -> dict[str, np.ndarray]:
  """The published PyTorch names out of the layers of keras.applications' InceptionResNetV2 (.h5).

  Its normalisations have no scale; unnumbered layers are numbered in the order of creation, from wherever the
  session that saved them stood.

  Raises:
    UserError: another number of layers.
  """
  layers: dict[str, dict[str, np.ndarray]] = {}
  for name, value in tensors.items():  # layer/layer/kernel:0
    *_, layer, part = name.split("/")
    layers.setdefault(layer, {})[part.partition(":")[0]] = value
  order = lambda word: sorted((n for n in layers if re.fullmatch(rf"{word}(_\d+)?", n)),
                              key=lambda n: int(n.rpartition("_")[2]) if n[-1].isdigit() and n != word else 0)
  convs, norms, names = order("conv2d"), order("batch_normalization"), units()
  if not len(convs) == len(norms) == len(names):
    raise UserError(f"{where}: {len(convs)} convolutions and {len(norms)} normalisations with numbers; "
                    f"InceptionResNetV2 of Keras has {len(names)} of each")
  out: dict[str, np.ndarray] = {}
  for name, conv, norm in zip([*names, "conv2d_7b"], [*convs, "conv_7b"], [*norms, "conv_7b_bn"]):
    kernel = _part(layers, conv, "kernel", where)
    out[f"{name}.conv.weight"] = kernel.transpose(3, 2, 0, 1)
    for theirs, ours in _STATISTICS:
      out[f"{name}.bn.{ours}"] = _part(layers, norm, theirs, where)
    out[f"{name}.bn.weight"] = layers[norm].get("gamma", np.ones_like(out[f"{name}.bn.bias"]))
  for theirs, ours, n in (("35", "repeat", 10), ("17", "repeat_1", 20), ("8", "repeat_2", 10)):
    for i in range(n):
      name = "block8" if (ours, i) == ("repeat_2", 9) else f"{ours}.{i}"
      layer = f"block{theirs}_{i + 1}_conv"
      out[f"{name}.conv2d.weight"] = _part(layers, layer, "kernel", where).transpose(3, 2, 0, 1)
      out[f"{name}.conv2d.bias"] = _part(layers, layer, "bias", where)
  return out


def _part(layers, layer, part, where):
  if part not in layers.get(layer, {}):
    raise UserError(f"{where}: no {layer}/{part}: this is no InceptionResNetV2 of keras.applications")
  return layers[layer][part]
