"""Image AUROC and AP of any score, and their intervals, against patients drawn one by one."""

import numpy as np

from medae_jax.metrics import bootstrap, detection, ranking


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
