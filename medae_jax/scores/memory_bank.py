"""Memory bank of normal patch features: PatchCore (Roth et al., CVPR 2022, arXiv 2106.08265).

Patches of normal images, thinned to a coreset that covers them, are kept; a patch is as anomalous as
it is far from the nearest of them, an image as its most anomalous patch (eq. 6), weighted by how
unusual that patch's neighbour is among the kept ones (eq. 7).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.scores import nearest


class Reservoir:
  """At most `limit` of the rows that come by, each equally likely, whatever the batches are.

  A row stays by a hash of (seed, place): the choice depends on neither batch size nor device count.
  Memory: 1.5 limit rows.
  """

  def __init__(self, limit: int, seed: int):
    self.limit, self.seen = limit, 0
    self._seed = np.uint64(seed)
    self._rows: list[np.ndarray] = []
    self._keys: list[np.ndarray] = []
    self._highest = np.uint64(2**64 - 1)

  def add(self, rows: np.ndarray) -> None:
    """Takes rows [n, ...]."""
    keys = _hash(np.arange(self.seen, self.seen + len(rows), dtype=np.uint64), self._seed)
    self.seen += len(rows)
    keep = keys <= self._highest
    self._rows.append(np.asarray(rows)[keep])
    self._keys.append(keys[keep])
    if sum(map(len, self._keys)) > 1.5 * self.limit:
      self._prune()

  def rows(self) -> np.ndarray:
    """The rows kept, in the order in which they came."""
    if sum(map(len, self._keys)) > self.limit:
      self._prune()
    return np.concatenate(self._rows)

  def _prune(self):
    keys = np.concatenate(self._keys)
    self._highest = np.partition(keys, self.limit - 1)[self.limit - 1]
    keep = keys <= self._highest
    self._rows, self._keys = [np.concatenate(self._rows)[keep]], [keys[keep]]


def _hash(x, seed):
  """splitmix64 (Steele, Lea & Flood 2014): a bijection of 64-bit numbers without a pattern."""
  with np.errstate(over="ignore"):
    x = x + seed * np.uint64(0xD1342543DE82EF95) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def projection(seed: int, channels: int, dims: int) -> np.ndarray:
  """A random linear map float32 [channels, dims] that keeps distances on average (Johnson-Lindenstrauss)."""
  rng = np.random.default_rng([seed, channels, dims])
  return (rng.standard_normal((channels, dims)) / np.sqrt(dims)).astype(np.float32)


@functools.partial(jax.jit, static_argnames="size")
def coreset(rows: jax.Array, size: int, first: int | jax.Array) -> tuple[jax.Array, jax.Array]:
  """Greedy cover (Roth 2022, algorithm 1; Gonzalez 1985): each time the row farthest from those chosen.

  Args:
    rows: float32 [n,d], usually projected to d = 128.
    size: how many to choose, at most n.
    first: the row to begin with.

  Returns:
    int32 [size], in the order of choice; radius float32 [], the largest distance of a row to its
    nearest chosen one (at most twice the best possible).
  """
  away = lambda i: jnp.sum((rows - rows[i])**2, -1)

  def step(i, state):
    chosen, far = state
    new = jnp.argmax(far).astype(jnp.int32)
    return chosen.at[i].set(new), jnp.minimum(far, away(new))

  chosen = jnp.zeros(size, jnp.int32).at[0].set(first)
  chosen, far = jax.lax.fori_loop(1, size, step, (chosen, away(first)))
  return chosen, jnp.sqrt(jnp.max(far))


def build(rows: np.ndarray, size: int, seed: int, dims: int = 128) -> tuple[np.ndarray, float]:
  """The coreset of patch features [n,C]: (float32 [min(size, n), C], its radius in the projection).

  Raises:
    UserError: no patch.
  """
  n, channels = rows.shape
  if not n:
    raise UserError("no normal patch to put into the memory bank")
  if size >= n:
    return np.asarray(rows, np.float32), 0.0
  small = rows if channels <= dims else rows @ projection(seed, channels, dims)
  first = int(_hash(np.zeros(1, np.uint64), np.uint64(seed))[0] % np.uint64(n))
  chosen, radius = coreset(jnp.asarray(small, jnp.float32), size, first)
  return np.asarray(rows[np.asarray(chosen)], np.float32), float(radius)


def score(patches: jax.Array, bank: jax.Array, neighbours: int = 9) -> tuple[jax.Array, jax.Array]:
  """Distances of patches to the bank, and the image scores.

  Args:
    patches: float32 [B,P,C].
    bank: float32 [M,C].
    neighbours: b of eq. 7: rows of the bank around the nearest one; 0 = not weighted.

  Returns:
    (distances float32 [B,P] >= 0, score float32 [B]): with q the patch of largest distance, m its nearest
    row and N the `neighbours` nearest rows of m in the bank, m among them,
    score = (1 - exp|q - m| / sum_{n in N} exp|q - n|) |q - m|.
  """
  found, b = nearest.index(bank), min(neighbours, bank.shape[0])

  def one(image):
    distance, row, _ = nearest.search(image, found)
    return distance[:, 0], row[:, 0]

  distance, row = jax.lax.map(one, patches)
  worst = jnp.argmax(distance, -1)[:, None]
  largest = jnp.take_along_axis(distance, worst, -1)[:, 0]
  if b < 2:
    return distance, largest
  query = jnp.take_along_axis(patches, worst[..., None], 1)            # [B,1,C]
  centre = bank[jnp.take_along_axis(row, worst, -1)[:, 0]]             # [B,C]
  around = bank[nearest.search(centre, found, b)[1]]                   # [B,b,C]
  away = jnp.sqrt(jnp.sum((query - around)**2, -1))
  total = jax.nn.logsumexp(away, -1)
  return distance, -jnp.expm1(largest - jnp.maximum(total, largest)) * largest
