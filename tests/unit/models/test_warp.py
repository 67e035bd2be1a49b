"""Warps and their integration by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.models.layers import warp

IMAGE = np.random.default_rng(0).random((1, 5, 6, 1), np.float32)


def _field(rows, columns):
  return jnp.broadcast_to(jnp.array([rows, columns], jnp.float32), (1, 5, 6, 2))


@pytest.mark.parametrize("rows, columns", [(2, 0), (0, -1), (-1.25, 0.5), (0, 0), (1e9, -1e9)])
def test_a_constant_displacement(rows, columns):
  """Channel 0 along rows; bilinear; 0 outside, also far outside."""
  padded = np.zeros((5 + 40, 6 + 40))
  padded[20:25, 20:26] = IMAGE[0, ..., 0]
  expected = np.zeros((5, 6))
  if abs(rows) < 10:
    r, c = np.floor([rows, columns]).astype(int)
    a, b = rows - r, columns - c
    part = lambda i, j: padded[20 + r + i:25 + r + i, 20 + c + j:26 + c + j]
    expected = ((1 - a) * (1 - b) * part(0, 0) + (1 - a) * b * part(0, 1)
                + a * (1 - b) * part(1, 0) + a * b * part(1, 1))
  np.testing.assert_allclose(warp.warp(IMAGE, _field(rows, columns))[0, ..., 0], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 3), (3, 9)])
def test_no_displacement_is_the_image_whatever_its_proportions(shape):
  """Each coordinate is cut off at its own side, far outside alone."""
  image = np.random.default_rng(1).random((1, *shape, 1), np.float32)
  np.testing.assert_array_equal(warp.warp(image, jnp.zeros((1, *shape, 2))), image)


def test_a_constant_velocity_is_its_own_displacement_inside():
  """Beyond the border a field is 0, which a squaring carries one pixel further in."""
  velocity = jnp.broadcast_to(jnp.array([0.5, -0.25], jnp.float32), (1, 12, 14, 2))
  field = warp.integrate(velocity, 3)
  np.testing.assert_allclose(field[0, 4:-4, 4:-4], velocity[0, 4:-4, 4:-4], atol=1e-6)
  assert float(field[0, -1, 5, 0]) < 0.5
  np.testing.assert_array_equal(warp.integrate(velocity, 0), velocity)


def test_jacobian_determinant():
  """1 of a shift, 4 of a doubling, -1 of a reflection: a folding."""
  grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(6.0), indexing="ij"), -1)[None].astype(np.float32)
  for field, value in ((_field(3, -2), 1), (grid, 4), (grid * [-2, 0], -1)):
    np.testing.assert_allclose(warp.jacobian_determinant(jnp.asarray(field)), value, atol=1e-5)
