"""Our own form of a backbone's weights: one .npz that says what it is.

Arrays `LAYER/kernel` [h,w,I,O] and `LAYER/bias` [O], float32, normalisation folded in; and texts: `network`
(models/backbone.py), `entry` (how images enter), `title`, `source`, `licence`, `original` (name of the file)
and its `sha256`.
`--mode=weights` writes them (known/command.py); every method that takes weights reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
import io
import pathlib
import zipfile

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.core.files import write_bytes
from medae_jax.weights import torch_file

TEXTS = ("network", "entry", "title", "source", "licence", "original", "sha256")


def is_kept(path: pathlib.Path) -> bool:
  """Whether a file has the form that `save` writes."""
  try:
    with zipfile.ZipFile(path) as archive:
      return {f"{text}.npy" for text in TEXTS} <= set(archive.namelist())
  except (OSError, zipfile.BadZipFile):
    return False


def save(path: pathlib.Path, params: Mapping, **texts: str) -> None:
  """Writes {layer: {"kernel", "bias"}} and all of `TEXTS`, whole or not at all."""
  arrays = {f"{layer}/{part}": np.asarray(value, np.float32)
            for layer, one in params.items() for part, value in one.items()}
  buffer = io.BytesIO()
  np.savez(buffer, **{name: np.array(texts[name]) for name in TEXTS}, **arrays)  # type: ignore[arg-type]
  write_bytes(path, buffer.getvalue())


def about(path: pathlib.Path) -> dict[str, str]:
  """The texts of a kept file, each on one line."""
  texts = torch_file.load(path, TEXTS.__contains__)
  return {name: " ".join(str(texts[name]).split())[:300] for name in TEXTS}


def load(path: pathlib.Path, network: str, entry: str, layers) -> dict:
  """{layer: {"kernel", "bias"}} of a kept file, of the layers that it has.

  Raises:
    UserError: weights of another network, or made for images that enter in another way.
  """
  texts = about(path)
  if texts["network"] != network:
    raise UserError(f"{path} holds weights of {texts['network']}, not of {network}")
  if texts["entry"] != entry:
    raise UserError(f"{path}: its images enter as {texts['entry']!r}, those of {network} as {entry!r}; "
                    "convert the original file again (--mode=weights)")
  parts = ("kernel", "bias")
  arrays = torch_file.load(path, {f"{layer}/{part}" for layer in layers for part in parts}.__contains__)
  return {layer: {part: arrays[f"{layer}/{part}"] for part in parts if f"{layer}/{part}" in arrays}
          for layer in layers}
