"""95 % bootstrap intervals of the anomaly metrics: whole patients are drawn with replacement.

Slices of one patient are far from independent, so patients are the unit. Model and baseline are
resampled together: the interval of their difference is a paired one.
"""

from __future__ import annotations

import numpy as np

from medae_jax.metrics import bootstrap, detection
from medae_jax.tasks.anomaly import scans


def intervals(evaluator, notes: dict[str, str]) -> dict[str, list[float] | None]:
  """{metric: [low, high]}; "baseline_..." of the intensity threshold, "..._minus_baseline" paired.

  Args:
    evaluator: of anomaly.py, after its metrics are computed.
    notes: gets the reason where there are no intervals.
  """
  groups, resamples = len(evaluator.patients), evaluator.config.eval.bootstrap
  if groups < 2 or not resamples:
    notes["ci95"] = "config.eval.bootstrap=0" if groups > 1 else "fewer than two patients"
    return {}
  weights = bootstrap.resample_weights(groups, resamples, evaluator.config.seed)
  values: dict[str, np.ndarray] = {}
  if evaluator.counts is not None:
    values.update(_pixels(evaluator.pixels, weights))
    for key, name in (("dice_components", "best_components"), ("dice_val_threshold", "val"),
                      ("dice_val_threshold_components", "val_components")):
      if name in evaluator.overlap:
        values[key] = scans.pooled_dice(evaluator.overlap[name], weights)
  if set(evaluator.label[evaluator.label >= 0]) == {0, 1}:
    values.update(_images(evaluator, weights))
  return {k: bootstrap.interval(v) for k, v in values.items()}


def _pixels(pixels, weights):
  found = bootstrap.resample_counts(pixels["model"].grouped(), weights, {
      "pixel_ap": detection.average_precision, "pixel_auroc": detection.auroc,
      "dice_best": lambda c: np.fmax.reduce(detection.dice_curve(c), -1)})
  baselines = {name: bootstrap.resample_counts(pixels[name].grouped(), weights, {
      "ap": detection.average_precision})["ap"] for name in pixels if name != "model"}
  best = max(baselines, key=lambda name: detection.average_precision(pixels[name].counts()))
  found["baseline_pixel_ap"] = baselines["intensity"]
  found["pixel_ap_minus_baseline"] = found["pixel_ap"] - baselines[best]
  return found


def _images(evaluator, weights):
  known = np.flatnonzero(evaluator.label >= 0)
  score, label = evaluator.image_scores["model"][known], evaluator.label[known]
  group = evaluator.group[known]
  _, place = np.unique(score, return_inverse=True)
  bins = place.max() + 1
  found: dict[str, list[float]] = {"image_auroc": [], "image_ap": []}
  for weight in weights:
    counts = np.stack([np.bincount(place[label == y], weight[group[label == y]], bins)
                       for y in (0, 1)])
    found["image_auroc"].append(float(detection.auroc(counts)))
    found["image_ap"].append(float(detection.average_precision(counts)))
  return found
