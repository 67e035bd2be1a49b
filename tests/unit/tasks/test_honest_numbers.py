"""Figures that could mislead: intervals of the value shown, the map that was scored, proven differences."""

import ml_collections
import numpy as np
import pytest

from medae_jax.metrics import bootstrap, detection
from medae_jax.scores import residual as scores
from medae_jax.tasks.anomaly import intervals, residual_fit
from tests.unit.tasks.test_residual_fit import data


def test_the_interval_of_dice_best_is_over_its_own_thresholds():
  """Scores between k/1000 and (k+1)/1000: the value cannot separate them, nor may its interval."""
  rng = np.random.default_rng(0)
  values = rng.uniform(0.0001, 0.0009, (6, 400))
  truth = values > 0.0005
  grouped = np.zeros((6, 2, detection.CODES + 1), np.int64)
  for g in range(6):
    for y in (0, 1):
      code = detection.code_of(values[g][truth[g] == y])
      grouped[g, y] = np.bincount(code, minlength=detection.CODES + 1)
  value, _ = detection.best_dice(grouped.sum(0)[:, :detection.CODES])
  used = np.flatnonzero(grouped.any((0, 1)))
  ones = np.ones((1, 6))
  by = lambda grid: bootstrap.resample_counts(grouped, ones, {
      "d": lambda c: intervals._best_dice(c, intervals._places(used, grid, 0))})["d"][0]
  assert by(None) == pytest.approx(value) and value < 0.7
  assert by("all") == pytest.approx(detection.best_dice(grouped.sum(0)[:, :detection.CODES], "all")[0])


@pytest.mark.parametrize("interval, said", [((0.01, 0.2), True), ((-0.2, -0.01), False), ((-0.1, 0.2), None),
                                            ((0.0, 0.2), None), (None, None)])
def test_better_is_said_where_the_interval_excludes_zero(interval, said):
  assert intervals.verdict({"pixel_ap_minus_baseline": interval}, "pixel_ap") is said


def test_the_figure_without_the_fit_is_of_the_map_that_is_scored():
  """With a median: of the sum of the parts, not the sum of their medians."""
  options = ml_collections.ConfigDict({"erosion": 0, "median": 3})
  image, residual, mask = data(6)
  fit = residual_fit.ResidualFit(options, list("aabbcc"))
  fit.update({"image": image, "mask": mask, "valid": np.ones(6, bool), "position": np.arange(6)},
             {"recon": image - residual})
  fit.result()
  inside = np.asarray(scores.foreground(image))
  published = np.asarray(scores.median_filter(scores.residual_map(residual) * inside, 3)).ravel()
  code, truth = detection.code_of(published), mask.ravel()
  counts = np.stack([np.bincount(code[truth == y], minlength=detection.CODES) for y in (0, 1)])
  want = float(detection.average_precision(counts))
  assert fit.summary()["pixel_ap_plain"] == pytest.approx(want, abs=1e-6)
