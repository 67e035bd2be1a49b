"""The pieces of the anomaly map against brute force."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from medae_jax.core.errors import UserError
from medae_jax.scores import residual as scores


@pytest.mark.parametrize("size", [3, 5, 7])
def test_median_is_exact(size):
  rng = np.random.default_rng(size)
  image = rng.normal(size=(2, 9, 13, 2)).astype(np.float32)
  image[0] = np.round(image[0])  # ties
  want = scipy.ndimage.median_filter(image, (1, size, size, 1), mode="mirror")
  np.testing.assert_array_equal(scores.median_filter(jnp.asarray(image), size), want)


def test_median_off_and_wrong():
  image = jnp.ones((1, 2, 8, 1))
  assert scores.median_filter(image, 0) is image
  with pytest.raises(ValueError, match="larger than 2 px"):
    scores.median_filter(image, 5)
  with pytest.raises(ValueError, match="odd"):
    scores.median_filter(image, 4)


@pytest.mark.parametrize("sigma", [0.6, 1.5])
def test_gaussian_is_that_of_scipy(sigma):
  image = np.random.default_rng(0).random((2, 9, 13, 2)).astype(np.float32)
  want = scipy.ndimage.gaussian_filter(image, (0, sigma, sigma, 0))
  np.testing.assert_allclose(scores.gaussian_filter(jnp.asarray(image), sigma), want, rtol=1e-5)
  assert scores.gaussian_filter(image, 0.0) is image
  with pytest.raises(ValueError, match="at least 10 px, got 9x13"):
    scores.gaussian_filter(jnp.asarray(image), 2.5)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_erosion_is_a_share_of_the_box(size):
  mask = np.random.default_rng(1).random((1, 16, 20, 1)) < 0.97
  padded = np.pad(mask[0, ..., 0], size // 2)
  share = np.lib.stride_tricks.sliding_window_view(padded, (size, size)).mean((2, 3))
  found = np.asarray(scores.erode(jnp.asarray(mask), size))[0, ..., 0]
  np.testing.assert_array_equal(found, share > 0.95)
  assert 0 < found.sum() < found.size


def test_residual_signs_and_weights():
  residual = jnp.asarray(np.float32([[[[2.0, -3.0]]]]))
  one = lambda *w: float(scores.residual_map(residual, *w)[0, 0, 0, 0])
  assert one() == 2.5
  assert one((1, 1), (1, 1)) == 2.5
  assert one((1.0,), (0.0,)) == 1.0      # only what is brighter than its reconstruction
  assert one((0.0,), (1.0,)) == 1.5
  assert one((3, 1), (1, 0.5)) == pytest.approx((6 + 1.5) / 2)
  with pytest.raises(ValueError, match="3 numbers, the image has 2 channels"):
    one((1, 1, 1))


def test_image_scores():
  anomaly = jnp.asarray(np.arange(400, dtype=np.float32).reshape(2, 10, 20, 1))
  np.testing.assert_allclose(scores.image_score(anomaly, "mean"), [99.5, 299.5])
  np.testing.assert_allclose(scores.image_score(anomaly, "max"), [199, 399])
  np.testing.assert_allclose(scores.image_score(anomaly, "top1"), [198.5, 398.5])
  mask = jnp.zeros_like(anomaly).at[:, 0, :2].set(1)
  np.testing.assert_allclose(scores.image_score(anomaly, "foreground_mean", mask), [0.5, 200.5])
  with pytest.raises(ValueError, match="top1"):
    scores.image_score(anomaly, "median")


def test_intensity_baseline_is_the_channel_inside_the_foreground():
  image = np.zeros((1, 8, 8, 2), np.float32)
  image[0, 2:6, 2:6] = [0.5, 0.25]
  image[0, 0, 0] = [0.004, 0.004]  # below the foreground's 0.01
  image[0, 4, 4] = [0.5, -0.25]    # darker than the background: no evidence, and none against it
  found = np.asarray(scores.intensity_map(jnp.asarray(image), 1))
  assert found[0, 3, 3, 0] == 0.25 and found[0, 0, 0, 0] == found[0, 4, 4, 0] == 0
  assert np.asarray(scores.intensity_map(jnp.asarray(image), 1, 5))[0, 2, 2, 0] == 0


@pytest.mark.parametrize("positive, negative, want", [
    ((), (), (2 + 3) / 2), ((2.0,), (), (2 * 2 + 3) / 2), ((), (0.0,), 2 / 2),
    ((1.0, 0.5), (4.0, 2.0), (2 + 2 * 3) / 2), ((0.0,), (1.0,), 3 / 2)])
def test_weights_of_brighter_and_of_darker_are_apart_and_one_left_out_is_1(positive, negative, want):
  found = scores.residual_map(jnp.asarray([2.0, -3.0]).reshape(1, 1, 1, 2), positive, negative)
  np.testing.assert_allclose(found, np.full((1, 1, 1, 1), want), rtol=1e-6)
  with pytest.raises(UserError, match="weights_negative has 3 numbers, the image has 2 channels"):
    scores.residual_map(jnp.zeros((1, 1, 1, 2)), positive, (1.0, 2.0, 3.0))
  with pytest.raises(UserError, match="=-1 must be odd"):
    scores.median_filter(jnp.ones((1, 9, 9, 1)), -1)
