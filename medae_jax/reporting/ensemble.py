"""Several finished runs as one score: the mean of the best of them, chosen on val; nothing is trained again.

Each run's image scores (evaluation/<split>_images.csv) are standardised by the mean and the standard
deviation of the *normal* images of val. Runs are ordered by their image AUROC on val; the mean of the first
k, k = 1, 2, ... is a candidate, and val's image AUROC chooses k: no more candidates than runs: few images
choose among many by luck. The test split is read once, after that.
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np

from medae_jax.core import files
from medae_jax.core.errors import UserError
from medae_jax.metrics import bootstrap, detection, ranking

RESAMPLES = 1000


def measure(runs: Mapping[str, pathlib.Path], split: str = "test", seed: int = 0) -> dict[str, Any] | None:
  """{"members", "image_auroc", "image_ap", "ci95", "n_images", "val_auroc"}; None with fewer than two runs.

  Args:
    runs: {name: folder of a run evaluated on val and `split`}, all of the same images.
    seed: of the bootstrap over patients.

  Raises:
    UserError: runs of other images; val without normal or without abnormal ones.
  """
  if len(runs) < 2:
    return None
  ids, label, _, val = _scores(runs, "val")
  normal = label == 0
  if normal.sum() < 2 or normal.all():
    raise UserError("config.sweep.ensemble: val needs normal and abnormal images, "
                    f"it has {int(normal.sum())} of {len(ids)} normal")
  centre = {k: (v[normal].mean(), max(v[normal].std(ddof=1), 1e-12)) for k, v in val.items()}
  mean = lambda scores, names: np.mean([(scores[k] - centre[k][0]) / centre[k][1] for k in names], 0)
  area = lambda score: float(detection.auroc(detection.sorted_counts(score, label)))
  order = sorted(val, key=lambda k: -area(val[k]))
  candidates = [order[:k + 1] for k in range(len(order))]
  chosen = max(candidates, key=lambda names: (area(mean(val, names)), -len(names)))
  return {"members": chosen, "val_auroc": area(mean(val, chosen)),
          **_measured(lambda scores: mean(scores, chosen), {k: runs[k] for k in chosen}, split, seed)}


def _measured(mean, runs, split, seed):
  """Numbers of the chosen mean on the split that is reported."""
  _, label, patient, scores = _scores(runs, split)
  names, group = np.unique(patient, return_inverse=True)
  weights = bootstrap.resample_weights(len(names), RESAMPLES, seed)
  return {**ranking.of_images(mean(scores), label, group, weights), "n_images": len(label)}


def _scores(runs, split):
  """(ids, label [n], patient [n], {name: score [n]}) of all runs, in the order of the first."""
  first: dict[str, Any] = {}
  scores = {}
  for name, folder in runs.items():
    path = pathlib.Path(folder) / "evaluation" / f"{split}_images.csv"
    rows = {row["id"]: row for row in files.read_csv(path, "evaluate the run again")}
    first = first or rows
    if set(rows) != set(first) or any(rows[i]["label"] != first[i]["label"] for i in first):
      raise UserError(f"config.sweep.ensemble: the {split} images of {folder} are not those of the other "
                      "runs")
    scores[name] = np.array([float(rows[i]["score"]) for i in first])
  label = np.array([int(row["label"]) for row in first.values()])
  return list(first), label, np.array([row["patient"] for row in first.values()]), scores
