"""Outlines of masks as polygons: traced along pixel edges, simplified, and filled again."""

from __future__ import annotations

import heapq

import numpy as np
import scipy.ndimage


def largest_component(mask: np.ndarray) -> np.ndarray:
  """bool [H,W]: the largest 4-connected component."""
  labels, count = scipy.ndimage.label(mask)
  if count < 2:
    return mask
  return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def outline(mask: np.ndarray) -> np.ndarray:
  """Outer contour of the largest component along the pixel edges: float [n,2] corners (y, x).

  Corners lie on the pixel grid, so that filling the contour gives the component without its holes.
  """
  part = scipy.ndimage.binary_fill_holes(largest_component(mask))
  padded = np.pad(part, 1)
  first = np.argwhere(padded)[0]  # topmost, then leftmost: its upper left corner is on the contour
  y, x = int(first[0]), int(first[1])
  heading = (0, 1)
  start, corners = (y, x, heading), []
  while True:  # the component stays on the right hand
    dy, dx = heading
    # The two pixels ahead of the corner (y, x), left and right of the direction.
    left = padded[y + min(dy, 0) + min(-dx, 0), x + min(dx, 0) + min(dy, 0)]
    right = padded[y + min(dy, 0) + min(dx, 0), x + min(dx, 0) + min(-dy, 0)]
    if right and not left:
      y, x = y + dy, x + dx
      ahead = heading
    elif left and right:
      ahead = (-dx, dy)
    else:  # at a diagonal contact this turn keeps to the 4-connected component
      ahead = (dx, -dy)
    if ahead != heading:
      corners.append((y - 1, x - 1))
      heading = ahead
    if (y, x, heading) == start:
      return np.array(corners, float)


def simplify(corners: np.ndarray, k: int) -> np.ndarray:
  """Removes the least important corner until k are left (Mirikharaji 2019; R).

  Importance of a corner with turning angle beta between sides of lengths l1, l2 (fractions of the
  perimeter): beta l1 l2 / (l1 + l2).
  """
  n = len(corners)
  if n <= k:
    return corners
  perimeter = np.hypot(*(corners - np.roll(corners, 1, 0)).T).sum()
  points = (corners / perimeter).tolist()
  before, after = [(i - 1) % n for i in range(n)], [(i + 1) % n for i in range(n)]

  def importance(i):
    (y0, x0), (y1, x1), (y2, x2) = points[before[i]], points[i], points[after[i]]
    ay, ax, by, bx = y1 - y0, x1 - x0, y2 - y1, x2 - x1
    l1, l2 = np.hypot(ay, ax), np.hypot(by, bx)
    beta = abs(np.arctan2(ax * by - ay * bx, ax * bx + ay * by))
    return float(beta * l1 * l2 / (l1 + l2)) if l1 + l2 > 0 else 0.0

  version, alive = [0] * n, [True] * n
  heap = [(importance(i), i, 0) for i in range(n)]
  heapq.heapify(heap)
  left = n
  while left > k:
    _, i, made = heapq.heappop(heap)
    if not alive[i] or made != version[i]:
      continue
    alive[i], left = False, left - 1
    before[after[i]], after[before[i]] = before[i], after[i]
    for j in (before[i], after[i]):
      version[j] += 1
      heapq.heappush(heap, (importance(j), j, version[j]))
  return corners[np.array(alive)]


def fill(corners: np.ndarray, shape) -> np.ndarray:
  """Even-odd fill of a closed polygon: bool [H,W], pixels whose centre is inside."""
  rows, columns = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
  flips = np.zeros((shape[0], shape[1] + 1), bool)
  for (y0, x0), (y1, x1) in zip(corners, np.roll(corners, -1, 0)):
    crossed = np.flatnonzero((rows >= y0) != (rows >= y1))  # half open: a shared corner counts once
    if crossed.size:
      x = x0 + (rows[crossed] - y0) * (x1 - x0) / (y1 - y0)
      flips[crossed, np.searchsorted(columns, x)] ^= True
  return np.logical_xor.accumulate(flips, 1)[:, :-1]
