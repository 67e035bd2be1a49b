"""Tables, curves, the gallery and the intervals of an anomaly evaluation, counted by hand."""

import types

import numpy as np
import pytest
from sklearn import metrics

from medae_jax.metrics import bootstrap, detection
from medae_jax.tasks.anomaly import captions, figures, gallery, intervals, tables
from tests.unit.anomaly import by_hand


def test_a_score_at_the_threshold_is_normal_in_the_share_and_in_every_resample():
  seen = by_hand.evaluator([0.1, 0.3, 0.3, 0.5, 0.9], [0, 0, 1, 1, -1], "aabbc",
                           calibration={"image_threshold": 0.3})
  assert figures.operating_point(seen) == {"image_sensitivity": 0.5, "image_specificity": 1.0}
  drawn = figures.resampled_points(seen, np.array([[1, 1, 1], [3, 0, 0], [0, 1, 2]]))
  np.testing.assert_array_equal(drawn["image_sensitivity"][0], [0.5, np.nan, 0.5])
  np.testing.assert_array_equal(drawn["image_specificity"][0], [1, 1, np.nan])
  assert drawn["image_sensitivity"][1] == drawn["image_specificity"][1] == 1  # patients with such images
  seen.calibration = {"image_threshold": 0.1}
  assert figures.operating_point(seen) == {"image_sensitivity": 1.0, "image_specificity": 0.5}


def of_scans(split="test"):
  """Two slices of each of four patients; c and d are abnormal, the last one's label is not known."""
  return by_hand.evaluator(
      [1, 5, 2, 3, 7, 1, 9, 2, 4], [0, 0, 0, 0, 1, 0, 1, 0, -1], "aabbccdde", split=split,
      metas=[{"slice": i} for i in range(9)],
      calibration={"scan_unit": "scan", "scan_scores": [1, 3, 5, 8], "image_threshold": 2.5,
                   "scan_threshold": 6})


def test_p_values_are_of_whole_scans_of_either_kind_and_never_of_val_itself():
  found = figures.curves(of_scans())
  assert found["p_values"] == {"unit": "scan", "calibrated_on": 4, "normal": [0.6, 0.8],  # of 5 and 3
                               "abnormal": [0.2, 0.4]}
  assert "p_values" not in figures.curves(of_scans("val"))
  assert figures._thin(np.arange(2001.0) / 2000)[::1999] == [0, 1]  # evenly, both ends among them
  assert len(figures._thin(np.arange(5000.0))) == 2000 and figures._thin(np.array([1, 2])) == [1.0, 2.0]
  other = of_scans()
  other.calibration["scan_unit"] = "image"
  assert "p_values" not in figures.curves(other)


def test_curves_say_their_unit_prevalence_and_the_thresholds_of_each_histogram():
  seen = of_scans()
  seen.counts = np.array([[5, 3], [1, 1]])
  seen.pixels = {"model": types.SimpleNamespace(grouped=lambda: seen.counts[None], shift=1)}
  found = figures.curves(seen)
  assert found["unit"] == "patients" and found["groups"] == 5
  assert found["image"]["prevalence"] == 0.25 and found["pixel"]["prevalence"] == 0.2
  assert found["pixel"]["exact"] is False
  assert {k: v["threshold"] for k, v in found["scores"].items()} == {"image": 2.5, "scan": 6}
  assert sum(found["scores"]["image"]["unknown"]) == 1
  assert figures.curves(by_hand.evaluator([1, 2], [0, 1], "ab"))["unit"] == "images"


@pytest.mark.parametrize("asked, drawn", [(40, 40), (1000, 200), (0, None)])
def test_bands_take_no_more_resamples_than_intervals_do(asked, drawn, monkeypatch):
  """Those of `eval.bootstrap`, and none where it is 0."""
  seen, told, plain = of_scans(), [], bootstrap.resample_weights
  seen.config.eval.bootstrap = asked
  seen.counts = np.array([[5, 3], [1, 1]])
  seen.pixels = {"model": types.SimpleNamespace(grouped=lambda: np.stack([seen.counts] * 5), shift=0)}
  monkeypatch.setattr(bootstrap, "resample_weights", lambda groups, resamples, seed=None: told.append(
      resamples) or plain(groups, resamples, seed))
  found = figures.curves(seen)
  assert told == ([drawn, drawn] if drawn else [])
  assert all(("low" in found[kind]["roc"]) is bool(drawn) for kind in ("image", "pixel"))


