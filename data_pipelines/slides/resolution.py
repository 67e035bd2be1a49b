"""Micrometres a pixel of a slide, as its header says it."""

from __future__ import annotations

from collections.abc import Mapping
import logging
import math
from typing import Any

from data_pipelines.formats import header


def of(path, properties: Mapping[str, Any]) -> float | None:
  """The file's micrometres a pixel; those of a screen's 72 dpi (353) are none.

  OME's own words go before TIFF's resolution, which OpenSlide reads, and many programs leave at 72 dpi.
  """
  tiff = [header.positive(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
  ome = header.ome_pixel(path, str(properties.get("tiff.ImageDescription") or ""))
  found = ome or tiff
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
