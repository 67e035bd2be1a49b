"""Masks shrink by area and are cut at one half; soft masks keep their share."""

import numpy as np
import pytest

from data_pipelines.masks import images


@pytest.mark.parametrize("soft", [False, True])
def test_a_pixel_is_lesion_where_at_least_half_of_its_area_was(soft):
  mask = np.zeros((8, 8), np.float32)
  for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):   # 0, 1, 2 and 3 of 4 pixels
    block = np.r_[np.ones(k), np.zeros(4 - k)].reshape(2, 2)
    mask[2 * i:2 * i + 2, 2 * j:2 * j + 2] = block
  item = images.Item("x", lambda: np.zeros((8, 8, 3), np.uint8), lambda: mask, None)
  found = images.Pairs([item], 4, soft=soft).read_one(0)["mask"][..., 0]
  want = np.array([[0, 0.25], [0.5, 0.75]])
  np.testing.assert_allclose(found[:2, :2], want if soft else want >= 0.5, atol=1e-6)
  assert not found[2:].any()
