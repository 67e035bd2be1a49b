"""95 % bootstrap intervals of the anomaly metrics: whole patients are drawn with replacement.

Slices of one patient are far from independent, so patients are the unit. Model and baseline are
resampled together: the interval of their difference is a paired one.
"""

from __future__ import annotations

import numpy as np

from medae_jax.metrics import bootstrap, detection, ranking
from medae_jax.tasks.anomaly import figures, kept_maps
from medae_jax.tasks.anomaly.baselines import PLAIN


def intervals(evaluator, notes: dict[str, str]) -> dict[str, list[float] | None]:
  """{metric: [low, high]}; "baseline_..." of the intensity threshold, "..._minus_baseline" paired.

  Args:
    evaluator: after its metrics are computed.
    notes: gets the reason where there are no intervals.
  """
  groups, resamples = len(evaluator.patients), evaluator.config.eval.bootstrap
  if groups < 2 or not resamples:
    notes["ci95"] = "config.eval.bootstrap=0" if groups > 1 else "fewer than two patients"
    return {}
  weights = bootstrap.resample_weights(groups, resamples, evaluator.config.seed)
  values: dict[str, np.ndarray] = {}
  if evaluator.counts is not None:
    values.update(_pixels(evaluator.pixels, weights, evaluator.dice_grid))
    for key, name in (("dice_components", "best_components"), ("dice_val_threshold", "val"),
                      ("dice_val_threshold_components", "val_components")):
      if name in evaluator.overlap:
        values[key] = kept_maps.pooled_dice(evaluator.overlap[name], weights)
  if set(evaluator.label[evaluator.label >= 0]) == {0, 1}:
    values.update(_images(evaluator, weights))
  found = {k: bootstrap.interval(v) for k, v in values.items()}
  points = figures.resampled_points(evaluator, weights)
  return found | {k: bootstrap.of_share(*points[k]) for k in points}


def of_images(evaluator, score: np.ndarray) -> dict:
  """{"image_auroc", "image_ap", "ci95": {"image_auroc": [low, high], ...}} of any score [n] of the images.

  The split has normal and abnormal images; ci95 is {} with fewer than two patients or eval.bootstrap=0.
  """
  known = evaluator.label >= 0
  groups, resamples = len(evaluator.patients), int(evaluator.config.eval.bootstrap)
  weights = bootstrap.resample_weights(groups, resamples if groups > 1 else 0, evaluator.config.seed)
  return ranking.of_images(score[known], evaluator.label[known], evaluator.group[known], weights)


def area(evaluator, score: np.ndarray) -> float:
  """Image AUROC of a score [n]; the split has normal and abnormal images."""
  known = evaluator.label >= 0
  return float(detection.auroc(detection.sorted_counts(score[known], evaluator.label[known])))


def verdict(ci95, key: str) -> bool | None:
  """Whether the model is better than the better baseline: by the paired interval of the difference; None
  where it contains 0, or there is none."""
  low, high = ci95.get(f"{key}_minus_baseline") or (0, 0)
  return True if low > 0 else False if high < 0 else None


def _pixels(pixels, weights, grid):
  """grid: thresholds that dice_best is the best of, as for the value itself."""
  grouped = pixels["model"].grouped()
  places = _places(np.flatnonzero(grouped.any((0, 1))), grid, pixels["model"].shift)
  found = bootstrap.resample_counts(grouped, weights, {
      "pixel_ap": detection.average_precision, "pixel_auroc": detection.auroc,
      "dice_best": lambda c: _best_dice(c, places)})
  baselines = {name: bootstrap.resample_counts(pixels[name].grouped(), weights, {
      "ap": detection.average_precision})["ap"] for name in pixels if name != "model"}
  best = max(baselines, key=lambda name: detection.average_precision(pixels[name].counts()))
  found["baseline_pixel_ap"] = baselines[PLAIN]
  found["pixel_ap_minus_baseline"] = found["pixel_ap"] - baselines[best]
  return found


def _places(used, grid, shift):
  """Of the bins that occur, the last at or below each threshold; -1 = every score is above it."""
  if grid == "all":
    return np.arange(-1, len(used))
  codes = detection.code_of(np.arange(1000) / 1000) >> shift
  return np.unique(np.searchsorted(used, codes, side="right") - 1)


def _best_dice(counts, places):
  """[...] best Dice of counts [...,2,bins] over thresholds at the given bins."""
  counts = np.asarray(counts, np.float64)
  positive, total = counts[..., 1, :].sum(-1), counts.sum((-2, -1))
  with np.errstate(invalid="ignore", divide="ignore"):
    all_called = 2 * positive / (total + positive)
  curve = np.concatenate([detection.dice_curve(counts), all_called[..., None]], -1)
  return np.fmax.reduce(curve[..., places], -1)


def _images(evaluator, weights):
  known = np.flatnonzero(evaluator.label >= 0)
  score, label = evaluator.image_scores["model"][known], evaluator.label[known]
  group = evaluator.group[known]
  others = [evaluator.image_scores[name][known] for name in evaluator.image_scores if name != "model"]
  best = max(others, key=lambda s: detection.auroc(detection.sorted_counts(s, label)))
  found = bootstrap.resample_scores(score, label, group, weights, ranking.MEASURES)
  baseline = bootstrap.resample_scores(best, label, group, weights, {"auroc": detection.auroc})
  return {**found, "image_auroc_minus_baseline": found["image_auroc"] - baseline["auroc"]}
