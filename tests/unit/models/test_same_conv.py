"""The kernel gradients that CPUs run fastest are those of the plain convolution."""

import jax
import numpy as np
import pytest

from medae_jax.models.layers.same_conv import same_conv


def plain(x, kernel):
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("batch", [2, 16])  # padded before, or by the convolution
@pytest.mark.parametrize("size, channels, features", [(3, 3, 5), (3, 5, 3), (3, 4, 4), (5, 6, 2), (1, 3, 2)])
def test_value_and_gradients_are_those_of_the_plain_convolution(backend, batch, size, channels, features):
  draw = lambda seed, *shape: np.random.default_rng(seed).normal(size=shape).astype(np.float32)
  x, kernel = draw(0, batch, 6, 9, channels), draw(1, size, size, channels, features)
  want, pull = jax.vjp(plain, x, kernel)
  found, pull_found = jax.vjp(same_conv, x, kernel)
  np.testing.assert_allclose(found, want, atol=1e-5)
  grad = draw(2, batch, 6, 9, features)
  for a, b in zip(pull_found(grad), pull(grad), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()))
