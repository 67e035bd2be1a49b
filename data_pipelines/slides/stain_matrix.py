"""Stain vectors of an image: sparse non-negative dictionary learning with two atoms, deterministic.

Vahadane et al., IEEE TMI 35(8), 2016, as the Camelyon16 preparation of ninatu/anomaly_detection uses
it. Of optical densities x_n the two unit vectors of the stains are the rows of the minimiser of

  min_{D >= 0, |d_j| <= 1}  mean_n min_{a >= 0} 1/2 |x_n - D a|^2 + lambda |a|_1 .

The published code runs an online learner for one second of wall time, so that its result depends on the
load of the machine. Here block-coordinate descent runs until D stands still: the codes have a closed
form, the atoms are updated one after the other, and rounds are extrapolated. No sum goes through BLAS,
whose order of adding depends on the number of threads: the result does not.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import UserError

# Haematoxylin and eosin as red, green and blue optical densities (Ruifrok & Johnston 2001): start of the
# descent, and what tells which atom is haematoxylin.
HAEMATOXYLIN_EOSIN = np.array([[.65, .70, .29], [.07, .99, .11]])
SPARSITY = 0.1  # lambda of the stain matrix
_SWEEPS = 5  # over the atoms between two computations of the codes
_STILL = 1e-10  # change of D at which the descent stands
_ROUNDS = 5000
_MEMORY = 6  # rounds that an extrapolation looks at


def codes(density, atoms: np.ndarray, sparsity: float) -> tuple[np.ndarray, np.ndarray]:
  """argmin_{a >= 0} 1/2 |x - D a|^2 + sparsity |a|_1 for every pixel, in closed form.

  Args:
    density: three optical densities [n] a pixel, red, green and blue.
    atoms: [2,3], D^T, non-negative.

  Returns:
    The two coefficients [n] each, float64.
  """
  weights, shift, above = free_solution(atoms, sparsity)
  return bounded(*(density[0] * w[0] + density[1] * w[1] + density[2] * w[2] - s
                   for w, s in zip(weights, shift)), *above)


def free_solution(atoms: np.ndarray, sparsity: float) -> tuple[np.ndarray, np.ndarray, tuple]:
  """The minimiser without bounds is weights x - shift: [2,3], [2]; and the two factors of `bounded`."""
  gram = np.array([[(u * v).sum() for v in atoms] for u in atoms])
  det = max(gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2, 1e-12)
  inverse = np.array([[gram[1, 1], -gram[0, 1]], [-gram[0, 1], gram[0, 0]]]) / det
  weights = np.array([r[0] * atoms[0] + r[1] * atoms[1] for r in inverse])
  return weights, sparsity * inverse.sum(1), (gram[0, 1] / gram[0, 0], gram[0, 1] / gram[1, 1])


def bounded(a1: np.ndarray, a2: np.ndarray, above1: float, above2: float) -> tuple[np.ndarray, np.ndarray]:
  """The minimiser with a >= 0 from the one without bounds; above_j = G_12 / G_jj >= 0.

  Where a2 < 0 the minimum lies on a2 = 0, at a1 = b1 / G_11 = (G_11 a1 + G_12 a2) / G_11 or at 0; where
  both are negative that is 0 as well.
  """
  kind = a1.dtype.type
  first = np.minimum(a2, 0) * kind(above1)
  first += a1
  second = np.minimum(a1, 0) * kind(above2)
  second += a2
  return np.maximum(first, 0, out=first), np.maximum(second, 0, out=second)


def objective(density: np.ndarray, atoms: np.ndarray, sparsity: float = SPARSITY) -> float:
  """The minimised mean, for optical densities [3,n] and unit atoms [2,3]."""
  a = codes(density, atoms, sparsity)
  rest = density - atoms[0][:, None] * a[0] - atoms[1][:, None] * a[1]
  return float(0.5 * (rest * rest).sum(0).mean() + sparsity * (a[0] + a[1]).mean())


def learn(density: np.ndarray, sparsity: float = SPARSITY) -> np.ndarray:
  """The two atoms of optical densities, unit rows in no certain order.

  Args:
    density: float64 [3,n], n > 0.

  Returns:
    float64 [2,3].

  Raises:
    UserError: fewer than two stains: one of the atoms is never used.
  """
  density = np.ascontiguousarray(density, np.float64)
  point = unit(HAEMATOXYLIN_EOSIN)
  points, steps, least = [], [], np.inf
  for _ in range(_ROUNDS):
    step = _descend(density, point, sparsity) - point
    size = np.abs(step).max()
    if size < _STILL:
      break
    if size > 2 * least:  # the extrapolation has lost its way: plain rounds again
      points, steps, least = [], [], np.inf
    least = min(least, size)
    points, steps = [*points, point.ravel()][-_MEMORY:], [*steps, step.ravel()][-_MEMORY:]
    point = _project(_extrapolated(points, steps).reshape(2, 3))
  return unit(point + step)


def _descend(density, d, sparsity):
  """One round: codes for all pixels, then sweeps over the atoms."""
  n = density.shape[1]
  a = np.stack(codes(density, d, sparsity))
  # einsum of this form adds in its own loops: it never calls BLAS
  gram, cross = np.einsum("in,jn->ij", a, a) / n, np.einsum("in,cn->ic", a, density) / n
  if min(gram[0, 0], gram[1, 1]) <= 0:
    raise UserError("the image holds fewer than two stains")
  d = d.copy()
  for _ in range(_SWEEPS):
    for j in (0, 1):
      moved = d[j] + (cross[j] - gram[0, j] * d[0] - gram[1, j] * d[1]) / gram[j, j]
      d[j] = _project(moved[None])[0]
  return d


def _project(d):
  """Onto non-negative atoms of at most unit length."""
  d = np.maximum(d, 0)
  return d / np.maximum(1, np.sqrt((d * d).sum(1, keepdims=True)))


def _extrapolated(points, steps):
  """Anderson's acceleration (1965): where the step, linear in what the last rounds saw, is smallest.

  The descent has the same fixed point with it, and needs about 20 rounds instead of 130.
  """
  if len(points) == 1:
    return points[-1] + steps[-1]
  moved, changed = np.diff(points, axis=0).T, np.diff(steps, axis=0).T
  share = np.linalg.lstsq(changed, steps[-1], rcond=1e-8)[0]
  return points[-1] + steps[-1] - (moved + changed) @ share


def unit(atoms: np.ndarray) -> np.ndarray:
  """Rows of unit length."""
  return atoms / np.sqrt((atoms * atoms).sum(1, keepdims=True))


def ordered(atoms: np.ndarray, parity: bool) -> np.ndarray:
  """Haematoxylin first.

  Args:
    parity: as published, the atom with the larger red component is haematoxylin; where both are close, a
      little noise exchanges the stains. Else the pairing with the known vectors decides that agrees
      better (larger sum of cosines).
  """
  if parity:
    swap = atoms[0, 0] < atoms[1, 0]
  else:
    known = unit(HAEMATOXYLIN_EOSIN)
    swap = (atoms[::-1] * known).sum() > (atoms * known).sum()
  return atoms[::-1].copy() if swap else atoms
