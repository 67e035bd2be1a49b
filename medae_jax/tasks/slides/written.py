"""Results of a scored slide: pyramids, regions, tables and pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import Any

from absl import logging
import numpy as np

from data_pipelines.slides import regions, writer
from data_pipelines.slides.plan import Plan
from data_pipelines.slides.reader import Slide
from medae_jax.core import files
from medae_jax.tasks.slides import pictures
from medae_jax.tasks.slides.work import Work

_REGION_PIXELS = 2**24  # of the level of the map in which regions are looked for, at most
_PICTURE = 2048         # longest side of the level that the overlay is made of, at most
_ENDINGS = ("anomaly.tif", "prob.tif", "heat.tif", "regions.geojson", "overlay.png", "fields.csv",
            "fields.png")


@dataclasses.dataclass(frozen=True)
class Scored:
  """A slide whose tiles are all scored.

  Attributes:
    name: of its results. folder: where they are written. scale: level-0 pixels a pixel of the map.
  """
  slide: Slide
  plan: Plan
  work: Work
  name: str
  folder: pathlib.Path
  scale: float

  def file(self, ending: str) -> pathlib.Path:
    """<folder>/<name>_<ending>."""
    return self.folder / f"{self.name}_{ending}"


def write(found: Scored, suffix: str, word: str, chosen, threshold: float | None,
          tile_threshold: float | None, top: float | None) -> dict[str, Any]:
  """Writes all files; returns the row of predictions.csv.

  Args:
    suffix: of the map, "anomaly". word: class of the regions, "Anomaly".
    chosen: config.predict.slide.
    threshold: of the map, None = no regions. tile_threshold: of the scores of tiles, or None.
    top: of the heat scale; None = by this slide.
  """
  work, slide, n = found.work, found.slide, len(found.plan.places)
  levels, mpp = work.pyramid(), slide.mpp * found.scale if slide.mpp else None
  top = top or max(float(np.quantile(work.peaks, 0.999)), 1e-6)
  writer.write_pyramid(found.file(f"{suffix}.tif"), levels, mpp)
  writer.write_pyramid(found.file("heat.tif"), [pictures.Coloured(v, top) for v in levels], mpp)
  order = np.argsort(-work.scores, kind="stable")
  best = work.scores[order[:max(1, math.ceil(chosen.top * n))]]
  row: dict[str, Any] = {"score": float(np.mean(best)), "tiles": n, "tile_max": float(work.scores.max()),
                         "map_max": float(work.peaks.max())}
  if tile_threshold is not None:
    row["tiles_above"] = float((work.scores > tile_threshold).mean())
  if slide.mpp:
    row["tissue_mm2"] = found.plan.area * slide.mpp**2 / 1e6
  row["threshold"] = threshold
  if threshold is not None:
    row.update(_regions(found, levels, threshold, word, chosen.least))
  number = next((i for i, v in enumerate(levels) if max(v.shape) <= _PICTURE), len(levels) - 1)
  files.write_png(found.file("overlay.png"), pictures.overlay(
      slide, levels[number], top, threshold, found.name, f"score {row['score']:.4g}, {n} tiles",
      found.scale * 2**number))
  _hottest(found, order[:chosen.fields])
  return row


def names(name: str, folder: pathlib.Path) -> list[str]:
  """The files of a slide that `write` has made in a folder."""
  return [f"{name}_{ending}" for ending in _ENDINGS if (folder / f"{name}_{ending}").is_file()]


def _regions(found, levels, threshold, word, least):
  """Writes the GeoJSON; regions are looked for in the finest level that memory is bounded with."""
  number = next(i for i, v in enumerate(levels) if v.size <= _REGION_PIXELS)
  path, mpp = found.file("regions.geojson"), found.slide.mpp
  shapes, n = regions.features(np.array(levels[number]), threshold, found.scale * 2**number, least, word, mpp)
  if n > len(shapes):
    logging.warning("%s: the largest %d of %d regions are written", path.name, len(shapes), n)
  text = json.dumps({"type": "FeatureCollection", "features": shapes}, allow_nan=False)
  files.write_bytes(path, (text + "\n").encode())
  area = sum(f["properties"]["measurements"]["area px^2"] for f in shapes)
  return {"regions": n, **({"region_mm2": area * mpp * mpp / 1e6} if mpp else {})}


def _hottest(found, tiles):
  """The table and the picture of the tiles with the highest scores."""
  if not len(tiles):
    return
  work, plan = found.work, found.plan
  rows = [{"rank": rank, **dict(zip(("x", "y", "width", "height"), plan.box(int(i)))),
           "score": float(work.scores[i]), "map_max": float(work.peaks[i]), "tissue": float(plan.tissue[i])}
          for rank, i in enumerate(tiles, 1)]
  files.write_csv(found.file("fields.csv"), rows)
  files.write_png(found.file("fields.png"), pictures.fields(found.slide, plan, tiles, work.scores,
                                                            f"hottest fields of {found.name}"))
