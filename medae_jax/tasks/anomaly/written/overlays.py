"""<name>_overlay.png of predict: grey, heat, and where they are known the patient's sides and a ruler."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import numpy as np

from data_pipelines.brains.volumes import Volumes
from data_pipelines.intake import geometry
from medae_jax.reporting import panels, rulers

_SLICE, _IMAGE = 160, 240  # pixels of a picture's longer side, at least
_LEFT = {"L": "patient's right", "P": "the patient's front"}


@dataclasses.dataclass(frozen=True)
class Look:
  """The scales of all pictures of a run.

  Attributes:
    window: grey values that are black and white. top: of the heat scale. threshold: of masks, None without.
  """

  window: Sequence[float]
  top: float
  threshold: float | None

  def pair(self, image: np.ndarray, anomaly: np.ndarray, mask: np.ndarray | None) -> list[np.ndarray]:
    """[grey, heat on it] of [H,W] each, uint8 [H,W,3]."""
    over = panels.heat_overlay(image, anomaly, self.window, self.top)
    return [panels.grey(image, self.window), over if mask is None else panels.outline(over, mask)]

  def footer(self) -> np.ndarray:
    return panels.scale_bar(self.top, self.threshold, with_truth=None)


def of_volume(name: str, modality: str, read: Volumes, image: np.ndarray, anomaly: np.ndarray,
              mask: np.ndarray | None, peak: int, slices: int, look: Look) -> np.ndarray:
  """uint8 [H,W,3]: some of the slices that were scored, `peak` among them, as radiologists look at them.

  Args:
    read: how the scan lies. image, anomaly, mask: as it is stored.
    peak: the slice of the highest score, along the axis that was scored. slices: how many more, about.

  A pixel of the picture is as high as it is wide, also where the scan's are not.
  """
  change, codes = geometry.look(read.grid, read.change)
  turn = lambda a: np.swapaxes(geometry.apply(a, change), 0, 1)  # [rows, columns, Z]
  image, anomaly = turn(image), turn(anomaly)
  mask = None if mask is None else turn(mask) > 0
  column, row = geometry.spacing_after(read.grid, change)[:2] if read.grid.known else (1.0, 1.0)
  shape, mm = rulers.square(image.shape[:2], (row, column), _SLICE)
  seen = np.flatnonzero(image.any((0, 1)))
  n = min(slices, len(seen))
  picked = sorted({peak, *seen[np.linspace(0, len(seen) - 1, n + 2)[1:-1].astype(int)].tolist()})
  large = lambda a, z: panels.resize(a[:, :, z], shape)
  pairs = [look.pair(large(image, z), large(anomaly, z), None if mask is None else large(mask, z))
           for z in picked]
  if read.grid.known:
    pairs[0][0] = rulers.ruler(rulers.sides(pairs[0][0], geometry.OPPOSITE[codes[0]], codes[0]), mm)
  heads = [f"slice {z + 1} of {image.shape[2]}" + (" (highest)" if z == peak else "") for z in picked]
  lines = [f"{modality}; {_LEFT.get(codes[:1], 'nobody knows which side')} is on the left of the picture",
           "anomaly score" + (", outline: above the threshold" if mask is not None else "")]
  return panels.grid(list(zip(*pairs)), heads, lines, name, footer=look.footer())


def of_image(name: str, said: str, image: np.ndarray, anomaly: np.ndarray, mask: np.ndarray | None,
             look: Look) -> np.ndarray:
  """uint8 [H,W,3] of one image [H,W] and its map; `said` stands above them."""
  large = lambda a: panels.enlarge(a, max(1, -(-_IMAGE // max(anomaly.shape))))
  pair = look.pair(large(image), large(anomaly), None if mask is None else large(mask))
  return panels.grid([pair], ["input", "anomaly score"], [said], name, footer=look.footer())
