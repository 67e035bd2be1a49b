"""Names of the PyTorch codes of PIAD, 2019 and 2021 -> parameters of `piad_nets` and `dpa_nets`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.weights import dpa


def convert(tensors: Mapping[str, np.ndarray], net: str, variant: str) -> dict:
  """Parameters of one of the four networks out of its torch state dict (or gradients).

  Args:
    net: "enc", "dec", "critic_image" or "critic_latent". variant: "2021" or "2019".
  """
  if net == "critic_latent":
    return from_torch(tensors, "latent")
  if variant == "2019":
    return from_torch(tensors, "decoder" if net == "dec" else "encoder")
  dpa.check_form(tensors, "residual9", "none", "zero", net)
  return dpa.convert(tensors, "residual9")[0]


def from_torch(tensors: Mapping[str, np.ndarray], role: str) -> dict:
  """Parameters out of a torch state dict of the 2019 code (or of gradients with its names).

  Args:
    tensors: "model.<i>. ... .weight|bias" -> arrays, kernels OIHW.
    role: "encoder" (also the image critic), "decoder", or "latent" (the latent critic, which is
      the same network in 2019 and 2021).

  Raises:
    UserError: a name that is none of "model.<i>. ...".
  """
  children: dict[int, dict[str, np.ndarray]] = {}
  for name, value in tensors.items():
    parts = name.split(".")
    if len(parts) < 3 or parts[0] != "model" or not parts[1].isdigit():
      raise UserError(f"{name!r} is not a parameter of a PIAD network")
    children.setdefault(int(parts[1]), {})[".".join(parts[2:])] = np.asarray(value)
  modules = [children[i] for i in sorted(children)]
  if role == "latent":
    return {"body": {f"conv{i}": _conv(m) for i, m in enumerate(modules)}}
  middle = modules[1:-2]
  names = ["first", *(f"block{i}" for i in range(len(middle))), "last", "out"]
  return {name: _block(m) for name, m in zip(names, modules)}


def _conv(leaves):
  kernel = next(v for k, v in leaves.items() if k.endswith("weight"))
  bias = next(v for k, v in leaves.items() if k.endswith("bias"))
  return {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}


def _block(leaves):
  """One convolution, or conv1, conv2 and perhaps skip, in the order of their indices."""
  skip = {k: v for k, v in leaves.items() if k.startswith("skipcon")}
  groups: dict[str, dict[str, np.ndarray]] = {}
  for name in leaves.keys() - skip.keys():
    path, _, part = name.rpartition(".")
    groups.setdefault(path, {})[part] = leaves[name]
  convs = [_conv(groups[path]) for path in sorted(groups)]
  if len(convs) == 1:
    return convs[0]
  out = {f"conv{i + 1}": conv for i, conv in enumerate(convs)}
  return {**out, "skip": _conv(skip)} if skip else out
