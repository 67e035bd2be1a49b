"""Names of the public chest X-ray autoencoders and of MorphAEus <-> trees of conv_ae and deformer."""

from __future__ import annotations

from collections.abc import Mapping
import re
from typing import Any

import numpy as np

from medae_jax.core.errors import UserError

# net: (convolution of number i, normalisation of number i, the last convolution: its name there and here)
_NAMES = {
    "enc": ("encoder.conv__encode_", "encoder.conv__batch_", None),
    "dec": ("decoder.conv__decode_", "decoder.conv__batch_", ("decoder.conv__decode_final", "last")),
    "deformer": ("deformer.deformerNN.ref__refine_", "deformer.deformerNN.ref__batch_",
                 ("deformer.flow", "flow")),
}
_STATS = {"running_mean": "mean", "running_var": "var"}


def from_torch(tensors: Mapping[str, np.ndarray], transposed=("deformer",), nets=tuple(_NAMES)):
  """(params, stats) {net: tree} of a state dict of the public code.

  Args:
    tensors: kernels OIHW, transposed ones IOHW; identity grids and batch counters are ignored.
    transposed: nets whose numbered convolutions are transposed ones.
    nets: those to read.

  Raises:
    UserError: a net of which there is no tensor.
  """
  params: dict[str, Any] = {net: {} for net in nets}
  stats: dict[str, Any] = {net: {} for net in nets}
  for name, value in tensors.items():
    place = _place(name, nets)
    if place is None:
      continue
    net, layer = place
    part, value = name.rpartition(".")[2], np.asarray(value)
    if part in _STATS:
      stats[net].setdefault(layer, {})[_STATS[part]] = value
    else:
      numbered = layer.startswith("conv") and net in transposed
      leaf, value = _leaf(part, value, numbered)
      params[net].setdefault(layer, {})[leaf] = value
  missing = [net for net in nets if not params[net]]
  if missing:
    raise UserError(f"the file has no tensor of {', '.join(_NAMES[n][0] + 'i' for n in missing)}: it is not "
                    "a state dict of this network")
  return params, {net: found for net, found in stats.items() if found}


def _place(name, nets):
  for net in nets:
    conv, norm, last = _NAMES[net]
    for prefix, layer in ((conv, "conv"), (norm, "norm")):
      match = re.fullmatch(rf"{re.escape(prefix)}(\d+)\.\w+", name)
      if match and not name.endswith("num_batches_tracked"):
        return net, f"{layer}{match[1]}"
    if last and name.rpartition(".")[0] == last[0]:
      return net, last[1]
  return None


def _leaf(part, value, transposed):
  if part == "bias":
    return "bias", value
  if value.ndim == 1:
    return "scale", value
  if transposed:  # correlated with the dilated input instead: turned by 180 degrees
    return "kernel", value.transpose(2, 3, 0, 1)[::-1, ::-1]
  return "kernel", value.transpose(2, 3, 1, 0)
