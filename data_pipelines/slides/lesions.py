"""Lesions of a slide at 1/256 of its size, from polygons, without an image of its full resolution.

`shares` says how much of every pixel is lesion: polygons are filled on a grid 16 times as fine, some rows
at a time. `published` gives the values 0, 127 and 255 of ninatu/anomaly_detection, which fills an 8-bit
image of the whole slide (20 GB for 100,000 x 200,000) and scales it down: the same numbers from strips of
that image. Memory: shares 8 (width / 256) (height / 256) bytes and 4 MB; published, nearest: two rows of the
slide; bicubic: STRIP bytes, or 1,500 rows of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import logging
import math

import numpy as np
from PIL import Image, ImageDraw

from data_pipelines.errors import UserError
from data_pipelines.slides.annotations import Polygon
from data_pipelines.slides.tissue import DOWNSAMPLE

TUMOR, HOLE = 127, 255
STRIP = 1 << 28  # bytes of the full-resolution strips from which the bicubic mask is made
_FINER = 16  # samples along a pixel of the shares
_GLASS, _INVERTED, _ON_TISSUE = 0.1, 0.5, 0.3  # of the cells; of glass that is marked; of a lesion
_ROWS = 16  # pixel rows of the shares made at a time

Polygons = Mapping[str, Sequence[Polygon]]


def shares(polygons: Polygons, width: int, height: int, downsample: int = DOWNSAMPLE) -> np.ndarray:
  """How much of every pixel is inside tumour and outside of its holes.

  Args:
    polygons: "tumor" and "normal", vertices in level-0 pixels.
    width, height: of the slide at level 0.
    downsample: level-0 pixels along a pixel of the result.

  Returns:
    float32 [floor(height/downsample), floor(width/downsample)], multiples of 1/256; at least 1 x 1.
  """
  rows, columns = max(1, height // downsample), max(1, width // downsample)
  out, step = np.empty((rows, columns), np.float32), downsample / _FINER
  for top in range(0, rows, _ROWS):
    n = min(_ROWS, rows - top)
    inside = {kind: np.zeros((n * _FINER, columns * _FINER), bool) for kind in ("tumor", "normal")}
    for kind, canvas in inside.items():
      for polygon in polygons[kind]:
        vertices = np.array(polygon["vertices"], float).reshape(-1, 2) / step
        canvas |= filled(vertices, top * _FINER, *canvas.shape)
    lesion = inside["tumor"] & ~inside["normal"]
    out[top:top + n] = lesion.reshape(n, _FINER, columns, _FINER).mean((1, 3))
  return out


def check_on_tissue(path, lesion: np.ndarray, tissue: np.ndarray) -> None:
  """Refuses what marks the glass of a slide; says where a lesion lies beside its tissue.

  Args:
    path: of the mask or annotation. lesion: share [H,W] of each cell that is marked. tissue: bool [H,W].

  Raises:
    UserError: it is inverted.
  """
  rows, columns = (min(sides) for sides in zip(lesion.shape, tissue.shape))  # an overview is rounded up
  lesion, tissue = lesion[:rows, :columns], tissue[:rows, :columns]
  glass = ~tissue
  if glass.mean() > _GLASS and lesion[glass].mean() > _INVERTED:
    raise UserError(f"{path} marks {lesion[glass].mean():.0%} of what is no tissue of its slide: is it "
                    "inverted? A lesion is above 0")
  if lesion[tissue].sum() < _ON_TISSUE * lesion.sum():
    logging.warning("%s: %.0f %% of its lesion lies beside the tissue of its slide: is it of another slide, "
                    "or in pixels of another level?", path, 100 * lesion[glass].sum() / lesion.sum())


def filled(vertices: np.ndarray, top: int, height: int, width: int) -> np.ndarray:
  """Pixels whose centres a polygon encloses (even-odd rule): bool [height,width], rows from `top` on.

  Args:
    vertices: float [n,2], x and y in pixels.
  """
  flips = np.zeros((height, width + 1), np.uint8)
  start, end = vertices, np.roll(vertices, -1, 0)
  # Rows whose centre y + 1/2 an edge crosses, half open: a shared vertex counts once.
  low, high = (np.ceil(f(start[:, 1], end[:, 1]) - top - 0.5).astype(np.int64).clip(0, height)
               for f in (np.minimum, np.maximum))
  count = high - low
  edge = np.repeat(np.arange(len(vertices)), count)
  row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + low[edge]
  (x0, y0), (x1, y1) = start[edge].T, end[edge].T
  if row.size:
    x = x0 + (row + top + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    np.add.at(flips, (row, np.ceil(x - 0.5).astype(np.int64).clip(0, width)), 1)
  return (np.add.accumulate(flips, 1, dtype=np.uint8)[:, :-1] & 1).astype(bool)


def published(polygons: Polygons, width: int, height: int, size: tuple[int, int] | None = None,
              bicubic: bool = False) -> np.ndarray:
  """The mask of the published preparation, which its version of Pillow decides.

  Args:
    size: (columns, rows) of the result; None = floor(width/256), floor(height/256).
    bicubic: Pillow >= 7 (with other values than 0, 127 and 255 at borders), else nearest (Pillow < 7).

  Returns:
    uint8 [rows,columns]: 127 tumour, 255 hole.
  """
  columns, rows = size or (width // DOWNSAMPLE, height // DOWNSAMPLE)
  out = np.empty((rows, columns), np.uint8)
  if not bicubic:
    picked = _nearest(width, columns)
    for row, y in enumerate(_nearest(height, rows)):
      out[row] = np.asarray(_drawn(polygons, y, 1, width))[0, picked]
    return out
  scale = height / rows
  margin = math.ceil(2 * scale) + 1  # a bicubic kernel reaches two output pixels
  step = max(1, int((STRIP / width - 2 * margin) / scale))
  for row in range(0, rows, step):
    last = min(row + step, rows)
    top, bottom = max(0, int(row * scale) - margin), min(height, math.ceil(last * scale) + margin)
    strip = _drawn(polygons, top, bottom - top, width)
    out[row:last] = np.asarray(strip.resize((columns, last - row), Image.Resampling.BICUBIC,
                                            box=(0, row * scale - top, width, last * scale - top)))
  return out


def _nearest(full, small):
  """Pixels of `full` that Pillow's nearest filter picks for `small` ones."""
  return ((np.arange(small) + 0.5) * (full / small)).astype(np.int64)


def _drawn(polygons, top, height, width):
  """Rows top:top+height of the full-resolution mask: a Pillow image of 8 bits."""
  image = Image.new("L", (width, height))
  draw = ImageDraw.Draw(image)
  for kind, value in (("tumor", TUMOR), ("normal", HOLE)):
    for polygon in polygons[kind]:
      points = [(x, y - top) for x, y in polygon["vertices"]]
      if len(points) > 1 and min(y for _, y in points) < height and max(y for _, y in points) >= 0:
        draw.polygon(points, fill=value, outline=value)
  return image


def published_strips(polygons: Polygons, width: int, height: int, rows: int) -> Iterator[np.ndarray]:
  """The full-resolution mask of the published preparation, uint8 [<= rows,width] at a time."""
  for top in range(0, height, rows):
    yield np.asarray(_drawn(polygons, top, min(rows, height - top), width))
