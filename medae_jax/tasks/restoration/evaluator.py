"""Restoration: how well marks are removed, and how well everything else is left alone.

Measured against the clean partner, at native size, in [0,1]:
  the composite (what predict writes): detected marks filled as config.method.score.fill says, the
  input elsewhere; top-level keys; "fill_network", "fill_harmonic": the same detection with the one
  and the other filling; "network": the network's image as it comes;
  "baselines": "nothing" (the input), and fillings that
  are told the true mask, which no user has: "inpaint_harmonic", and with OpenCV installed
  "inpaint_telea" and "inpaint_ns". Definitions: tasks/restoration/measures.py.
On val the threshold of method.score is chosen first: the best F-beta of marked pixels.
"""

from __future__ import annotations

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.metrics import bootstrap
from medae_jax.reporting import panels
from medae_jax.scores import marks
from medae_jax.tasks.base import BaseEvaluator
from medae_jax.tasks.restoration import inpaint, measures

_BINS = 1024
_COMPOSITES = ("fill_network", "fill_harmonic")
_HEADS = ("annotated", "restored", "network alone", "clean", "marks: found, false, missed")


class Fitter:
  """Counts the detector's evidence on and off the marks; `result` is the best threshold."""

  def __init__(self, config, dataset):
    self._config, self._source = config, dataset.split("val")
    self._counts = np.zeros((2, _BINS), np.int64)

  def update(self, batch, outputs):
    # thresholding and then growing is the same as thresholding what has grown
    grown = marks.grow(np.asarray(outputs["map"]), int(self._config.method.score.dilate))[..., 0]
    for b in np.flatnonzero(batch["valid"]):
      height, width = native_size(self._source.meta(int(batch["position"][b])), batch["image"][b])
      place = np.minimum((grown[b, :height, :width] * _BINS).astype(int), _BINS - 1)
      mask = batch["mask"][b, :height, :width, 0] > 0
      for row, where in enumerate((mask, ~mask)):
        self._counts[row] += np.bincount(place[where], minlength=_BINS)

  def _curve(self):
    """F-beta, precision and recall of every threshold k / bins."""
    hits, false = (c[::-1].cumsum()[::-1].astype(float) for c in self._counts)
    beta = float(self._config.eval.threshold_beta) ** 2
    score = (1 + beta) * hits / np.maximum(beta * hits[0] + hits + false, 1)
    return score, hits / np.maximum(hits + false, 1), hits / max(hits[0], 1)

  def result(self):
    """{"threshold": t}; {} where no frame of the split has a mark."""
    if not self._counts[0].any():
      return {}
    # bin 0 would mark every pixel: never a detector
    return {"threshold": float((1 + np.argmax(self._curve()[0][1:])) / _BINS)}

  def summary(self):
    """How well the chosen threshold finds the drawn pixels of val: for calibration.json."""
    best = round(self.result().get("threshold", 0) * _BINS)
    names = (f"f{self._config.eval.threshold_beta:g}", "precision", "recall")
    return {name: float(v[best]) for name, v in zip(names, self._curve())} if best else {}


def fitter(config, dataset):
  """(what `evaluate` runs over a source before anything is measured, val), or None."""
  return (Fitter(config, dataset), dataset.split("val")) if config.eval.fit_threshold else None


def native_size(meta, image) -> tuple[int, int]:
  """(height, width) of a frame inside its padded array."""
  return int(meta.get("height", image.shape[0])), int(meta.get("width", image.shape[1]))


def verdict(ci95) -> bool | None:
  """Whether restored frames are nearer to the clean ones than the frames as they are: PSNR higher and error
  under the marks lower, by paired intervals; False where one of them is worse, None where 0 is inside."""
  psnr = ci95.get("psnr_minus_baseline") or (0, 0)
  error = ci95.get("mae_inside_minus_baseline") or (0, 0)
  if psnr[1] < 0 or error[0] > 0:
    return False
  return True if psnr[0] > 0 and error[1] < 0 else None


def fillings(choice: str) -> dict:
  """{name: function (image [H,W,C], mask bool [H,W]) -> image} of config.eval.inpaint."""
  found = {} if choice == "none" else {"inpaint_harmonic": inpaint.harmonic}
  if choice == "opencv" or (choice == "auto" and inpaint.opencv_available()):
    found["inpaint_telea"] = lambda image, mask: inpaint.opencv(image, mask, "telea")
    found["inpaint_ns"] = lambda image, mask: inpaint.opencv(image, mask, "ns")
  return found


