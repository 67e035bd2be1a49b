"""Scoring, metrics and component filter against the reference's vectors (golden family "dae").

Tolerances from the family's README: maps 1e-6, boolean arrays exact, AP 1e-9, Dice 1e-6 (the
reference's curve is a float32 quotient), thresholds and filtered volumes exact.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.metrics import components, detection
from medae_jax.scores import residual as scores
from tests.golden_cases import file_cases


def _files(pattern):
  return pytest.mark.parametrize("path", file_cases("dae", pattern))


def _load(path):
  return np.load(path, allow_pickle=False)


def _nhwc(array):
  return jnp.asarray(np.moveaxis(array, 1, -1))


@_files("scoring*.npz")
def test_anomaly_maps(path):
  file = _load(path)
  cases = sorted({key.split("/")[0] for key in file.files})
  assert cases
  for case in cases:
    get = lambda k, c=case: file[f"{c}/{k}"]
    image, recon = _nhwc(get("x")), _nhwc(get("reconstruction"))
    mask = scores.foreground(image)
    np.testing.assert_array_equal(np.asarray(mask) > 0, np.moveaxis(get("foreground"), 1, -1))
    eroded = scores.erode(mask, 5)
    np.testing.assert_array_equal(np.asarray(eroded) > 0, np.moveaxis(get("eroded"), 1, -1))
    raw = scores.residual_map(image - recon) * eroded
    np.testing.assert_allclose(raw, np.moveaxis(get("score_raw"), 1, -1), rtol=0, atol=1e-6)
    median = scores.median_filter(raw, 5)
    np.testing.assert_allclose(median, np.moveaxis(get("score_median"), 1, -1), rtol=0, atol=1e-6)


def _counts(scores, labels):
  """Through the device histograms, in uneven batches."""
  histograms = detection.Histograms(groups=1)
  scores, labels = scores.reshape(-1, 1, scores.shape[-1]), labels.reshape(-1, 1, labels.shape[-1])
  for begin in range(0, len(scores), 500):
    s, y = scores[begin:begin + 500], labels[begin:begin + 500]
    histograms.add(s, y, np.ones(len(s), bool))
  np.testing.assert_array_equal(histograms.grouped()[0, :, :detection.CODES], histograms.counts())
  return histograms.counts()


def _thresholds(curve):
  """0 <= k / n < 1: the thresholds of a curve of n points."""
  return np.arange(len(curve)) / len(curve)


def _check_curve(found, want):
  # The reference's denominators are float32 sums; NaN only where nothing is predicted or true.
  np.testing.assert_array_equal(np.isnan(found), np.isnan(want))
  np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)


@_files("metrics*.npz")
def test_pooled_metrics(path):
  file = _load(path)
  scores_, labels = file["scores"], file["labels"]
  counts = _counts(scores_, labels)
  thresholds = _thresholds(file["dice_curve"])
  assert abs(detection.average_precision(counts) - file["ap"]) < 1e-9
  _check_curve(detection.dice_at(counts, thresholds), file["dice_curve"])
  best, threshold = detection.best_dice(counts)
  assert abs(best - file["best_dice"]) < 1e-6
  # Another threshold only where the reference's float32 curve cannot tell the two apart.
  at_theirs = detection.dice_at(counts, file["best_threshold"])
  assert threshold == file["best_threshold"] or 0 <= best - at_theirs < 1e-6
  fixed = file["fixed_threshold"]
  assert abs(detection.dice_at(counts, fixed) - file["fixed_dice"]) < 1e-6


@_files("metrics*.npz")
def test_pooled_metrics_without_rounding(path):
  file = _load(path)
  scores_, labels = file["scores"], file["labels"]
  counts = detection.sorted_counts(scores_, labels)
  assert abs(detection.average_precision(counts) - file["ap_float32"]) < 1e-9
  # The reference compares float32 scores with float32 thresholds.
  thresholds = _thresholds(file["dice_curve_float32"]).astype(np.float32)
  not_above = np.searchsorted(np.unique(scores_), thresholds, "right")  # how many scores
  everything = 2 * labels.sum() / (labels.size + labels.sum())  # predicted: thresholds below all scores
  _check_curve(np.append(everything, detection.dice_curve(counts))[not_above], file["dice_curve_float32"])


@_files("metrics*.npz")
def test_ties_by_rounding(path):
  file = _load(path)
  scores_, labels = file["small_scores"], file["small_labels"]
  ap = detection.average_precision(_counts(scores_[None], labels[None]))
  assert abs(ap - file["small_ap_float16"]) < 1e-9
  exact = detection.average_precision(detection.sorted_counts(scores_, labels))
  assert abs(exact - file["small_ap_float32"]) < 1e-9


@_files("metrics*.npz")
def test_filtered_dice(path):
  file = _load(path)
  scores_, labels = file["scores"][:, 0], file["labels"][:, 0]
  ends = np.cumsum(file["slices_per_patient"])
  def filtered(threshold):
    scans = np.split(scores_ > np.float32(threshold), ends[:-1])
    return np.concatenate([components.remove_small_components(s, 20) for s in scans])
  dice = lambda a, b: 2 * (a & b).sum() / (a.sum() + b.sum())
  np.testing.assert_array_equal(filtered(file["best_threshold"]), file["filtered"])
  assert abs(dice(file["filtered"], labels) - file["post_cc_dice"]) < 1e-6
  fixed = dice(filtered(file["fixed_threshold"]), labels)
  assert abs(fixed - file["fixed_post_cc_dice"]) < 1e-6


@_files("connected_components*.npz")
def test_component_filter(path):
  file = _load(path)
  found = components.remove_small_components(file["volume"], 20)
  np.testing.assert_array_equal(found, file["filtered"])
  for volume, want in zip(file.get("batch", ()), file.get("batch_filtered", ()), strict=True):
    np.testing.assert_array_equal(components.remove_small_components(volume, 20), want)
