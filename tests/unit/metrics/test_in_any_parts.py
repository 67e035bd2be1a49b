"""What is gathered batch by batch is that of all at once, whatever the batches: single rows, none, all."""

import numpy as np
import pytest

from medae_jax.metrics import probability
from medae_jax.scores import dirichlet, feature_distance, memory_bank

_ROWS = np.random.default_rng(5).gamma(2.0, 1.0, (7, 3)) + [0, 5, 1]


def _ledoit_wolf(parts):
  found = feature_distance.LedoitWolf()
  for rows in parts:
    found.add(rows)
  return found.fit()


def _moments(parts):
  found = dirichlet.Moments()
  for rows in parts:
    found.add(np.log(rows / rows.sum(1, keepdims=True))[:, None])
  return dict(zip("pl", found.means()), n=found.n)


def _reservoir(parts):
  found = memory_bank.Reservoir(4, seed=3)
  for rows in parts:
    found.add(rows)
  return {"rows": found.rows(), "seen": found.seen}


def _reliability(parts):
  found = probability.Reliability(bins=4)
  for rows in parts:
    found.add(np.sin(rows) ** 2, rows > 2)
  return {"brier": found.brier(), "ece": found.ece(), "n": found.count}


@pytest.mark.parametrize("sizes", [(1,) * 7, (1, 6), (0, 6, 1, 0), (3, 4)], ids=str)
@pytest.mark.parametrize("gather", [_ledoit_wolf, _moments, _reservoir, _reliability])
def test_parts_are_the_whole(gather, sizes):
  parts = np.split(_ROWS, np.cumsum(sizes)[:-1])
  found, want = gather(parts), gather([_ROWS])
  assert found.keys() == want.keys()
  for name, value in want.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)


def test_their_numbers_by_hand():
  rows = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 6.0]])
  np.testing.assert_allclose(_ledoit_wolf([rows[:1], rows[1:]])["mean"], [2, 2])
  log_p = np.log([[[0.25, 0.75]], [[0.75, 0.25]]])
  found = dirichlet.Moments()
  found.add(log_p[:1])
  found.add(log_p[1:])
  p, log = found.means()
  np.testing.assert_allclose(p, [[0.5, 0.5]])
  np.testing.assert_allclose(log, log_p.mean(0))
  of = probability.Reliability(bins=2)
  of.add([0.25], [0])
  of.add([1.0, 0.5], [1, 0])
  assert of.brier() == pytest.approx((0.0625 + 0 + 0.25) / 3)  # bins: 0.25 | 0.5 and 1, half of them positive
  assert of.ece() == pytest.approx((0.25 + abs(1.5 - 1)) / 3)
