"""EfficientNet-Lite out of the published PyTorch files: normalisation folded into the convolutions."""

from __future__ import annotations

from collections.abc import Iterable
import pathlib

from medae_jax.weights import batch_norm
from medae_jax.weights.known import arrays

PUBLISHED_FILES = {0: "efficientnet-lite0-57934424.pth", 1: "efficientnet-lite1-77cc7160.pth",
                   2: "efficientnet-lite2-9656183e.pth"}
_PARTS = ("weight", "bias", "running_mean", "running_var")


def load(path: pathlib.Path, layers: Iterable[str]) -> dict:
  """{layer: {"kernel" [h,w,I,O], "bias" [O]}} of the layers, from a state dict in a file.

  Raises:
    UserError: a tensor is missing, with its name.
  """
  layers = tuple(layers)
  wanted = {f"{n}.{part}" for layer in layers for n in (layer, _norm(layer)) for part in _PARTS}
  get = batch_norm.getter(arrays.load(path, wanted.__contains__), str(path))
  return {layer: batch_norm.folded(get, layer, _norm(layer)) for layer in layers}


def _norm(layer: str) -> str:
  """Name of the normalisation after a convolution; the first block has no expansion."""
  block, _, name = layer.rpartition(".")
  if not block:
    return {"_conv_stem": "_bn0", "_conv_head": "_bn1"}[layer]
  return f"{block}.{dict(_expand_conv='_bn0', _depthwise_conv='_bn1', _project_conv='_bn2')[name]}"
