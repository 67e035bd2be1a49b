"""An image as it was read: the stored pixels, and what of them is black and white."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np


@dataclasses.dataclass
class Frame:
  """An image, or the frames of one DICOM file.

  Attributes:
    path: where it came from.
    pixels: as stored, uint8, uint16, int16, int32 or float32 [N,H,W,1 or 3]; N = 1 but for DICOM of
      several frames.
    low, high: stored values that mean 0 and 1; `inverted`: 0 means white.
    curve: grey value in [0,1] of every stored value from `low` on, where it is no straight line
      (look-up tables, sigmoid windows); None = a straight line from low to high.
    unsaid: a line where the file leaves open what black and white are, "" = it says so.
    padding: bool [N,H,W,1], values beside the picture, which are shown black; None = there are none.
    least, most: what the file's depth can store; None = what the type can.
    alpha: [H,W] of the same type, or None; it is no part of the picture and is carried along.
    info: what `images.write` needs of the file: pydicom's data set, or a header.Header.
  """
  path: pathlib.Path
  pixels: np.ndarray
  low: float = 0
  high: float = 255
  inverted: bool = False
  alpha: np.ndarray | None = None
  info: Any = None
  curve: np.ndarray | None = None
  least: int | None = None
  most: int | None = None
  unsaid: str = ""
  padding: np.ndarray | None = None

  def unit(self) -> np.ndarray:
    """float32 [N,H,W,C] in [0,1], bright = bright; values beyond low and high are 0 and 1."""
    if self.curve is not None:
      place = np.clip(self.pixels.astype(np.int64) - int(self.low), 0, len(self.curve) - 1)
      value = self.curve[place].astype(np.float32)
    else:
      wide = np.float64 if self.pixels.dtype.itemsize > 2 else np.float32
      pixels: Any = self.pixels.astype(wide)
      value = np.asarray((pixels - self.low) / wide(self.high - self.low), np.float32)
    value = np.clip(1 - value if self.inverted else value, 0, 1)
    return value if self.padding is None else np.where(self.padding, np.float32(0), value)

  def stored(self, unit: np.ndarray) -> np.ndarray:
    """Pixels for values in [0,1]: clipped and rounded, never wrapped; inverse of `unit`."""
    value = np.clip(1 - unit if self.inverted else unit, 0, 1)
    if self.curve is not None:
      order = np.argsort(self.curve, kind="stable")
      rising = self.curve[order].astype(np.float32)
      above = np.clip(np.searchsorted(rising, value), 1, len(order) - 1)
      nearest = above - (value - rising[above - 1] < rising[above] - value)
      value = int(self.low) + order[nearest]
    else:
      value = self.low + value * (self.high - self.low)
    kind = self.pixels.dtype
    if kind.kind == "f":
      return value.astype(kind)
    info = np.iinfo(kind)
    least = info.min if self.least is None else self.least
    most = info.max if self.most is None else self.most
    return np.clip(np.round(value), least, most).astype(kind)
