"""How well a score of whole images ranks abnormal above normal ones, with intervals over patients."""

from __future__ import annotations

from typing import Any

import numpy as np

from medae_jax.metrics import bootstrap, detection

MEASURES = {"image_auroc": detection.auroc, "image_ap": detection.average_precision}


def of_images(score: np.ndarray, label: np.ndarray, group: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
  """{"image_auroc", "image_ap", "ci95": {"image_auroc": [low, high], ...}} of a score [n] of any images.

  Args:
    label: [n], 0 or 1, both there. group: [n], column of `weights` of each image's patient.
    weights: [resamples, patients] of bootstrap.resample_weights; no resamples: "ci95" is {}.
  """
  counts = detection.sorted_counts(score, label)
  drawn = bootstrap.resample_scores(score, label, group, weights, MEASURES) if len(weights) else {}
  return {**{k: float(measure(counts)) for k, measure in MEASURES.items()},
          "ci95": {k: bootstrap.interval(v) for k, v in drawn.items()}}
