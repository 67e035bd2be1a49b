"""Scoring, metrics and component filter against the reference's vectors (golden family "dae").

Tolerances from the family's README: maps 1e-6, boolean arrays exact, AP 1e-9, Dice 1e-6 (the
reference's curve is a float32 quotient), thresholds and filtered volumes exact.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax import scores
from tests.golden_cases import golden_dir


def _load(name):
  path = golden_dir("dae") / name
  if not path.exists():
    pytest.skip(f"no {name} in this golden family")
  return np.load(path, allow_pickle=False)


def _nhwc(array):
  return jnp.asarray(np.moveaxis(array, 1, -1))


def test_anomaly_maps():
  file = _load("scoring.npz")
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
