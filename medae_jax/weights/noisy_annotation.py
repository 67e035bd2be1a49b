"""Names of the published noisy-annotation U-Net (Mirikharaji 2019) -> parameters of `noisy_unet`."""

from __future__ import annotations

import jax.numpy as jnp

from medae_jax.core.errors import UserError
from medae_jax.models.noisy_unet import POOLS


def layer_names() -> list[tuple[str, str]]:
  """(name in the published checkpoints, name here) of every layer, in the published order."""
  names = []
  for i in range(1, POOLS + 1):
    names += [(f"down{i}.layer.0", f"down{i}_conv1"), (f"down{i}.layer.2", f"down{i}_conv2")]
  names += [("center.0", "center_conv1"), ("center.2", "center_conv2"), ("center.4", "center_up")]
  for i in range(1, POOLS):
    names += [(f"up{i}.layer.0", f"up{i}_conv1"), (f"up{i}.layer.2", f"up{i}_conv2"),
              (f"up{i}.layer.4", f"up{i}_up")]
  last = f"up{POOLS}"
  return names + [(f"{last}.0", f"{last}_conv1"), (f"{last}.1", f"{last}_conv2"),
                  ("output", "output")]


def from_torch(tensors) -> dict:
  """Parameters out of the published state dictionary.

  Args:
    tensors: {"down1.layer.0.weight": array, ...}, convolutions [O,I,kh,kw], transposed [I,O,2,2].

  Raises:
    UserError: names that are missing or unknown.
  """
  known = {f"{theirs}.{part}" for theirs, _ in layer_names() for part in ("weight", "bias")}
  if set(tensors) != known:
    raise UserError(f"not a checkpoint of the noisy-annotation U-Net: it lacks "
                     f"{sorted(known - set(tensors))[:3]} and has unknown "
                     f"{sorted(set(tensors) - known)[:3]}")
  params = {}
  for theirs, ours in layer_names():
    axes = (0, 2, 3, 1) if ours.endswith("_up") else (2, 3, 1, 0)
    kernel = jnp.transpose(jnp.asarray(tensors[f"{theirs}.weight"]), axes)
    params[ours] = {"kernel": kernel, "bias": jnp.asarray(tensors[f"{theirs}.bias"])}
  return params
