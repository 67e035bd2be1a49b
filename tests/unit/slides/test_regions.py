"""Regions of a map as polygons: borders, holes, touching corners, measures."""

import numpy as np
from PIL import Image, ImageDraw
import scipy.ndimage

from data_pipelines.slides import regions


def filled(rings, shape, scale):
  """bool mask of GeoJSON rings: a point is inside where an odd number of rings has it."""
  inside = np.zeros(shape, int)
  y, x = np.mgrid[:shape[0], :shape[1]]
  points = np.stack([(x + 0.5) * scale, (y + 0.5) * scale], -1).reshape(-1, 2)
  for ring in rings:
    crossings = np.zeros(len(points), int)
    for (x0, y0), (x1, y1) in zip(ring, ring[1:]):
      if y0 != y1:
        spans = (points[:, 1] > min(y0, y1)) & (points[:, 1] < max(y0, y1))
        crossings += spans & (points[:, 0] < x0)
        assert x0 == x1
    inside += (crossings % 2).reshape(shape)
  return inside % 2 == 1


def test_polygons_cover_the_regions_exactly():
  rng = np.random.default_rng(3)
  for share in (0.3, 0.5, 0.7, 0.9):
    values = (rng.random((24, 31)) < share).astype(np.float32)
    found, n = regions.features(values, 0.5, 4, least=1, name="Anomaly")
    assert n == len(found) == scipy.ndimage.label(values)[1]
    total = sum(filled(f["geometry"]["coordinates"], values.shape, 4).astype(int) for f in found)
    np.testing.assert_array_equal(total, values)
    assert sum(f["properties"]["measurements"]["area px^2"] for f in found) == 16 * values.sum()


def test_regions_are_those_above_the_threshold_the_largest_first():
  """Measured on their own pixels: a bent one has others in its box."""
  values = np.array([[1, 3, 0, 2], [1, 9, 0, 2], [5, 5, 0, 2], [0, 0, 0, 1], [7, 0, 2, 0]], np.float32)
  found, n = regions.features(values, 1, 2, least=1, name="Anomaly")
  told = [f["properties"]["measurements"] for f in found]
  assert [m["area px^2"] / 4 for m in told] == [4, 3, 1, 1] and n == 4
  assert [(m["mean"], m["max"]) for m in told] == [(5.5, 9), (2, 2), (7, 7), (2, 2)]
  assert {(f["type"], f["properties"]["objectType"], f["properties"]["classification"]["name"])
          for f in found} == {("Feature", "annotation", "Anomaly")}  # what QuPath opens
  assert len(regions.features(values, 1, 2, least=3, name="Anomaly")[0]) == 2
  assert regions.features(values, 1, 2, least=1, name="Anomaly", most=1)[0] == found[:1]


def test_holes_sizes_and_measures():
  canvas = Image.new("F", (60, 40))
  draw = ImageDraw.Draw(canvas)
  draw.ellipse((5, 5, 35, 35), fill=2.0)
  draw.ellipse((14, 14, 24, 24), fill=0.0)
  draw.point((50, 10), fill=9.0)
  values = np.array(canvas)
  found, n = regions.features(values, 1, 10, least=4, name="Anomaly", mpp=0.5)
  assert n == len(found) == 1
  feature = found[0]
  assert len(feature["geometry"]["coordinates"]) == 2 and feature["geometry"]["type"] == "Polygon"
  outer, hole = (np.array(r) for r in feature["geometry"]["coordinates"])
  assert (outer.min(), outer.max()) == (50, 360) and hole.min() >= 130
  assert all(r[0] == r[-1] for r in feature["geometry"]["coordinates"])
  said = feature["properties"]["measurements"]
  assert said["mean"] == said["max"] == 2 and said["area um^2"] == (values > 1).sum() * 100 * 0.25 - 25
  assert regions.features(values, 1, 10, least=1, name="Anomaly", most=1)[1] == 2
  assert regions.features(values, 99, 10, least=1, name="Anomaly") == ([], 0)
