"""Regions of a map as polygons, for QuPath: traced along pixel borders, holes kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.ndimage

# Directions along which a border runs with the region on its right: right, down, left, up.
_STEP = ((0, 1), (1, 0), (0, -1), (-1, 0))


def outlines(mask: np.ndarray) -> list[np.ndarray]:
  """Closed borders of a bool [H,W] region, int [n,2] (row, column) of pixel corners, first = last.

  Outer borders run clockwise as seen on the screen, holes the other way round. Pixels that meet at a
  corner alone are apart.
  """
  padded = np.pad(mask, 1)
  inner = padded[1:-1, 1:-1]
  borders = (inner & ~padded[:-2, 1:-1], inner & ~padded[1:-1, 2:], inner & ~padded[2:, 1:-1],
             inner & ~padded[1:-1, :-2])
  starts = ((0, 0), (0, 1), (1, 1), (1, 0))
  edges: dict[tuple[int, int], list[int]] = {}
  for direction, (border, (down, right)) in enumerate(zip(borders, starts)):
    for row, column in np.argwhere(border).tolist():
      edges.setdefault((row + down, column + right), []).append(direction)
  # Every border has a corner (its first in reading order) where it touches no other: it is begun there.
  starts_at = [place for place, directions in edges.items() if len(directions) == 1]
  return [_follow(edges, start) for start in starts_at if start in edges]


def _follow(edges, start):
  """One closed border out of `edges` {corner: directions that leave it}, which loses it."""
  place, direction, corners = start, edges[start][0], [start]
  while True:
    left = edges[place]
    # Where two borders touch, the turn to the right stays on the same pixel.
    turn = next(d for d in ((direction + 1) % 4, direction, (direction + 3) % 4) if d in left)
    left.remove(turn)
    if not left:
      del edges[place]
    if turn != direction:
      corners.append(place)
    direction = turn
    place = (place[0] + _STEP[turn][0], place[1] + _STEP[turn][1])
    if place == start:
      return np.array([*corners, start])


def polygon(mask: np.ndarray) -> list[np.ndarray]:
  """[outer border, holes ...] of one connected region (4 neighbours); see `outlines`."""
  return sorted(outlines(mask), key=_area, reverse=True)  # holes have negative areas


def _area(line):
  """Signed area; > 0 clockwise on the screen (rows downwards)."""
  y, x = line[:, 0].astype(float), line[:, 1].astype(float)
  return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def features(values: np.ndarray, threshold: float, scale: float, least: int, name: str,
             mpp: float | None = None, most: int = 2000) -> tuple[list[dict[str, Any]], int]:
  """GeoJSON features of the regions above a threshold, the largest first.

  Args:
    values: float [H,W]. scale: level-0 pixels a pixel of it.
    least: regions of fewer pixels are left out. most: features at most.
    name: the class that QuPath shows. mpp: of level 0, for areas; None = in level-0 pixels alone.

  Returns:
    (features, number of regions of that size): QuPath's annotations, corners in level-0 pixels.
  """
  labels, n = scipy.ndimage.label(values > np.float32(threshold))
  sizes = np.bincount(labels.ravel(), minlength=n + 1)
  sizes[0] = 0
  order = [i for i in np.argsort(-sizes, kind="stable") if sizes[i] >= least]
  boxes = scipy.ndimage.find_objects(labels)
  found: list[dict[str, Any]] = []
  for i in order[:most]:
    box = boxes[i - 1]
    own = labels[box] == i
    inside = values[box][own]
    corner = np.array([box[0].start, box[1].start])
    rings = [_ring(line + corner, scale) for line in polygon(own)]
    found.append({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings},
                  "properties": {"objectType": "annotation",
                                 "classification": {"name": name, "color": [235, 70, 60]},
                                 "measurements": _measures(inside, int(sizes[i]), scale, mpp)}})
  return found, len(order)


def _ring(line: np.ndarray, scale: float) -> Sequence[list[float]]:
  return [[round(float(x) * scale, 2), round(float(y) * scale, 2)] for y, x in line]


def _measures(inside, size, scale, mpp):
  area = size * scale * scale
  said = {"mean": float(inside.mean()), "max": float(inside.max()), "area px^2": area}
  return {**said, "area um^2": area * mpp * mpp} if mpp else said
