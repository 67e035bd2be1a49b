"""layers/resample.py against NumPy's and SciPy's interpolation."""

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest
from scipy import ndimage

from medae_jax.models.layers import resample


@pytest.mark.parametrize("size, nodes", [(8, 4), (7, 3), (16, 16), (5, 9), (6, 1), (1, 4), (1, 1)])
def test_aligned_corners_are_linear_interpolation_between_nodes(size, nodes):
  matrix = resample.aligned_matrix(size, nodes)
  values = np.random.default_rng(0).normal(size=nodes)
  at = np.linspace(0, nodes - 1, size) if size > 1 else np.zeros(1)
  np.testing.assert_allclose(matrix @ values, np.interp(at, np.arange(nodes), values), atol=1e-12)
  np.testing.assert_allclose(matrix.sum(1), 1)


@pytest.mark.parametrize("factor", [2, 3])
def test_upsampling_with_aligned_corners_equals_scipy(factor):
  x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
  want = ndimage.zoom(x.astype(np.float64), (1, factor, factor, 1), order=1)  # grid_mode=False
  np.testing.assert_allclose(resample.upsample_aligned(jnp.asarray(x), factor), want, atol=1e-5)


def test_half_pixel_bilinear_equals_scipy():
  x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
  want = ndimage.zoom(x.astype(np.float64), (1, 2, 2, 1), order=1, grid_mode=True, mode="nearest")
  np.testing.assert_allclose(resample.bilinear(jnp.asarray(x)), want, atol=1e-5)


def test_downscaling_takes_the_middle_or_the_whole_cell():
  x = np.random.default_rng(0).normal(size=(1, 8, 8, 2)).astype(np.float32)
  cells = x.reshape(1, 2, 4, 2, 4, 2)
  np.testing.assert_allclose(resample.downscale(x, 4), cells[:, :, 1:3, :, 1:3].mean((2, 4)), rtol=1e-5)
  np.testing.assert_allclose(resample.downscale(x, 4, antialias=True), cells.mean((2, 4)), rtol=1e-5)
  np.testing.assert_allclose(resample.downscale(x, 2), resample.downscale(x, 2, antialias=True))
  assert resample.downscale(x, 1) is x


def test_fading_is_clipped():
  low, high = jnp.zeros(3), jnp.ones(3)
  for alpha, want in ((-1, 0), (0.25, 0.25), (2, 1)):
    np.testing.assert_allclose(resample.fade(low, high, alpha), want)


def test_padding_is_of_each_axis_for_itself():
  x = np.arange(1, 7, dtype=np.float32).reshape(1, 2, 3, 1)
  found = np.asarray(resample.pad_to(x, 5, 4))[0, ..., 0]
  np.testing.assert_array_equal(found, [[0] * 4, [1, 2, 3, 0], [4, 5, 6, 0], [0] * 4, [0] * 4])
  for size in ((1, 3), (2, 2)):  # too small along one axis
    with pytest.raises(ValueError, match="meets a skip of {}x{}".format(*size)):
      resample.pad_to(x, *size)


def test_padding_puts_the_odd_pixel_last():
  padded = resample.pad_to(jnp.ones((1, 2, 2, 1)), 5, 4)[0, ..., 0]
  np.testing.assert_array_equal(padded.sum(1), [0, 2, 2, 0, 0])
  np.testing.assert_array_equal(padded.sum(0), [0, 2, 2, 0])
  with pytest.raises(ValueError, match="3x2 meets a skip of 2x2"):
    resample.pad_to(jnp.ones((1, 3, 2, 1)), 2, 2)


@pytest.mark.parametrize("old, new", [((9, 12), (31, 29)), ((40, 37), (13, 16)), ((7, 16), (21, 5))])
def test_antialiased_is_pillows_filter(old, new):
  """Floats to rounding, 8 bits exactly; enlarged, shrunk and both at once."""
  grey = np.random.default_rng(0).integers(0, 256, old, np.uint8)
  pillow = lambda a: np.asarray(Image.fromarray(a).resize(new[::-1], Image.Resampling.BILINEAR))
  unit = jnp.asarray(grey, jnp.float32)[None, ..., None] / 255
  plain = resample.antialiased(unit, new)
  np.testing.assert_allclose(plain[0, ..., 0], pillow(grey.astype(np.float32)) / 255, atol=2e-6)
  rounded = resample.antialiased(unit, new, eight_bit=True)
  np.testing.assert_allclose(rounded[0, ..., 0] * 255, pillow(grey), atol=1e-3)
