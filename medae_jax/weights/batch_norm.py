"""Batch normalisation with stored statistics, folded into the convolution before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from medae_jax.core.errors import UserError


def getter(tensors: Mapping[str, np.ndarray], where: str) -> Callable[[str], np.ndarray]:
  """name -> float64 array; UserError with the name where there is none."""
  def get(name):
    if name not in tensors:
      raise UserError(f"{where}: no tensor {name!r}: this is another network's file, or not a whole one")
    return np.asarray(tensors[name], np.float64)
  return get


def folded(get: Callable[[str], np.ndarray], conv: str, norm: str,
           eps: float = 1e-3) -> dict[str, np.ndarray]:
  """{"kernel" [h,w,I,O], "bias" [O]} of conv(x) g/s + b - m g/s, s = sqrt(variance + eps), in float64.

  Args:
    conv: name of a convolution without bias, kernel [O,I,h,w]. norm: name of what follows it.
  """
  scale = get(f"{norm}.weight") / np.sqrt(get(f"{norm}.running_var") + eps)
  kernel = get(f"{conv}.weight") * scale[:, None, None, None]
  return layer(kernel, get(f"{norm}.bias") - get(f"{norm}.running_mean") * scale)


def layer(kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
  """{"kernel" [h,w,I,O], "bias" [O]} in float32, of a kernel [O,I,h,w]."""
  return {"kernel": np.ascontiguousarray(kernel.transpose(2, 3, 1, 0), np.float32),
          "bias": bias.astype(np.float32)}
