"""Tensors of a published annotation-removal checkpoint <-> parameter trees of `annotation_nets`."""

from __future__ import annotations

from collections.abc import Mapping
import re

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError

# Containers that the reference numbers ("double_conv.3"); here a name ending in "_3".
_NUMBERED = {
    "autoencoder": "encoder|latent|decoder",
    "autoencoder_skip": "encoder_conv[123]",
    "basic_unet": "maxpool_conv|double_conv",
    "jung_unet": "excitation|dilated_convs",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
           "var": "running_var"}


def reference_name(network: str, path) -> str:
  """Name of a tensor in the reference's state dictionary.

  Args:
    network: key of NETWORKS.
    path: keys from the top of "params" or "batch_stats" to the leaf, e.g. ("outc", "conv", "bias").
  """
  *modules, leaf = path
  leaf = _LEAVES.get(leaf, f"{leaf}.weight")  # squeeze-excitation keeps two bare matrices
  name = ".".join([*modules, leaf])
  return re.sub(rf"(?<![^.])({_NUMBERED[network]})_(\d)", r"\1.\2", name)


def _is_transposed(kernel) -> bool:
  """Transposed kernels are [I,2,2,O]; plain ones [k,k,I,O] with odd k."""
  return kernel.ndim == 4 and tuple(kernel.shape[1:3]) == (2, 2)


def to_reference(leaf) -> np.ndarray:
  """An array in the reference's layout: [O,I,k,k], transposed [I,O,2,2], linear [out,in]."""
  leaf = np.asarray(leaf)
  if leaf.ndim == 4:
    return leaf.transpose(0, 3, 1, 2) if _is_transposed(leaf) else leaf.transpose(3, 2, 0, 1)
  return leaf.T


def from_reference(network: str, tensors: Mapping[str, np.ndarray], params, stats):
  """Fills parameter and statistics trees with the tensors of a reference state dictionary.

  Args:
    network: key of annotation_nets.NETWORKS.
    tensors: reference name -> array in the reference's layout. Batch counters
      ("num_batches_tracked") may be present and are ignored.
    params, stats: trees (or shapes, as jax.eval_shape returns) to fill.

  Returns:
    (params, stats) of float32 jax arrays.

  Raises:
    UserError: a tensor is missing, has another shape, or is left over.
  """
  left = {name for name in tensors if not name.endswith("num_batches_tracked")}
  filled = []
  for tree in (params, stats):
    flat = {}
    for path, leaf in flax.traverse_util.flatten_dict(tree).items():
      name = reference_name(network, path)
      if name not in left:
        raise UserError(f"the checkpoint has no tensor {name!r}: it is not a {network} of "
                         "this config.model (bilinear, full_skip, head)")
      value = _from_layout(np.asarray(tensors[name]), leaf)
      if value.shape != tuple(leaf.shape):
        raise UserError(f"tensor {name!r} has shape {tensors[name].shape}, config.model needs "
                         f"{to_reference(np.broadcast_to(0.0, leaf.shape)).shape}; check "
                         "config.model.width and the number of channels")
      flat[path] = jnp.asarray(value, jnp.float32)
      left.remove(name)
    filled.append(flax.traverse_util.unflatten_dict(flat))
  if left:
    raise UserError(f"the checkpoint has tensors that a {network} of this config.model does not: "
                     f"{', '.join(sorted(left)[:3])}")
  return tuple(filled)


def fields(tensors: Mapping[str, np.ndarray]) -> dict[str, object]:
  """Config fields that the tensors of a published checkpoint reveal.

  Raises:
    KeyError: the first tensor of none of the four networks is there.
  """
  common = {"method.parity": True, "model.head": "published",
            "method.score.threshold": 0.06, "model.full_skip": False, "model.bilinear": False}
  first = {"jung_unet": "encoder_1.conv_1.conv.weight", "basic_unet": "inc.double_conv.0.weight",
           "autoencoder_skip": "encoder_conv1.0.weight", "autoencoder": "encoder.0.weight"}
  network = next((n for n, name in first.items() if name in tensors), "autoencoder")
  width, channels = tensors[first[network]].shape[:2]
  if network == "basic_unet":
    common["model.bilinear"] = "up1.up.weight" not in tensors
  return {**common, "model.network": network, "model.width": width, "data.channels": channels}


def _from_layout(value: np.ndarray, like) -> np.ndarray:
  if value.ndim == 4:
    return value.transpose(0, 2, 3, 1) if _is_transposed(like) else value.transpose(2, 3, 1, 0)
  return value.T
