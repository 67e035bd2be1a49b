"""The wide residual network of deep_geo from tensors in Keras's form (kernels HWIO, dense [in, out])."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medae_jax.core.errors import UserError

_LEAVES = {"kernel": ("params", "kernel"), "bias": ("params", "bias"), "gamma": ("params", "scale"),
           "beta": ("params", "bias"), "moving_mean": ("stats", "mean"), "moving_variance": ("stats", "var")}


def networks(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """(params, stats) of the network.

  Args:
    tensors: arrays by name: conv0, g{1..3}.b{i}.{bn1,conv1,bn2,conv2,shortcut}, bn_final and dense,
      with .kernel .bias .gamma .beta .moving_mean .moving_variance.

  Raises:
    UserError: a name that is none of these.
  """
  trees: dict[str, dict[str, Any]] = {"params": {}, "stats": {}}
  for name, value in tensors.items():
    *layers, leaf = name.split(".")
    if leaf not in _LEAVES or not layers:
      raise UserError(f"{name!r} is no tensor of the wide residual network of deep_geo")
    kind, own = _LEAVES[leaf]
    node = trees[kind]
    for layer in ["_".join(layers[:2]), *layers[2:]] if len(layers) == 3 else layers:
      node = node.setdefault(layer, {})
    node[own] = value
  return trees["params"], trees["stats"]
