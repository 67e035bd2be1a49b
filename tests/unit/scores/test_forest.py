"""Isolation forests against scikit-learn, and what may be fed to them."""

import jax
import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from medae_jax.core.errors import UserError
from medae_jax.scores import forest


def rows(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("n,samples,grid", [(300, 256, False), (40, 256, False), (300, 64, True),
                                            (2, 256, False)])
def test_scores_are_those_of_scikit_learn(n, samples, grid):
  """To 1e-12 in float64, 1e-6 in float32; also where rows repeat and lie on thresholds (`grid`)."""
  train, test = rows(n), rows(500, seed=1)
  if grid:
    train, test = np.round(train), np.round(test)
  want = -IsolationForest(max_samples=min(samples, n), random_state=3).fit(train).score_samples(test)
  grown = forest.fit(train, samples=samples, seed=3)
  assert want.std() > 0 or n == 2
  with jax.enable_x64(True):
    np.testing.assert_allclose(jax.jit(forest.score)(grown, test), want, rtol=0, atol=1e-12)
  narrow = jax.tree.map(jax.numpy.asarray, grown)
  assert narrow["path"].dtype == np.float32
  np.testing.assert_allclose(jax.jit(forest.score)(narrow, test), want, rtol=0, atol=1e-6)


def test_thresholds_in_float32_divide_float32_rows_as_float64_ones_do():
  """Rows on both sides of a threshold, and the nearest float32 to it."""
  between = np.float64(np.float32(0.1)) + np.array([-1e-12, 0.0, 1e-12])
  below, above = np.nextafter(np.float32(0.1), np.float32([-1, 1]))
  for cut in between:
    one = forest.from_trees([(np.array([1, -1, -1]), np.array([2, -1, -1]), np.array([0, -2, -2]),
                              np.array([cut, -2.0, -2.0]), np.array([6, 1, 5]))], 6)
    for value in (below, np.float32(0.1), above):
      left = float(forest.score(one, np.array([[value]], np.float32))[0]) == pytest.approx(
          2.0 ** -(1 / forest.average_path(6)), rel=1e-6)
      assert left == (np.float64(value) <= cut)


def test_what_many_trees_cost_is_said_and_too_many_are_refused(caplog):
  forest.check_size(5000, 256)
  assert not caplog.text
  forest.check_size(100_000, 256)
  assert "trees=100000: trees of 256 images take 5.11 GB and about 3 minutes to grow" in caplog.text
  with pytest.raises(UserError, match="config.method.forest.trees=100000: .* GB, this machine has"):
    forest.check_size(100_000, 2**24)
  with pytest.raises(UserError, match="this machine has"):
    forest.fit(np.zeros((10**5, 1), np.float32), trees=10**7, samples=10**6)


def test_the_same_seed_gives_the_same_forest():
  first, same, other = (forest.fit(rows(100), trees=5, seed=s) for s in (1, 1, 2))
  assert all(np.array_equal(first[k], same[k]) for k in first)
  assert not np.array_equal(first["feature"], other["feature"])


def test_rows_that_do_not_differ():
  grown = forest.fit(np.ones((50, 3), np.float32), trees=4)
  assert int(grown["depth"]) == 0
  np.testing.assert_allclose(forest.score(grown, np.ones((2, 3), np.float32)), 0.5, rtol=1e-6)


def test_what_is_not_finite_has_no_score():
  test = rows(4)
  test[1, 2], test[2, 0] = np.nan, np.inf
  found = np.asarray(forest.score(forest.fit(rows(50), trees=4), test))
  np.testing.assert_array_equal(np.isnan(found), [False, True, True, False])
  assert np.isnan(forest.score(forest.unfitted(3), rows(2))).all()


@pytest.mark.parametrize("train,text", [(rows(1), "two normal images or more"),
                                        (np.full((5, 2), np.nan, np.float32), "not finite"),
                                        (np.r_[rows(1100), [[np.inf] * 6]], "not finite")])
def test_rows_that_nothing_can_be_fitted_to(train, text):
  with pytest.raises(UserError, match=text):
    forest.fit(train)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_walk_is_as_long_as_the_deepest_tree_wherever_it_stands(order):
  """Path lengths by hand: a tree of two levels and one of one level, of 4 rows each."""
  deep = (np.array([1, -1, 3, -1, -1]), np.array([2, -1, 4, -1, -1]), np.array([0, -2, 0, -2, -2]),
          np.array([0.0, -2, 1.0, -2, -2]), np.array([4, 1, 3, 1, 2]))
  flat = (np.array([1, -1, -1]), np.array([2, -1, -1]), np.array([0, -2, -2]), np.array([0.5, -2, -2]),
          np.array([4, 2, 2]))
  made = forest.from_trees([(deep, flat)[i] for i in order], 4)
  assert int(made["depth"]) == 2
  paths = {-1.0: (1, 2), 0.75: (2, 2), 2.0: (3, 2)}  # c(1) = 0, c(2) = 1
  for value, lengths in paths.items():
    np.testing.assert_allclose(forest.score(made, np.array([[value]], np.float32)),
                               2.0 ** -(np.mean(lengths) / forest.average_path(4)), rtol=1e-6)
