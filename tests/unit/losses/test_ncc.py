"""Local correlation and smoothness of fields, by the definition in numpy."""

import numpy as np
import pytest
from scipy import ndimage

from medae_jax.losses import box, deformation, ncc

A, B = np.random.default_rng(3).random((2, 1, 12, 10, 2)).astype(np.float32)


def _sums(x, window):
  """Over windows and channels, zero outside."""
  box = lambda c: window**2 * ndimage.uniform_filter(c.astype(np.float64), window, mode="constant")
  return sum(box(x[0, ..., c]) for c in range(x.shape[-1]))


@pytest.mark.parametrize("window", [3, 9])
def test_correlation_by_its_definition(window):
  a, b = A.astype(np.float64), B.astype(np.float64)
  n = window**2 * 2
  s = lambda x: _sums(x, window)
  cross = s(a * b) - s(a) * s(b) / n
  product = (s(a * a) - s(a) ** 2 / n) * (s(b * b) - s(b) ** 2 / n)
  expected = cross**2 / (np.maximum(product, 0) + 1e-5)
  np.testing.assert_allclose(ncc.correlation(A, B, window)[0], expected, atol=2e-6)


def test_smoothness_of_a_parabola():
  """u = r^2 / 2 has central differences r and second ones 1 along rows, none along columns."""
  rows = np.arange(7.0)[None, :, None, None]
  field = np.broadcast_to(rows**2 / 2, (1, 7, 6, 2)).astype(np.float32)
  inner = np.arange(1, 6.0)
  assert float(deformation.gradient_l2(field)[0]) == pytest.approx((inner**2).mean() / 2)
  assert float(deformation.gradient_l1(field)[0]) == pytest.approx(inner.mean() / 2)
  assert float(deformation.bending(field)[0]) == pytest.approx(1)


@pytest.mark.parametrize("window, pad", [(1, 0), (2, 0), (3, 0), (3, 1), (2, 1), (3, 2), (5, 2)])
def test_sums_over_windows_with_zeros_around_on_every_side(window, pad):
  """Every window by itself; images are no squares, so that rows and columns are not exchanged."""
  x = np.random.default_rng(0).integers(0, 9, (2, 5, 7, 2)).astype(np.float32)
  wide = np.zeros((2, 5 + 2 * pad, 7 + 2 * pad, 2), np.float32)
  wide[:, pad:pad + 5, pad:pad + 7] = x
  wanted = [[wide[:, r:r + window, c:c + window].sum((1, 2)) for c in range(wide.shape[2] - window + 1)]
            for r in range(wide.shape[1] - window + 1)]
  np.testing.assert_array_equal(box.box_sum(x, window, pad), np.moveaxis(np.array(wanted), 2, 0))
