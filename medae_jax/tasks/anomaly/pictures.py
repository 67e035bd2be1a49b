"""Which images the anomaly panel shows, and how."""

from __future__ import annotations

from typing import Any

import numpy as np

from medae_jax.reporting import panels, rulers
from medae_jax.tasks.anomaly import captions, kept_maps

_CELL = 180  # pixels of a picture's longer side, at least
# Pictures of a method (`Method.pictures`) that explain its reconstruction: {name: column head}.
EXPLAINING = {"prior": "healthy prior", "field": "deformation", "jacobian": "Jacobian determinant"}


def choose(evaluator, n: int) -> np.ndarray:
  """Rows to show: per patient the slice with most lesion, from the best to the worst Dice, and the
  normal images with the highest and the middle score.

  Without masks: abnormal and normal images spread evenly over their scores.
  """
  score, label = evaluator.image_scores["model"], evaluator.label
  normal, abnormal = np.flatnonzero(label != 1), np.flatnonzero(label == 1)
  if not n:
    return np.zeros(0, np.int64)
  if evaluator.overlap is not None:
    abnormal = _largest_lesions(evaluator)
  else:
    abnormal = abnormal[np.argsort(-score[abnormal])]
  normal = normal[np.argsort(-score[normal])]
  quiet = min(len(normal), max(1, n // 4) if len(abnormal) else n)
  return np.concatenate([_spread(abnormal, n - quiet), _spread(normal, quiet, 0.5)])


def _largest_lesions(evaluator):
  """The slice with the largest lesion of every patient, patients by falling Dice."""
  overlap = evaluator.overlap
  dice = kept_maps.patient_dice(overlap.get("val", overlap["best"]))  # NaN comes last: nothing to show
  rows = []
  for p in np.argsort(-dice, kind="stable"):
    own = np.flatnonzero(evaluator.group == p)
    if evaluator.lesion_px[own].max() > 0:
      rows.append(own[np.argmax(evaluator.lesion_px[own])])
  return np.array(rows, np.int64)


def _spread(rows, n, share=1.0):
  """n of the rows, evenly from the first to the one at `share` of the list."""
  if not len(rows) or n < 1:
    return np.zeros(0, np.int64)
  places = np.unique(np.round(np.linspace(0, (len(rows) - 1) * share, n)).astype(int))
  return rows[places]


def rows(evaluator, cases: list[dict[str, Any]], scale: dict[str, Any]) -> list[dict[str, np.ndarray]]:
  """{column head: uint8 [H,W,3]} of every case, on the scales of the calibration."""
  flip = "slice" in evaluator.metas[0]  # slices of volumes: first axis left-right, front up when .T
  threshold, top = scale.get("threshold"), scale.get("map_max") or 1.0
  channel = evaluator.config.eval.baseline_channel
  window = scale["window"][min(channel, len(scale["window"]) - 1)]
  modalities = evaluator.config.data.get("modalities", ())
  name = f", {modalities[channel]}" if channel < len(modalities) else ""
  if not (evaluator.lesion_px > 0).any():  # masks that mark nothing anywhere are nobody's judgement
    cases = [{**case, "mask": None} for case in cases]
  truth = panels.truth_name(evaluator.dataset.synthetic)
  found = [_row(case, channel, name, window, top, threshold, flip, truth) for case in cases]
  for case, row in zip(cases, found):
    first = next(iter(row))
    row[first] = _placed(evaluator, case, row[first])
  return found


def _placed(evaluator, case, picture):
  """A picture of a slice with the patient's sides and a ruler, as far as the data set knows them."""
  side, mm = captions.sides(evaluator), evaluator.metas[case["row"]].get("voxel_mm", ())
  if side:
    picture = rulers.sides(picture, *side)
  if len(mm) == 3 and not evaluator.dataset.synthetic:  # a slice's first axis lies along the rows
    picture = rulers.ruler(picture, mm[1] * case["image"].shape[0] / picture.shape[1])
  return picture


def draw(evaluator, cases: list[dict[str, Any]], scale: dict[str, Any]) -> dict[str, np.ndarray]:
  """{"panel": uint8 [H,W,3]} of the cases."""
  drawn = rows(evaluator, cases, scale)
  names, cells = list(drawn[-1]), [list(row.values()) for row in drawn]
  lines = [_caption(evaluator, case) for case in cases]
  dataset, info = evaluator.dataset, "validation" if evaluator.split == "val" else evaluator.split
  truth = panels.truth_name(dataset.synthetic)
  warning = "SYNTHETIC DATA: computer-generated images, not patients" if dataset.synthetic else ""
  footer = panels.scale_bar(scale.get("map_max") or 1.0, scale.get("threshold"), truth in names,
                            truth=truth) if "anomaly score" in names else None
  return {"panel": panels.grid(cells, names, lines, f"{dataset.name}, {info} split", warning,
                               footer)}


def _row(case, channel, channel_name, window, top, threshold, flip, truth):
  """{column head: picture} of one image."""
  image = case["image"]
  turn = (lambda a: np.swapaxes(a, 0, 1)) if flip else (lambda a: a)
  factor = max(1, -(-_CELL // max(image.shape[:2])))
  big = lambda a: panels.enlarge(turn(a), factor)
  shown = lambda a: panels.grey(big(a[..., min(channel, a.shape[-1] - 1)]), window)
  mask = None if case["mask"] is None else big(case["mask"][..., 0] > 0)
  framed = lambda picture: picture if mask is None else panels.outline(picture, mask)
  # Where the body ends, training puts no demand on the network: its output there means nothing.
  body = np.sum(image, -1, keepdims=True) > 0.01 if flip else np.ones_like(image[..., :1])
  pictures = {f"input{channel_name}": shown(image)}
  if "noised" in case:
    pictures["with training noise"] = shown(case["noised"])
    pictures["that noise removed"] = shown(case["denoised"] * body)
  for explaining, head in EXPLAINING.items():
    if explaining in case:
      pictures[head] = (shown(case[explaining]) if explaining == "prior" else
                        panels.colour(turn(case[explaining]).repeat(factor, 0).repeat(factor, 1)))
  if "recon" in case and case["recon"].shape == image.shape:
    pictures["reconstruction"] = shown(case["recon"] * body)
  if "map" in case:
    anomaly = turn(case["map"][..., 0])
    flat = turn(image[..., channel])
    pictures["anomaly score"] = framed(panels.heat(panels.enlarge(anomaly, factor), top))
    if threshold is not None:
      found = panels.enlarge(anomaly > np.float32(threshold), factor)
      pictures["prediction"] = framed(panels.verdict_overlay(panels.enlarge(flat, factor), found,
                                                             mask, window))
  if mask is not None:
    pictures[truth] = panels.outline(panels.verdict_overlay(
        big(image[..., channel]), np.zeros_like(mask), None, window), mask)
  return pictures


def _caption(evaluator, case):
  row = case["row"]
  said = [str(evaluator.patients[evaluator.group[row]]), *captions.describe(evaluator, row)]
  return ", ".join(filter(None, [*said, captions.confusion_of(evaluator, case)]))
