"""Image AUROC and AP of any score, and their intervals, against patients drawn one by one."""

import tracemalloc

import numpy as np

from medae_jax.metrics import bootstrap, curves, detection, ranking


def test_intervals_are_those_of_patients_drawn_one_by_one():
  """Also where a patient has no image whose label is known: its column of the weights stays its own."""
  rng = np.random.default_rng(0)
  group = np.repeat([0, 1, 3, 4, 5], 4)  # patient 2 has none
  label = np.tile([0, 1, 0, 1], 5)
  score = (rng.normal(size=20) + label).round(1)
  weights = bootstrap.resample_weights(6, 50, 3)
  found = ranking.of_images(score, label, group, weights)
  drawn = [detection.sorted_counts(score, label, w[group]) for w in weights]
  for name, measure in (("image_auroc", detection.auroc), ("image_ap", detection.average_precision)):
    assert found[name] == float(measure(detection.sorted_counts(score, label)))
    assert found["ci95"][name] == bootstrap.interval([float(measure(counts)) for counts in drawn])
  assert ranking.of_images(score, label, group, weights[:0])["ci95"] == {}


def test_memory_grows_with_the_images_not_with_their_square():
  """A split whose images are a patient each: counts by patient of 26,000 of them (SVHN) would take 30 GB."""
  n = 3000
  score, label = np.random.default_rng(0).normal(size=n), np.arange(n) % 2
  tracemalloc.start()
  try:
    found = ranking.of_images(score, label, np.arange(n), bootstrap.resample_weights(n, 40))
    bands = curves.of_scores(score, label, np.arange(n), resamples=40)
    assert tracemalloc.get_traced_memory()[1] < 30e6
  finally:
    tracemalloc.stop()
  assert found["ci95"]["image_ap"] and len(bands["roc"]["low"]) == 101
