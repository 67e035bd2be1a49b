"""Distances of feature vectors to the normal ones: Mahalanobis with Ledoit-Wolf's covariance, k neighbours.

Fitted on the host from streamed batches in float64, scored on the device in float32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.scores import nearest


class LedoitWolf:
  """Mean and shrunk covariance of rows that come in batches, as sklearn.covariance.LedoitWolf has them.

  Ledoit & Wolf, J. Multivariate Analysis 88 (2004), 365-411: with the sample covariance S (divided by
  n), mu = tr S / p, d^2 = |S - mu I|^2 / p and b^2 = min(d^2, sum_i |x_i x_i' - S|^2 / (n^2 p)),
    covariance = (1 - b^2/d^2) S + b^2/d^2 mu I.
  sum_i |x_i - m|^4 needs the mean m, which is known at the end only: its expansion needs the sums
  kept here, in float64 around the first batch's mean so that they do not cancel. Memory: 8 (p^2 + 3 p) bytes.
  """

  def __init__(self):
    self.n, self._shift = 0, None

  def add(self, rows: np.ndarray) -> None:
    """Takes rows [n,p]."""
    rows = np.asarray(rows, np.float64)
    if not len(rows):
      return
    if self._shift is None:
      p, self._shift = rows.shape[1], rows.mean(0)
      self._sum, self._products, self._weighted = np.zeros(p), np.zeros((p, p)), np.zeros(p)
      self._square = self._fourth = 0.0
    rows = rows - self._shift
    length = (rows**2).sum(1)
    self.n += len(rows)
    self._sum += rows.sum(0)
    self._products += rows.T @ rows
    self._weighted += length @ rows
    self._square += length.sum()
    self._fourth += (length**2).sum()

  def fit(self) -> dict[str, np.ndarray]:
    """{"mean" [p], "covariance" [p,p], "shrinkage" []}, float64.

    Raises:
      UserError: fewer than two rows.
    """
    if self.n < 2:
      raise UserError(f"{self.n} normal images: a covariance needs at least two")
    n, p = self.n, len(self._shift)
    m = self._sum / n
    sample = self._products / n - np.outer(m, m)
    # sum |x - m|^4 = sum (|x|^2 - 2 m.x + |m|^2)^2
    length = m @ m
    fourth = (self._fourth + 4 * m @ self._products @ m + n * length**2 - 4 * m @ self._weighted
              + 2 * length * self._square - 4 * length * m @ self._sum)
    mu = np.trace(sample) / p
    size = (sample**2).sum()
    spread = (size - p * mu**2) / p
    noise = min((fourth / n - size) / (n * p), spread)
    shrinkage = noise / spread if noise > 0 else 0.0
    covariance = (1 - shrinkage) * sample + shrinkage * mu * np.eye(p)
    return {"mean": m + self._shift, "covariance": covariance, "shrinkage": np.asarray(shrinkage)}


def whitening(covariance: np.ndarray) -> np.ndarray:
  """W [p,p] with |W (x - mean)|^2 = (x - mean)' covariance^+ (x - mean), float32.

  Directions whose variance is below 1e-10 of the largest are left out, as a pseudo-inverse does: channels of
  constant features.
  """
  values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
  keep = values > 1e-10 * max(values[-1], 0)
  scale = np.where(keep, 1 / np.sqrt(np.where(keep, values, 1)), 0)
  return (vectors * scale).T.astype(np.float32)


def mahalanobis(rows: jax.Array, mean: jax.Array, whiten: jax.Array) -> jax.Array:
  """|W (x - mean)| of rows [B,p]: float32 [B], higher = more anomalous."""
  away = jnp.matmul(rows - mean, whiten.T, precision="highest")
  return jnp.sqrt(jnp.sum(away**2, -1))


def k_nearest(rows: jax.Array, bank: jax.Array, k: int) -> jax.Array:
  """Mean distance of rows [B,p] to their k nearest of the normal `bank` [n,p]: float32 [B]."""
  return nearest.search(rows, nearest.index(bank), min(k, bank.shape[0]))[0].mean(-1)
