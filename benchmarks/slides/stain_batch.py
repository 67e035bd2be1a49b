"""Stains of many patches in one call (NumPy, JAX) against one patch after the other, on one core.

  python -m benchmarks.slides.stain_batch --images=FOLDER

What is timed is a round of the descent (codes of all pixels, five sweeps over the atoms; about 20 rounds a
patch), of 16 patches: that is all that a batch can make faster, the rest works on single pixels. The batched
forms differ in the last bit (sums over other lengths), far below the 1e-9 that stain matrices are rounded to.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import time

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
  os.environ[_name] = "1"  # before NumPy: one core is one thread
if hasattr(os, "sched_setaffinity"):
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import report  # noqa: E402
from benchmarks.slides import stain as patches  # noqa: E402
from data_pipelines.slides import stain, stain_matrix  # noqa: E402

COUNT, SPARSITY = 16, stain_matrix.SPARSITY


def densities(image: np.ndarray) -> np.ndarray:
  """float64 [3,n] of the tissue of a patch, at most stain.SAMPLES pixels, evenly spread."""
  bright = stain.standardize(image)
  places = np.flatnonzero(stain.tissue_pixels(bright))
  if places.size > stain.SAMPLES:
    places = places[np.linspace(0, places.size - 1, stain.SAMPLES).astype(int)]
  return np.ascontiguousarray(stain.optical_density(bright.reshape(-1, 3)[places]).T)


def descend(density, atoms, xp, put):
  """One round for all patches: [P,3,n], [P,2,3] -> [P,2,3]; stain_matrix has it for one.

  Args:
    xp: numpy or jax.numpy. put: (atoms, j, row [P,3]) -> atoms with that row.
  """
  n = density.shape[2]
  gram = xp.einsum("pic,pjc->pij", atoms, atoms)
  det = xp.maximum(gram[:, 0, 0] * gram[:, 1, 1] - gram[:, 0, 1] ** 2, 1e-12)
  inverse = xp.stack([xp.stack([gram[:, 1, 1], -gram[:, 0, 1]], -1),
                      xp.stack([-gram[:, 0, 1], gram[:, 0, 0]], -1)], 1) / det[:, None, None]
  weights, shift = inverse @ atoms, SPARSITY * inverse.sum(2)
  free = [sum(density[:, c] * weights[:, j, c, None] for c in range(3)) - shift[:, j, None] for j in (0, 1)]
  above = [gram[:, 0, 1] / gram[:, j, j] for j in (0, 1)]
  a = xp.stack([xp.maximum(xp.minimum(free[1 - j], 0) * above[j][:, None] + free[j], 0) for j in (0, 1)], 1)
  square, cross = xp.einsum("pin,pjn->pij", a, a) / n, xp.einsum("pin,pcn->pic", a, density) / n
  for _ in range(5):
    for j in (0, 1):
      rest = cross[:, j] - square[:, 0, j, None] * atoms[:, 0] - square[:, 1, j, None] * atoms[:, 1]
      moved = xp.maximum(atoms[:, j] + rest / square[:, j, j, None], 0)
      atoms = put(atoms, j, moved / xp.maximum(1, xp.sqrt((moved * moved).sum(-1, keepdims=True))))
  return atoms


def _put(atoms, j, row):
  atoms = atoms.copy()
  atoms[:, j] = row
  return atoms


def _ms(run, repeats: int) -> list[float]:
  """Milliseconds of processor, each of `repeats` calls."""
  found = []
  for _ in range(repeats):
    begin = time.process_time()
    run()
    found.append(1e3 * (time.process_time() - begin))
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--images", required=True, help="folder of tissue images")
  parser.add_argument("--repeats", type=int, default=9)
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  jax.config.update("jax_enable_x64", True)
  jax.config.update("jax_platforms", "cpu")
  on_jax = jax.jit(lambda x, d: descend(x, d, jnp, lambda atoms, j, row: atoms.at[:, j].set(row)))
  rows, times = [], {}
  for side in (64, 224, 768):
    images = [np.ascontiguousarray(i[:side, :side])
              for i in patches.patches(pathlib.Path(args.images), COUNT)]
    n, times[side] = compare(images, on_jax, args.repeats)
    rows.append((side, n, *(report.spread(v) for v in times[side].values())))
  report.show(("side", "pixels of tissue", *times[64]), rows, {"ms": times}, args.output)


def compare(images, on_jax, repeats: int) -> tuple[int, dict[str, list[float]]]:
  """(pixels a patch, {form: milliseconds of a round of all patches}); raises where the forms differ."""
  found = [densities(i) for i in images]
  n = min(x.shape[1] for x in found)  # a batch is a rectangle
  found = [np.ascontiguousarray(x[:, :n]) for x in found]
  start = stain_matrix.unit(stain_matrix.HAEMATOXYLIN_EOSIN)
  many, atoms = np.stack(found), np.repeat(start[None], COUNT, 0)
  single = np.stack([stain_matrix._descend(x, start, SPARSITY) for x in found])
  for other in (descend(many, atoms, np, _put), np.asarray(on_jax(many, atoms))):
    np.testing.assert_allclose(other, single, atol=1e-12)
  on_device = jnp.asarray(many), jnp.asarray(atoms)
  sides = {"one by one": lambda: [stain_matrix._descend(x, start, SPARSITY) for x in found],
           "NumPy batch": lambda: descend(many, atoms, np, _put),
           "JAX batch": lambda: on_jax(*on_device).block_until_ready(),
           "stain.normalize, all of it": lambda: [stain.normalize(i, stain.Stains(start)) for i in images]}
  return n, {name: _ms(run, repeats) for name, run in sides.items()}


if __name__ == "__main__":
  main()
