"""Patches cut out of slides when they are asked for: plans and stains of slides, kept; few files open."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import math
import os
import pathlib
import threading

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import arrays, images
from data_pipelines.slides import lesions, plan as plans, reader, stain
from data_pipelines.slides.plan import Plan

_OPEN = 16     # slides that are open at a time
_SAMPLES = 16  # patches of a slide from which its stains are learned
_PROPORTIONS = 0.02  # by which those of a mask and of its slide may differ, beside the rounding of sizes


class Library:
  """Slides as sources of patches; safe for threads.

  Args:
    cfg: mpp, magnification, own_mpp, crop_size, jitter, tissue, tissue_dir of config.data.
  """

  def __init__(self, cfg):
    self._cfg, self._lock = cfg, threading.Lock()
    self._open: collections.OrderedDict[str, reader.Slide] = collections.OrderedDict()
    self._plans: dict[str, tuple[Plan, np.ndarray]] = {}

  def plan(self, path: str) -> Plan:
    """The cells of a slide, crop_size wide, that have tissue enough.

    Raises:
      UserError: no tissue, no known resolution, no slide.
    """
    return self._known(path)[0]

  def stains(self, path: str) -> np.ndarray:
    """float32 [2,3]: optical densities of the stains of a slide; zeros where they cannot be told."""
    return self._known(path)[1]

  def patch(self, path: str, cell: int, jitter: int = 0) -> np.ndarray:
    """uint8 [crop_size + jitter, ..., 3]: a cell with what lies around it, white outside the slide."""
    slide, plan = self._slide(path), self.plan(path)
    row, column = (int(n) for n in plan.places[cell])
    x, y = (round((n * plan.tile - jitter / 2) * plan.downsample) for n in (column, row))
    side = plan.tile + jitter
    return slide.read_scaled(plan.downsample, x, y, side, side)

  def lesion_shares(self, path: str, mask: pathlib.Path) -> np.ndarray:
    """float64 [n]: share of each cell that a mask marks, an image over the whole slide, 0 = normal.

    Raises:
      UserError: the mask has other proportions than the slide, is inverted, or cannot be read.
    """
    slide, plan = self._slide(path), self.plan(path)
    marked = images.read_plain(mask).max(-1) > 0
    rows, columns = marked.shape
    if abs(rows * slide.width / (columns * slide.height) - 1) > _PROPORTIONS + 2 / min(rows, columns):
      raise UserError(f"mask {mask} is {columns}x{rows} pixels and {path} {slide.width}x{slide.height}: not "
                      "of its proportions, it is not the mask of this slide")
    side = plan.tile * plan.downsample * marked.shape[1] / slide.width
    shares, tissue = plans.shares(marked, side, plan.shape), np.zeros(plan.shape, bool)
    tissue[plan.places[:, 0], plan.places[:, 1]] = True
    lesions.check_on_tissue(f"mask {mask}", shares, tissue)
    return shares[tissue]

  def _slide(self, path):
    with self._lock:
      if path not in self._open:
        self._open[path] = reader.open_slide(path, self._cfg["own_mpp"])
        while len(self._open) > _OPEN:
          self._open.popitem(last=False)  # closed when no thread reads it any more
      self._open.move_to_end(path)
      return self._open[path]

  def _known(self, path):
    if path not in self._plans:
      self._plans[path] = self._stored(path) or self._made(path)
    return self._plans[path]

  def _made(self, path):
    cfg, slide = self._cfg, self._slide(path)
    downsample = slide.downsample_of(mpp=cfg["mpp"]) if cfg["mpp"] else (
        slide.downsample_of(magnification=cfg["magnification"]))
    plan = plans.make(slide, downsample, cfg["crop_size"], 0, cfg["tissue"])
    chosen = np.unique(np.linspace(0, len(plan.places) - 1, _SAMPLES).round().astype(int))
    matrix = np.zeros((2, 3), np.float32)
    with contextlib.suppress(stain.NoStain):  # it is not varied then
      matrix = stain.find_stains(np.concatenate([plan.read(slide, int(i)) for i in chosen])).matrix.astype(
          np.float32)
    self._store(path, plan, matrix)
    return plan, matrix

  def _file(self, path):
    """Where the plan of a slide is kept; None where plans are not kept."""
    if not self._cfg["tissue_dir"]:
      return None
    info = os.stat(path)
    told = [info.st_size, info.st_mtime_ns, *(self._cfg[k] for k in ("mpp", "magnification", "own_mpp",
                                                                     "crop_size", "tissue"))]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    return pathlib.Path(self._cfg["tissue_dir"]) / f"{pathlib.Path(path).name}.{key}.npz"

  def _store(self, path, plan, matrix):
    file = self._file(path)
    if file is not None:
      file.parent.mkdir(parents=True, exist_ok=True)
      temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
      with open(temporary, "wb") as out:
        np.savez(out, places=plan.places, tissue=plan.tissue, stains=matrix, shape=plan.shape,
                 numbers=[plan.downsample, plan.area])
      temporary.replace(file)

  def _stored(self, path):
    file = self._file(path)
    if file is None or not file.exists():
      return None
    try:
      found = arrays.read_some(file, ("places", "tissue", "stains", "shape", "numbers"))
      downsample, area = (float(v) for v in found["numbers"])
      shape = tuple(int(n) for n in found["shape"])
      return Plan(downsample, self._cfg["crop_size"], 0, shape, found["places"], found["tissue"],
                  area), found["stains"]
    except (OSError, ValueError, TypeError) as error:
      raise UserError(f"{file} is damaged ({error}): delete it, it is made again") from None


def spread(n: int, most: int) -> np.ndarray:
  """At most `most` of range(n), evenly spread; all where `most` is 0."""
  step = max(1.0, n / most) if most else 1.0
  return np.floor(np.arange(math.ceil(n / step - 1e-9)) * step).astype(int)
