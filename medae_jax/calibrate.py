"""calibration.json: what the validation split fixes for everything that is scored afterwards.

Thresholds, colour scales and, where config.eval.fit_residual asks for it, sign and weight of each
modality's residual. evaluate writes it; evaluate, predict and export read it:

  threshold, threshold_rule              of the map; mask = map > threshold
  image_threshold, image_threshold_rule  of the image score
  components                             components of at most so many voxels are deleted
  map_max, window                        one heat scale and one grey window a channel, all pictures
  score                                  merged into config.method.score by core.checkpoint
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from medae_jax import metrics, scores

FILE = "calibration.json"
_PER_BATCH = 20_000   # intensities sampled from a batch


# ------------------------------------------------------------------------------ reading, merging
def read(workdir) -> dict[str, Any] | None:
  """The calibration of a workdir, None where validation was not evaluated yet.

  Raises:
    ValueError: the file is damaged.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise ValueError(f"{path} is damaged ({error}); run --mode=evaluate again") from error


def override(config, values: Mapping[str, Any] | None):
  """A locked copy of a ConfigDict with {"group.field": value} replaced.

  Raises:
    ValueError: a field or group that does not exist, with those there are.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for name, value in (values or {}).items():
      *groups, field = name.split(".")
      node = config
      for part in (*groups, field):
        if not hasattr(node, "keys") or part not in node:
          there = ", ".join(node) if hasattr(node, "keys") else "no field below it"
          raise ValueError(f"config.{name}: there is no {part!r}; there is {there}")
        node = node[part] if part is not field else node
      with node.ignore_type():  # config.json has lists where the config file had tuples
        node[field] = value
  return config.lock()


def explain(calibration: Mapping[str, Any]) -> str:
  """One line for the log and the report: the thresholds and where they come from."""
  parts = []
  for key, what in (("threshold", "pixel threshold"), ("image_threshold", "image threshold")):
    if calibration.get(key) is not None:
      parts.append(f"{what} {calibration[key]:.4g} ({calibration.get(key + '_rule', 'no rule given')})")
  return "; ".join(parts) or "no threshold"


# ------------------------------------------------------------------------------ choosing on val
def choose(counts: np.ndarray | None, image_scores: np.ndarray, label: np.ndarray,
           sample: IntensitySample, options) -> dict[str, Any]:
  """Thresholds and scales out of the scores of the validation split.

  Args:
    counts: [2, CODES] of metrics.Histograms, None for methods without maps.
    image_scores: [n]. label: [n], 0 normal, 1 abnormal, -1 unknown.
    sample: intensities of the images.
    options: config.eval: dice_thresholds, quantile, components.

  Returns:
    The entries that the module's docstring lists, without "score".
  """
  found: dict[str, Any] = {"threshold": None, "image_threshold": None, "map_max": None,
                           "components": int(options.components), "window": sample.window()}
  if counts is not None and counts.sum():
    found["threshold"], found["threshold_rule"] = _pixel_threshold(counts, options)
    seen = _without_zero(counts)
    found["map_max"] = max(metrics.quantile(seen, 0.999), 2 * found["threshold"])
    if not found["map_max"] > 0:
      found["map_max"] = 1.0
  found["image_threshold"], found["image_threshold_rule"] = _image_threshold(
      image_scores, label, options)
  return found


def _pixel_threshold(counts, options):
  if counts[1].sum():
    grid = "all" if options.dice_thresholds == "all" else None
    best, threshold = metrics.best_dice(counts, grid)
    if best > 0 and (threshold > 0 or grid):
      return threshold, f"best Dice on val, {best:.3f}, with its masks"
    best, threshold = metrics.best_dice(counts, "all")  # the scale is far from k/1000
    return threshold, f"best Dice on val, {best:.3f}, with its masks, over all float16 values"
  q = float(options.quantile)
  return (metrics.quantile(_without_zero(counts), q),
          f"{q:.3g} quantile of the non-zero scores of normal val pixels: val has no lesion masks")


def _image_threshold(score, label, options):
  normal, abnormal = np.sort(score[label == 0]), np.sort(score[label == 1])
  if normal.size and abnormal.size:
    cuts = np.unique(score[label >= 0])
    specificity = np.searchsorted(normal, cuts, side="right") / normal.size
    sensitivity = 1 - np.searchsorted(abnormal, cuts, side="right") / abnormal.size
    best = int(np.argmax(specificity + sensitivity))
    return float(cuts[best]), (f"best sensitivity + specificity on val, {sensitivity[best]:.3f} + "
                               f"{specificity[best]:.3f}")
  normal = normal if normal.size else np.sort(score[label < 0])
  if not normal.size:
    return None, "val has no normal image"
  q = float(options.quantile)
  return float(np.quantile(normal, q)), f"{q:.3g} quantile of the scores of normal val images"


def _without_zero(counts):
  """Counts of the non-zero scores: zeros are mostly background."""
  seen = np.array(counts)
  if seen[:, 1:].sum():
    seen[:, 0] = 0
  return seen


class IntensitySample:
  """A bounded, fixed sample of foreground intensities, for one grey window a channel."""

  def __init__(self):
    self._values: list[np.ndarray] = []

  def add(self, image: np.ndarray) -> None:
    """image [B,H,W,C]; every k-th pixel of it is kept, background (all channels 0) left out."""
    flat = np.asarray(image, np.float32).reshape(-1, image.shape[-1])
    flat = flat[:: max(1, len(flat) // _PER_BATCH)]
    self._values.append(flat[np.any(flat != 0, -1)])
    if len(self._values) > 128:  # thin out: half of the rows, in half as many arrays
      self._values = [np.concatenate(self._values)[::2]]

  def window(self) -> list[list[float]]:
    """[[black, white]] a channel: 0 (or the 0.5 % quantile where negative) and the 99.5 % one."""
    values = np.concatenate(self._values) if self._values else np.zeros((0, 1))
    if not len(values):
      return [[0.0, 1.0]] * values.shape[-1]
    low, high = np.quantile(values, [0.005, 0.995], axis=0)
    return [[float(min(a, 0.0)), float(max(b, a + 1e-6))] for a, b in zip(low, high, strict=True)]


# --------------------------------------------------------------------- sign and modality weights
class ResidualFit:
  """Fits weights of each modality's positive and negative residual to the masks of val.

  map = mean_c (w+_c max(r_c, 0) + w-_c max(-r_c, 0)), r = image - recon (scores.residual_map).
  Starts from the best of some plain choices (absolute, brighter, darker, one modality) and then
  changes one weight at a time while the pixel AP on val grows by more than `tolerance` of itself.
  Few weights, whole patients, and a tolerance keep it from fitting noise. Weights average 1, so that the
  map stays on its scale.

  Args:
    options: config.method.score, for the sizes of erosion and median.
    tolerance: relative gain that a change must bring.
    pixels: how many pixels are kept for the fit.
  """

  _FACTORS = (0.0, 0.5, 0.75, 1.33, 2.0)

  def __init__(self, options, tolerance: float = 0.002, pixels: int = 2_000_000):
    self._options, self._tolerance, self._pixels = options, tolerance, pixels
    self._parts: list[np.ndarray] = []   # [k, 2C] filtered residual parts, positive then negative
    self._truth: list[np.ndarray] = []
    self._background = np.zeros(2, np.int64)  # pixels whose score is 0 whatever the weights
    self._rng = np.random.default_rng(0)

  def update(self, batch, outputs) -> None:
    """Takes the pixels of a batch; see evaluators.BaseEvaluator.update.

    Raises:
      ValueError: val has no masks.
    """
    if "mask" not in batch:
      raise ValueError("config.eval.fit_residual needs masks in the val split; turn it off")
    valid, image = batch["valid"], jnp.asarray(batch["image"])
    residual = image - outputs["recon"]
    inside = scores.erode(scores.foreground(image), self._options.erosion)
    parts = jnp.concatenate([jnp.maximum(residual, 0), jnp.maximum(-residual, 0)], -1) * inside
    parts = np.asarray(scores.median_filter(parts, self._options.median))[valid]
    truth = np.asarray(batch["mask"])[valid].reshape(-1) > 0
    parts = parts.reshape(-1, parts.shape[-1])
    seen = parts.any(-1)
    self._background += np.bincount(truth[~seen], minlength=2)
    self._parts.append(parts[seen])
    self._truth.append(truth[seen])

  def result(self) -> dict[str, Any]:
    """{"weights_positive": [C], "weights_negative": [C]} for config.method.score.

    Raises:
      ValueError: no lesion pixel in val.
    """
    parts, truth = np.concatenate(self._parts), np.concatenate(self._truth)
    if not truth.any():
      raise ValueError("config.eval.fit_residual needs lesions in the val split; it has none")
    if len(parts) > self._pixels:
      kept = self._rng.random(len(parts)) < self._pixels / len(parts)
      self._background = self._background * self._pixels // len(parts)
      parts, truth = parts[kept], truth[kept]
    value = lambda w: self._ap(parts @ w, truth)
    best = max(self._starts(parts.shape[1] // 2), key=value)
    best_ap, improved = value(best), True
    while improved:
      improved = False
      for i in range(len(best)):
        for factor in self._FACTORS if best[i] else (0.25, 1.0):
          trial = best.copy()
          trial[i] = best[i] * factor if best[i] else factor
          if not trial.any():
            continue
          trial *= len(trial) / trial.sum()
          ap = value(trial)
          if ap > best_ap * (1 + self._tolerance):
            best, best_ap, improved = trial, ap, True
    half = len(best) // 2
    rounded = [round(float(w), 4) for w in best]
    return {"weights_positive": rounded[:half], "weights_negative": rounded[half:]}

  @staticmethod
  def _starts(channels):
    one = np.eye(channels)
    none = np.zeros(channels)
    starts = [np.ones(2 * channels), np.r_[np.ones(channels), none], np.r_[none, np.ones(channels)]]
    starts += [np.r_[row, none] for row in one] + [np.r_[none, row] for row in one]
    return [s * 2 * channels / s.sum() for s in starts]

  def _ap(self, score, truth):
    code = metrics.code_of(score)
    counts = np.stack([np.bincount(code[truth == y], minlength=metrics.CODES) for y in (False, True)])
    counts[:, 0] += self._background
    return float(metrics.average_precision(counts))
