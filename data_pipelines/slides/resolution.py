"""Micrometres a pixel of a slide, as its header says it."""

from __future__ import annotations

from collections.abc import Mapping
import logging
import math
import re
from typing import Any

from data_pipelines.formats import header


def of(path, properties: Mapping[str, Any]) -> float | None:
  """The file's micrometres a pixel; those of a screen's 72 dpi (353) are none.

  OME's own words go before TIFF's resolution, which OpenSlide reads, and many programs leave at 72 dpi;
  ImageJ's unit belongs to a resolution that TIFF has no unit for.
  """
  tiff = [header.positive(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
  text = str(properties.get("tiff.ImageDescription") or "")
  ome = header.ome_pixel(path, text)
  found = ome or (tiff if all(tiff) else _imagej(text, properties))
  if not all(found):
    return None
  if max(found) > 1.02 * min(found):
    logging.warning("%s: pixels are %.4g by %.4g micrometres; they are taken for squares", path, *found)
  mpp = sum(found) / 2
  if not 0.05 <= mpp <= 20:
    logging.warning("%s says that a pixel is %.4g micrometres, which no slide has: it counts as unknown",
                    path, mpp)
    return None
  if ome and all(tiff) and 0.05 <= tiff[0] <= 20 and not math.isclose(tiff[0], ome[0], rel_tol=0.02):
    logging.warning("%s: a pixel is %.4g micrometres by its OME header, which is taken, and %.4g by TIFF's "
                    "resolution", path, ome[0], tiff[0])
  return mpp


def _imagej(text: str, properties: Mapping[str, Any]) -> list[float | None]:
  """By the unit in ImageJ's description and TIFF's pixels a unit; 1 is what programs write who know none."""
  unit = re.search(r"^unit=(.*)$", text, re.MULTILINE) if text.startswith("ImageJ=") else None
  dots = [header.positive(properties.get(f"tiff.{axis}Resolution")) for axis in "XY"]
  length = header.micrometres(unit[1].strip()) if unit else None
  if length is None or not all(dots) or dots == [1, 1]:
    return [None, None]
  return [length / d for d in dots if d]
