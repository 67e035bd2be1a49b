"""Dirichlet distributions fitted to softmax vectors by maximum likelihood (Minka 2000, "Estimating a
Dirichlet distribution"), one for each transformation (Golan & El-Yaniv 2018, arXiv 1805.10917).

The fit needs two means, of p and of log p, gathered in one pass. It runs on the host in float64: sums of
alpha reach 1e5, where differences of digammas leave float32 nothing. Scoring runs on the device.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

_TINY = np.finfo(np.float64).tiny
# Images that are all alike have no maximum: the search stays within these.
_HALVINGS = 100
_SMALLEST, _LARGEST = 1e-100, 1e6  # of a component; of the sum of the start


class Moments:
  """Means of p and of log p, summed in float64.

  Attributes:
    n: vectors so far, for each distribution.
  """

  def __init__(self):
    self.n, self._p, self._log_p = 0, 0.0, 0.0

  def add(self, log_p: np.ndarray) -> None:
    """Logarithms [N,T,K] of N softmax vectors for each of T distributions."""
    log_p = np.asarray(log_p, np.float64)
    self.n += len(log_p)
    self._p += np.exp(log_p).sum(0)
    self._log_p += log_p.sum(0)

  def means(self) -> tuple[np.ndarray, np.ndarray]:
    """(mean of p, mean of log p), float64 [T,K]."""
    return self._p / self.n, self._log_p / self.n


@dataclasses.dataclass(frozen=True)
class Fit:
  """Parameters and how the search ended.

  Attributes:
    alpha: float64 [T,K].
    steps: int [T], iterations.
    change: float64 [T], length of the last step; relative to the length of alpha in Newton's method.
    converged: bool [T].
  """
  alpha: np.ndarray
  steps: np.ndarray
  change: np.ndarray
  converged: np.ndarray


def start(p_mean: np.ndarray, log_p_mean: np.ndarray) -> np.ndarray:
  """The approximate maximum f s that both searches begin with, [T,K], in the precision of the means.

  s = (K - 1) gamma / sum_k f_k (log f_k - l_k), f and l the means of p and log p, gamma = 0.5772 (Euler).
  """
  f = np.maximum(p_mean, max(float(np.finfo(p_mean.dtype).tiny), _SMALLEST))
  spread = (f * (np.log(f) - log_p_mean)).sum(-1, keepdims=True)
  scale = (f.shape[-1] - 1) * f.dtype.type(np.euler_gamma)
  return f * (scale / np.maximum(spread, scale / f.dtype.type(_LARGEST)))


def fit(p_mean: np.ndarray, log_p_mean: np.ndarray, *, steps: int = 200, tolerance: float = 1e-9) -> Fit:
  """Maximum likelihood by Minka's Newton steps, all T distributions at once.

  A step is a <- a - (g - b)/q with g_k = psi(S) - psi(a_k) + l_k, q_k = -psi'(a_k), S = sum a and
  b = sum(g/q) / (1/psi'(S) + sum 1/q); it is halved while a component would not be positive.

  Args:
    p_mean, log_p_mean: [T,K].
    steps: at most so many. tolerance: of the last step, relative to the length of alpha.
  """
  l = np.asarray(log_p_mean, np.float64)
  alpha = start(np.asarray(p_mean, np.float64), l)
  counts = np.zeros(len(alpha), int)
  change = np.full(len(alpha), np.inf)
  for _ in range(steps):
    open_ = change > tolerance
    if not open_.any():
      break
    a = alpha[open_]
    step = _newton_step(a, l[open_])
    for _ in range(_HALVINGS):  # bounded: an endless step would stay endless
      if not (bad := (a - step <= 0).any(-1)).any():
        break
      step = np.where(bad[:, None], step / 2, step)
    alpha[open_] = np.clip(a - step, _SMALLEST, _LARGEST * a.shape[-1])
    change[open_] = np.linalg.norm(step, axis=-1) / np.linalg.norm(a, axis=-1)
    counts[open_] += 1
  return Fit(alpha, counts, change, change <= tolerance)


def _newton_step(a, l):
  total = a.sum(-1, keepdims=True)
  g = special.digamma(total) - special.digamma(a) + l
  q = -special.polygamma(1, a)
  z = special.polygamma(1, total)
  with np.errstate(divide="ignore"):  # 1/z + sum 1/q is 0 where all but one component is nearly 0
    b = (g / q).sum(-1, keepdims=True) / (1 / z + (1 / q).sum(-1, keepdims=True))
  return np.where(np.isfinite(b), (g - b) / q, 0)


def fixed_point(p_mean: np.ndarray, log_p_mean: np.ndarray, *, steps: int = 1000,
                tolerance: float = 1e-9) -> Fit:
  """Minka's fixed point a_k <- psi^-1(psi(S) + l_k), rounded where the published code rounds.

  The means, the start and psi(S) + l are float32 there; it ends at a step shorter than `tolerance` or
  after 1000, converged or not: with S near 1e5 it creeps.
  """
  l = np.asarray(log_p_mean, np.float32)
  alpha = start(np.asarray(p_mean, np.float32), l).astype(np.float64)
  counts, change = np.zeros(len(alpha), int), np.full(len(alpha), np.inf)
  for _ in range(steps):
    open_ = change >= tolerance
    if not open_.any():
      break
    a = alpha[open_]
    y = special.digamma(a.sum(-1, keepdims=True)).astype(np.float32) + l[open_]
    new = inverse_digamma(y.astype(np.float64))
    change[open_], alpha[open_] = np.linalg.norm(new - a, axis=-1), new
    counts[open_] += 1
  return Fit(alpha, counts, change, change < tolerance)


def inverse_digamma(y: np.ndarray) -> np.ndarray:
  """x > 0 with psi(x) = y, float64: five Newton steps from Minka's start (his appendix C)."""
  y = np.asarray(y, np.float64)
  with np.errstate(over="ignore"):
    x = np.where(y >= -2.22, np.exp(y) + 0.5, -1 / np.minimum(y - special.digamma(1), -_TINY))
  for _ in range(5):
    x = x - (special.digamma(x) - y) / special.polygamma(1, x)
  return x


def log_density(alpha: jax.Array, log_p: jax.Array, offset: float) -> jax.Array:
  """sum_k (alpha_k - 1) log(p_k + offset): [T,K], [B,T,K] -> [B,T]; higher is more usual.

  The logarithm of the density without its constant, as in the paper. Offset 1e-6 is that of the DPA
  benchmark's code: it limits what a saturated network can say.
  """
  log_p = jnp.log(jnp.exp(log_p) + offset) if offset else log_p
  return jnp.sum((alpha - 1) * log_p, -1)
