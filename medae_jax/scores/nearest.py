"""Exact nearest neighbours: blocked bfloat16 products propose, float32 differences decide, a bound proves.

How it is exact. With c the bank's mean, q' = q - c and m' = m - c are rounded to bfloat16, q^ and m^. By
the triangle inequality the true distance d of q and m obeys |d - |q^ - m^|| <= e_q + e_m, where e is the
length of what rounding took away: computed, not estimated. |q^|^2 + |m^|^2 - 2 q^.m^, summed in float32,
is off by at most r (|q^| + |m^|)^2, r = (C + 8) 2^-23 (twice the unit roundoff a term, so that units
that truncate are covered). Together they give a lower bound of every distance. The rows of a tile share one:
of their smallest value, the tile's largest e_m and its largest length. The tiles with the smallest
bounds are measured in float32, as sums of squared differences, which do not cancel. If the k-th smallest
of those is not above the smallest bound of the tiles left out, nothing outside can be nearer: proven. A
query whose proof fails is compared with the whole bank in float32 differences.

Neighbours are those of a float32 brute force, up to pairs that differ by less than its own rounding.
Sums of squares must not overflow float32 (lengths below 1e18).

Memory beside the bank [M,C] of 4 M C bytes and its bfloat16 copy of 2 M C: for Q queries in one call
4 Q BLOCK for products, 4 Q M / TILE for bounds and 4 Q TILE C while tiles are measured. A million rows of
512 with 512 queries: 2.05 GB + 1.02 GB + 34 MB + 66 MB + 34 MB.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError

TILE = 32      # rows that share a bound
BLOCK = 16384  # rows in one product
_ULP = 2.0**-23


@flax.struct.dataclass
class Index:
  """A bank as `search` reads it.

  Attributes:
    bank: float32 [M,C], as given.
    centre: float32 [C], its mean.
    rows: bfloat16 (or float32) [blocks, BLOCK, C], minus the mean; zeros behind the last.
    squares: float32 [blocks, BLOCK], squared lengths of `rows`; infinite behind the last.
    rounded: float32 [tiles], largest length that rounding took from a row of the tile.
    lengths: float32 [tiles], largest length in the tile.
  """
  bank: jax.Array
  centre: jax.Array
  rows: jax.Array
  squares: jax.Array
  rounded: jax.Array
  lengths: jax.Array


def index(bank: jax.Array, dtype=jnp.bfloat16) -> Index:
  """Prepares a bank [M,C] for `search`; inside jit as well.

  Args:
    dtype: of the products: bfloat16, or float32 where a device has no fast bfloat16.
  """
  bank = jnp.asarray(bank, jnp.float32)
  m, channels = bank.shape
  block = min(BLOCK, -(-m // TILE) * TILE)
  blocks = -(-m // block)
  centre = bank.mean(0)
  rows = jnp.pad(bank - centre, ((0, blocks * block - m), (0, 0)))
  low = _low(rows, dtype)
  squares = jnp.sum(low.astype(jnp.float32)**2, -1)
  real = jnp.arange(blocks * block) < m
  tiles = lambda x: jnp.where(real, x, 0).reshape(-1, TILE).max(-1)
  return Index(bank, centre, low.reshape(blocks, block, channels),
               jnp.where(real, squares, jnp.inf).reshape(blocks, block),
               tiles(_taken(rows, low)), tiles(jnp.sqrt(squares) * (1 + _slack(channels))))


def _low(x, dtype):
  # Inside a compiled program a round trip through bfloat16 may be taken for none: the barrier keeps it.
  return jax.lax.optimization_barrier(x.astype(dtype))


def _slack(channels: int) -> float:
  """r of the module's docstring: relative error of a float32 sum of products, generously."""
  return (channels + 8) * _ULP


def _taken(x, low):
  """Upper bound of |x - low|, and of the rounding when the mean was taken off: [...]."""
  grow = 1 + _slack(x.shape[-1])
  return grow * (jnp.linalg.norm(x - low.astype(jnp.float32), axis=-1)
                 + _ULP * jnp.linalg.norm(x, axis=-1))


