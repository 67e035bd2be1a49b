"""Structural similarity against the formula of the papers, written out with scipy's filters."""

import numpy as np
import pytest
from scipy import ndimage

from medae_jax.core.errors import UserError
from medae_jax.metrics import similarity


def by_scipy(a, b, window, data_range):
  """scikit-image's structural_similarity(full=True) of [H,W], float64."""
  mean = lambda x: ndimage.uniform_filter(x, window)  # mode="reflect": the edge is repeated
  n = window**2 / (window**2 - 1)
  ua, ub = mean(a), mean(b)
  va, vb, vab = n * (mean(a * a) - ua**2), n * (mean(b * b) - ub**2), n * (mean(a * b) - ua * ub)
  c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  s = (2 * ua * ub + c1) * (2 * vab + c2) / ((ua**2 + ub**2 + c1) * (va + vb + c2))
  half = window // 2
  return s, s[half:-half, half:-half].mean()


@pytest.mark.parametrize(("window", "data_range"), [(7, 1.0), (3, 2.0)])
def test_like_scikit_image_channel_by_channel(window, data_range):
  rng = np.random.default_rng(0)
  a = rng.uniform(0, data_range, (2, 13, 11, 3))
  b = np.clip(a + rng.normal(0, 0.2, a.shape), 0, data_range)
  found = np.asarray(similarity.ssim_map(a.astype(np.float32), b.astype(np.float32), window, data_range))
  score = np.asarray(similarity.ssim(a.astype(np.float32), b.astype(np.float32), window, data_range))
  for i in range(2):
    want = [by_scipy(a[i, ..., c], b[i, ..., c], window, data_range) for c in range(3)]
    np.testing.assert_allclose(found[i], np.stack([w[0] for w in want], -1), atol=2e-5)
    assert score[i] == pytest.approx(np.mean([w[1] for w in want]), abs=1e-5)


def test_bright_flat_images_do_not_cancel_in_float32():
  rng = np.random.default_rng(1)
  a = 0.9 + 1e-3 * rng.standard_normal((1, 16, 16, 1))
  b = 0.9 + 1e-3 * rng.standard_normal(a.shape)
  want = by_scipy(a[0, ..., 0], b[0, ..., 0], 7, 1.0)[0]
  found = similarity.ssim_map(a.astype(np.float32), b.astype(np.float32))[0, ..., 0]
  np.testing.assert_allclose(found, want, atol=1e-5)


def test_equal_images_and_images_that_are_too_small():
  image = np.random.default_rng(2).uniform(size=(1, 8, 8, 1)).astype(np.float32)
  np.testing.assert_allclose(similarity.ssim(image, image), 1.0, atol=1e-6)
  np.testing.assert_allclose(similarity.mae(image, image + 0.25), 0.25, rtol=1e-6)
  with pytest.raises(UserError, match="method.score.window"):
    similarity.ssim_map(image[:, :5], image[:, :5])
