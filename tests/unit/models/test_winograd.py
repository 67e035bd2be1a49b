"""Convolutions in tiles are the plain ones, and stand where they pay."""

import jax
import numpy as np
import pytest

from medae_jax.models.layers import winograd


def draw(seed, *shape, dtype=np.float32):
  return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("height, width", [(4, 4), (8, 6), (10, 16)])
def test_tiles_give_the_value_and_the_gradients_of_the_plain_convolution(height, width):
  x, kernel = draw(0, 2, height, width, 5), draw(1, 3, 3, 5, 7)
  want, pull = jax.vjp(winograd.plain, x, kernel)
  found, pull_found = jax.vjp(winograd.tiled, x, kernel)
  np.testing.assert_allclose(found, want, atol=2e-5)
  grad = draw(2, *want.shape)
  for a, b in zip(pull_found(grad), pull(grad), strict=True):
    np.testing.assert_array_equal(a, b)


def test_one_tile_by_hand():
  """A kernel with one 1 picks the pixel below and right of the corner; all ones sum the neighbours."""
  x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
  pick, every = np.zeros((3, 3, 1, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
  pick[2, 1] = 1
  np.testing.assert_allclose(winograd.tiled(x, pick)[0, :, :, 0], [[9, 10], [13, 14]], atol=1e-5)
  np.testing.assert_allclose(winograd.tiled(x, every)[0, :, :, 0], [[45, 54], [81, 90]], atol=1e-4)


def test_rounding_of_float32_is_that_of_the_plain_form():
  x, kernel = draw(0, 1, 10, 10, 256), draw(1, 3, 3, 256, 8)
  exact = sum(np.einsum("bhwi,io->bhwo", x[:, i:i + 8, j:j + 8].astype(np.float64), kernel[i, j])
              for i in range(3) for j in range(3))
  apart = lambda form: float(np.abs(form(x, kernel) - exact).max() / np.abs(exact).max())
  assert apart(winograd.tiled) < 1e-6 and apart(winograd.plain) < 1e-6


def products(x, kernel, padding="VALID"):
  """How many products of matrices and how many convolutions a program has."""
  program = str(jax.make_jaxpr(lambda x, k: winograd.conv3x3(x, k, padding))(x, kernel))
  return program.count("dot_general["), program.count("conv_general_dilated[")


def test_where_it_stands(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(winograd, "LEAST", 4)
  wide, narrow = draw(0, 3, 3, 4, 4), draw(0, 3, 3, 3, 4)
  x = draw(1, 1, 6, 8, 4)
  assert products(x, wide) == products(x, wide, "SAME") == (16, 0)
  assert products(x[..., :3], narrow) == products(x, draw(0, 3, 3, 4, 3)) == (0, 1)
  assert products(x[:, :5], wide) == products(x[:, :, :7], wide) == (0, 1)
  assert products(x.astype(jax.numpy.bfloat16), wide.astype(jax.numpy.bfloat16)) == (0, 1)
  with winograd.never():
    assert products(x, wide) == (0, 1)
  assert products(x, wide) == (16, 0)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert products(x, wide) == (0, 1)


def test_zeros_around(monkeypatch):
  monkeypatch.setattr(winograd, "LEAST", 4)
  x, kernel = draw(0, 2, 6, 8, 4), draw(1, 3, 3, 4, 4)
  want = winograd.plain(x, kernel, "SAME")
  np.testing.assert_allclose(winograd.conv3x3(x, kernel, "SAME"), want, atol=2e-5)
