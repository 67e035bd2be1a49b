"""scores/marks.py: the device and the host agree, borders included, with SciPy's maximum filter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medae_jax.scores import marks


def _evidence(shape=(3, 9, 7, 1)):
  rng = np.random.default_rng(0)
  evidence = rng.random(shape, np.float32) ** 4
  evidence[0, 0, 0], evidence[1, -1, 3], evidence[2, 4, -1] = 1, 1, 1  # a corner and two borders
  return evidence


@pytest.mark.parametrize("radius", [0, 1, 2, 12])  # 12: wider than the image
def test_host_and_device_agree_with_scipy(radius):
  evidence = _evidence()
  size = (1, 2 * radius + 1, 2 * radius + 1, 1)
  want = ndimage.maximum_filter(evidence, size, mode="constant")
  np.testing.assert_array_equal(marks.grow(evidence, radius), want)
  device = jax.jit(lambda x: marks.grow(x, radius))(jnp.asarray(evidence))
  np.testing.assert_array_equal(device, want)
  for threshold in (0.06, 0.3, float(evidence[0, 3, 3, 0])):  # 0.06 is no float32
    marked = marks.find(evidence, threshold, radius)
    assert marked.dtype == bool and isinstance(marked, np.ndarray)
    np.testing.assert_array_equal(marked, want >= np.float32(threshold))
    np.testing.assert_array_equal(
        jax.jit(lambda x, t=threshold: marks.find(x, t, radius))(jnp.asarray(evidence)), marked)


def test_a_single_pixel_grows_to_a_square_and_stops_at_the_border():
  mask = np.zeros((1, 5, 5, 1), bool)
  mask[0, 0, 2] = True
  want = np.zeros((5, 5), bool)
  want[:2, 1:4] = True
  np.testing.assert_array_equal(marks.grow(mask, 1)[0, ..., 0], want)
