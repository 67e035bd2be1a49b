"""Label noise by definitions written a second time: how far edges go, which corners go, what is dark."""

import numpy as np
import pytest

from data_pipelines.masks import label_noise, polygons


def rectangle(top, bottom, left, right, shape=(40, 60)):
  mask = np.zeros(shape, bool)
  mask[top:bottom, left:right] = True
  return mask


def edges(mask):
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  return np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1])


def test_each_side_of_a_box_moves_by_a_share_of_its_own_extent():
  """4 rows and 40 columns, a quarter: rows move by 1 at most, columns by 10, outwards and inwards."""
  mask = rectangle(18, 22, 10, 50)
  moved = np.array([edges(label_noise.box(mask, 0.25, np.random.default_rng(s))) - edges(mask)
                    for s in range(60)])
  assert np.abs(moved[:, :2]).max() == 1 and 8 <= np.abs(moved[:, 2:]).max() <= 10
  assert all(moved[:, k].min() < 0 < moved[:, k].max() for k in range(4))


def test_erosion_is_by_distance_also_at_the_rim_of_the_image():
  np.testing.assert_array_equal(label_noise.grow(rectangle(5, 14, 6, 15), -2), rectangle(7, 12, 8, 13))
  np.testing.assert_array_equal(label_noise.grow(np.ones((9, 11), bool), -2),
                                rectangle(2, 7, 2, 9, (9, 11)))


def test_a_shift_has_the_length_asked_for_and_any_direction():
  """Half of the extent of a lesion of 100 pixels is 5 pixels, whichever way."""
  mask = rectangle(15, 25, 25, 35)
  moved = np.array([(edges(label_noise.shift(mask, 0.5, np.random.default_rng(s))) - edges(mask))[[0, 2]]
                    for s in range(40)])
  assert np.abs(np.hypot(*moved.T) - 5).max() < 0.75
  assert {tuple(np.sign(m)) for m in moved} >= {(-1, -1), (-1, 1), (1, -1), (1, 1)}


def test_a_jittered_border_moves_by_its_share_of_the_radius():
  """sd s moves a border by 0.8 s on average, which is the area that changes sides over its length."""
  y, x = np.mgrid[:80, :80] - 39.5
  disc = np.hypot(y, x) < 20
  for amount in (0.05, 0.1):
    changed = np.mean([(label_noise.jitter(disc, amount, np.random.default_rng(s)) != disc).sum()
                       for s in range(12)])
    assert changed / (2 * np.pi * 20) == pytest.approx(np.sqrt(2 / np.pi) * amount * 20, rel=0.2)


def test_dark_is_what_otsus_best_threshold_leaves_below_it():
  """Of all thresholds the one with the largest variance between the two sides, tried one by one."""
  for seed in range(4):
    rng = np.random.default_rng(seed)
    grey = np.clip(np.where(rng.random((20, 30)) < 0.3, rng.normal(70, 12, (20, 30)),
                            rng.normal(150, 25, (20, 30))), 0, 255).astype(np.uint8)
    def between(level):
      dark, bright = grey[grey <= level].astype(float), grey[grey > level].astype(float)
      return len(dark) * len(bright) * (dark.mean() - bright.mean()) ** 2
    levels = np.unique(grey)[:-1]
    best = levels[int(np.argmax([between(v) for v in levels]))]
    found = label_noise.otsu(np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(found, grey <= best)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2)])
def test_no_polygon_of_a_lesion_is_empty(shape):
  mask = rectangle(10, 10 + shape[0], 20, 20 + shape[1])
  found = label_noise.polygon(mask, 3)
  assert found.any() and not (found & ~mask).any()


def test_the_outline_is_that_of_the_largest_part():
  mask = rectangle(2, 5, 2, 5) | rectangle(10, 20, 20, 40) | rectangle(30, 34, 4, 8)
  assert sorted(map(tuple, polygons.outline(mask))) == [(10, 20), (10, 40), (20, 20), (20, 40)]


def test_a_corner_in_the_middle_of_a_pixel_counts_once():
  """A diamond whose corners lie on centres of rows: no streak runs out of its sides."""
  filled = polygons.fill(np.array([(1.5, 4.0), (4.5, 7.0), (7.5, 4.0), (4.5, 1.0)]), (9, 9))
  np.testing.assert_array_equal(filled.sum(1), [0, 0, 2, 4, 6, 4, 2, 0, 0])


def least_important(corners):
  """Place of the corner with the smallest beta l1 l2 / (l1 + l2)."""
  before, after = corners - np.roll(corners, 1, 0), np.roll(corners, -1, 0) - corners
  l1, l2 = np.hypot(*before.T), np.hypot(*after.T)
  beta = np.arccos(np.clip((before * after).sum(1) / (l1 * l2), -1, 1))
  return int(np.argmin(beta * l1 * l2 / (l1 + l2)))


def test_corners_go_in_the_order_of_their_importance():
  for seed in range(5):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 30))
    corners = (rng.uniform(5, 20, 30) * np.array([np.sin(angle), np.cos(angle)])).T
    left = corners
    for k in range(29, 2, -1):
      left = np.delete(left, least_important(left), 0)
      np.testing.assert_array_equal(polygons.simplify(corners, k), left)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_the_largest_part_alone_is_drawn_round(others):
  """Parts that touch at a corner are two, and the first one is not the largest."""
  large = rectangle(9, 14, 10, 20)
  mask = np.logical_or.reduce([large, *[rectangle(7, 9, 8, 10), rectangle(0, 3, 0, 3),
                                        rectangle(30, 33, 40, 45)][:others]])
  np.testing.assert_array_equal(polygons.largest_component(mask), large)


@pytest.mark.parametrize("shape, border", [((96, 96), 2), ((74, 300), 1), ((300, 76), 2), ((24, 24), 1),
                                           ((8, 9), 1), ((200, 176), 4)])
def test_the_whole_image_is_marked_but_for_two_hundredths_of_its_shorter_side(shape, border):
  """Rounded: 1.92, 1.48, 1.52, 0.48, 0.16 and 3.52 pixels, at least one."""
  found = label_noise.whole(shape)
  inside = tuple(slice(border, n - border) for n in shape)
  assert found[inside].all() and found.sum() == found[inside].size
