"""Large convolutions in float64 as products (tests/parity/double.py): results and gradients."""

import jax
import numpy as np
import pytest

from tests.parity import double

RNG = np.random.default_rng(0)
HOW = {
    "plain": dict(window_strides=(1, 1), padding="SAME"),
    "strided, uneven padding": dict(window_strides=(2, 3), padding=((2, 0), (1, 3))),
    "transposed, cropped": dict(window_strides=(1, 1), padding=((2, 1), (-1, 2)), lhs_dilation=(2, 3)),
    "dilated": dict(window_strides=(1, 2), padding="VALID", rhs_dilation=(2, 1)),
}


@pytest.fixture
def float64():
  double.large_convolutions_as_products()
  with jax.enable_x64(True):
    yield


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_products_are_the_convolution(float64, monkeypatch, how):
  x, kernel = double.double((RNG.normal(size=(2, 9, 11, 3)), RNG.normal(size=(3, 4, 3, 5))))
  made, original = [], double.as_product
  monkeypatch.setattr(double, "as_product", lambda *a, **k: made.append(1) or original(*a, **k))

  def results(large):
    monkeypatch.setattr(double, "LARGE", large)
    convolve = lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **how)
    loss = lambda x, kernel: (convolve(x, kernel)**3).sum()
    return jax.jit(lambda *a: (convolve(*a), *jax.grad(loss, (0, 1))(*a)))(x, kernel)
  wanted = results(10**9)
  assert not made
  for ours, theirs in zip(results(0), wanted, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * np.abs(theirs).max())
  assert len(made) == 3
