"""Micrometres a pixel of a slide, as its header says it."""

from __future__ import annotations

from collections.abc import Mapping
import logging
import math
import re
from typing import Any

_UNITS = {"\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "pm": 1e-6,
          "\u00c5": 1e-4, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6, "in": 25400.0, "": 1.0}
_PIXELS = re.compile(r"<(?:\w+:)?Pixels\s([^>]*)>")


def of(path, properties: Mapping[str, Any]) -> float | None:
  """The file's micrometres a pixel; those of a screen's 72 dpi (353) are none.

  OME's own words go before TIFF's resolution, which OpenSlide reads, and many programs leave at 72 dpi.
  """
  tiff = [number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
  ome = _of_ome(path, str(properties.get("tiff.ImageDescription") or ""))
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


def _of_ome(path, text) -> list[float] | None:
  """Micrometres along x and y of the first image; one that is not said is the other."""
  if "<OME" not in text[:2000] and ":OME" not in text[:2000]:
    return None
  pixels = _PIXELS.search(text)
  said = dict(re.findall(r"""(\w+)\s*=\s*["']([^"']*)["']""", pixels[1] if pixels else ""))
  sizes = []
  for axis in "XY":
    size, unit = number(said.get(f"PhysicalSize{axis}")), said.get(f"PhysicalSize{axis}Unit", "").strip()
    unit = unit.replace("&#181;", "\u00b5").replace("&#xB5;", "\u00b5")
    if size and unit not in _UNITS:
      logging.warning("%s says that a pixel is %g %s, which is no length that is known: it counts as unknown",
                      path, size, unit[:20])
    sizes.append(size * _UNITS[unit] if size and unit in _UNITS else None)
  first = sizes[0] or sizes[1]
  return [size or first for size in sizes] if first else None


def number(text) -> float | None:
  """A positive number, None of anything else."""
  try:
    value = float(text)
  except (TypeError, ValueError):
    return None
  return value if math.isfinite(value) and value > 0 else None
