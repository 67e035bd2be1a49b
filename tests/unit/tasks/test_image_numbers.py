"""Foldings and errors inside and outside the lungs, counted by hand."""

import numpy as np
import pytest

from medae_jax.models import deformer
from medae_jax.models.layers import warp
from medae_jax.tasks.anomaly import image_numbers


def batch(lungs):
  """Two images of 2x2 whose reconstruction is off by 1, 2, 3, 4; padding behind them."""
  image = np.zeros((3, 2, 2, 1), np.float32)
  recon = np.array([[1, 2], [3, -4]], np.float32)[None, ..., None].repeat(3, 0)
  return {"image": image, "lungs": lungs, "valid": np.array([True, True, False])}, {
      "recon": recon, "folded": np.array([0.0, 0.5, 1.0])}


def test_means_over_normal_and_abnormal_images():
  lungs = np.zeros((3, 2, 2, 1), np.float32)
  lungs[0, 0] = 1  # the second image has no lungs
  numbers = image_numbers.ImageNumbers(3)
  given, outputs = batch(lungs)
  numbers.add(given, outputs, np.array([2, 0]), given["valid"])
  found = numbers.result(np.array([1, -1, 0]))
  assert found["deformation"] == {
      "normal": {"folded_share": 0.0, "folded_images": 0, "images": 1},
      "abnormal": {"folded_share": 0.5, "folded_images": 1, "images": 1}}
  assert found["reconstruction"]["normal"] == {"mae_lungs": 1.5, "mae_outside": 3.5}
  assert found["reconstruction"]["abnormal"] == {"mae_lungs": None, "mae_outside": 2.5}
  assert numbers.row(1) == {"folded_share": None, "mae_lungs": None, "mae_outside": None}


def test_nothing_is_said_of_what_no_method_gives():
  numbers = image_numbers.ImageNumbers(2)
  numbers.add({"image": np.zeros((2, 2, 2, 1))}, {"recon": np.zeros((2, 2, 2, 1))}, np.arange(2),
              np.array([True, True]))
  assert numbers.result(np.array([0, 1])) == {} and numbers.row(0) == {}


@pytest.mark.parametrize("slope,colour", [
    (0.0, (1, 1, 1)), (1.0, (0.9, 0.45, 0)), (-0.5, (0.05, 0.3, 0.75)), (-1.0, (1, 0, 0)), (-1.5, (1, 0, 0))])
def test_the_picture_of_a_determinant_is_white_where_nothing_changes_and_red_where_it_folds(slope, colour):
  """Displacements that stretch the rows by 1 + slope: the determinant is that everywhere."""
  field = np.zeros((1, 5, 5, 2), np.float32)
  field[..., 0] = slope * np.arange(5)[:, None]
  np.testing.assert_allclose(warp.jacobian_determinant(field), 1 + slope, atol=1e-6)
  picture = np.asarray(deformer.shown_jacobian(field))
  assert picture.shape == (1, 5, 5, 3)
  np.testing.assert_allclose(picture, np.broadcast_to(np.array(colour, np.float32), picture.shape), atol=1e-5)
