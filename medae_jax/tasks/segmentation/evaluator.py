"""Segmentation: Dice and Jaccard per image at native size, and the quality of noisy annotations.

The logits are resized to the size of the file (bilinear) and then cut, against the mask as it is on
disk. Per image, 1 where mask and prediction are both empty and 0 where one of them is; means over
images, never over batches, with bootstrap intervals over groups of images (near-duplicates stay
together):
  dice, jaccard              at probability 0.5
  dice_val_threshold, ...    at the threshold with the best mean Dice on val (calibration.json)
  dice_best                  at the best threshold of *this* split: an upper bound, not a result
  dice_pooled, sensitivity, specificity   at 0.5, of the pixels of all images together
Split "clean": the expert masks that training has seen, to show overfitting; never a result.
Split "noisy": the same against the expert mask where there is one, else the noisy mask; and
annotation_quality.py: noisy_quality.csv, the annotations ranked by what training learnt of
them.
"""

from __future__ import annotations

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.metrics import bootstrap
from medae_jax.reporting import panels
from medae_jax.tasks.base import BaseEvaluator
from medae_jax.tasks.segmentation import annotation_quality, measures
from medae_jax.tasks.segmentation.resize import resize_logits

THRESHOLDS = np.arange(1, 100) / 100
HALF = 49  # place of 0.5 among them
_SHOWN = 8
HEADS = ("image", "probability")


def overlap(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """int64 [99, 2]: pixels found, and found inside the mask, at every threshold.

  Args:
    logits: float [H,W]; mask: bool [H,W]. A pixel is found where sigmoid(logit) > threshold.
  """
  cuts = np.log(THRESHOLDS / (1 - THRESHOLDS)).astype(np.float32)
  passed = np.searchsorted(cuts, logits.ravel(), side="left")  # thresholds below the pixel
  counts = [np.bincount(passed[where], minlength=len(cuts) + 1) for where in
            (slice(None), mask.ravel())]
  return np.stack([c[::-1].cumsum()[::-1][1:] for c in counts], -1)


def dice_of(found, both, truth):
  """2 both / (found + truth), 1 where both are empty."""
  total = found + truth
  return np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)


def jaccard_of(found, both, truth):
  """both / (found + truth - both), 1 where both are empty."""
  union = found + truth - both
  return np.where(union > 0, both / np.maximum(union, 1), 1.0)