def test_the_gallery_begins_with_the_worst_of_each_patient():
  #             a     a    b     c    d    d     e     f
  seen = by_hand.evaluator([0.9, 0.8, 0.95, 0.1, 0.2, 0.05, 0.01, 0.99], [0, 0, 0, 0, 1, 1, 1, 1], "aabcddef",
                           calibration={"image_threshold": 0.2})
  found = gallery.choose(seen, 8)
  assert found["misses"].tolist() == [6, 5]        # lowest scores first; 7 is found
  assert found["false_alarms"].tolist() == [2, 0]  # highest first; 3 is rightly normal
  assert found["panel"].tolist() == [7, 4, 5, 6, 2, 1]  # normal ones: the highest and the middle score
  only = by_hand.evaluator([0.2, 0.3], [1, 1], "ab", calibration={"image_threshold": 0.2})
  assert gallery.choose(only, 8)["misses"].tolist() == [0]  # at the threshold: not called
  assert gallery.choose(seen, 1)["misses"].tolist() == [6] and not gallery.choose(seen, 0)["panel"].size


def test_of_a_patient_with_masks_the_slice_with_most_lesion_is_shown_best_dice_first():
  seen = by_hand.evaluator([0.5] * 5, [1, 1, 1, 1, 0], "aabbc", lesion_px=np.array([3, 5, 7, 2, 0]), overlap={
      "val": np.array([[1, 4, 4], [3, 4, 4], [0, 5, 0]]),
      "best": np.array([[4, 4, 4], [1, 4, 4], [0, 0, 0]])})
  assert gallery.choose(seen, 8)["panel"].tolist() == [2, 1, 4]
  assert "Dice of the patient 0.25" in captions.describe(seen, 0)
  assert not any("Dice" in fact for fact in captions.describe(seen, 4))


def test_the_rows_of_patients_and_images():
  seen = by_hand.evaluator(
      [1, 4, 2, 3], [0, 1, -1, 1], "aaab", lesion_px=np.array([0, 3, 1, 2]), overlap={
          "val": np.array([[1, 2, 2], [1, 1, 3]]), "val_components": np.array([[1, 1, 1], [0, 1, 1]]),
          "best": np.array([[2, 2, 2], [1, 3, 1]]), "best_components": np.array([[0, 1, 1], [0, 1, 1]])},
      counts=np.ones((2, 2)), calibration={"image_threshold": 3})
  grouped = np.array([[[2, 0], [0, 2]], [[0, 1], [1, 0]]])
  for shift, known in ((0, True), (1, False)):  # of bins of several codes no exact AP follows
    seen.pixels = {"model": types.SimpleNamespace(grouped=lambda: grouped, shift=shift)}
    first, second = tables.patients(seen)
    assert first == {
        "patient": "a", "images": 3, "abnormal_images": 1, "lesion_pixels": 4,
        "pixel_ap": 1.0 if known else None, "dice_val_threshold": 0.5, "dice_val_threshold_components": 1.0,
        "dice_at_best_threshold": 1.0,
        "score_max": 4.0, "score_mean": pytest.approx(7 / 3)}
    assert second["pixel_ap"] == (0.5 if known else None) and second["score_mean"] == 3
  shown = [(r["label"], r["called_abnormal"]) for r in tables.images(seen)]
  assert shown == [(0, 0), (1, 1), (None, 0), (1, 0)]  # 3 is not above 3
  seen.lesion_px[1] = -1
  assert tables.images(seen)[1]["lesion_pixels"] is None


