"""Ledoit-Wolf, Mahalanobis and nearest normals against scikit-learn; a Gaussian a position against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from medae_jax.core.errors import UserError
from medae_jax.scores import feature_distance, padim


@pytest.fixture
def rng():
  return np.random.default_rng(1)


@pytest.mark.parametrize(("n", "p"), [(40, 7), (9, 20), (500, 3)])
def test_ledoit_wolf_streams_to_what_sklearn_computes(rng, n, p):
  rows = (rng.gamma(2.0, 3.0, (n, p)) * rng.uniform(0.1, 9, p) + 1e4).astype(np.float64)
  ours = feature_distance.LedoitWolf()
  for part in np.array_split(rows, 4):
    ours.add(part)
  ours.add(rows[:0])
  found, want = ours.fit(), LedoitWolf().fit(rows)
  np.testing.assert_allclose(found["mean"], want.location_, rtol=1e-12)
  np.testing.assert_allclose(found["shrinkage"], want.shrinkage_, rtol=1e-8)
  np.testing.assert_allclose(found["covariance"], want.covariance_, rtol=1e-8, atol=1e-8)
  score = feature_distance.mahalanobis(jnp.asarray(rows - 1e4, jnp.float32),
                                       jnp.asarray(found["mean"] - 1e4, jnp.float32),
                                       feature_distance.whitening(found["covariance"]))
  np.testing.assert_allclose(score, np.sqrt(want.mahalanobis(rows)), rtol=1e-3)


def test_a_covariance_that_is_nearly_round_is_shrunk_whole():
  """Sampling noise above what there is to shrink: the share stays 1."""
  rows = np.r_[np.eye(3), -np.eye(3)] * [1.0, 1.1, 0.9] + 5
  ours = feature_distance.LedoitWolf()
  ours.add(rows)
  found, want = ours.fit(), LedoitWolf().fit(rows)
  assert want.shrinkage_ == 1
  np.testing.assert_allclose(found["shrinkage"], 1)
  np.testing.assert_allclose(found["covariance"], want.covariance_, atol=1e-12)


def test_a_direction_of_small_variance_counts_in_its_own_units():
  whiten = feature_distance.whitening(np.diag([1.0, 1e-8]))
  np.testing.assert_allclose(np.linalg.norm(whiten @ np.array([[3, 0], [0, 3e-4]]), axis=0), 3, rtol=1e-5)


def test_constant_features_do_not_count(rng):
  rows = np.c_[rng.standard_normal((30, 3)), np.full(30, 5.0)]
  lw = feature_distance.LedoitWolf()
  lw.add(np.full((5, 2), 3.0))
  found = lw.fit()
  whiten = feature_distance.whitening(found["covariance"])
  assert feature_distance.mahalanobis(jnp.ones((1, 2)), found["mean"], whiten)[0] == 0
  whiten = feature_distance.whitening(np.cov(rows.T))
  score = feature_distance.mahalanobis(jnp.asarray(rows + [0, 0, 0, 9]), rows.mean(0), whiten)
  np.testing.assert_allclose(score, feature_distance.mahalanobis(jnp.asarray(rows), rows.mean(0), whiten),
                             rtol=1e-4)


def test_one_image_has_no_covariance():
  lw = feature_distance.LedoitWolf()
  lw.add(np.ones((1, 4)))
  with pytest.raises(UserError, match="at least two"):
    lw.fit()
  g = padim.Gaussians()
  g.add(np.ones((1, 2, 3), np.float32), np.ones(1, bool))
  with pytest.raises(UserError, match="1 normal images: a covariance needs at least two"):
    g.fit()


def test_two_images_have_one():
  g = padim.Gaussians()
  g.add(np.array([[[1, 5]], [[-1, 5]]], np.float32), np.ones(2, bool))
  found = g.fit(eps=0.5)  # 2 and 0, and half of their mean
  away = padim.distances(jnp.array([[[2.0, 5]], [[0, 6]]]), **found)
  np.testing.assert_allclose(away[:, 0], [np.sqrt(4 / 2.5), np.sqrt(1 / 0.5)], rtol=1e-6)


def test_k_nearest_normals_as_sklearn_finds_them(rng):
  bank = rng.standard_normal((700, 12)).astype(np.float32)
  rows = rng.standard_normal((20, 12)).astype(np.float32)
  want = NearestNeighbors(n_neighbors=5).fit(bank).kneighbors(rows)[0].mean(1)
  np.testing.assert_allclose(feature_distance.k_nearest(jnp.asarray(rows), jnp.asarray(bank), 5), want,
                             rtol=1e-5)
  few = NearestNeighbors(n_neighbors=3).fit(bank[:3]).kneighbors(rows)[0].mean(1)
  np.testing.assert_allclose(feature_distance.k_nearest(jnp.asarray(rows), jnp.asarray(bank[:3]), 5), few,
                             rtol=1e-5)


# --------------------------------------------------------------------------------- a Gaussian a position
def test_padim_is_the_mahalanobis_distance_of_every_position(rng):
  rows = (rng.standard_normal((25, 6, 4)) * 3 + 50).astype(np.float32)
  g = padim.Gaussians()
  g.add(np.concatenate([rows[:10], rows[:2] * 0]), np.arange(12) < 10)  # padding does not count
  g.add(rows[10:], np.ones(15, bool))
  g.add(rows, np.zeros(25, bool))
  found = g.fit(eps=0.01)
  new = (rng.standard_normal((3, 6, 4)) * 5 + 50).astype(np.float32)
  score = np.asarray(padim.distances(jnp.asarray(new), **found))
  each = [np.cov(rows[:, p].T.astype(np.float64)) for p in range(6)]
  eps = 0.01 * np.mean([np.trace(c) / 4 for c in each])
  for p in range(6):
    precision = np.linalg.inv(each[p] + eps * np.eye(4))
    away = new[:, p] - rows[:, p].mean(0)
    np.testing.assert_allclose(score[:, p], np.sqrt(np.einsum("bi,ij,bj->b", away, precision, away)),
                               rtol=1e-4)


def test_padim_needs_fewer_images_than_dimensions(rng):
  g = padim.Gaussians()
  g.add(rng.standard_normal((3, 2, 8)).astype(np.float32), np.ones(3, bool))
  found = g.fit()
  assert all(np.isfinite(v).all() for v in found.values())
  with pytest.raises(UserError, match="at least two"):
    padim.Gaussians().fit()


def test_reductions_keep_lengths_or_channels():
  q = padim.reduction(3, 30, 8)
  np.testing.assert_allclose(q.T @ q, np.eye(8), atol=1e-6)
  s = padim.reduction(3, 30, 8, "select")
  assert (s.sum(0) == 1).all() and (s.sum(1) <= 1).all() and set(np.unique(s)) == {0, 1}
  assert padim.reduction(0, 5, 100).shape == (5, 5)
  np.testing.assert_array_equal(q, padim.reduction(3, 30, 8))
  for map_, how in ((q, "project"), (s, "select")):
    assert not np.array_equal(map_, padim.reduction(4, 30, 8, how))
  with pytest.raises(UserError, match="project, select"):
    padim.reduction(0, 4, 2, "pca")
