"""Names of the published PyTorch denoising autoencoder (Kascenas 2022) -> parameters of `dae_unet`."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def torch_sizes(tensors: dict[str, np.ndarray]) -> dict[str, int]:
  """{"depth", "wf", "channels"} that the shapes of a reference state dict reveal.

  Raises:
    KeyError: the first or last convolution is missing: not such a state dict.
  """
  width = tensors["down_path.0.block.1.weight"].shape[0]
  depth = sum(1 for name in tensors if name.startswith("down_path.")
              and name.endswith(".block.1.weight"))
  return {"depth": depth, "wf": width.bit_length() - 1,
          "channels": tensors["last.weight"].shape[0]}


def from_torch(tensors: dict[str, np.ndarray], depth: int) -> dict[str, Any]:
  """Parameters from a state dict of the reference (names of the public implementation).

  Args:
    tensors: e.g. "down_path.0.block.1.weight" [O,I,3,3], "up_path.0.up.weight" [I,O,2,2].
    depth: number of levels.

  Returns:
    The "params" tree of UNet. `convert` checks it for missing, unexpected and mis-shaped entries.

  Raises:
    KeyError: a tensor is missing.
  """
  def block(prefix):
    conv_at = lambda i: {"kernel": tensors[f"{prefix}.{i}.weight"].transpose(2, 3, 1, 0),
                         "bias": tensors[f"{prefix}.{i}.bias"]}
    norm_at = lambda i: {"scale": tensors[f"{prefix}.{i}.weight"], "bias": tensors[f"{prefix}.{i}.bias"]}
    return {"conv_a": conv_at(1), "norm_a": norm_at(3), "conv_b": conv_at(5), "norm_b": norm_at(7)}

  params = {f"down_{i}": block(f"down_path.{i}.block") for i in range(depth)}
  for j in range(depth - 1):
    i = depth - 2 - j
    params[f"up_{i}"] = {"kernel": tensors[f"up_path.{j}.up.weight"].transpose(0, 2, 3, 1),
                         "bias": tensors[f"up_path.{j}.up.bias"]}
    params[f"up_block_{i}"] = block(f"up_path.{j}.conv_block.block")
  params["last"] = {"kernel": tensors["last.weight"][:, :, 0, 0].T, "bias": tensors["last.bias"]}
  return jax.tree.map(np.ascontiguousarray, params)