def test_image_intervals_are_drawn_by_the_seed_of_the_run_against_the_better_baseline():
  rng = np.random.default_rng(1)
  label = np.tile([0, 1, 1, 0], 5)
  model, good, bad = (label * gain + rng.normal(size=20) for gain in (1.0, 1.5, -2.0))
  seen = by_hand.evaluator(model, label, "aabbccddeeffgghhiijj", baselines={"intensity": bad, "median": good})
  found = intervals.intervals(seen, {})
  area = lambda score, rows: metrics.roc_auc_score(label[rows], score[rows])
  drawn = []
  for weight in bootstrap.resample_weights(10, 40, seed=3):
    rows = np.repeat(np.arange(20), weight[seen.group])
    drawn.append((area(model, rows), area(model, rows) - area(good, rows)))
  for name, values in zip(("image_auroc", "image_auroc_minus_baseline"), zip(*drawn)):
    np.testing.assert_allclose(found[name], bootstrap.interval(values), atol=1e-9)


def test_pixel_intervals_are_against_the_better_baseline_and_show_the_plain_one():
  rng = np.random.default_rng(2)
  grouped = {name: rng.integers(1, 9, (6, 2, 5)) for name in ("model", "intensity", "intensity_median5")}
  grouped["intensity_median5"][:, 1, 3:] += 20  # finds most
  pixels = {k: types.SimpleNamespace(grouped=lambda v=v: v, counts=lambda v=v: v.sum(0), shift=0)
            for k, v in grouped.items()}
  weights = bootstrap.resample_weights(6, 30, 0)
  found = intervals._pixels(pixels, weights, "all")
  ap = {k: np.array([detection.average_precision(np.tensordot(w, v, 1)) for w in weights])
        for k, v in grouped.items()}
  np.testing.assert_allclose(found["baseline_pixel_ap"], ap["intensity"])
  np.testing.assert_allclose(found["pixel_ap_minus_baseline"], ap["model"] - ap["intensity_median5"])


@pytest.mark.parametrize("grid", [None, "all"])
def test_the_best_dice_of_a_resample_is_that_of_its_counts(grid):
  """Scores at thresholds of the grid, between them, and all above 0, where every pixel is called."""
  for scores, share in (([0.25, 0.5, 0.75], 0.4), ([0.2504, 0.5, 0.9], 0.4), ([0.25, 0.5, 2.0], 1.0)):
    rng, counts = np.random.default_rng(1), np.zeros((5, 2, detection.CODES))
    codes = detection.code_of(np.array(scores))
    counts[:, 0, codes], counts[:, 1, codes] = rng.integers(0, 9, (2, 5, 3))
    counts[:, 0] *= share < 1
    used = np.flatnonzero(counts.any((0, 1)))
    found = intervals._best_dice(counts[..., used], intervals._places(used, grid, 0))
    np.testing.assert_allclose(found, [detection.best_dice(c, grid)[0] for c in counts])


def test_zero_in_an_interval_decides_nothing_and_one_patient_has_none():
  for pair, better in (([0, 1], None), ([-1, 0], None), ([-1, 1], None), ([0.1, 1], True),
                       ([-1, -0.1], False), (None, None)):
    assert intervals.verdict({"x_minus_baseline": pair}, "x") is better
  for patients, told in (("aaa", False), ("aab", True)):
    seen = by_hand.evaluator([1, 2, 3], [0, 1, 1], patients)
    found = intervals.of_images(seen, np.array([1.0, 2.0, 3.0]))
    assert found["image_auroc"] == 1 and bool(found["ci95"]) == told


@pytest.mark.parametrize("shift, known", [(0, True), (2, False)])
def test_the_average_precision_of_a_patient_is_of_counts_that_are_exact(shift, known):
  """Many patients share bins of several scores: theirs would be a rounded one."""
  counts = np.zeros((1, 2, detection.CODES >> shift), np.int32)
  counts[0, 0, 1] = counts[0, 1, 2] = 1
  seen = by_hand.evaluator([0.5], [1], "a")
  vars(seen).update(counts=counts.sum(0), overlap={}, lesion_px=np.array([1]),
                    pixels={"model": types.SimpleNamespace(shift=shift, grouped=lambda: counts)})
  (row,) = tables.patients(seen)
  assert row["pixel_ap"] == (1.0 if known else None)