class Evaluator(BaseEvaluator):
  """See the module's docstring."""

  def __init__(self, config, dataset, split, calibration):
    super().__init__(config, dataset, split, calibration)
    n = len(self.source)
    self.metas = [self.source.meta(i) for i in range(n)]
    self.marked = np.zeros(n, bool)
    self.overlap = np.zeros((n, 3), np.int64)  # found and drawn, found, drawn pixels
    self._fillings = fillings(config.eval.inpaint)
    self._fill = config.method.score.fill
    self.numbers: dict[str, list] = {
        name: [None] * n for name in (*_COMPOSITES, "network", "nothing", *self._fillings)}
    self._cells, self._spread = [], 0

  def update(self, batch, outputs):
    level = float(self.config.eval.residual_level)
    for b in np.flatnonzero(batch["valid"]):
      i = int(batch["position"][b])
      height, width = native_size(self.metas[i], batch["image"][b])
      cut = lambda a, b=b, h=height, w=width: np.asarray(a[b, :h, :w], np.float32)
      image, clean, mask = cut(batch["image"]), cut(batch["clean"]), cut(batch["mask"])[..., 0] > 0
      found = cut(outputs["marks"])[..., 0] > 0
      recon = cut(outputs["recon"])
      results = {**{name: inpaint.restored(name.removeprefix("fill_"), image, recon, found)
                    for name in _COMPOSITES},
                 "network": recon, "nothing": image,
                 **{k: f(image, mask) for k, f in self._fillings.items()}}
      for name, result in results.items():
        if not np.isfinite(result).all():
          raise UserError(f"the result for {self.metas[i]['id']} is not finite: the model is broken")
        self.numbers[name][i] = measures.measure(result, clean, image, mask, level)
      self.marked[i] = mask.any()
      self.overlap[i] = (found & mask).sum(), found.sum(), mask.sum()

  # ------------------------------------------------------------------------------------- numbers
  def calibrate(self):
    rule = (f"best F{self.config.eval.threshold_beta:g} of drawn pixels on val"
            if self.config.eval.fit_threshold else "config.method.score.threshold")
    return {"threshold": float(self.config.method.score.threshold), "threshold_rule": rule}

  def result(self):
    summaries = {name: measures.summary(rows, self.marked)
                 for name, rows in self.numbers.items()}
    both, found, drawn = (float(v) for v in self.overlap.sum(0))
    ratio = lambda a, b: a / b if b else float("nan")
    nothing = summaries.pop("nothing")
    composites = {name: summaries.pop(name) for name in _COMPOSITES}
    composite, network = composites[f"fill_{self._fill}"], summaries.pop("network")
    ci95 = self._intervals()
    return {**composite, "marks_precision": ratio(both, found), "marks_recall": ratio(both, drawn),
            "marks_dice": ratio(2 * both, found + drawn), "drawn_share": ratio(
                drawn, sum(r["inside_pixels"] + r["outside_pixels"] for r in self.numbers["nothing"])),
            "n_marked": int(self.marked.sum()),
            "threshold": float(self.config.method.score.threshold), "fill": self._fill,
            **composites, "network": network,
            "baseline": nothing, "baselines": {"nothing": nothing, **summaries},
            "model_better": verdict(ci95), "model_better_by": {
                "metric": "psnr", "difference": composite["psnr"] - nothing["psnr"]},
            "baseline_name": "the frame as it is",
            "ci95": ci95}

  @property
  def _own(self):
    """Numbers of what predict writes, a dict per frame."""
    return self.numbers[f"fill_{self._fill}"]

  def _intervals(self):
    """95 % bootstrap intervals over groups of frames, of the composite; "..._minus_baseline": its paired
    difference from the frames as they are."""
    groups, member = np.unique([m["group"] for m in self.metas], return_inverse=True)
    weights = bootstrap.resample_weights(len(groups), int(self.config.eval.bootstrap))
    draw = lambda rows: [measures.summary(rows, self.marked, w[member]) for w in weights]
    own, before = draw(self._own), draw(self.numbers["nothing"])
    found = {key: bootstrap.interval([d[key] for d in own])
             for key in ("psnr", "ssim", "mae_inside", "removed_share", "mae_outside")}
    return {**found, **{f"{key}_minus_baseline": bootstrap.interval(
        [a[key] - b[key] for a, b in zip(own, before)]) for key in ("psnr", "mae_inside")}}

  def rows(self):
    table = []
    for i, meta in enumerate(self.metas):
      own, before = self._own[i], self.numbers["nothing"][i]
      ratio = lambda key, of, row=own: row[key] / row[of] if row[of] else None
      both, found, drawn = (int(v) for v in self.overlap[i])
      table.append({"id": meta["id"], "group": meta["group"], "drawn_pixels": drawn,
                    "found_pixels": found, "found_and_drawn": both,
                    "psnr": own["psnr"], "psnr_before": before["psnr"], "ssim": own["ssim"],
                    "ssim_before": before["ssim"], "mae_inside": ratio("inside_abs", "inside_pixels"),
                    "mae_outside": ratio("outside_abs", "outside_pixels"),
                    "removed_share": ratio("removed", "inside_pixels"),
                    "untouched_changed": int(own["outside_changed"])})
    return table

  # ------------------------------------------------------------------------------------ pictures
  def choose(self):
    """Marked frames, evenly spread over the split's order of success, best to worst; after them those that
    restoring has made worst."""
    marked = np.flatnonzero(self.marked)
    marked = marked[np.argsort([-self._own[i]["psnr"] for i in marked])]
    count = min(int(self.config.eval.panels), len(marked))
    chosen = marked[np.linspace(0, len(marked) - 1, count).astype(int)] if count else marked[:0]
    self._spread = len(chosen)
    worst = [i for i in sorted(marked, key=self._gain) if self._gain(i) < 0][:count]
    return np.concatenate([chosen, np.array(worst, np.int64)])

  def _gain(self, i) -> float:
    """dB of PSNR that restoring a frame has won; negative = it is further from the clean one than before."""
    return self._own[i]["psnr"] - self.numbers["nothing"][i]["psnr"]

  def show(self, batch, outputs, pictures):
    chosen = self.choose()
    for b in np.flatnonzero(batch["valid"]):
      i = int(chosen[batch["position"][b]])
      own, before = self._own[i], self.numbers["nothing"][i]
      image, recon, clean = batch["image"][b], np.asarray(outputs["recon"][b]), batch["clean"][b]
      found = outputs["marks"][b, ..., 0] > 0
      verdict = panels.verdict_overlay(clean.mean(-1), found, batch["mask"][b, ..., 0] > 0, (0, 1))
      restored = inpaint.restored(self._fill, image, recon, found)
      self._cells.append(
          ([*map(panels.colour, (image, restored, recon, clean)), verdict],
           f"{self.metas[i]['id']}: PSNR {before['psnr']:.1f} -> {own['psnr']:.1f} dB", i))

  def panels(self):
    if not self._cells:
      return {}
    cells, captions, _ = zip(*self._cells[:self._spread])
    warning = "SYNTHETIC DATA" if self.dataset.synthetic else ""
    return {"panel": panels.grid(cells, _HEADS, captions, f"{self.dataset.name}, {self.split}: from the "
                                 "best to the worst marked frame", warning)}

  def gallery(self):
    rows = []
    for k, (cells, _, i) in enumerate(self._cells):
      own, before, gain = self._own[i], self.numbers["nothing"][i], self._gain(i)
      both, found, drawn = (int(v) for v in self.overlap[i])
      rows.append({"part": "panel" if k < self._spread else "worst", "title": str(self.metas[i]["id"]),
                   "facts": [f"PSNR {before['psnr']:.1f} dB before, {own['psnr']:.1f} dB restored",
                             f"{both} of {drawn} drawn pixels found, {found - both} false"],
                   "verdict": "nearer to the clean frame" if gain > 0 else
                   "worse than untouched" if gain < 0 else "unchanged", "sides": [],
                   "cells": [{"head": h, "picture": c} for h, c in zip(_HEADS, cells)]})
    return rows

  def curves(self):
    unit = "groups" if len({m["group"] for m in self.metas}) < len(self.metas) else "frames"
    gains = [{"name": str(self.metas[i]["id"]), "value": self._gain(i)} for i in np.flatnonzero(self.marked)]
    return {"unit": unit, "dots": {"title": "PSNR won by restoring, a dot a marked frame", "unit": "dB",
                                   "zero": "untouched", "points": gains}}
