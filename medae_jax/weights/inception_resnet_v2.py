"""InceptionResNetV2 out of the published PyTorch file: normalisation folded into the convolutions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import pathlib

import numpy as np

from medae_jax.weights import batch_norm, torch_file

PUBLISHED_FILE = "inceptionresnetv2-520b38e4.pth"


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

  The residual blocks' projections ("...conv2d") have a bias and no normalisation.
  """
  get = batch_norm.getter(tensors, where)
  return {name: batch_norm.layer(get(f"{name}.weight"), get(f"{name}.bias")) if name.endswith(".conv2d")
          else batch_norm.folded(get, f"{name}.conv", f"{name}.bn") for name in layers}
