"""Rulers and sides on pictures, measured in their pixels."""

import numpy as np
import pytest

from medae_jax.reporting import rulers

GREY = np.full((120, 200, 3), 90, np.uint8)


def _bar(picture):
  """Columns of the white bar: the longest run of white in a row of the lower edge."""
  white = (picture[-7] == 255).all(-1)
  return int(white.sum())


@pytest.mark.parametrize("mm, length, words, pixels", [
    (1.0, 50, "5 cm", 50), (0.5, 20, "2 cm", 40), (2.0, 100, "10 cm", 50), (0.1, 5, "5 mm", 50),
    (0.04, 2, "2 mm", 50), (7.0, 100, "10 cm", 14)])
def test_the_bar_is_as_long_as_it_says(monkeypatch, mm, length, words, pixels):
  said = []
  monkeypatch.setattr(rulers, "_outlined", lambda picture, words, xy: said.append(words) or picture)
  assert rulers.length_for(200, mm) == length
  assert _bar(rulers.ruler(GREY, mm)) == pixels and said == [words]


def test_no_bar_where_none_fits():
  assert rulers.length_for(200, 20.0) == 0 and rulers.length_for(200, 0.005) == 0
  assert (rulers.ruler(GREY, 20.0) == GREY).all()
  small = np.zeros((59, 200, 3), np.uint8)
  assert (rulers.ruler(small, 1.0) == small).all() and (rulers.sides(small, "R", "L") == small).all()


def test_each_letter_stands_in_its_corner():
  blank = rulers.sides(GREY, "", "")
  left, right = rulers.sides(GREY, "R", "") != blank, rulers.sides(GREY, "", "R") != blank
  assert left.any() and not left[:, 20:].any() and not left[20:].any()
  assert right.any() and not right[:, :180].any() and not right[20:].any()
  np.testing.assert_array_equal(left[:, 4:16], right[:, 184:196])  # the same letter
  assert (rulers.sides(GREY, "R", "L") != rulers.sides(GREY, "L", "R")).any()


@pytest.mark.parametrize("shape, mm, size, pixel", [
    ((100, 100), (1, 1), (200, 200), 0.5), ((20, 100), (5, 1), (200, 200), 0.5),
    ((300, 60), (1, 3), (300, 180), 1.0), ((1, 200), (0.3, 1.0), (1, 667), 0.3),
    ((100, 200), (50.0, 0.5), (100, 200), 0.5), ((5000, 10), (1, 1), (5000, 10), 1.0)])
def test_pixels_of_a_picture_are_square(shape, mm, size, pixel):
  assert rulers.square(shape, mm, 160) == (size, pytest.approx(pixel, rel=1e-3))
