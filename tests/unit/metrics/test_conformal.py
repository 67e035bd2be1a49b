"""Conformal thresholds and p-values: by hand, and their promise on simulated scores."""

import numpy as np
import pytest

from medae_jax.metrics import conformal


def test_threshold_by_hand():
  scores = np.arange(1.0, 20)  # n = 19: ceil(20 * 0.95) = 19, the largest
  np.random.default_rng(0).shuffle(scores)
  assert conformal.threshold(scores, 0.05) == 19
  assert conformal.threshold(scores, 0.1) == 18 and conformal.threshold(scores, 0.5) == 10
  assert conformal.threshold(scores[:18], 0.05) is None
  assert conformal.threshold([], 0.05) is None
  assert "at most 0.05 of new normal scans" in conformal.rule(19, 0.05, "scan")
  assert "18 normal scans of val are too few" in conformal.rule(18, 0.05, "scan")
  assert "at least 19" in conformal.rule(18, 0.05, "scan")


def test_p_value_by_hand():
  normal = [1.0, 2.0, 3.0, 4.0]
  assert [conformal.p_value(normal, s) for s in (0, 1, 2.5, 4, 5)] == [1, 1, 0.6, 0.4, 0.2]
  assert conformal.p_value([], 3.0) == 1


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_false_alarms_keep_the_promise_for_small_n(alpha):
  """Heavy tails, 25 normal scans: the mean share of alarms over many draws is at most alpha."""
  rng = np.random.default_rng(1)
  draws = rng.standard_cauchy((4000, 26))
  alarms = [d[25] > conformal.threshold(d[:25], alpha) for d in draws]
  small = [conformal.p_value(d[:25], d[25]) <= alpha for d in draws]
  error = 3 * np.sqrt(alpha * (1 - alpha) / 4000)
  assert alpha - 1 / 26 - error <= np.mean(alarms) <= alpha + error
  assert np.mean(small) <= alpha + error


def test_an_alarm_is_a_small_p_value():
  rng = np.random.default_rng(2)
  for n in (19, 40, 101):
    normal = np.round(rng.normal(size=n), 2)
    cut = conformal.threshold(normal, 0.05)
    for score in (*normal, *rng.normal(2, 1, 50)):
      assert (score > cut) == (conformal.p_value(normal, score) <= 0.05)


def test_too_few_are_told_the_share_that_they_allow():
  for n in (1, 5, 14, 18, 93):
    alpha = float(conformal.rule(n, 1 / (n + 2), "scan").partition("alpha=")[2].partition(" ")[0])
    assert conformal.threshold(np.arange(float(n)), alpha) is not None
    assert conformal.threshold(np.arange(float(n)), alpha - 0.002) is None
  assert "alpha=" not in conformal.rule(0, 0.05, "scan")
