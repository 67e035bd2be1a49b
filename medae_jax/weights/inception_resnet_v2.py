"""InceptionResNetV2 out of the published PyTorch file: normalisation folded into the convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import pathlib

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.weights import torch_file

PUBLISHED_FILE = "inceptionresnetv2-520b38e4.pth"
_EPS = 1e-3  # of its batch normalisation


def load(path: pathlib.Path, layers: Iterable[str]) -> dict:
  """{layer: {"kernel" [h,w,I,O], "bias" [O]}} of the layers, from a state dict in a file.

  Raises:
    UserError: a tensor is missing, with its name.
  """
  layers = tuple(layers)
  known = {f"{layer}.{part}" for layer in layers for part in (
      "conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "weight", "bias")}
  return convert(torch_file.load(path, known.__contains__), layers, str(path))


def convert(tensors: Mapping[str, np.ndarray], layers: Iterable[str], where: str = "the file") -> dict:
  """As `load`, from {name: array} with the published names.

  conv(x) g / s + b - m g / s, s = sqrt(variance + 1e-3), is a convolution with kernel w g / s and bias
  b - m g / s, in float64 here. The residual blocks' projections ("...conv2d") have a bias of their own.
  """
  def get(name):
    if name not in tensors:
      raise UserError(f"{where}: no tensor {name!r}: this is no {PUBLISHED_FILE}")
    return np.asarray(tensors[name], np.float64)
  params = {}
  for layer in layers:
    if layer.endswith(".conv2d"):
      kernel, bias = get(f"{layer}.weight"), get(f"{layer}.bias")
    else:
      scale = get(f"{layer}.bn.weight") / np.sqrt(get(f"{layer}.bn.running_var") + _EPS)
      kernel = get(f"{layer}.conv.weight") * scale[:, None, None, None]
      bias = get(f"{layer}.bn.bias") - get(f"{layer}.bn.running_mean") * scale
    params[layer] = {"kernel": np.ascontiguousarray(kernel.transpose(2, 3, 1, 0), np.float32),
                     "bias": bias.astype(np.float32)}
  return params
