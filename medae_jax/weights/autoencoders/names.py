"""State dicts of the autoencoders that the MorphAEus paper compares -> our trees, by rules a network.

A rule is (pattern of a layer's published name, "net/layer" of ours); the pattern's groups may be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import re
from typing import Any

import numpy as np

from medae_jax.core.errors import UserError

Rules = Sequence[tuple[str, str]]
_STATS = {"running_mean": "mean", "running_var": "var"}
_IGNORED = ("num_batches_tracked",)

VAE = ((r"encoder\.start\.conv", "enc/conv0"), (r"encoder\.middle_blocks\.(\d+)\.conv", r"enc/conv+\1"),
       (r"encoder\.end\.conv", "enc/last"), (r"decoder\.start\.conv", "dec/conv0"),
       (r"decoder\.middle_blocks\.(\d+)\.conv", r"dec/conv+\1"), (r"decoder\.end\.conv", "dec/last"))
DENSE = ((r"lin_enc", "dense/conv_in"), (r"lin_lay_enc", "dense/linear_in"),
         (r"lin_lay_dec", "dense/linear_out"), (r"lin_dec", "dense/conv_out"))
AAE = ((r"E\.(\w+)", r"enc/\1"), (r"G\.(\w+)", r"dec/\1"), (r"D\.(\w+)", r"critic_image/\1"),
       (r"ZD\.(\w+)", r"critic_latent/\1"))
SOFT_INTRO = ((r"encoder\.main\.0", "enc/conv"), (r"encoder\.main\.1", "enc/norm"),
              (r"encoder\.main\.(res_in_\d+)\.(\w+)", r"enc/\1/\2"), (r"encoder\.fc", "enc/fc"),
              (r"decoder\.fc\.0", "dec/fc"), (r"decoder\.main\.(res_in_\d+)\.(\w+)", r"dec/\1/\2"),
              (r"decoder\.main\.predict", "dec/predict"))


def beta_rules(tensors: Mapping[str, Any]) -> Rules:
  """Rules of the beta-VAE: layers are places in a list with activations between, so that depth decides.

  Encoder: convolutions 0, 2, ... 2n, of which the last makes a vector, then linear. Decoder: linear 0, then 3
  (vector to a map), 5, 7, ..., the last one the output.
  """
  places = {net: sorted({int(k.split(".")[1]) for k in tensors if k.startswith(f"{net}.")})
            for net in ("encoder", "decoder")}
  *convs, vector, linear = places["encoder"] or [0, 0]
  rules = [(rf"encoder\.{p}", f"enc/conv{i}") for i, p in enumerate(convs)]
  rules += [(rf"encoder\.{vector}", "enc/to_vector"), (rf"encoder\.{linear}", "enc/linear")]
  first, start, *middle = places["decoder"] or [0, 0, 0]
  rules += [(rf"decoder\.{first}", "dec/linear"), (rf"decoder\.{start}", "dec/from_vector")]
  rules += [(rf"decoder\.{p}", f"dec/conv{i}") for i, p in enumerate(middle[:-1])]
  return (*rules, *((rf"decoder\.{p}", "dec/last") for p in middle[-1:]))


def from_torch(tensors: Mapping[str, np.ndarray], rules: Rules, transposed: Iterable[str] = (),
               like: Mapping[str, Any] | None = None):
  """(params, stats) {net: tree} of a state dict; names that no rule knows are ignored.

  Args:
    tensors: kernels OIHW, transposed ones IOHW, of linear maps [out, in].
    transposed: nets whose convolutions of sides above 1 are transposed ones.
    like: {net: tree of params}: layers that it lacks are ignored (published networks own unused ones).

  Raises:
    UserError: no tensor fits.
  """
  params: dict[str, Any] = {}
  stats: dict[str, Any] = {}
  turned = tuple(transposed)
  for name, value in tensors.items():
    layer, _, part = name.rpartition(".")
    path = _place(layer, rules)
    if path is None or part in _IGNORED or (like is not None and not _in(like, path)):
      continue
    value = np.asarray(value)
    if part in _STATS:
      _put(stats, path, _STATS[part], value)
    else:
      leaf = "bias" if part == "bias" else "kernel" if value.ndim > 1 else "scale"
      _put(params, path, leaf, _turned(value, path[0] in turned))
  if not params:
    raise UserError("the file has no tensor of this network: it is not one of its state dicts")
  return params, stats


def _place(layer, rules):
  for pattern, place in rules:
    match = re.fullmatch(pattern, layer)
    if match:
      found = match.expand(place)
      # "conv+3" is number 4: the first convolution stands under a name of its own there
      return tuple(re.sub(r"\+(\d+)$", lambda m: str(int(m[1]) + 1), found).split("/"))
  return None


def _in(tree, path):
  for key in path:
    if key not in tree:
      return False
    tree = tree[key]
  return True


def _put(tree, path, leaf, value):
  for key in path:
    tree = tree.setdefault(key, {})
  tree[leaf] = value


def _turned(value, transposed):
  if value.ndim == 2:
    return value.T
  if value.ndim < 4:
    return value
  if transposed:  # correlated with the dilated input instead: turned by 180 degrees
    return value.transpose(2, 3, 0, 1)[::-1, ::-1]
  return value.transpose(2, 3, 1, 0)
