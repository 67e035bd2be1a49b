"""What stands beside a picture of the anomaly task: facts, the verdict on the image, the patient's sides."""

from __future__ import annotations

import numpy as np

from data_pipelines.intake.geometry import OPPOSITE
from medae_jax.reporting.panels import marked_below
from medae_jax.tasks.anomaly import kept_maps

_DRAWN = 0.5


def confusion(score, label, cut) -> str:
  """"found", "missed", "false alarm", "rightly normal"; without a label what it is called; "" without cut."""
  if cut is None:
    return ""
  called = score > cut
  if label < 0:
    return "called abnormal" if called else "called normal"
  return ("found" if called else "missed") if label else ("false alarm" if called else "rightly normal")


def of_prediction(row) -> str:
  """What predict says of an image, above its picture; `row` of predictions.csv."""
  facts = [f"score {row['score']:.3g}"]
  if row.get("called_abnormal") is not None:
    facts.append(f"called {'abnormal' if row['called_abnormal'] else 'normal'}")
  return ", ".join(facts) + ("; outline: above the threshold" if row.get("mask_pixels") else "")


def sides(evaluator) -> list[str]:
  """[letter at the left edge, at the right edge] of slices as they are shown; [] where that is not known."""
  axes = evaluator.config.data.get("orientation", "")
  if evaluator.dataset.synthetic or "slice" not in evaluator.metas[0] or axes[:1] not in ("L", "R"):
    return []
  return [OPPOSITE[axes[0]], axes[0]]


def confusion_of(evaluator, case) -> str:
  """Verdict on an image in words, at the image threshold.

  Whether an image is called abnormal and what the mask marks in it go by two thresholds: a lesion that the
  mask draws well (Dice of the image _DRAWN or more) is not "missed"; its slice scores below the image
  threshold, a score that is by default the mean of the whole map, to which a small lesion adds little.

  Args:
    case: of `evaluator.show`: "row", and "map", "mask" where there are any.
  """
  found, row = evaluator.calibration or {}, case["row"]
  said = confusion(evaluator.image_scores["model"][row], evaluator.label[row], found.get("image_threshold"))
  if said != "missed" or case.get("mask") is None or "map" not in case or found.get("threshold") is None:
    return said
  marked, truth = case["map"][..., 0] > np.float32(found["threshold"]), case["mask"][..., 0] > 0
  well = truth.any() and 2 * (marked & truth).sum() >= _DRAWN * (marked.sum() + truth.sum())
  return marked_below("slice" if "slice" in evaluator.metas[row] else "image") if well else said


def describe(evaluator, row: int) -> list[str]:
  """What there is to say of an image: its place in the scan, its lesion, its score, its patient's Dice.

  The Dice of the patient stands beside images with a lesion alone.
  """
  meta, facts = evaluator.metas[row], []
  if "slice" in meta:
    facts.append(f"slice {int(meta['slice']) + 1}")  # as viewers count, from 1; in tables from 0
  elif meta.get("id") is not None and str(meta["id"]) != str(evaluator.patients[evaluator.group[row]]):
    facts.append(str(meta["id"]))
  if evaluator.lesion_px[row] > 0:
    facts.append(f"lesion {evaluator.lesion_px[row]} px")
  elif evaluator.label[row] >= 0:
    marked = "slice" in meta and (evaluator.lesion_px > 0).any()  # else nobody looked for lesions in a slice
    facts.append("abnormal" if evaluator.label[row] else "no lesion" if marked else "taken for normal"
                 if "slice" in meta else "normal")
  facts.append(f"image score {evaluator.image_scores['model'][row]:.3g}")
  overlap = evaluator.overlap
  if overlap is not None and "val" in overlap and evaluator.lesion_px[row] > 0:
    facts.append(f"Dice of the patient {kept_maps.patient_dice(overlap['val'])[evaluator.group[row]]:.2f}")
  return facts
