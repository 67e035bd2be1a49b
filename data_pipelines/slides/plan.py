"""Which files are slides, and which tiles of a slide are looked at: a deterministic plan."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.intake import find as finder
from data_pipelines.slides import forms, tissue
from data_pipelines.slides.reader import SUFFIXES, Slide

_LARGE = 4096     # pixels of a side from which a tiled TIFF of one level is a slide
_THUMBNAIL = 4e6  # pixels of the overview at most: the memory of a plan
_FINE = 4         # overview pixels along a tile, where that many fit
_GLASS = 0.82     # grey level from which the brighter class of Otsu can be the empty background
_APART = 0.06     # difference of the classes below which there is one class alone


def is_slide(path) -> bool:
  """Whether a file is to be read as a slide: by its ending, of TIFF files by tiles and levels.

  A TIFF is one where it is tiled and has reduced levels, or a side of 4096 pixels; without tifffile no
  TIFF is.
  """
  path = pathlib.Path(path)
  ending = path.suffix.lower()
  if ending in finder.SUFFIXES["slide"]:
    return True
  if ending not in SUFFIXES:
    return False
  if forms.in_circles(path):  # tifffile would follow them for ever
    return False
  with contextlib.suppress(Exception):  # no TIFF, or one that tifffile cannot read: no slide
    import tifffile
    with forms.quiet_tifffile(), tifffile.TiffFile(path) as file:
      page: Any = file.pages[0]
      second: Any = file.pages[1] if len(file.pages) > 1 else None
      levels = (second is not None and second.is_reduced) or len(file.series[0].levels) > 1
      return bool(page.is_tiled and (levels or max(page.shape[:2]) >= _LARGE))
  return False


def find(source) -> finder.Found:
  """The slides at or below a path; images that are none are left out."""
  found = finder.find(source, ("slide", "image"))
  slides = {f for f in found.files if is_slide(f)}
  found.leave_out({f: "is no slide; predict images by themselves" for f in found.files if f not in slides})
  return found


def seen_tissue(rgb: np.ndarray) -> np.ndarray:
  """bool [H,W] of an overview: Otsu's rule, opened, with nothing cut off at the borders.

  Otsu always finds two classes; where they are one, or none of them is glass, the rule of
  tissue.py would call half of the glass tissue, or half of the tissue glass.
  """
  grey = tissue.grey(rgb)
  dark = tissue.dark(rgb)
  if not dark.any() or dark.all():
    return np.full(grey.shape, float(grey.mean()) < _GLASS)
  bright, low = float(grey[~dark].mean()), float(grey[dark].mean())
  if bright < _GLASS:
    return np.ones(grey.shape, bool)
  if bright - low < _APART:
    return np.zeros(grey.shape, bool)
  return tissue.opened(dark)


@dataclasses.dataclass(frozen=True)
class Plan:
  """Tiles of a slide, at one resolution.

  Attributes:
    downsample: level-0 pixels a tile pixel.
    tile, margin: side in tile pixels, and how much of it on each side is context.
    shape: (rows, columns) of the grid of cores.
    places: int32 [n,2], (row, column) of the tiles that are looked at, in row-major order.
    tissue: float32 [n], their shares of tissue.
    area: level-0 pixels of tissue on the whole slide.
  """
  downsample: float
  tile: int
  margin: int
  shape: tuple[int, int]
  places: np.ndarray
  tissue: np.ndarray
  area: float

  @property
  def core(self) -> int:
    """Side of the part of a tile whose map is used."""
    return self.tile - 2 * self.margin

  def box(self, i: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the core of tile i in pixels of level 0."""
    row, column = (int(n) for n in self.places[i])
    x, y = (round(n * self.core * self.downsample) for n in (column, row))
    side = round(self.core * self.downsample)
    return x, y, side, side

  def read(self, slide: Slide, i: int) -> np.ndarray:
    """uint8 [tile,tile,3] of tile i; white outside the slide."""
    row, column = (int(n) for n in self.places[i])
    x, y = (round((n * self.core - self.margin) * self.downsample) for n in (column, row))
    return slide.read_scaled(self.downsample, x, y, self.tile, self.tile)


def make(slide: Slide, downsample: float, tile: int, margin: int = 0, least: float = 0.1) -> Plan:
  """The plan of a slide.

  Args:
    least: share of tissue in a core from which its tile is looked at; 0 = all.

  Raises:
    UserError: no tile has so much tissue.
  """
  core = tile - 2 * margin
  side = core * downsample
  shape = (math.ceil(slide.height / side - 1e-6), math.ceil(slide.width / side - 1e-6))
  coarse = max(1.0, min(256.0, side / _FINE), math.sqrt(slide.width * slide.height / _THUMBNAIL))
  mask = seen_tissue(slide.overview(coarse))
  share = shares(mask, side / coarse, shape)
  keep = share >= least if least else np.ones(shape, bool)
  if not keep.any():
    raise UserError(f"{slide.path} has no tissue (no tile of {side:.0f} pixels is {least:.0%} tissue); "
                    "--config.predict.slide.tissue=0 looks at everything")
  places = np.argwhere(keep).astype(np.int32)
  return Plan(downsample, tile, margin, shape, places, share[keep].astype(np.float32),
              float(mask.sum()) * coarse * coarse)


def shares(mask: np.ndarray, side: float, shape) -> np.ndarray:
  """float64 [*shape]: share of True in cells of `side` pixels of the mask (what lies on it)."""
  sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
  edges = []
  for n, limit in zip(shape, mask.shape):
    low = np.minimum(np.floor(np.arange(n) * side + 1e-6).astype(int), limit - 1)
    high = np.clip(np.floor((np.arange(n) + 1) * side + 1e-6).astype(int), low + 1, limit)
    edges.append((low, high))
  (top, bottom), (left, right) = edges
  at = lambda rows, columns: sums[rows[:, None], columns[None]]
  inside = at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left)
  return inside / ((bottom - top)[:, None] * (right - left)[None])
