"""Rows of evaluation/<split>.csv (patients) and <split>_images.csv of the anomaly evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np

from medae_jax.metrics import detection
from medae_jax.tasks.anomaly import kept_maps


def patients(evaluator) -> list[dict[str, Any]]:
  """One row a patient, after the evaluator's `result`."""
  table = []
  exact = evaluator.counts is not None and evaluator.pixels["model"].shift == 0
  grouped = evaluator.pixels["model"].grouped() if exact else None
  dice = {k: kept_maps.patient_dice(v) for k, v in (evaluator.overlap or {}).items()}
  for p, name in enumerate(evaluator.patients):
    rows = np.flatnonzero(evaluator.group == p)
    row = {"patient": name, "images": len(rows),
           "abnormal_images": int((evaluator.label[rows] == 1).sum())}
    if evaluator.overlap is not None:
      row["lesion_pixels"] = int(evaluator.lesion_px[rows].sum())
      row["pixel_ap"] = float(detection.average_precision(grouped[p])) if exact else None
      for key, column in (("val", "dice_val_threshold"), ("val_components",
                          "dice_val_threshold_components"), ("best", "dice_at_best_threshold")):
        if key in dice:
          row[column] = float(dice[key][p])
    row["score_max"] = float(evaluator.image_scores["model"][rows].max())
    row["score_mean"] = float(evaluator.image_scores["model"][rows].mean())
    table.append(row)
  return table


def images(evaluator) -> list[dict[str, Any]]:
  """One row an image."""
  cut = (evaluator.calibration or {}).get("image_threshold")
  table = []
  for i, meta in enumerate(evaluator.metas):
    row = {"id": meta.get("id", i), "patient": evaluator.patients[evaluator.group[i]]}
    row.update({k: meta[k] for k in ("slice", "kind", "finding", "path") if k in meta})
    row["label"] = int(evaluator.label[i]) if evaluator.label[i] >= 0 else None
    row["lesion_pixels"] = int(evaluator.lesion_px[i]) if evaluator.lesion_px[i] >= 0 else None
    row["score"] = float(evaluator.image_scores["model"][i])
    row.update(evaluator.numbers.row(i))
    row["called_abnormal"] = None if cut is None else int(row["score"] > cut)
    table.append(row)
  return table
