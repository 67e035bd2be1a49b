"""Pictures of a slide's map: colours for viewers, the overlay on a thumbnail, the hottest fields."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data_pipelines.slides.plan import Plan
from data_pipelines.slides.reader import Slide
from medae_jax.reporting import panels

_SIDE = 800    # pixels of the longer side of the thumbnail
_FIELD = 128   # ... of a field in the picture of the hottest ones
_ACROSS = 5    # fields in a row of it


class Coloured:
  """A map [H,W] as a heat picture uint8 [H,W,3], made tile by tile when it is sliced.

  Args:
    top: of the heat scale.
  """

  dtype, ndim = np.dtype(np.uint8), 3

  def __init__(self, values: np.ndarray, top: float):
    self._values, self._top, self.shape = values, top, (*values.shape, 3)

  def __getitem__(self, place) -> np.ndarray:
    return panels.heat(np.asarray(self._values[place]), self._top)


def overlay(slide: Slide, values: np.ndarray, top: float, threshold: float | None, title: str,
            caption: str, scale: float) -> np.ndarray:
  """uint8 [H,W,3]: the slide, and the heat on its grey copy, regions above the threshold outlined.

  Args:
    values: a level of the map. scale: level-0 pixels a pixel of it; its end may lie beyond the slide's.
  """
  thumbnail = slide.overview(max(1.0, max(slide.width, slide.height) / _SIDE))
  height, width = thumbnail.shape[:2]
  covered = (0, 0, min(slide.width / scale, values.shape[1]), min(slide.height / scale, values.shape[0]))
  heat = np.asarray(Image.fromarray(np.asarray(values, np.float32)).resize(
      (width, height), Image.Resampling.NEAREST, box=covered))
  picture = panels.heat_overlay(thumbnail.mean(-1) / 255, heat, (0.0, 1.0), top)
  if threshold is not None:
    picture = panels.outline(picture, heat > np.float32(threshold))
  heads = ["slide", "anomaly score" + (", outline: above the threshold" if threshold is not None else "")]
  return panels.grid([[thumbnail, picture]], heads, [caption], title,
                     footer=panels.scale_bar(top, threshold, with_truth=None))


def fields(slide: Slide, plan: Plan, tiles: np.ndarray, scores: np.ndarray, title: str) -> np.ndarray:
  """uint8 [H,W,3]: the tiles with their scores, hottest first."""
  cells, captions = [], []
  for begin in range(0, len(tiles), _ACROSS):
    row = [np.asarray(Image.fromarray(plan.read(slide, int(i))).resize((_FIELD, _FIELD)))
           for i in tiles[begin:begin + _ACROSS]]
    cells.append(row + [np.full_like(row[0], 255)] * (min(_ACROSS, len(tiles)) - len(row)))
    captions.append("scores " + ", ".join(f"{scores[i]:.3g}" for i in tiles[begin:begin + _ACROSS]))
  return panels.grid(cells, [""] * len(cells[0]), captions, title)
