"""Measures beyond the usual ones that config.eval.measures asks for; each says what it needs.

  similarity   recon_mae, recon_mse, recon_ssim of normal images, ..._abnormal of others: a reconstruction
  perceptual   recon_perceptual, likewise: distance in the features of config.eval.trunk, whose weights
               config.eval.trunk_weights names (a user's; no LPIPS weights come with this package)
  aupro        per-region overlap up to 30 % false positives (metrics/regions.py): masks
  boxes        pointing_game, box_iou, box_recall_50 of images with a finding (metrics/localisation.py): masks
  surface      hd95_mm and surface_dice of scans with lesions (metrics/surface.py), in pixels (hd95_px) where
               the data set does not know how many mm a pixel is: masks, a threshold from val
  lesions      lesion-wise sensitivity, false positives a scan, FROC (metrics/lesions.py): masks, a threshold
  probability  brier, ece of the probability that a logistic curve fitted on val makes of the image score, and
               p_value_ks, the distance of normal scans' p-values from uniform: labels
  trivial      trivial_scores: image AUROC of scores without a network (scores/trivial.py), whose anomalous
               end val decides: labels

The prediction is what predict writes: the map above val's threshold without small components. Intervals are
bootstraps over patients.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core import method as method_lib
from medae_jax.core.errors import UserError, of_field
from medae_jax.losses.trunk import Trunk
from medae_jax.metrics import conformal, probability, similarity
from medae_jax.scores import perceptual_distance, trivial
from medae_jax.tasks.anomaly import findings, intervals as of_scores, scan_measures, whole_scans
from medae_jax.weights import trunks


class Measures:
  """Collects what streams; `result` adds what needs whole scans. One evaluator each."""

  def __init__(self, evaluator):
    self._evaluator, config = evaluator, evaluator.config
    self._asked = tuple(config.eval.get("measures", ()))
    self._images: dict[str, np.ndarray] = {}   # {measure: [n]}, NaN where it was not measured
    self._alike = None
    self._findings: dict[str, Any] = {}
    self._trivial: dict[str, np.ndarray] = {}
    if {"similarity", "perceptual"} & set(self._asked):
      self._alike = jax.jit(_likeness(config, "similarity" in self._asked, "perceptual" in self._asked))

  # ------------------------------------------------------------------------------ one pass
  def update(self, batch, outputs) -> None:
    """A batch, as the evaluator's `update`."""
    if "trivial" in self._asked:
      valid = batch["valid"]
      found = trivial.scores(np.asarray(batch["image"])[valid], _span(self._evaluator.config))
      for name, value in found.items():
        self._trivial.setdefault(name, np.full(len(self._evaluator.metas), np.nan))[
            batch["position"][valid]] = value
    recon = outputs.get("recon")
    if self._alike is None or recon is None or recon.shape != batch["image"].shape:
      return
    recon = jax.device_put(recon, jax.local_devices()[0])
    valid = batch["valid"]
    for name, value in self._alike(batch["image"], recon).items():
      column = self._images.setdefault(name, np.full(len(self._evaluator.metas), np.nan))
      column[batch["position"][valid]] = np.asarray(value)[valid]

  def calibrate(self) -> dict[str, Any]:
    """Entries of calibration.json: "probability" [slope, intercept] of the image score, "trivial" {name: 1 or
    -1}, the anomalous end; each where it is asked for.
    """
    found: dict[str, Any] = {}
    e, known = self._evaluator, self._evaluator.label >= 0
    if "probability" in self._asked:
      found["probability"] = probability.fit_logistic(e.image_scores["model"][known], e.label[known] == 1)
    if self._trivial and set(e.label[known]) == {0, 1}:
      found["trivial"] = {name: 1 if of_scores.area(e, value) >= 0.5 else -1
                          for name, value in self._trivial.items()}
    return found

  # ------------------------------------------------------------------------------- numbers
  def result(self, notes: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(numbers, {name: [low, high]}); what cannot be measured is noted with its reason."""
    numbers: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    self._findings = findings.measure(self._evaluator)
    numbers.update(self._findings)
    if self._alike is not None:
      if not self._images:
        notes["recon"] = "the method gives no reconstruction of the image's shape"
      self._likenesses(numbers, intervals)
    if "probability" in self._asked:
      self._probabilities(numbers, notes)
    if "trivial" in self._asked:
      self._trivial_scores(numbers, notes)
    asked = [m for m in self._asked if m in scan_measures.NAMES]
    if asked:
      scan_measures.measure(self._evaluator, asked, numbers, intervals, notes)
    return numbers, intervals

  def tables(self) -> dict[str, list[dict[str, Any]]]:
    """{"findings": rows} where there are findings."""
    rows = findings.rows(self._findings)
    return {"findings": rows} if rows else {}

  def _likenesses(self, numbers, intervals):
    e = self._evaluator
    for name, column in self._images.items():
      for suffix, rows in (("", e.label != 1), ("_abnormal", e.label == 1)):
        rows = np.flatnonzero(rows & np.isfinite(column))
        if rows.size:
          numbers[f"recon_{name}{suffix}"] = float(column[rows].mean())
          intervals[f"recon_{name}{suffix}"] = scan_measures.interval(e, column[rows], e.group[rows])

  def _trivial_scores(self, numbers, notes):
    e, signs = self._evaluator, (self._evaluator.calibration or {}).get("trivial")
    if signs is None or set(e.label[e.label >= 0]) != {0, 1}:
      notes["trivial_scores"] = "needs both kinds of images, here and in val, which says which end is ill"
      return
    numbers["trivial_scores"] = {name: of_scores.of_images(e, signs[name] * value)
                                 for name, value in self._trivial.items()}

  def _probabilities(self, numbers, notes):
    e, found = self._evaluator, self._evaluator.calibration or {}
    known, curve = e.label >= 0, found.get("probability")
    if curve is None or not known.any():
      notes["brier"] = notes["ece"] = "val has no normal and abnormal images together to fit probabilities on"
    else:
      reliability = probability.Reliability()
      reliability.add(probability.logistic(e.image_scores["model"][known], curve), e.label[known] == 1)
      numbers["brier"], numbers["ece"] = reliability.brier(), reliability.ece()
    scans = e.scans()
    normal = whole_scans.normal_scores(found, scans.what)
    if e.split != "val" and len(normal) and (scans.label == 0).any():
      p = [conformal.p_value(normal, s) for s in scans.score[scans.label == 0]]
      numbers["p_value_ks"] = probability.uniformity(p)[0]


def _span(config):
  """(black, white) of the method's images; an open end is taken for 1 above black."""
  need = method_lib.load(config).needs["image"]
  low = need.low or 0.0
  return low, low + 1 if need.high is None else need.high


def _likeness(config, plain, features):
  """(image, recon) -> {name: [B]}."""
  low, high = _span(config)
  trunk, layers = _trunk(config, low, high) if features else (None, ())

  def of(image, recon):
    image, recon, found = jnp.asarray(image), recon.astype(jnp.float32), {}
    if plain:
      found = {"mae": similarity.mae(image, recon), "mse": ((image - recon) ** 2).mean((1, 2, 3)),
               "ssim": similarity.ssim(image, recon, data_range=high - low)}
    if features:
      planes = perceptual_distance.planes
      apart = perceptual_distance.distance(trunk, planes(image), planes(recon), layers)
      found["perceptual"] = apart.reshape(-1, image.shape[0]).mean(0)
    return found
  return of


def check_trunk(config) -> None:
  """Refuses a network of measure perceptual that cannot be had: before the training, not after it.

  Raises:
    UserError: no such network or layer, or no weights. FileNotFoundError: no such file.
  """
  c = config.eval
  if not c.trunk_weights:
    raise UserError("config.eval.measures has perceptual: set config.eval.trunk_weights to the weights of "
                    f"{c.trunk} (docs/weights.md)")
  _source(config)
  if not c.trunk_weights.startswith("random:") and not pathlib.Path(c.trunk_weights).expanduser().is_file():
    raise FileNotFoundError(f"config.eval.trunk_weights={c.trunk_weights} does not exist, or is no file")


def _source(config):
  """(the network of measure perceptual, its layers)."""
  c, layers = config.eval, tuple(config.eval.trunk_layers)
  source = trunks.Source({"trunk": c.trunk, "vgg_weights": c.trunk_weights,
                          "vgg_widths": (64, 128, 256, 512, 512)}, "config.eval.trunk")
  with of_field("eval.trunk_layers", layers):
    source.check(layers)
  return source, layers


def _trunk(config, low, high):
  source, layers = _source(config)
  return Trunk(source.features, source.load(layers), {}, low=low, high=high, enter=source.enter), layers
