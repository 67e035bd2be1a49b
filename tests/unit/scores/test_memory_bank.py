"""Coreset, reservoir and score of the memory bank, each against plain numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.scores import memory_bank


@pytest.fixture
def rng():
  return np.random.default_rng(2)


def test_greedy_coreset_is_the_farthest_row_each_time(rng):
  rows = rng.standard_normal((200, 6)).astype(np.float32)
  chosen, radius = memory_bank.coreset(jnp.asarray(rows), 25, 7)
  distance = np.sqrt(((rows[:, None].astype(np.float64) - rows[None])**2).sum(-1))
  want = [7]
  while len(want) < 25:
    want.append(int(distance[want].min(0).argmax()))
  np.testing.assert_array_equal(chosen, want)
  np.testing.assert_allclose(radius, distance[want].min(0).max(), rtol=1e-5)


def test_build_covers_and_keeps_all_where_there_are_few(rng):
  rows = rng.standard_normal((300, 200)).astype(np.float32)
  bank, radius = memory_bank.build(rows, 40, seed=0, dims=64)
  assert bank.shape == (40, 200) and radius > 0
  assert all((rows == b).all(1).any() for b in bank)
  again, _ = memory_bank.build(rows, 40, seed=0, dims=64)
  np.testing.assert_array_equal(bank, again)
  whole, radius = memory_bank.build(rows, 300, seed=0)
  np.testing.assert_array_equal(whole, rows)
  assert radius == 0
  with pytest.raises(UserError, match="no normal patch"):
    memory_bank.build(rows[:0], 4, 0)


@pytest.mark.parametrize("channels, dims, projected", [(12, 5, True), (12, 12, False), (5, 12, False)])
def test_rows_wider_than_the_projection_are_chosen_by_their_distances_in_it(rng, channels, dims, projected):
  rows = rng.standard_normal((40, channels)).astype(np.float32)
  bank, radius = memory_bank.build(rows, 6, 3, dims)
  seen = rows @ memory_bank.projection(3, channels, dims) if projected else rows
  chosen = [int(np.flatnonzero((rows == row).all(1))[0]) for row in bank]
  away = np.linalg.norm(seen[:, None] - seen[None, chosen], axis=-1).min(1)
  assert bank.shape == (6, channels) and radius == pytest.approx(away.max(), rel=1e-4)


def test_projection_keeps_distances(rng):
  rows = rng.standard_normal((50, 500)).astype(np.float32)
  small = rows @ memory_bank.projection(0, 500, 128)
  d = lambda x: np.linalg.norm(x[:25] - x[25:], axis=1)
  assert np.abs(d(small) / d(rows) - 1).max() < 0.3


@pytest.mark.parametrize("limit", [30, 1000])
def test_reservoir_does_not_see_batches(rng, limit):
  rows = np.arange(500, dtype=np.float32)[:, None]
  found = []
  for pieces in (1, 7, 100):
    reservoir = memory_bank.Reservoir(limit, seed=3)
    for part in np.array_split(rows, pieces):
      reservoir.add(part)
    assert reservoir.seen == 500
    found.append(reservoir.rows())
  assert len(found[0]) == min(limit, 500) and (np.diff(found[0][:, 0]) > 0).all()
  np.testing.assert_array_equal(found[0], found[1])
  np.testing.assert_array_equal(found[0], found[2])


def test_reservoir_draws_evenly():
  """Which thirds of the stream the kept rows come from, over seeds: 100 each, sd 8 of the mean's 0.9."""
  counts = []
  for seed in range(80):
    reservoir = memory_bank.Reservoir(300, seed)
    reservoir.add(np.arange(3000))
    counts.append(np.bincount(reservoir.rows() // 1000, minlength=3))
  assert np.abs(np.mean(counts, 0) - 100).max() < 4 and np.std(counts) > 3


@pytest.mark.parametrize("neighbours", [0, 2])
def test_image_score_is_equation_seven(rng, neighbours):
  bank = rng.standard_normal((500, 10)).astype(np.float32)
  patches = rng.standard_normal((3, 30, 10)).astype(np.float32)
  patches[1, 5] = 9
  distance, score = memory_bank.score(jnp.asarray(patches), jnp.asarray(bank), neighbours)
  for i in range(3):
    d = np.sqrt(((patches[i][:, None].astype(np.float64) - bank[None])**2).sum(-1))
    np.testing.assert_allclose(distance[i], d.min(1), rtol=1e-5)
    q = d.min(1).argmax()
    m = d[q].argmin()
    want = d[q, m]
    if neighbours:
      near = np.argsort(((bank - bank[m])**2).sum(1))[:neighbours]
      want *= 1 - np.exp(want) / np.exp(d[q][near]).sum()
    np.testing.assert_allclose(score[i], want, rtol=1e-4)


def test_long_distances_do_not_overflow(rng):
  bank = 1e4 * rng.standard_normal((300, 4)).astype(np.float32)
  _, score = memory_bank.score(jnp.full((1, 2, 4), 1e5), jnp.asarray(bank), 5)
  assert np.isfinite(score).all() and score[0] > 1e5
