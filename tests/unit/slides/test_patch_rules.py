"""Stains, tissue, shares and names by hand: what the golden vectors do not reach."""

import numpy as np
import pytest

from data_pipelines.errors import UserError
from data_pipelines.slides import cells, lesions, reduced, stain, stain_matrix, tissue


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 2, 3), (8, 5, 3)])
def test_brightness_is_numpys_percentile(shape):
  for seed in range(20):
    image = np.random.default_rng(seed).integers(3, 256, shape).astype(np.uint8)
    wanted = np.clip(image * 255.0 / np.percentile(image, 90), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(stain.standardize(image), wanted)


@pytest.mark.parametrize("value,words", [(0, "black"), (255, "0 pixels of tissue")])
def test_images_without_stains_say_so(value, words):
  with pytest.raises(stain.NoStain, match=words):
    stain.find_stains(np.full((16, 16, 3), value, np.uint8))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.uint8),
                                   np.zeros((4, 4, 3))])
def test_other_forms_are_refused(image):
  with pytest.raises(UserError, match="uint8"):
    stain.standardize(image)


def test_mixed_stains_are_found_again_whatever_the_sample():
  rng = np.random.default_rng(0)
  wanted = stain_matrix.unit(np.array([[.6, .75, .29], [.1, .95, .2]]))
  amounts = rng.exponential(0.5, (256, 256, 2)) * (rng.random((256, 256, 2)) < 0.6)
  image = np.clip(255 * np.exp(-amounts @ wanted), 1, 255).astype(np.uint8)
  for parity in (False, True):
    found = stain.find_stains(image, parity).matrix
    assert (found * wanted).sum(1).min() > np.cos(np.radians(3))


def test_known_stains_decide_the_order_where_red_does_not():
  atoms = stain_matrix.unit(np.array([[.40, .60, .70], [.41, .90, .05]]))
  assert not np.array_equal(stain_matrix.ordered(atoms, True), stain_matrix.ordered(atoms, False))
  np.testing.assert_array_equal(stain_matrix.ordered(atoms[::-1], False), atoms)


def test_a_partial_cell_is_no_whole_one():
  mask = np.ones((4, 6), bool)
  np.testing.assert_array_equal(tissue.whole_cells(mask), [[True, True], [False, False]])
  assert tissue.cell_means(mask)[1, 0] == pytest.approx(1 / 3)
  assert not tissue.dark(np.full((5, 5, 3), 200, np.uint8)).any()


def test_shares_of_a_field_count_the_parts_of_pixels():
  values = np.zeros((9, 9))
  values[3:6, 3:6] = 1
  assert cells.share(values, cells.Patch("s", "tumor", 768, 768)) == 1
  assert cells.share(values, cells.Patch("s", "tumor", 768 + 64, 768)) == pytest.approx(1 - 64 / 768)
  assert cells.share(values, cells.Patch("s", "tumor", 9 * 256, 0)) == 0


def test_share_of_a_rectangle_and_of_its_hole():
  box = lambda a, b: {"name": "", "vertices": [[a, a], [b, a], [b, b], [a, b]]}
  found = lesions.shares({"tumor": [box(128, 640)], "normal": [box(256, 512)]}, 1024, 768)
  np.testing.assert_allclose(found, [[.25, .5, .25, 0], [.5, 0, .5, 0], [.25, .5, .25, 0]])


def test_names_that_are_none_are_refused():
  for name in ("a.jpg", "a_normal_x_1_y_2_w_0_h_768.jpg", "a_other_x_1_y_2_w_768_h_768.jpg"):
    with pytest.raises(UserError):
      cells.parse(name)
  with pytest.raises(UserError, match="cannot be reduced by 4"):
    reduced.reduced(np.zeros((6, 8, 3), np.uint8), 4)
