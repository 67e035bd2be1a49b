"""Anomaly detection: pixel and image metrics, per-patient rows, calibration, the panel.

The model is always shown beside the simplest detector, a threshold on the intensity of one channel
(FLAIR for brains) inside the foreground, also after filters (baselines.py). Keys of the JSON:

  pixel_ap, pixel_auroc   over all pixels of the split, background included, as Kascenas 2022
  dice_best, dice_best_threshold   best of the thresholds k/1000, chosen with the labels of this
                          split: an upper bound, not an operating point
  dice_best_any           best of every float16 threshold: larger where scores are small
  dice_val_threshold, val_threshold   at the threshold chosen on val: the honest figure
  dice_components, dice_val_threshold_components   the same, small 3-D components removed
  dice_patients_mean      mean over patients with lesions of the Dice at val_threshold
  image_auroc, image_ap   of the image scores against "any lesion pixel" (or the label)
  ci95                    95 % percentile bootstrap over patients
  image_sensitivity, image_specificity   at the image threshold that val has chosen
  scan_auroc              of whole scans: the highest score of a scan's slices; scan_sensitivity and
                          scan_false_alarms at val's threshold for scans
  baseline                the same of the intensity threshold; model_better: whether the paired interval
                          of the difference is above 0 (true), below (false), or holds it (null)
  notes                   why a number is null
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.metrics import detection, dictionary
from medae_jax.tasks.anomaly import (
  baselines,
  figures,
  gallery,
  image_numbers,
  intervals,
  kept_maps,
  measures,
  pictures,
  residual_fit,
  score_choice,
  tables,
  thresholds,
  whole_scans,
)
from medae_jax.tasks.anomaly.pictures import EXPLAINING
from medae_jax.tasks.base import BaseEvaluator

before_choice = score_choice.before_choice
_GROUP_BYTES = 80 * 2**20  # per-patient histograms of one detector


def fitter(config, dataset):
  """(what fits config.method.score, the source it is fitted on), or None."""
  if not config.eval.fit_residual:
    choice = score_choice.ScoreChoice(config) if config.eval.get("choose_score", ()) else None
    return choice and (choice, dataset.split("val"))
  source = residual_fit.examples(config, dataset)
  groups = [_patient(source.meta(i), i) for i in range(len(source))]
  return residual_fit.fit_of(config, source, groups), source


class Evaluator(BaseEvaluator):
  """See the module's docstring."""

  on_device = True

  def __init__(self, config, dataset, split, calibration):
    super().__init__(config, dataset, split, calibration)
    n = len(self.source)
    self.metas = [self.source.meta(i) for i in range(n)]
    names = [_patient(m, i) for i, m in enumerate(self.metas)]
    self.patients, group = np.unique(names, return_inverse=True)
    self.group = group.astype(np.int32)
    self.image_scores = {name: np.full(n, np.nan) for name in ("model", *baselines.names(config))}
    self.label = np.full(n, -1)               # -1: not known
    self.lesion_px = np.full(n, -1, np.int64)  # -1: no mask
    self.pixels: dict[str, detection.Histograms] = {}
    self.store, self._sample = None, thresholds.IntensitySample()
    self._cases: list[dict[str, Any]] = []
    self._chosen: dict[str, np.ndarray] = {}
    self.numbers = image_numbers.ImageNumbers(n)
    self._measures = measures.Measures(self)
    self.counts = self.overlap = None
    self._baseline = baselines.maps_and_scores(config)

  # ------------------------------------------------------------------------------ one pass
  def update(self, batch, outputs):
    valid, position = batch["valid"], batch["position"]
    rows, mask = position[valid], batch.get("mask")
    self.image_scores["model"][rows] = np.asarray(outputs["score"])[valid]
    if mask is not None:
      self.lesion_px[rows] = np.sum(mask[valid] > 0, axis=(1, 2, 3))
      self.label[rows] = self.lesion_px[rows] > 0
    if "label" in batch:
      self.label[rows] = batch["label"][valid]
    self.numbers.add(batch, outputs, rows, valid)
    self._sample.add(batch["image"][valid])
    self._measures.update(batch, outputs)
    maps, image = self._baseline(batch["image"])
    for name, value in image.items():
      self.image_scores[name][rows] = np.asarray(value)[valid]
    if "map" in outputs:
      maps["model"] = jax.device_put(outputs["map"], jax.local_devices()[0])
      self._add_pixels(maps, mask, valid, position)

  def _add_pixels(self, maps, mask, valid, position):
    """Counts the maps; without masks only those of images that are not labelled abnormal."""
    if mask is None:
      counted = valid & (self.label[position] != 1)
      mask = np.zeros(maps["model"].shape, bool)
    else:
      counted = valid
      if self.store is None:
        self.store = kept_maps.MapStore(len(self.source), mask.shape[1:3])
      self.store.put(position[valid], np.asarray(maps["model"])[valid, ..., 0],
                      mask[valid, ..., 0] > 0)
    for name, value in maps.items():
      if name not in self.pixels:
        self.pixels[name] = detection.Histograms(len(self.patients), _GROUP_BYTES)
      self.pixels[name].add(value, mask, counted, self.group[position])

  # ----------------------------------------------------------------------------- the numbers
  def calibrate(self):
    counts = self.pixels["model"].counts() if self.pixels else None
    found = thresholds.choose(counts, self.image_scores["model"], self.label, self._sample,
                              self.config.eval)
    scans = self.scans()
    whole = whole_scans.calibrate(scans, self.config.eval.get("alpha", 0.05))
    if scans.what == "image" and whole["scan_threshold"] is not None:  # one image, one threshold
      whole |= {f"image_{k}": whole[f"scan_{k}"] for k in ("threshold", "threshold_rule")}
    return {**found, **whole, **self._measures.calibrate()}

  def scans(self):
    return whole_scans.of_images(self.image_scores["model"], self.label, self.metas, self.group)

  def result(self):
    if not np.isfinite(self.image_scores["model"]).all():
      bad = int((~np.isfinite(self.image_scores["model"])).sum())
      raise UserError(f"{bad} image scores are not finite: the model or its input is broken")
    threshold = (self.calibration or {}).get("threshold")
    notes: dict[str, str] = {}
    result: dict[str, Any] = {"n_patients": len(self.patients),
                              "n_abnormal_images": int((self.label == 1).sum())}
    if (self.lesion_px >= 0).any():  # without any mask nobody knows
      result["n_lesion_pixels"] = int(self.lesion_px.clip(0).sum())
    result.update(self._pixel_metrics(threshold, notes))
    result.update(self._image_metrics(notes))
    result.update(self.numbers.result(self.label))
    result.update(figures.operating_point(self))
    scans = self.scans()
    result.update({"scan_unit": scans.what, **whole_scans.metrics(scans, self.calibration)})
    result["baseline"] = self._baseline_metrics()
    more, more_intervals = self._measures.result(notes)
    result.update(more)
    result["ci95"] = intervals.intervals(self, notes) | more_intervals
    key = "pixel_ap" if np.isfinite(result["pixel_ap"]) else "image_auroc"
    best = max(dictionary.of_baseline(result["baseline"], key).values())
    result["model_better"] = intervals.verdict(result["ci95"], key)
    result["model_better_by"] = {"metric": key, "difference": result[key] - best}
    result["notes"] = notes
    return result

  def _pixel_metrics(self, threshold, notes):
    keys = ("pixel_ap", "pixel_auroc", "dice_best", "dice_best_threshold", "dice_val_threshold",
            "dice_components", "dice_val_threshold_components", "dice_patients_mean")
    keys += ("dice_best_any",)
    found = dict.fromkeys(keys, np.nan) | {"val_threshold": threshold}
    why = self._no_pixels()
    if why:
      notes.update(dict.fromkeys(keys, why))
      return found
    self.counts = counts = self.pixels["model"].counts()
    found["pixel_ap"] = float(detection.average_precision(counts))
    found["pixel_auroc"] = float(detection.auroc(counts))
    found["dice_best"], found["dice_best_threshold"] = detection.best_dice(counts, self.dice_grid)
    found["dice_best_any"] = detection.best_dice(counts, "all")[0]
    cuts = {"best": found["dice_best_threshold"]}
    if threshold is None:
      notes.update({k: "no validation split has set a threshold" for k in keys
                    if "val_threshold" in k or k == "dice_patients_mean"})
    else:
      cuts["val"] = threshold
      found["dice_val_threshold"] = float(detection.dice_at(counts, threshold))
    self.overlap = kept_maps.overlap_counts(self.store, self.volumes(), cuts,
                                            self.config.eval.components)
    found["dice_components"] = float(kept_maps.pooled_dice(self.overlap["best_components"]))
    if threshold is not None:
      found["dice_val_threshold_components"] = float(
          kept_maps.pooled_dice(self.overlap["val_components"]))
      found["dice_patients_mean"] = float(np.nanmean(np.where(
          self.overlap["val"][:, 2] > 0, kept_maps.patient_dice(self.overlap["val"]), np.nan)))
    return found

  def _image_metrics(self, notes):
    found = {"image_auroc": np.nan, "image_ap": np.nan}
    known = self.label >= 0
    kinds = set(self.label[known])
    if kinds == {0, 1}:
      counts = detection.sorted_counts(self.image_scores["model"][known], self.label[known])
      return {"image_auroc": float(detection.auroc(counts)),
              "image_ap": float(detection.average_precision(counts))}
    why = {frozenset(): "the split has no labels", frozenset({0}): "no abnormal image in the split",
           frozenset({1}): "no normal image in the split"}[frozenset(kinds)]
    notes.update(dict.fromkeys(found, why))
    return found

  def _baseline_metrics(self):
    """The intensity threshold; its Dice may use every float16 threshold: intensities exceed 1."""
    channel = self.config.eval.baseline_channel
    found: dict[str, Any] = {"what": f"intensity of channel {channel} inside the foreground"}
    known = self.label >= 0
    for name in baselines.names(self.config):
      suffix = name.removeprefix(baselines.PLAIN)
      counts = np.zeros((2, detection.CODES)) if self.counts is None else self.pixels[name].counts()
      found[f"pixel_ap{suffix}"] = float(detection.average_precision(counts))
      found[f"dice_best{suffix}"] = detection.best_dice(counts, "all")[0]
      found[f"image_auroc{suffix}"] = float(detection.auroc(detection.sorted_counts(
          self.image_scores[name][known], self.label[known])))
    return found

  def _no_pixels(self):
    if not self.pixels:
      return "the method gives no map"
    if (self.lesion_px < 0).any():
      return "the split has no masks"
    return "" if self.lesion_px.sum() else "no lesion pixel in the split"

  @property
  def dice_grid(self):
    return "all" if self.config.eval.dice_thresholds == "all" else None

  def volumes(self):
    """Per patient: rows of each volume in slice order; images without a slice stand alone."""
    scans = []
    for p in range(len(self.patients)):
      rows = np.flatnonzero(self.group == p)
      if all("slice" in self.metas[r] for r in rows):
        scans.append([rows[np.argsort([self.metas[r]["slice"] for r in rows], kind="stable")]])
      else:
        scans.append([rows[i:i + 1] for i in range(len(rows))])
    return scans

  # -------------------------------------------------------------------------- tables, pictures
  def rows(self):
    return tables.patients(self)

  def tables(self):
    return {"images": tables.images(self), **self._measures.tables()}

  def curves(self):
    return figures.curves(self)

  def choose(self):
    self._chosen = gallery.choose(self, self.config.eval.panel_images)
    return np.concatenate(list(self._chosen.values())).astype(np.int64)

  def show(self, batch, outputs, pictures):
    chosen = np.concatenate(list(self._chosen.values())).astype(np.int64)
    for i in np.flatnonzero(batch["valid"]):
      case = {k: outputs[k][i] for k in ("recon", "map") if k in outputs}
      case.update({name: pictures[name][i] for name in EXPLAINING if name in pictures})
      if "noised" in pictures:
        case.update(noised=pictures["noised"][i], denoised=pictures["recon"][i])
      case.update(image=batch["image"][i], mask=batch["mask"][i] if "mask" in batch else None,
                  row=int(chosen[batch["position"][i]]))
      self._cases.append(case)

  @property
  def _scale(self):
    return self.calibration or thresholds.choose(
        self.pixels["model"].counts() if self.pixels else None, self.image_scores["model"],
        self.label, self._sample, self.config.eval)

  def panels(self):
    return pictures.draw(self, self._cases[:len(self._chosen["panel"])], self._scale) if self._cases else {}

  def gallery(self):
    return gallery.rows(self, self._cases, self._scale) if self._cases else []

  def close(self):
    if self.store is not None:
      self.store.close()


def _patient(meta, i):
  """The group that slices or images belong to, for the bootstrap and the tables."""
  return str(meta.get("patient", meta.get("group", meta.get("id", i))))
