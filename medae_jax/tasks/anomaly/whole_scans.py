"""Scores of whole scans: what a patient's volume, or a single image, is called by.

The score of a volume is the highest of its slices; a maximum over many slices is larger than the score
of one, so that it needs a threshold of its own, which only whole scans can give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from medae_jax.metrics import conformal, detection, roc

_KEPT = 5000  # normal scores in calibration.json, evenly out of the sorted ones where there are more


@dataclasses.dataclass(frozen=True)
class Scans:
  """Whole scans of a split.

  Attributes:
    score: [m] highest score of each. label: [m] 0 normal, 1 abnormal, -1 not known.
    what: "scan" for volumes, "image" where every image stands alone.
  """

  score: np.ndarray
  label: np.ndarray
  what: str


def of_images(scores: np.ndarray, label: np.ndarray, metas: Sequence[Mapping], group: np.ndarray) -> Scans:
  """Scans out of scored images: slices of one patient belong together, other images stand alone.

  Args:
    scores, label: [n] of the images. metas: n, with "slice" for slices; "scan_label" where the
      label of the whole scan is known beyond its slices. group: [n] number of the patient.
  """
  if not any("slice" in m for m in metas):
    return Scans(np.asarray(scores),
                 np.array([m.get("scan_label", v) for m, v in zip(metas, label)]), "image")
  found, labels = [], []
  for p in range(int(group.max()) + 1 if len(group) else 0):
    rows = np.flatnonzero(group == p).tolist()
    told = {metas[r]["scan_label"] for r in rows if "scan_label" in metas[r]}
    found.append(scores[rows].max())
    labels.append(max(told) if told else 1 if (label[rows] == 1).any() else
                  -1 if (label[rows] < 0).any() else 0)
  return Scans(np.array(found), np.array(labels), "scan")


def calibrate(scans: Scans, alpha: float) -> dict[str, Any]:
  """Entries of calibration.json: scan_threshold, its rule in words, normal scores for p-values.

  With normal and abnormal scans in val the threshold is the best of sensitivity + specificity; with
  normal ones alone it is the conformal one for a share `alpha` of false alarms.
  """
  normal, abnormal = np.sort(scans.score[scans.label == 0]), scans.score[scans.label == 1]
  found: dict[str, Any] = {"scan_unit": scans.what, "scan_alpha": float(alpha), "scan_threshold": None,
                           "scan_scores": _thinned(normal)}
  if normal.size and abnormal.size:
    best, sensitivity, specificity = roc.best_cut(normal, abnormal)
    return {**found, "scan_threshold": best, "scan_threshold_rule":
            f"best sensitivity + specificity on val, {sensitivity:.3f} + {specificity:.3f}, of {scans.what}s"}
  return {**found, "scan_threshold": conformal.threshold(normal, alpha),
          "scan_threshold_rule": conformal.rule(normal.size, alpha, scans.what)}


def normal_scores(calibration: Mapping[str, Any] | None, what: str) -> np.ndarray:
  """float64 [n] of val's normal scans, for p-values; none where the calibration knows none of this unit."""
  found = calibration or {}
  return np.asarray(found.get("scan_scores") or [] if found.get("scan_unit") == what else [], np.float64)


def verdict(calibration: Mapping[str, Any], score: float, what: str) -> dict[str, Any]:
  """Columns of predictions.csv for a scan: {} where the calibration knows nothing of this unit.

  Returns:
    "p_value": share of normal scans that score as high (conformal); "called_abnormal": 0 or 1, and
    "verdict" in words, where there is a threshold.
  """
  if calibration.get("scan_unit") != what:
    return {}
  row: dict[str, Any] = {}
  normal = normal_scores(calibration, what)
  if len(normal):
    row["p_value"] = conformal.p_value(normal, score)
  if calibration.get("scan_threshold") is not None:
    row["called_abnormal"] = int(score > calibration["scan_threshold"])
    row["verdict"] = "abnormal" if row["called_abnormal"] else "normal"
  return row


def metrics(scans: Scans, calibration: Mapping[str, Any] | None) -> dict[str, Any]:
  """scan_auroc; share of abnormal scans found, and of normal ones called abnormal, at val's threshold."""
  normal, abnormal = (scans.score[scans.label == v] for v in (0, 1))
  found: dict[str, Any] = {"n_normal_scans": len(normal), "n_abnormal_scans": len(abnormal)}
  if len(normal) and len(abnormal):
    known = scans.label >= 0
    counts = detection.sorted_counts(scans.score[known], scans.label[known])
    found["scan_auroc"] = float(detection.auroc(counts))
  cut = (calibration or {}).get("scan_threshold")
  if cut is not None:
    if len(abnormal):
      found["scan_sensitivity"] = float((abnormal > cut).mean())
    if len(normal):
      found["scan_false_alarms"] = float((normal > cut).mean())
  return found


def _thinned(normal):
  if len(normal) > _KEPT:
    normal = normal[np.linspace(0, len(normal) - 1, _KEPT).round().astype(int)]
  return normal.tolist()
