"""Which cells of a slide become patches, drawn with a seed; and what patches are called.

A cell is 768 x 768 pixels of level 0 (data_pipelines/slides/tissue.py); patches never overlap. Names are
those of ninatu/anomaly_detection, <slide>_<kind>_x_<row>_y_<column>_w_<width>_h_<height>.<ending>, offsets
in level-0 pixels: its x is the row.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.slides import tissue
from data_pipelines.slides.lesions import TUMOR

SIDE = tissue.CELL * tissue.DOWNSAMPLE
KINDS = ("normal", "tumor")
_NAME = re.compile(r"(.+)_(normal|tumor)_x_(\d+)_y_(\d+)_w_(\d+)_h_(\d+)\.\w+")


@dataclasses.dataclass(frozen=True, order=True)
class Patch:
  """A field of a slide: left and top corner and size in level-0 pixels; kind is one of KINDS."""
  slide: str
  kind: str
  left: int
  top: int
  width: int = SIDE
  height: int = SIDE

  @property
  def stem(self) -> str:
    """The published name without its ending."""
    return f"{self.slide}_{self.kind}_x_{self.top}_y_{self.left}_w_{self.width}_h_{self.height}"


def parse(name: str) -> Patch:
  """The patch that a published name says.

  Raises:
    UserError: it is none.
  """
  match = _NAME.fullmatch(name)
  if not match:
    raise UserError(f"{name!r} is no name of a patch: "
                    "<slide>_<normal|tumor>_x_<row>_y_<column>_w_768_h_768.jpg")
  slide, kind, top, left, width, height = match.groups()
  patch = Patch(slide, kind, int(left), int(top), int(width), int(height))
  if not (0 < patch.width <= 1 << 14 and 0 < patch.height <= 1 << 14):
    raise UserError(f"{name!r}: a patch has 1 to {1 << 14} pixels a side")
  return patch


def tumor_cells(mask: np.ndarray, whole: np.ndarray, exact: bool = True) -> np.ndarray:
  """bool, as `whole`: cells of tissue that are tumour all over.

  Args:
    mask: uint8 [H,W] of lesions.published.
    whole: bool, of tissue.whole_cells.
    exact: all nine pixels are 127. False = as published: their mean, truncated, is 127, which a mixture of
      tumour, hole and background can give as well.
  """
  means = tissue.cell_means(mask == TUMOR) == 1 if exact else (
      tissue.cell_means(mask).astype(np.uint8) == TUMOR)
  return means & _of_shape(whole, means.shape)


def lesion_cells(share: np.ndarray, whole: np.ndarray, least: float) -> np.ndarray:
  """bool, as `whole`: cells of tissue of which at least `least` is lesion, by lesions.shares [H,W]."""
  means = tissue.cell_means(share)
  return (means >= least - 1e-6) & _of_shape(whole, means.shape)


def _of_shape(whole, shape):
  if whole.shape != shape:
    raise UserError(f"tissue of {whole.shape} and lesions of {shape} cells are not of one slide")
  return whole


def draw(where: np.ndarray, count: int, rng) -> list[tuple[int, int]]:
  """At most `count` cells (column, row) of a map bool [H,W], drawn without repeats.

  Args:
    rng: np.random.Generator or RandomState. The published order is that of NumPy's legacy generator,
      which was not seeded.
  """
  listed = [(int(column), int(row)) for row, column in np.argwhere(where)]
  rng.shuffle(listed)
  return listed[:count]


def patches(slide: str, kind: str, chosen: list[tuple[int, int]]) -> list[Patch]:
  """Patches of cells (column, row), in their order."""
  return [Patch(slide, kind, column * SIDE, row * SIDE) for column, row in chosen]


def share(values: np.ndarray, patch: Patch) -> float:
  """Mean over the patch's field of a map [H,W] at 1/256, pixels weighted by how much of them it covers."""
  def covered(begin, size, length):
    edges = np.arange(length + 1) * tissue.DOWNSAMPLE
    return (np.minimum(edges[1:], begin + size) - np.maximum(edges[:-1], begin)).clip(0)
  rows, columns = (covered(begin, size, length) for begin, size, length in (
      (patch.top, patch.height, values.shape[0]), (patch.left, patch.width, values.shape[1])))
  near = np.ix_(rows > 0, columns > 0)
  return float(rows[rows > 0] @ values[near] @ columns[columns > 0] / (patch.width * patch.height))
