"""Which image each measure of a restored frame compares with which."""

import numpy as np
import pytest

from medae_jax.tasks.restoration import measures


def frames():
  """(result, clean, annotated, mask): a 6x6 frame with a mark of 2x2; noise lies outside it as well."""
  clean = np.full((6, 6, 1), 0.5, np.float32)
  annotated = clean.copy()
  annotated[5] += 0.25                     # a row of the file differs from its clean partner
  mask = np.zeros((6, 6), bool)
  mask[1:3, 1:3] = True
  annotated[mask] = 1.0
  result = annotated.copy()
  result[1, 1:3] = 0.5                     # half of the mark is removed,
  result[0, 0] = 0.75                      # and one pixel beside it is changed
  return result, clean, annotated, mask


def test_errors_are_to_the_clean_image_and_changes_to_the_annotated_one():
  found = measures.measure(*frames(), level=1.0)
  assert found["inside_pixels"] == 4 and found["outside_pixels"] == 32
  assert found["inside_abs"] == pytest.approx(2 * 0.5) and found["inside_sq"] == pytest.approx(2 * 0.25)
  assert found["removed"] == 2
  assert found["outside_abs"] == pytest.approx(6 * 0.25 + 0.25)
  assert found["outside_changed"] == 1     # the row that differs from the clean image was left alone
  square = (2 * 0.25 + 7 * 0.0625) / 36
  assert found["psnr"] == pytest.approx(-10 * np.log10(square))


def test_a_pixel_counts_as_removed_up_to_the_level():
  result, clean, annotated, mask = frames()
  result[2, 1] = 0.5 + 10 / 255
  assert measures.measure(result, clean, annotated, mask, level=10)["removed"] == 3
  assert measures.measure(result, clean, annotated, mask, level=9)["removed"] == 2


def test_a_split_pools_pixels_and_averages_frames():
  one = measures.measure(*frames(), level=1.0)
  _, clean, _, mask = frames()
  two = measures.measure(clean, clean, clean, 0 * mask > 0, level=1.0)   # a frame without marks, untouched
  found = measures.summary([one, two], np.array([True, False]))
  assert found["psnr"] == pytest.approx(one["psnr"])                     # of marked frames alone
  assert found["mae_inside"] == pytest.approx(0.25) and found["removed_share"] == 0.5
  assert found["mae_outside"] == pytest.approx(1.75 / 68)
  assert found["untouched_changed_share"] == pytest.approx(1 / 68)
  assert found["identity_mae"] == 0.0 and found["identity_changed_share"] == 0.0
  twice = measures.summary([one, two], np.array([True, False]), np.array([2, 1]))
  assert twice["mae_outside"] == pytest.approx(3.5 / 100)
