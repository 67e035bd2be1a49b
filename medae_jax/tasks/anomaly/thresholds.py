"""Thresholds and colour scales out of the scores of the validation split: the entries of calibration.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from medae_jax.metrics import detection, roc

_PER_BATCH = 20_000   # intensities sampled from a batch


def choose(counts: np.ndarray | None, image_scores: np.ndarray, label: np.ndarray,
           sample: IntensitySample, options) -> dict[str, Any]:
  """Thresholds and scales out of the scores of the validation split.

  Args:
    counts: [2, CODES] of metrics.Histograms, None for methods without maps.
    image_scores: [n]. label: [n], 0 normal, 1 abnormal, -1 unknown.
    sample: intensities of the images.
    options: config.eval: dice_thresholds, quantile, components.

  Returns:
    Entries of calibration.json (core/calibration.py): thresholds, their rules, components, map_max, window.
  """
  found: dict[str, Any] = {"threshold": None, "image_threshold": None, "map_max": None,
                           "components": int(options.components), "window": sample.window()}
  if counts is not None and counts.sum():
    found["threshold"], found["threshold_rule"] = _pixel_threshold(counts, options)
    seen = _without_zero(counts)
    found["map_max"] = max(detection.quantile(seen, 0.999), 2 * found["threshold"])
    if not found["map_max"] > 0:
      found["map_max"] = 1.0
  found["image_threshold"], found["image_threshold_rule"] = _image_threshold(
      image_scores, label, options)
  return found


def _pixel_threshold(counts, options):
  if counts[1].sum():
    grid = "all" if options.dice_thresholds == "all" else None
    best, threshold = detection.best_dice(counts, grid)
    if best > 0 and (threshold > 0 or grid):
      return threshold, f"best Dice on val, {best:.3f}, with its masks"
    best, threshold = detection.best_dice(counts, "all")  # the scale is far from k/1000
    return threshold, f"best Dice on val, {best:.3f}, with its masks, over all float16 values"
  q = float(options.quantile)
  return (detection.quantile(_without_zero(counts), q),
          f"{q:.3g} quantile of the non-zero scores of normal val pixels: val has no lesion masks, no "
          "promise for new scans, whose pixels are alike within a scan")


def _image_threshold(score, label, options):
  normal, abnormal = score[label == 0], score[label == 1]
  if normal.size and abnormal.size:
    best, sensitivity, specificity = roc.best_cut(normal, abnormal)
    return best, f"best sensitivity + specificity on val, {sensitivity:.3f} + {specificity:.3f}"
  normal = normal if normal.size else score[label < 0]
  if not normal.size:
    return None, "val has no normal image"
  q = float(options.quantile)
  return float(np.quantile(normal, q)), (f"{q:.3g} quantile of the scores of normal val images, no promise "
                                         "for new ones")


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
