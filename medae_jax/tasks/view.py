"""What the page of --mode=serve shows of one scored input: slices of image, map and mask as small integers.

Volumes are turned as in the pictures of predict (geometry.look). The image is read a second time, by the same
readers; nothing of it goes into the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from data_pipelines.brains import inputs
from data_pipelines.formats import images
from data_pipelines.intake import find as finder, geometry
from medae_jax.reporting.results import Score

_SIDE = 512  # longer pictures are thinned out: a screen shows no more beside another one


@dataclasses.dataclass(frozen=True)
class View:
  """The slices that were scored, in their order.

  Attributes:
    image: uint8 [Z,H,W]. levels: uint16 [Z,H,W], the map between `low` (0) and `high` (65535).
    mask: uint8 [Z,H,W], 0 or 1; None without a threshold. top: of the heat scale, as in all pictures.
    first: the slice to begin with, that of the highest score. pixel: mm (rows, columns), (1, 1) if unknown.
    sides: True = patient's right is on the left. ml: millilitres of a voxel, 0 = an image.
    thinned: every so many pixels are shown.
  """

  image: np.ndarray
  levels: np.ndarray
  low: float
  high: float
  mask: np.ndarray | None
  top: float
  first: int
  pixel: tuple[float, float]
  sides: bool
  ml: float
  thinned: int


def of(source: pathlib.Path, config, calibration: Mapping[str, Any] | None, score: Score) -> View | None:
  """The view of the one input below `source`, scored as `score`; None where the method gives no map."""
  if score.map is None:
    return None
  modalities = tuple(config.data.get("modalities", ()))
  if score.affine is not None:
    orientation = config.predict.orientation or config.data.get("orientation", "")
    image, turn, pixel, sides, ml = _volume(source, modalities, orientation)
  else:
    image = _picture(source, modalities, config.data.get("window", (0, 0)))[..., None]
    turn, pixel, sides, ml = (lambda a: a), (1.0, 1.0), False, 0.0
  maps, mask = (None if a is None else a.reshape(image.shape) for a in (score.map, score.mask))
  step = max(1, -(-max(image.shape[:2]) // _SIDE))
  look = lambda a: np.ascontiguousarray(np.moveaxis(turn(a), -1, 0)[:, ::step, ::step])
  shown = look(np.nan_to_num(maps, posinf=0, neginf=0).astype(np.float32))
  low, high = min(0.0, float(shown.min())), float(shown.max())
  high = high if high > low else low + 1.0
  levels = np.round((shown.astype(np.float64) - low) / (high - low) * 65535).astype(np.uint16)
  top = (calibration or {}).get("map_max") or max(float(np.quantile(shown, 0.999)), 1e-6)
  top = 1.0 if config.eval.kind == "segmentation" else top  # a probability
  return View(look(_grey(image)), levels, low, high, None if mask is None else look(mask).astype(np.uint8),
              float(top), int(score.row.get("highest_slice", 0)), pixel, sides, ml, step)


def _volume(source, modalities, orientation):
  """([X,Y,Z], how to turn it for the eye, mm of rows and columns then, whether sides are known, ml)."""
  scan = inputs.find_all(source, modalities, ("nifti", "image", "dicom"))[0][0]
  read = inputs.read_scan(scan, modalities, orientation)
  change, codes = geometry.look(read.grid, read.change)
  mm = geometry.spacing_after(read.grid, change) if read.grid.known else (1.0, 1.0, 1.0)
  turn = lambda a: np.swapaxes(geometry.apply(a, change), 0, 1)
  return (read.back(read.arrays[0]), turn, (float(mm[1]), float(mm[0])), codes[:1] == "L",
          read.grid.voxel_ml)


def _picture(source, modalities: Sequence[str], window) -> np.ndarray:
  """[H,W] of the image, of several modalities the first."""
  if not modalities:
    (path,) = finder.find(source, ("image", "dicom")).files
    return images.read_unit(path, 0, window).mean(-1)
  files = inputs.find_all(source, modalities, ("nifti", "image", "dicom"))[0][0].files
  return images.read_values(files[""] if "" in files else files[modalities[0]])[..., 0]


def _grey(image: np.ndarray) -> np.ndarray:
  """uint8: black and white are the 0.5th and 99.5th percentile of what is not background."""
  image = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
  inside = image[image != 0]
  low, high = np.quantile(inside, (0.005, 0.995)) if inside.size else (0.0, 1.0)
  low = min(float(low), 0.0) if low > 0 else float(low)
  return np.round(255 * np.clip((image - low) / max(float(high) - low, 1e-12), 0, 1)).astype(np.uint8)
