"""Pyramidal tiled TIFF out, for heat maps and for the slides that tests write; needs tifffile.

Levels are array-likes: memory-mapped files and lazy pictures are written tile by tile, never held whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import pathlib
from typing import Any

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.slides import engines

TILE = 256


def write_pyramid(path, levels: Sequence[Any], mpp: float | None = None, ome: bool = False, alpha: str = "",
                  software: str = "medae_jax") -> None:
  """Writes a BigTIFF of tiles of 256 x 256, deflated; level 0 first, each next one a directory of its own.

  OpenSlide, QuPath and tifffile open it (OpenSlide: uint8 and uint16 only).

  Args:
    levels: [H,W] or [H,W,C] array-likes with `shape`, `dtype` and slicing; C of colour is 3, or 4 with
      alpha. The coarser ones cover the whole of the first: their downsample is the ratio of widths.
    mpp: micrometres a pixel of level 0, None = not said.
    ome: coarser levels as sub-directories with an OME header (OME-TIFF): QuPath and tifffile read it,
      OpenSlide sees the first level alone.
    alpha: "" , "unassalpha" or "assocalpha": what the fourth channel is.

  Raises:
    UserError: tifffile is not installed. OSError: the disk is full, or cannot be written.
  """
  try:
    import tifffile
  except ModuleNotFoundError:
    raise UserError(f"writing slides and heat maps needs tifffile: {engines.INSTALL}") from None
  path = pathlib.Path(path)
  with tifffile.TiffWriter(path, bigtiff=True, ome=ome) as file:
    for number, level in enumerate(levels):
      scale = levels[0].shape[1] / level.shape[1]
      options: dict[str, Any] = {}
      if mpp:
        options.update(resolution=(1e4 / mpp / scale,) * 2, resolutionunit="CENTIMETER")
      if alpha and level.ndim == 3 and level.shape[-1] == 4:
        options["extrasamples"] = [alpha]
      if number:
        options["subfiletype"] = 1
      elif ome:
        options["subifds"] = len(levels) - 1
      options["metadata"] = _ome(level, mpp) if ome and not number else None
      file.write(_tiles(level), shape=tuple(level.shape), dtype=level.dtype, tile=(TILE, TILE),
                 photometric="rgb" if level.ndim == 3 else "minisblack", compression="zlib",
                 software=software, **options)


def _ome(level, mpp):
  said: dict[str, Any] = {"axes": "YXS" if level.ndim == 3 else "YX"}
  for axis in "XY" if mpp else "":
    said.update({f"PhysicalSize{axis}": mpp, f"PhysicalSize{axis}Unit": "\u00b5m"})
  return said


def _tiles(level) -> Iterator[np.ndarray]:
  """Full tiles in row-major order; what lies outside is filled with the last row and column."""
  height, width = level.shape[:2]
  for top in range(0, height, TILE):
    for left in range(0, width, TILE):
      tile = np.asarray(level[top:top + TILE, left:left + TILE])
      missing = [(0, TILE - n) for n in tile.shape[:2]] + [(0, 0)] * (tile.ndim - 2)
      yield np.ascontiguousarray(np.pad(tile, missing, "edge"))


def halved(level: np.ndarray, out: np.ndarray) -> np.ndarray:
  """Means of 2 x 2 of [H,W] or [H,W,C], written into `out` [ceil(H/2),ceil(W/2),...]; strip by strip."""
  step = 2 * TILE
  for top in range(0, level.shape[0], step):
    rows = np.asarray(level[top:top + step])
    pad = [(0, n % 2) for n in rows.shape[:2]] + [(0, 0)] * (rows.ndim - 2)
    rows = np.pad(rows, pad, "edge").astype(np.float32)
    mean = (rows[::2, ::2] + rows[1::2, ::2] + rows[::2, 1::2] + rows[1::2, 1::2]) / 4
    mean = np.floor(mean + 0.5) if out.dtype.kind == "u" else mean
    out[top // 2:top // 2 + mean.shape[0]] = mean.astype(out.dtype)
  return out