def search(queries: jax.Array, found: Index, k: int = 1, tiles: int = 0) -> tuple[jax.Array, ...]:
  """The k nearest rows of a bank for each query; see the module's docstring.

  Do not vmap it (the whole bank would be compared for every query): `jax.lax.map` over blocks.

  Args:
    queries: float32 [Q,C].
    found: what `index` returned.
    k: at most M.
    tiles: tiles of TILE rows that are measured in float32; 0 = max(8, k + 4).

  Returns:
    distances float32 [Q,k], ascending; rows int32 [Q,k], the lower one first among equals;
    proven bool [Q], False where the whole bank had to be compared.

  Raises:
    UserError: fewer rows than neighbours.
  """
  m, channels = found.bank.shape
  if k > m:
    raise UserError(f"{k} neighbours are asked for, the bank has {m} rows")
  queries, tiles = jnp.asarray(queries, jnp.float32), tiles or max(8, k + 4)
  if m <= TILE * (tiles + 1):
    squares = jax.lax.map(lambda row: _squares(queries, row), found.bank).T
    best, rows = _smallest(squares, k)
    return jnp.sqrt(best), rows, jnp.ones_like(best[:, 0], bool)
  bound = _bounds(queries, found)
  value, order = jax.lax.top_k(-bound, tiles + 1)
  outside, order = -value[:, -1], jnp.sort(order[:, :-1], -1)  # sorted: lower rows first among equals
  padded = found.rows.shape[0] * found.rows.shape[1]

  def measure(tile):
    rows = tile[:, None] * TILE + jnp.arange(TILE)
    near = found.bank[jnp.minimum(rows, m - 1)]
    return jnp.where(rows < m, _squares(queries[:, None], near), jnp.inf), jnp.minimum(rows, padded)

  squares, rows = jax.lax.map(measure, order.T)                    # [tiles, Q, TILE]
  flat = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], tiles * TILE)
  best, place = _smallest(flat(squares), k)
  rows = jnp.take_along_axis(flat(rows), place, -1)
  farthest = jnp.sqrt(best[:, -1])
  proven = (farthest * (1 + _slack(channels)) <= outside) | (farthest == 0)
  return _repair(queries, found.bank, jnp.sqrt(best), rows.astype(jnp.int32), proven)


def _squares(a, b):
  """Squared distances in float32 differences; broadcasts."""
  return jnp.sum((a - b)**2, -1)


def _smallest(squares, k):
  value, place = jax.lax.top_k(-squares, k)
  return -value, place


def _bounds(queries, found):
  """Lower bounds of the distances to all rows of each tile: [Q, tiles]."""
  rows = queries - found.centre
  low = _low(rows, found.rows.dtype)
  square = jnp.sum(low.astype(jnp.float32)**2, -1)
  contract = (((1,), (1,)), ((), ()))

  def nearest(block):
    bank, squares = block
    product = jax.lax.dot_general(low, bank, contract, precision="highest",
                                  preferred_element_type=jnp.float32)
    value = square[:, None] + squares - 2 * product
    return value.reshape(value.shape[0], value.shape[1] // TILE, TILE).min(-1)

  value = jax.lax.map(nearest, (found.rows, found.squares))         # [blocks, Q, tiles of a block]
  value = jnp.moveaxis(value, 0, 1).reshape(value.shape[1], value.shape[0] * value.shape[2])
  channels, grow = rows.shape[-1], 1 + _slack(rows.shape[-1])
  off = _slack(channels) * (jnp.sqrt(square)[:, None] * grow + found.lengths)**2
  below = jnp.sqrt(jnp.maximum(value - off, 0)) * (1 - 4 * _ULP)
  return below - _taken(rows, low)[:, None] - found.rounded


def _repair(queries, bank, best, rows, proven):
  """Queries without proof, one after the other against the whole bank."""
  def one(state):
    best, rows, done = state
    i = jnp.argmin(done)
    squares, place = _smallest(_squares(queries[i], bank)[None], best.shape[1])
    return (best.at[i].set(jnp.sqrt(squares[0])), rows.at[i].set(place[0].astype(jnp.int32)),
            done.at[i].set(True))

  best, rows, _ = jax.lax.while_loop(lambda state: ~jnp.all(state[2]), one, (best, rows, proven))
  return best, rows, proven
