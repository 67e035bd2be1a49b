"""Named arrays of a file of weights, whatever its form; told apart by content, nothing is unpickled."""

from __future__ import annotations

from collections.abc import Callable
import os

import numpy as np

from medae_jax.weights import h5_file, onnx_file, torch_file


def load(path: str | os.PathLike, keep: Callable[[str], bool] | None = None) -> dict[str, np.ndarray]:
  """{name: array} of a .pt, .pth, .safetensors, .npz, .h5 or .onnx file.

  Raises:
    UserError: another form, or a damaged file. OSError: it cannot be opened.
  """
  with open(path, "rb") as file:
    head = file.read(len(h5_file.MAGIC))
  if head == h5_file.MAGIC:
    return h5_file.load(path, keep)
  if str(path).endswith(".onnx"):  # the one form without a mark of its own
    return onnx_file.load(path, keep)
  return torch_file.load(path, keep)
