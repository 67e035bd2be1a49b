"""Every number that an evaluator returns has its line in the dictionary, and intervals decide the words."""

import pytest

from medae_jax import evaluate
from medae_jax.metrics import dictionary
from tests.unit import fake_run


def test_every_number_of_the_anomaly_evaluator_has_a_line(tmp_path):
  for split, result in evaluate.evaluate(fake_run.make(tmp_path)).items():
    numbers = {k for k, v in result.items() if k not in dictionary.ABOUT and not isinstance(v, (dict, list))}
    assert numbers <= set(dictionary.METRICS), split


@pytest.mark.parametrize("difference, interval, better, said", [
    (0.1, [0.02, 0.2], "higher", "better"), (0.1, [-0.02, 0.2], "higher", "no difference shown"),
    (0.1, [0.02, 0.2], "lower", "worse"), (-0.1, [-0.2, -0.01], "lower", "better"),
    (0.0, [0.0, 0.1], "higher", "no difference shown"), (0.3, None, "higher", "no difference shown"),
    (float("nan"), [0.1, 0.2], "higher", "no difference shown")])
def test_a_difference_is_said_by_its_interval(difference, interval, better, said):
  assert dictionary.said(difference, interval, better) == said


def test_lines_are_complete_and_an_unknown_measure_is_shown_under_its_key():
  for key, line in dictionary.METRICS.items():
    assert line.name and line.kind in ("result", "count", "setting"), key
    assert line.better or line.kind != "result" or key == "drawn_share", key
  assert dictionary.metric("n_dots").kind == "count" and dictionary.metric("my_score").name == "my score"
  assert dictionary.in_order(["mine", "image_ap", "dataset", "pixel_ap"]) == ["pixel_ap", "image_ap", "mine"]


LOWER = """
scan_false_alarms image_fpr95 image_fpr99 false_positives_per_scan hd95_mm hd95_px brier ece p_value_ks
recon_mae recon_mse recon_perceptual recon_mae_abnormal recon_mse_abnormal recon_perceptual_abnormal
mae_inside residual_share mae_outside untouched_changed_share identity_mae identity_changed_share"""


def test_errors_and_false_alarms_are_better_when_lower_and_nothing_else_is():
  found = {key: line.better for key, line in dictionary.METRICS.items() if line.kind == "result"}
  assert {key for key, better in found.items() if better == dictionary.LOWER} == set(LOWER.split())
  assert {better for key, better in found.items() if key not in LOWER.split()} == {dictionary.HIGHER, ""}
