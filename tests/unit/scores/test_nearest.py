"""The blocked nearest-neighbour search against brute force in float64, also where bfloat16 cannot decide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.scores import nearest


def brute(queries, bank, k):
  """Distances and rows in float64, the lower row first among equals."""
  q, m = np.asarray(queries, np.float64), np.asarray(bank, np.float64)
  squares = ((q[:, None] - m[None])**2).sum(-1)
  rows = np.argsort(squares, 1, kind="stable")[:, :k]
  return np.sqrt(np.take_along_axis(squares, rows, 1)), rows


def check(queries, bank, k, dtype=jnp.bfloat16):
  distances, rows, proven = jax.jit(lambda q, b: nearest.search(q, nearest.index(b, dtype), k))(queries, bank)
  want, want_rows = brute(queries, bank, k)
  np.testing.assert_allclose(distances, want, rtol=2e-6, atol=1e-6)
  np.testing.assert_array_equal(rows, want_rows)
  return np.asarray(proven)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_equals_brute_force_and_proves_it(rng, monkeypatch, k, dtype):
  monkeypatch.setattr(nearest, "BLOCK", 256)  # several products, the last one not full
  bank = rng.standard_normal((1000, 24)).astype(np.float32) + 3
  queries = bank[rng.integers(0, 1000, 50)] + 0.7 * rng.standard_normal((50, 24)).astype(np.float32)
  assert check(queries, bank, k, dtype).mean() > 0.9


def test_the_index_bounds_every_row_of_a_tile(rng):
  """Of rows of very different length: the longest of a tile, and the most that bfloat16 took from one."""
  n = 3 * nearest.TILE - 5
  bank = rng.standard_normal((n, 6)) * 10 ** rng.uniform(-2, 2, (n, 1))
  found = nearest.index(jnp.asarray(bank, jnp.float32))
  np.testing.assert_array_equal(np.isinf(found.squares).ravel(), np.arange(3 * nearest.TILE) >= n)
  low = np.asarray(found.rows, np.float64).reshape(-1, 6)[:len(bank)]
  taken = np.linalg.norm(bank - np.asarray(found.centre, np.float64) - low, axis=-1)
  for bound, of_row in ((found.lengths, np.linalg.norm(low, axis=-1)), (found.rounded, taken)):
    most = np.array([of_row[i:i + nearest.TILE].max() for i in range(0, n, nearest.TILE)])
    assert bound.shape == (3,) and np.all(bound >= most) and np.all(bound < 1.01 * most + 1e-3)


def test_small_banks_and_the_last_rows(rng):
  bank = rng.standard_normal((33, 5)).astype(np.float32)
  assert check(bank[::-1] + 1e-3, bank, 3).all()
  bank = rng.standard_normal((32 * 9 + 1, 5)).astype(np.float32)  # one row more than is compared whole
  check(bank[-4:], bank, 3)


def test_where_bfloat16_cannot_decide_the_whole_bank_is_compared(rng):
  """Rows that bfloat16 cannot tell apart, far from their mean: rounding alone would order them."""
  ends = np.where(np.arange(1200) % 2, 100.0, -100.0).astype(np.float32)[:, None]
  bank = ends + 0.02 * rng.standard_normal((1200, 16)).astype(np.float32)
  queries = bank[:40] + 0.01 * rng.standard_normal((40, 16)).astype(np.float32)
  low = bank.astype(jnp.bfloat16).astype(np.float32)
  rounded = ((queries[:, None].astype(jnp.bfloat16).astype(np.float32) - low[None])**2).sum(-1).argmin(1)
  assert (rounded != brute(queries, bank, 1)[1][:, 0]).mean() > 0.5  # what the bound saves from
  assert not check(queries, bank, 1).any()
  bank = ends + 0.25 * rng.standard_normal((1200, 16)).astype(np.float32)
  assert not check(bank[:40], bank, 2).any()  # the first is the row itself, the second is in doubt


def test_equal_rows_give_the_first(rng):
  bank = np.repeat(rng.standard_normal((300, 8)).astype(np.float32), 3, 0)
  assert check(bank[::3], bank, 1).all()  # a distance of zero needs no proof
  check(bank[::30], bank, 4)


@pytest.mark.parametrize(("dtype", "dims"), [(jnp.bfloat16, 1), (jnp.bfloat16, 32), (jnp.float32, 32)])
def test_bounds_are_below_every_distance_and_need_their_slack(rng, dtype, dims):
  """One vector a tile: nothing but rounding parts bound and distance. In one dimension rounding errors
  add up as badly as they can; in float32 those of the products alone are left."""
  bank = (rng.standard_normal((40, dims)) * rng.uniform(1, 100, (40, 1))).astype(np.float32)
  queries = bank + 1e-3 * rng.standard_normal((40, dims)).astype(np.float32)
  found = nearest.index(np.repeat(bank, nearest.TILE, 0), dtype)
  bounds = np.asarray(jax.jit(nearest._bounds)(queries, found))
  true = np.sqrt(((queries[:, None].astype(np.float64) - bank[None])**2).sum(-1))
  assert (bounds <= true).all()
  if dims == 1:
    rows = queries - found.centre
    own = np.asarray(nearest._taken(rows, rows.astype(dtype)))[:, None]
    assert (bounds + own > true).any() and (bounds + found.rounded > true).any()


def test_more_neighbours_than_rows_are_refused(rng):
  with pytest.raises(UserError, match="bank has 3 rows"):
    nearest.search(jnp.zeros((1, 2)), nearest.index(jnp.zeros((3, 2))), 4)


def test_any_number_of_queries_exports(rng):
  bank = jnp.asarray(rng.standard_normal((600, 8)), jnp.float32)
  b, = jax.export.symbolic_shape("b")
  program = jax.export.export(jax.jit(lambda q: nearest.search(q, nearest.index(bank), 2)[0]))(
      jax.ShapeDtypeStruct((b, 8), jnp.float32))
  queries = rng.standard_normal((7, 8)).astype(np.float32)
  np.testing.assert_allclose(program.call(queries), brute(queries, bank, 2)[0], rtol=1e-5)
