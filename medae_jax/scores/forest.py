"""Isolation forest: grown by scikit-learn on the host, kept as plain arrays, scored on the device.

Liu, Ting & Zhou, "Isolation Forest", ICDM 2008. A tree splits a sub-sample of the normal rows at
random until its rows are alone; what is isolated after few splits is anomalous:
  score(x) = 2^(-E_trees[h(x)] / c(psi)),   c(n) = 2 (ln(n - 1) + gamma) - 2 (n - 1)/n,
h = edges to the leaf + c(rows in the leaf), psi = rows of a sub-sample. The house's direction:
higher = more anomalous. scikit-learn's `score_samples` is the negative of it, in (-1, 0).

A forest is a dict of arrays of T trees with at most M nodes; a leaf is its own child, so that a
walk of `depth` steps ends in the leaf of every row:
  feature int32 [T,M], threshold float32 [T,M], left, right int32 [T,M]
  path [T,M]   h of a row that ends there
  depth        int32 [], edges to the deepest leaf
  norm         [], c(psi)
Rows are float32 in scikit-learn and here, thresholds float64 there: the largest float32 that is not
above one divides float32 rows alike, so that every row ends in the same leaf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import logging

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.device import memory
from medae_jax.core.errors import UserError

_LEAF = -1  # scikit-learn's child of a leaf
_USUAL = 256  # images that nearly every data set has: how many there are is known when all are read
_NODE_BYTES = 100  # of a node, in scikit-learn's tree and in ours
_MANY, _TREE_SECONDS = 5000, 2e-3  # trees from which it is said; seconds to grow one of 256 images


def average_path(n) -> np.ndarray:
  """c(n): mean depth of an unsuccessful search among n rows, float64; 0 for n <= 1, 1 for n = 2."""
  n = np.asarray(n, np.float64)
  many = np.maximum(n, 3)
  value = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
  return np.where(n <= 1, 0.0, np.where(n <= 2, 1.0, value))


def fit(rows: np.ndarray, *, trees: int = 100, samples: int = 256, seed: int = 0) -> dict:
  """Grows a forest on the host.

  Args:
    rows: float32 [N,D], N >= 2, of normal images; may be a memory map, which is not copied.
    trees: T. samples: psi, rows drawn for a tree without replacement; all N where there are fewer.
    seed: of scikit-learn's random state: the same seed, rows and version give the same forest.

  Raises:
    UserError: fewer than two rows, or values that are not finite; more trees than fit
      into memory.
  """
  from sklearn.ensemble import IsolationForest  # not needed to score
  if len(rows) < 2:
    raise UserError(f"an isolation forest needs two normal images or more, the data give {len(rows)}")
  if not all(np.isfinite(rows[i:i + 1024]).all() for i in range(0, len(rows), 1024)):
    raise UserError("features of normal images are not finite: see config.method.backbone_weights "
                    "and config.method.dtype")
  samples = min(samples, len(rows))
  check_size(trees, samples)
  grown = IsolationForest(n_estimators=trees, max_samples=samples, random_state=seed).fit(rows)
  nodes = [e.tree_ for e in grown.estimators_]
  return from_trees([(t.children_left, t.children_right, t.feature, t.threshold, t.n_node_samples)
                     for t in nodes], samples)


def from_trees(trees: Sequence[tuple], samples: int) -> dict:
  """A forest out of scikit-learn's arrays of nodes.

  Args:
    trees: (children_left, children_right, feature, threshold, n_node_samples) a tree, each [nodes];
      -1 for the children of a leaf, x <= threshold goes left.
    samples: psi.
  """
  most = max(len(t[0]) for t in trees)
  shape, own = (len(trees), most), np.arange(most)
  stay = np.tile(own, (len(trees), 1)).astype(np.int32)
  forest: dict[str, np.ndarray] = {
      "feature": np.zeros(shape, np.int32), "threshold": np.zeros(shape, np.float32),
      "left": stay, "right": stay.copy(), "path": np.zeros(shape)}
  deepest = 0
  for i, (left, right, feature, threshold, rows) in enumerate(trees):
    n, inner = len(left), np.asarray(left) != _LEAF
    depth = _depths(left, right)
    forest["left"][i, :n] = np.where(inner, left, own[:n])
    forest["right"][i, :n] = np.where(inner, right, own[:n])
    forest["feature"][i, :n] = np.where(inner, feature, 0)
    forest["threshold"][i, :n] = np.where(inner, _not_above(threshold), 0)
    forest["path"][i, :n] = depth + average_path(rows)
    deepest = max(deepest, int(depth.max()))
  return {**forest, "depth": np.int32(deepest), "norm": np.float64(average_path(samples))}


def check_options(options) -> None:
  """`check_size` of config.method.forest, before images are counted."""
  check_size(options.trees, min(options.samples, _USUAL))


def check_size(trees: int, samples: int) -> None:
  """Says before anything is computed what many trees cost; a lower bound while the images are not counted.

  Raises:
    UserError: they do not fit into the memory of this machine.
  """
  size = trees * (2 * samples - 1) * _NODE_BYTES
  installed = memory.installed()
  told = f"config.method.forest.trees={trees}: trees of {samples} images take {size / 1e9:.3g} GB"
  if size > installed:
    raise UserError(f"{told}, this machine has {installed / 1e9:.3g} GB: scores hardly change beyond some "
                    "hundreds")
  if trees > _MANY:
    logging.warning("%s and about %.0f minutes to grow, and every image walks down all of them: scores "
                    "hardly change beyond some hundreds", told, trees * _TREE_SECONDS / 60)


def unfitted(trees: int = 100) -> dict:
  """A forest that nothing was fitted to: every score of it is NaN."""
  none = (np.array([_LEAF]), np.array([_LEAF]), np.array([0]), np.array([0.0]), np.array([1]))
  forest = from_trees([none] * trees, 2)
  return {**forest, "path": np.full_like(forest["path"], np.nan)}


def score(forest: Mapping, rows) -> jax.Array:
  """Anomaly score of every row, [N] in (0, 1); NaN for rows that are not finite.

  A walk down all trees at once: `depth` rounds of gathers.

  Args:
    forest: as above. rows: [N,D]; compared in float32, as scikit-learn does.

  Returns:
    In the type of `path`: in float64 scikit-learn's scores to 1e-12, in float32 to 1e-6.
  """
  forest, rows = jax.tree.map(jnp.asarray, dict(forest)), jnp.asarray(rows, jnp.float32)
  trees = jnp.arange(forest["path"].shape[0])[None]

  def step(_, node):
    feature, threshold = forest["feature"][trees, node], forest["threshold"][trees, node]
    goes_left = jnp.take_along_axis(rows, feature, axis=1) <= threshold
    return jnp.where(goes_left, forest["left"][trees, node], forest["right"][trees, node])

  start = jnp.zeros((rows.shape[0], trees.shape[1]), jnp.int32)
  leaf = jax.lax.fori_loop(0, forest["depth"], step, start)
  found = 2.0 ** -(forest["path"][trees, leaf].mean(1) / forest["norm"])
  return jnp.where(jnp.isfinite(rows).all(1), found, jnp.nan)


# ------------------------------------------------------------------------------------------ pieces
def _depths(left, right) -> np.ndarray:
  """Edges from the root to every node, int64 [nodes]."""
  depth, level, edges = np.zeros(len(left), np.int64), np.array([0]), 0
  while level.size:
    depth[level] = edges
    inner = level[np.asarray(left)[level] != _LEAF]
    level = np.concatenate([np.asarray(left)[inner], np.asarray(right)[inner]])
    edges += 1
  return depth


def _not_above(threshold) -> np.ndarray:
  """The largest float32 that is not above each float64 threshold."""
  threshold = np.asarray(threshold, np.float64)
  near = threshold.astype(np.float32)
  return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
