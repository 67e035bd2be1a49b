"""What a method needs of a batch, said by the method and checked on the first batch."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from medae_jax.core.errors import UserError

Batch = Mapping[str, Any]  # name -> array [B, ...], or name -> Batch for several data streams


@dataclasses.dataclass(frozen=True)
class Need:
  """One array of a batch that a method reads; checked on the first batch, before anything is compiled.

  Attributes:
    dims: a letter an axis: B batch, H and W rows and columns, C channels, a digit for a fixed size.
    dtype: numpy name.
    low, high: range of the values, inclusive; None = open at that end.
    note: what cannot be checked, for people ("background exactly 0").
  """

  dims: str = "BHWC"
  dtype: str = "float32"
  low: float | None = None
  high: float | None = None
  note: str = ""

  def __str__(self):
    ends = [format(v, "g") for v in (self.low, self.high) if v is not None]
    span = {(True, True): f" in [{', '.join(ends)}]", (True, False): f" >= {''.join(ends)}",
            (False, True): f" <= {''.join(ends)}", (False, False): ""}[
                self.low is not None, self.high is not None]
    note = f", {self.note}" if self.note else ""
    return f"[{','.join(self.dims)}] {self.dtype}{span}{note}"


def of(needs: Mapping[str, Need], key: str) -> Need:
  """What is needed of `key`, also where only training's streams name it ("noisy/image" for "image")."""
  return next((need for name, need in needs.items() if name.split("/")[-1] == key), Need())


def check_batch(method, batch: Batch) -> None:
  """Checks a batch against `method.needs` before anything is compiled: dimensions, dtype, value range.

  Raises:
    UserError: the missing key, or the shape, type or range found, and the config field to change.
  """
  for key, need in method.needs.items():
    value: Any = batch
    for part in key.split("/"):
      if part not in value:
        raise UserError(f"the data has no {key!r} ({need}); it offers {sorted(flat_keys(batch))}. "
                        "Choose another config.data.name or config.method.name.")
      value = value[part]
    if len(value.shape) != len(need.dims):
      raise UserError(f"{key!r} has shape {tuple(value.shape)}, the method needs {need}; "
                      "see config.data.")
    if str(value.dtype) != need.dtype:
      raise UserError(f"{key!r} is {value.dtype}, the method needs {need}; see config.data.")
    _check_range(key, need, np.asarray(value))


def _check_range(key: str, need: Need, value: np.ndarray) -> None:
  if not value.size or value.dtype.kind != "f":
    return
  low, high = float(value.min()), float(value.max())
  if not np.isfinite(low + high):
    raise UserError(f"{key!r} holds NaN or infinity in the first batch; see config.data.")
  slack = 1e-4  # resampling and float16 storage overshoot a little
  if (need.low is not None and low < need.low - slack) or (
      need.high is not None and high > need.high + slack):
    raise UserError(f"{key!r} holds values from {low:.4g} to {high:.4g} in the first batch, the method "
                    f"needs {need}; see config.data.")


def image_shape(batch: Batch) -> tuple[int, ...] | None:
  """(H, W, C) of "image" in a batch, or in the first of its streams that has one; None without."""
  for part in (batch, *(v for v in batch.values() if isinstance(v, Mapping))):
    if "image" in part:
      return tuple(part["image"].shape[1:])
  return None


def flat_keys(batch: Batch, prefix: str = "") -> list[str]:
  """Keys of a nested batch, "noisy/image" style."""
  keys = []
  for key, value in batch.items():
    keys += flat_keys(value, f"{prefix}{key}/") if isinstance(value, Mapping) else [prefix + key]
  return keys
