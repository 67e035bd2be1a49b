"""What the page of a run draws of an anomaly evaluation, and the operating point of the image threshold."""

from __future__ import annotations

from typing import Any

import numpy as np

from medae_jax.metrics import conformal, curves as _curves
from medae_jax.tasks.anomaly import whole_scans

_KEPT = 2000  # p-values of a split in the file, evenly out of the sorted ones where there are more


def operating_point(evaluator) -> dict[str, float]:
  """Sensitivity and specificity of the image score at the threshold that val has chosen.

  Returns:
    Shares; only those whose class the split has; {} without a threshold.
  """
  cut = (evaluator.calibration or {}).get("image_threshold")
  if cut is None:
    return {}
  score, label = evaluator.image_scores["model"], evaluator.label
  found = {}
  if (label == 1).any():
    found["image_sensitivity"] = float((score[label == 1] > cut).mean())
  if (label == 0).any():
    found["image_specificity"] = float((score[label == 0] <= cut).mean())
  return found


def resampled_points(evaluator, weights: np.ndarray) -> dict[str, tuple[np.ndarray, int]]:
  """`operating_point` of every resample of patients, float64 [resamples], and how many patients it is of."""
  cut = (evaluator.calibration or {}).get("image_threshold")
  if cut is None:
    return {}
  score, label, groups = evaluator.image_scores["model"], evaluator.label, weights.shape[1]
  found = {}
  for name, value, hit in (("image_sensitivity", 1, score > cut), ("image_specificity", 0, score <= cut)):
    of = label == value
    if of.any():
      count = lambda where: weights @ np.bincount(evaluator.group[where], minlength=groups)
      with np.errstate(invalid="ignore", divide="ignore"):
        found[name] = count(of & hit) / count(of), len(np.unique(evaluator.group[of]))
  return found


def curves(evaluator) -> dict[str, Any]:
  """evaluation/curves/<split>.json: lists that the page draws, without any images.

  Returns:
    "image", "pixel": curves with their bands (metrics/curves.py), and "prevalence" of positives. "scores":
    histograms of the scores of images and whole scans with their thresholds. "p_values": of the split's whole
    scans against the normal ones of val; absent on val itself, whose scans they come from.
  """
  found: dict[str, Any] = {"unit": "patients" if len(evaluator.patients) < len(evaluator.metas) else "images",
                           "groups": len(evaluator.patients)}
  score, label, config = evaluator.image_scores["model"], evaluator.label, evaluator.config
  draws = {"seed": config.seed, "resamples": min(_curves.RESAMPLES, config.eval.bootstrap)}
  known = label >= 0
  if known.any():
    drawn = _curves.of_scores(score[known], label[known], evaluator.group[known], **draws)
    found["image"] = {**drawn, "prevalence": float(label[known].mean())}
  if evaluator.counts is not None:
    pixels = evaluator.pixels["model"]
    total = evaluator.counts.sum(-1)
    found["pixel"] = {**_curves.with_bands(pixels.grouped(), **draws), "exact": pixels.shift == 0,
                      "prevalence": float(total[1] / total.sum())}
  found["scores"] = _histograms(evaluator)
  if evaluator.split != "val":
    found |= _p_values(evaluator)
  return found


def _histograms(evaluator):
  calibration, scans = evaluator.calibration or {}, evaluator.scans()
  found = {"image": {**_curves.histogram(evaluator.image_scores["model"], evaluator.label),
                     "threshold": calibration.get("image_threshold")}}
  if scans.what == "scan":
    found["scan"] = {**_curves.histogram(scans.score, scans.label),
                     "threshold": calibration.get("scan_threshold")}
  return found


def _p_values(evaluator):
  """p-values of whole scans; nothing where val kept no normal scores of this unit."""
  scans = evaluator.scans()
  normal = whole_scans.normal_scores(evaluator.calibration, scans.what)
  if not len(normal):
    return {}
  values = lambda of: _thin(np.sort([conformal.p_value(normal, s) for s in scans.score[scans.label == of]]))
  return {"p_values": {"unit": scans.what, "calibrated_on": len(normal), "normal": values(0),
                       "abnormal": values(1)}}


def _thin(values):
  if len(values) > _KEPT:
    values = values[np.linspace(0, len(values) - 1, _KEPT).round().astype(int)]
  return np.asarray(values, float).tolist()