class Evaluator(BaseEvaluator):
  """See the module's docstring."""

  def __init__(self, config, dataset, split, calibration):
    super().__init__(config, dataset, split, calibration)
    n = len(self.source)
    self.found = np.zeros((n, len(THRESHOLDS)), np.int64)
    self.both = np.zeros_like(self.found)
    self.truth, self.pixels = np.zeros(n, np.int64), np.zeros(n, np.int64)
    self.metas = [self.source.meta(i) for i in range(n)]
    self.expert = np.zeros(n, bool)
    self.quality = annotation_quality.Quality(self) if split == "noisy" else None
    self._chosen, self._cells = np.zeros(0, np.int64), []
    self._measures = measures.Measures(config.eval.get("measures", ()), n,
                                       config.eval.get("surface_tolerance", 2.0))

  # ------------------------------------------------------------------------------ one batch
  def update(self, batch, outputs):
    for b in np.flatnonzero(batch["valid"]):
      i = int(batch["position"][b])
      native = self.source.native(i)
      self.expert[i] = native["truth"] is not None
      mask = native["truth"] if self.expert[i] else native["mask"]
      logits = np.asarray(outputs["logit"][b, ..., 0], np.float32)
      if not np.isfinite(logits).all():
        raise UserError(f"the prediction of {self.metas[i]['id']} is not finite: "
                         "the model is broken")
      full = resize_logits(logits, mask.shape)
      self.found[i], self.both[i] = overlap(full, mask).T
      self.truth[i], self.pixels[i] = mask.sum(), mask.size
      self._measures.add(i, full, mask)
      if self.quality is not None:
        self.quality.add(i, native, full > 0, {k: v[b] for k, v in outputs.items()})

  # ------------------------------------------------------------------------------ numbers
  def _per_image(self, of, k):
    return of(self.found[:, k], self.both[:, k], self.truth)

  def _best(self) -> int:
    """Threshold with the best mean Dice; the one nearest to 0.5 among equals."""
    curve = np.array([self._per_image(dice_of, k).mean() for k in range(len(THRESHOLDS))])
    best = np.flatnonzero(curve >= curve.max() - 1e-12)
    return int(best[np.argmin(np.abs(best - HALF))])

  def _val_place(self) -> int | None:
    threshold = (self.calibration or {}).get("threshold")
    return None if threshold is None else int(np.argmin(np.abs(THRESHOLDS - threshold)))

  def calibrate(self):
    return {"threshold": float(THRESHOLDS[self._best()]),
            "threshold_rule": "probability with the best mean Dice on val"}

  def result(self):
    best, val = self._best(), self._val_place()
    columns = {"dice": self._per_image(dice_of, HALF), "jaccard": self._per_image(jaccard_of, HALF)}
    if val is not None:
      columns["dice_val_threshold"] = self._per_image(dice_of, val)
      columns["jaccard_val_threshold"] = self._per_image(jaccard_of, val)
    numbers, more = self._measures.result()
    columns |= {k: v for k, v in more.items() if np.isfinite(v).any()}
    found, both = self.found[:, HALF].sum(), self.both[:, HALF].sum()
    truth, pixels = self.truth.sum(), self.pixels.sum()
    ratio = lambda a, b: float(a / b) if b else float("nan")
    result = {name: float(np.nanmean(v)) for name, v in columns.items()} | numbers | {
        "val_threshold": None if val is None else float(THRESHOLDS[val]),
        "dice_best": float(self._per_image(dice_of, best).mean()),
        "dice_best_threshold": float(THRESHOLDS[best]),
        "dice_pooled": ratio(2 * both, found + truth), "sensitivity": ratio(both, truth),
        "specificity": ratio(pixels - truth - found + both, pixels - truth),
        "ci95": self._intervals(columns), "n_empty_masks": int((self.truth == 0).sum()),
        "against": self._against()}
    if self.quality is not None:
      result["annotation_quality"] = self.quality.result()
    return result

  def _against(self) -> str:
    if self.split == "clean":
      return "expert masks trained on"
    return "expert masks" if self.expert.all() else "the noisy masks themselves"

  def _intervals(self, columns):
    """95 % percentile intervals of the means of what is no NaN, over resampled groups of images."""
    groups, member = np.unique([m["group"] for m in self.metas], return_inverse=True)
    weights = bootstrap.resample_weights(len(groups), int(self.config.eval.bootstrap))
    sums = lambda v: np.bincount(member, v, len(groups))
    with np.errstate(invalid="ignore"):
      return {name: bootstrap.interval((weights @ sums(np.nan_to_num(v))) / (weights @ sums(np.isfinite(v))))
              for name, v in columns.items()}

  def rows(self):
    val = self._val_place()
    table = {"dice": self._per_image(dice_of, HALF), "jaccard": self._per_image(jaccard_of, HALF)}
    if val is not None:
      table["dice_val_threshold"] = self._per_image(dice_of, val)
    return [{**{k: m[k] for k in ("id", "group", "path") if m.get(k)},
             "mask_pixels": int(self.truth[i]), "found_pixels": int(self.found[i, HALF]),
             **{k: float(v[i]) for k, v in table.items()}} for i, m in enumerate(self.metas)]

  def tables(self):
    return {} if self.quality is None else {"quality": self.quality.rows()}

  # ------------------------------------------------------------------------------ pictures
  def choose(self):
    if self.quality is not None:
      self._chosen = self.quality.choose(int(self.config.eval.overlays))
    else:  # from the worst to the best Dice
      order = np.argsort(self._per_image(dice_of, HALF), kind="stable")
      places = np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).astype(int)
      self._chosen = order[places]
    return self._chosen

  def show(self, batch, outputs, pictures):
    for b in np.flatnonzero(batch["valid"]):
      i = int(self._chosen[batch["position"][b]])
      self._cells.append((i, {k: np.asarray(v[b]) for k, v in outputs.items()}))

  def panels(self):
    if not self._cells:
      return {}
    warning = ("SYNTHETIC DATA: computer-generated images, not patients"
               if self.dataset.synthetic else "")
    if self.quality is not None:
      return self.quality.panels(self._cells, warning)
    drawn = self._drawn()
    cells, captions = zip(*((c, f"{self.metas[i]['id']}: Dice {d:.2f}") for i, c, d in drawn))
    part = f"{self.split} (training images)" if self.split == "clean" else self.split
    title = f"{self.dataset.name}, {part}: from the worst to the best Dice"
    return {"panel": panels.grid(cells, self._heads(), captions, title, warning)}

  def _heads(self):
    return (*HEADS, f"found (red), {panels.truth_name(self.dataset.synthetic)} (blue)")

  def _drawn(self):
    """(position, pictures under `_heads`, Dice) of the images shown."""
    dice = self._per_image(dice_of, HALF)
    for i, outputs in self._cells:
      native = self.source.native(i)
      image, mask = annotation_quality.framed(native["image"]), annotation_quality.framed(native["mask"])
      logits = resize_logits(outputs["logit"][..., 0], mask.shape)
      prob = 1 / (1 + np.exp(-logits))
      yield i, [image, panels.heat(prob, 1.0), annotation_quality.outlines(image, logits > 0, mask)], dice[i]

  def gallery(self):
    if self.quality is not None:
      return self.quality.gallery(self._cells)
    return [{"part": "panel", "title": str(self.metas[i]["id"]), "sides": [],
             "facts": [f"Dice {dice:.2f}", f"mask {self.truth[i]} px, found {self.found[i, HALF]} px"],
             "verdict": "missed" if self.truth[i] and not self.both[i, HALF] else "",
             "cells": [{"head": h, "picture": c} for h, c in zip(self._heads(), cells)]}
            for i, cells, dice in self._drawn()]

  def curves(self):
    dice = self._per_image(dice_of, HALF)
    unit = "groups" if len({m["group"] for m in self.metas}) < len(self.metas) else "images"
    mean = [float(self._per_image(dice_of, k).mean()) for k in range(len(THRESHOLDS))]
    return {"unit": unit, "dots": {"title": "Dice at probability 0.5, a dot an image", "unit": "Dice",
                                   "points": [{"name": str(m["id"]), "value": float(d)}
                                              for m, d in zip(self.metas, dice)]},
            "thresholds": {"x": THRESHOLDS.tolist(), "y": mean,
                           "threshold": (self.calibration or {}).get("threshold")}}
