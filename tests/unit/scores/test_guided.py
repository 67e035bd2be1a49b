"""The guided filter against its equations written out, box by box."""

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax.scores import guided, residual as scores


def by_hand(p, guide, inside, radius, eps):
  """He et al. 2013, equations 5, 6 and 8, with boxes cut at the image and counting `inside` alone."""
  h, w = p.shape
  def box(i, j):
    rows, columns = slice(max(i - radius, 0), i + radius + 1), slice(max(j - radius, 0), j + radius + 1)
    kept = inside[rows, columns] > 0
    return rows, columns, kept
  a, b, q = np.zeros((h, w)), np.zeros((h, w)), np.zeros((h, w))
  for i, j in np.ndindex(h, w):
    rows, columns, kept = box(i, j)
    if kept.any():
      g, v = guide[rows, columns][kept], p[rows, columns][kept]
      a[i, j] = (np.mean(g * v) - g.mean() * v.mean()) / (g.var() + eps)
      b[i, j] = v.mean() - a[i, j] * g.mean()
  for i, j in np.ndindex(h, w):
    rows, columns, kept = box(i, j)
    if inside[i, j]:
      q[i, j] = a[rows, columns][kept].mean() * guide[i, j] + b[rows, columns][kept].mean()
  return np.maximum(q, 0)


@pytest.mark.parametrize("radius,eps", [(1, 1e-3), (3, 0.05)])
def test_it_is_the_paper_s(radius, eps):
  rng = np.random.default_rng(radius)
  p, guide = rng.random((2, 11, 9, 2)), 3 + rng.random((2, 11, 9, 1))
  inside = (rng.random((2, 11, 9, 1)) < 0.7).astype(float)
  found = np.asarray(guided.guided_filter(*(jnp.asarray(x, jnp.float32) for x in (p, guide, inside)),
                                          radius, eps))
  for i, c in np.ndindex(2, 2):
    want = by_hand(p[i, ..., c], guide[i, ..., 0], inside[i, ..., 0], radius, eps)
    np.testing.assert_allclose(found[i, ..., c], want, atol=2e-4)  # float32: eps is 1e-3
  assert not found[np.broadcast_to(inside == 0, found.shape)].any()


def test_a_blurred_map_takes_the_border_of_the_guide():
  guide = np.zeros((1, 24, 24, 1), np.float32)
  guide[:, 8:16, 8:16] = 1
  blurred = scores.gaussian_filter(jnp.asarray(guide), 1.5)
  found = np.asarray(guided.guided_filter(blurred, guide, np.ones_like(guide), 3, 1e-4))
  step = lambda x: float(x[0, 12, 8, 0] - x[0, 12, 7, 0])  # across the border
  assert step(found) > 2 * step(blurred) > 0.1
  flat = np.full_like(guide, 0.3)
  np.testing.assert_allclose(guided.guided_filter(flat, guide, np.ones_like(guide), 3, 1e-4), flat, atol=1e-5)
  assert guided.guided_filter(blurred, guide, guide, 0, 1e-4) is blurred


def test_values_as_large_as_stored_ones_keep_their_digits():
  rng = np.random.default_rng(0)
  p, guide, inside = (rng.random((1, 12, 12, 1)).astype(np.float32) for _ in range(3))
  inside = (inside < 0.8).astype(np.float32)
  near, far = (np.asarray(guided.guided_filter(p, guide + shift, inside, 2, 1e-2)) for shift in (0, 1000))
  np.testing.assert_allclose(far, near, atol=0.02)  # of the guide itself 6e-5 is left


def test_median_then_saturation_then_guided_then_gaussian():
  rng = np.random.default_rng(1)
  raw, image = (jnp.asarray(rng.random((1, 16, 16, n)), jnp.float32) for n in (1, 2))
  inside = scores.erode(scores.foreground(image), 3)
  options = {"erosion": 3, "median": 3, "saturation": 0.4, "guided": 2, "guided_eps": 1e-2,
             "guide_channel": 1, "gaussian": 0.7}
  found = scores.finished(raw, image, inside, ml_collections.ConfigDict(options))
  median = scores.median_filter(raw * inside, 3)
  want = guided.guided_filter(0.4 * jnp.tanh(median / 0.4), image[..., 1:], scores.foreground(image), 2, 1e-2)
  np.testing.assert_allclose(found, scores.gaussian_filter(want, 0.7), rtol=1e-5, atol=1e-7)
  older = {k: options[k] for k in ("erosion", "median")}  # of a run before these fields
  np.testing.assert_array_equal(scores.finished(raw, image, inside, ml_collections.ConfigDict(older)), median)


def test_saturation_leaves_faint_pixels_and_the_order():
  map_ = jnp.asarray([0.0, 0.01, 0.5, 3.0, 3.5])
  found = np.asarray(scores.saturated(map_, 0.4))
  assert found[1] == pytest.approx(0.01, rel=1e-3) and (np.diff(found) >= 0).all() and found[-1] <= 0.4 + 1e-6
  assert found[2] == pytest.approx(0.4 * np.tanh(1.25)) and scores.saturated(map_, 0.0) is map_


def test_a_guide_that_is_not_there():
  with pytest.raises(ValueError, match="guide_channel=2: images have 2 channels, counted from 0"):
    guided.guide_of(jnp.ones((1, 4, 4, 2)), 2)
