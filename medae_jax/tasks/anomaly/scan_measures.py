"""Measures that need a scan whole, map and mask together: AUPRO, boxes, surfaces, lesions (measures.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from medae_jax.metrics import bootstrap, components, detection, lesions, localisation, regions, surface

NAMES = ("aupro", "boxes", "surface", "lesions")
_BYTES = 256 * 2**20  # of per-patient histograms: beyond it AUPRO has no interval


def measure(evaluator, asked, numbers: dict[str, Any], intervals: dict[str, Any], notes: dict[str, str]):
  """Adds what is asked for to `numbers` and `intervals`, or the reason why not to `notes`."""
  if evaluator.store is None or evaluator.overlap is None:
    why = notes.get("pixel_ap", "the split has no masks")
    notes.update(dict.fromkeys(asked, why))
    return
  if "aupro" in asked:
    _aupro(evaluator, numbers, intervals, notes)
  cut = (evaluator.calibration or {}).get("threshold")
  rest = [m for m in asked if m != "aupro"]
  if rest and cut is None:
    notes.update(dict.fromkeys(rest, "no validation split has set a threshold"))
    return
  if "boxes" in asked:
    _boxes(evaluator, cut, numbers, intervals)
  if "surface" in asked:
    _surfaces(evaluator, cut, numbers, intervals, notes)
  if "lesions" in asked:
    _lesions(evaluator, cut, numbers, intervals)


def scans(evaluator) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
  """(patient's number, rows, map, mask) of every volume [Z,H,W], of images that stand alone [H,W]."""
  for p, volumes in enumerate(evaluator.volumes()):
    for rows in volumes:
      maps, mask = evaluator.store.get(rows)
      single = len(rows) == 1 and "slice" not in evaluator.metas[rows[0]]
      yield p, rows, (maps[0] if single else maps), (mask[0] if single else mask)


def _aupro(evaluator, numbers, intervals, notes):
  groups = len(evaluator.patients)
  exact = groups * 2 * detection.CODES * 8 <= _BYTES
  counts = np.zeros((groups if exact else 1, 2, detection.CODES))
  for p, _, maps, mask in scans(evaluator):
    counts[p if exact else 0] += regions.counts(maps, mask)
  numbers["aupro"] = float(regions.aupro(counts.sum(0)))
  resamples = int(evaluator.config.eval.bootstrap)
  if not exact:
    notes["aupro interval"] = f"{groups} patients are too many for it"
  elif groups > 1 and resamples:
    weights = bootstrap.resample_weights(groups, resamples, evaluator.config.seed)
    found = bootstrap.resample_counts(counts, weights, {"aupro": regions.aupro})
    intervals["aupro"] = bootstrap.interval(found["aupro"])


def _predicted(evaluator, maps, cut):
  return components.remove_small_components(maps > np.float32(cut), evaluator.config.eval.components)


def _boxes(evaluator, cut, numbers, intervals):
  hit: dict[int, bool] = {}
  best: dict[int, np.ndarray] = {}
  for _, rows, maps, mask in scans(evaluator):
    found = _predicted(evaluator, maps, cut)
    for row, *planes in zip(rows, *(a.reshape(-1, *a.shape[-2:]) for a in (maps, mask, found))):
      if planes[1].any():
        hit[int(row)] = localisation.hits(planes[0], planes[1])
        best[int(row)] = localisation.best_ious(planes[2], planes[1])
  rows = np.array(list(hit))
  each = {"pointing_game": np.array(list(hit.values()), float),
          "box_iou": np.array([v.mean() for v in best.values()]),
          "box_recall_50": np.array([(v >= 0.5).mean() for v in best.values()])}
  for name, values in each.items():
    numbers[name], intervals[name] = float(values.mean()), interval(evaluator, values, evaluator.group[rows])


def _surfaces(evaluator, cut, numbers, intervals, notes):
  spacing = [tuple(m.get("voxel_mm", ())) for m in evaluator.metas]
  unit = "mm" if all(spacing) else "px"
  tolerance = float(evaluator.config.eval.surface_tolerance)
  far, near, patients, lost = [], [], [], 0
  for p, rows, maps, mask in scans(evaluator):
    if not mask.any():
      continue
    step = spacing[rows[0]][-mask.ndim:] if unit == "mm" else (1.0,) * mask.ndim
    apart = surface.distances(_predicted(evaluator, maps, cut), mask, step)
    lost += apart is None
    far.append(np.nan if apart is None else surface.hd95(apart))
    near.append(0.0 if apart is None else surface.surface_dice(apart, tolerance))
    patients.append(p)
  far, near, patients = np.array(far), np.array(near), np.array(patients)
  there = np.isfinite(far)
  numbers["surface_dice"] = float(near.mean())
  intervals["surface_dice"] = interval(evaluator, near, patients)
  numbers[f"hd95_{unit}"] = float(far[there].mean()) if there.any() else np.nan
  if there.any():
    intervals[f"hd95_{unit}"] = interval(evaluator, far[there], patients[there])
  if lost:
    notes[f"hd95_{unit} of {lost} scans with lesions"] = "nothing lies above the threshold there"
  if unit == "px":
    notes["hd95_mm"] = "the data set does not say how many mm a pixel is"


def _lesions(evaluator, cut, numbers, intervals):
  found, patients = [], []
  for p, _, maps, mask in scans(evaluator):
    found.append(lesions.match(maps, _predicted(evaluator, maps, cut), mask))
    patients.append(p)
  numbers.update(lesions.froc(found))
  groups, resamples = len(evaluator.patients), int(evaluator.config.eval.bootstrap)
  if groups < 2 or not resamples:
    return
  sums = lambda values: np.bincount(patients, np.asarray(values, float), groups)
  hit, all_, false = (sums(v) for v in ([np.isfinite(f.lesions).sum() for f in found],
                                        [len(f.lesions) for f in found], [len(f.false) for f in found]))
  weights = bootstrap.resample_weights(groups, resamples, evaluator.config.seed)
  with np.errstate(invalid="ignore", divide="ignore"):
    drawn = {"lesion_sensitivity": (weights @ hit) / (weights @ all_),
             "false_positives_per_scan": (weights @ false) / (weights @ sums(np.ones(len(found)))),
             "lesion_precision": (weights @ hit) / (weights @ (hit + false))}
  intervals.update({k: bootstrap.interval(v) for k, v in drawn.items()})


def interval(evaluator, values, patients):
  """Bootstrap interval of the mean of `values` [k], over the patients [k] they belong to."""
  _, group = np.unique(patients, return_inverse=True)
  groups, resamples = int(group.max()) + 1, int(evaluator.config.eval.bootstrap)
  if groups < 2 or not resamples:
    return None
  weights = bootstrap.resample_weights(groups, resamples, evaluator.config.seed)
  return bootstrap.interval((weights @ np.bincount(group, values)) / (weights @ np.bincount(group)))
