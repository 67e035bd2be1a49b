"""Label noise: outlines and fills are exact, kinds do what they say, draws are reproducible."""

import numpy as np
import pytest
import scipy.ndimage

from data_pipelines.masks import label_noise, polygons, synthetic_lesions
from data_pipelines.ops import overlap


def blob(i=0):
  return synthetic_lesions.draw(0, "train", i)[1]


def rectangle(top, bottom, left, right, shape=(20, 30)):
  mask = np.zeros(shape, bool)
  mask[top:bottom, left:right] = True
  return mask


@pytest.mark.parametrize("seed", range(8))
def test_fill_of_the_outline_is_the_component(seed):
  """Random blobs with holes, diagonal contacts and pixels on the rim: outline -> fill is exact."""
  rng = np.random.default_rng(seed)
  mask = scipy.ndimage.gaussian_filter(rng.standard_normal((24, 31)), 1 + seed % 3) > 0
  part = scipy.ndimage.binary_fill_holes(polygons.largest_component(mask))
  np.testing.assert_array_equal(polygons.fill(polygons.outline(mask), mask.shape), part)


def test_outline_of_a_rectangle_has_its_four_corners():
  corners = polygons.outline(rectangle(3, 8, 5, 17))
  assert sorted(map(tuple, corners)) == [(3, 5), (3, 17), (8, 5), (8, 17)]


def test_simplify_removes_the_least_important_corner_first():
  """A square with a shallow dent on one side: the dent's corners go, the square stays."""
  square = np.array([[0, 0], [0, 5], [0.1, 6], [0, 7], [0, 10], [10, 10], [10, 0]], float)
  left = polygons.simplify(square, 4)
  assert sorted(map(tuple, left)) == [(0, 0), (0, 10), (10, 0), (10, 10)]
  # Importance by hand: beta l1 l2 / (l1 + l2), beta = 90 degrees: a short-sided one goes first.
  bar = np.array([[0, 0], [0, 8], [2, 8], [2, 9], [4, 9], [4, 0]], float)
  assert len(polygons.simplify(bar, 5)) == 5
  assert (2, 9) not in set(map(tuple, polygons.simplify(bar, 5))) or (
      (2, 8) not in set(map(tuple, polygons.simplify(bar, 5))))


@pytest.mark.parametrize("k", [3, 4, 7, 12])
def test_polygons_have_k_corners_and_grow_better_with_k(k):
  for i in range(4):
    assert len(polygons.simplify(polygons.outline(blob(i)), k)) == k
  mean = lambda k: np.mean([overlap.dice(label_noise.polygon(blob(i), k), blob(i))
                            for i in range(6)])
  assert 0.3 < mean(3) < mean(7) < mean(30) <= 1


def test_box_whole_and_grow_by_hand():
  rng = np.random.default_rng(0)
  mask = rectangle(3, 8, 5, 17)
  mask[3, 5] = False
  np.testing.assert_array_equal(label_noise.box(mask, 0.0, rng), rectangle(3, 8, 5, 17))
  whole = label_noise.whole((100, 200))
  assert whole.sum() == 96 * 196 and not whole[:2].any() and not whole[:, -2:].any()
  assert label_noise.whole((10, 10)).sum() == 64
  one = rectangle(10, 11, 10, 11)
  assert label_noise.grow(one, 2).sum() == 13      # disc of radius 2
  disc = label_noise.grow(one, 6)
  assert 0 < label_noise.grow(disc, -3).sum() < disc.sum()
  assert label_noise.grow(one, -50).sum() == 1     # an erosion never removes the lesion


def test_jittered_boxes_stay_boxes():
  for seed in range(20):
    box = label_noise.box(blob(1), 0.3, np.random.default_rng(seed))
    rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
    assert box.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) > 0


def test_otsu_finds_the_dark_half():
  image = np.full((8, 8, 3), 200, np.uint8)
  image[:, :3] = 60
  np.testing.assert_array_equal(label_noise.otsu(image), image[..., 0] == 60)


@pytest.mark.parametrize("kind", [
    "polygon:3", "polygon:7", "box:0.2", "whole", "dilate:4", "erode:4", "shift:0.3", "jitter:0.15",
    "threshold", "none", "polygon:3*0.5+box*0.5"])
def test_every_kind_is_reproducible_and_wrong_in_its_way(kind):
  scores, first = [], []
  for i in range(6):
    image, mask = synthetic_lesions.draw(0, "train", i)
    noisy = label_noise.apply(mask, kind, 3, f"id{i}", image)
    again = label_noise.apply(mask, kind, 3, f"id{i}", image)
    assert noisy.dtype == bool and noisy.shape == mask.shape and noisy.any()
    np.testing.assert_array_equal(noisy, again)
    scores.append(overlap.dice(noisy, mask))
    first.append(noisy)
  assert np.mean(scores) == 1 if kind == "none" else 0.1 < np.mean(scores) < 0.999
  if kind.startswith(("shift", "jitter", "box:")):  # another seed draws other noise
    other = label_noise.apply(synthetic_lesions.draw(0, "train", 0)[1], kind, 4, "id0")
    assert (other != first[0]).any()


@pytest.mark.parametrize("text", ["whole*0.25+none*0.75", "whole+none*3", "whole*10+none*30"])
def test_mixture_proportions(text):
  kinds = [label_noise.apply(rectangle(3, 8, 5, 17), text, 0, f"i{i}").sum() for i in range(400)]
  assert 0.18 < np.mean(np.array(kinds) > 100) < 0.32


def test_empty_masks_stay_empty():
  empty = np.zeros((10, 10), bool)
  for kind in ("polygon:3", "box", "dilate:3", "jitter"):
    assert not label_noise.apply(empty, kind, 0, "a").any()
  assert overlap.dice(empty, empty) == 1


@pytest.mark.parametrize("text", ["triangle", "polygon:2", "polygon:3.5", "box:x", "whole:3",
                                  "polygon:3*0", "dilate:-2", ""])
def test_bad_kinds_are_named(text):
  with pytest.raises(ValueError, match="config.data.noise"):
    label_noise.parse(text)
