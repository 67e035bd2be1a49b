"""Masks shrink by area and are cut at one half; soft masks keep their share."""

import numpy as np
import pytest

from data_pipelines.masks import images


@pytest.mark.parametrize("soft", [False, True])
def test_a_pixel_is_lesion_where_at_least_half_of_its_area_was(soft):
  mask = np.zeros((12, 12), np.float32)
  for k, i, j in ((2, 0, 0), (4, 0, 1), (5, 1, 0), (9, 1, 1)):   # so many of 9 pixels
    mask[3 * i:3 * i + 3, 3 * j:3 * j + 3] = np.r_[np.ones(k), np.zeros(9 - k)].reshape(3, 3)
  item = images.Item("x", lambda: np.zeros((12, 12, 3), np.uint8), lambda: mask, None)
  found = images.Pairs([item], 4, soft=soft).read_one(0)["mask"][..., 0]
  want = np.array([[2, 4], [5, 9]]) / 9
  np.testing.assert_allclose(found[:2, :2], want if soft else want >= 0.5, atol=1e-6)
  assert not found[2:].any()
