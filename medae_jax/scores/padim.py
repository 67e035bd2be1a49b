"""A Gaussian a position of patch features: PaDiM (Defard et al., ICPR workshops 2021, arXiv 2011.08785).

Features of P positions are reduced to d dimensions, and each position gets mean and covariance over
the normal images; the map is the Mahalanobis distance of each position (eq. 2). It knows where in the image
something is normal, so it wants images that are registered to each other: radiographs, brains.

The paper takes d of the C channels at random ("select"); "project" is a random orthonormal map of all.
Its covariance is sum (x - mean)(x - mean)' / (n - 1) + 0.01 I (eq. 1) with features of unit scale; here
0.01 is relative to the mean variance, since trunks differ in scale.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError

REDUCTIONS = ("project", "select")


def reduction(seed: int, channels: int, dims: int, how: str = "project") -> np.ndarray:
  """The map to d = min(dims, channels) dimensions: float32 [channels, d], orthonormal columns.

  Raises:
    UserError: an unknown `how`.
  """
  dims, rng = min(dims, channels), np.random.default_rng([seed, channels, dims])
  if how == "select":
    chosen = np.sort(rng.permutation(channels)[:dims])
    return np.eye(channels, dtype=np.float32)[:, chosen]
  if how != "project":
    raise UserError(f"config.method.padim.reduce={how!r}: use one of {', '.join(REDUCTIONS)}")
  basis, triangle = np.linalg.qr(rng.standard_normal((channels, dims)))
  return (basis * np.sign(np.diag(triangle))).astype(np.float32)


class Gaussians:
  """Sums of a Gaussian a position, on the device; rows come in batches.

  Memory: 4 P d^2 bytes, twice that while `fit` runs: 56 x 56 positions of 100 dimensions 0.13 GB.
  """

  def __init__(self):
    self.n, self._sums = 0, None

  def add(self, rows: jax.Array, valid: np.ndarray) -> None:
    """Takes features [B,P,d], of which those where `valid` [B] is True count."""
    valid = np.asarray(valid, bool)
    if not valid.any():
      return
    if self._sums is None:  # around the first batch's mean the sums do not cancel
      shift = jnp.asarray(rows)[np.flatnonzero(valid)].mean(0)
      p, d = shift.shape
      self._shift, self._sums = shift, (jnp.zeros((p, d)), jnp.zeros((p, d, d)))
    self.n += int(valid.sum())
    self._sums = _add(self._sums, rows, valid, self._shift)

  def fit(self, eps: float = 0.01) -> dict[str, jax.Array]:
    """{"mean" float32 [P,d], "whiten" [P,d,d]}, |whiten (x - mean)| = Mahalanobis distance.

    Args:
      eps: added to every variance, as a share of the mean variance.

    Raises:
      UserError: fewer than two images.
    """
    if self.n < 2:
      raise UserError(f"{self.n} normal images: a covariance needs at least two")
    total, products = self._sums
    self._sums = None
    return _fit(total, products, self._shift, float(self.n), eps)


@functools.partial(jax.jit, donate_argnums=0)
def _add(sums, rows, valid, shift):
  away = (rows - shift) * valid[:, None, None]
  total, products = sums
  return (total + away.sum(0),
          products + jnp.einsum("bpd,bpe->pde", away, away, precision="highest"))


@functools.partial(jax.jit, donate_argnums=1)
def _fit(total, products, shift, n, eps):
  mean, dims = total / n, total.shape[1]
  covariance = (products - n * mean[:, :, None] * mean[:, None]) / (n - 1)
  variance = jnp.trace(covariance, axis1=1, axis2=2).mean() / dims
  covariance += jnp.maximum(eps * variance, 1e-12) * jnp.eye(dims)
  inverse = lambda c: jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(c), jnp.eye(dims), lower=True)
  return {"mean": mean + shift, "whiten": jax.lax.map(inverse, covariance, batch_size=64)}


def distances(rows: jax.Array, mean: jax.Array, whiten: jax.Array) -> jax.Array:
  """Mahalanobis distances float32 [B,P] of features [B,P,d]; higher = more anomalous."""
  away = jnp.einsum("pde,bpe->bpd", whiten, rows - mean, precision="highest")
  return jnp.sqrt(jnp.sum(away**2, -1))
