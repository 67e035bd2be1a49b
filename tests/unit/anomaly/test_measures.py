"""config.eval.measures on scores, maps and masks whose numbers are counted by hand."""

import types

import ml_collections
import numpy as np
import pytest
from sklearn import metrics

from medae_jax.metrics import bootstrap, conformal, probability, ranking, regions, similarity
from medae_jax.tasks.anomaly import findings, measures, scan_measures
from tests.unit.anomaly import by_hand


def collected(seen, asked, **parts):
  """Measures of an evaluator, with what a pass would have collected."""
  found = object.__new__(measures.Measures)
  vars(found).update(_evaluator=seen, _asked=asked, _images={}, _alike=None, _findings={}, _trivial={},
                     **parts)
  return found


# ------------------------------------------------------------------------------- images and labels
def test_val_says_which_end_of_a_trivial_score_is_ill():
  label = np.array([0, 0, 0, 1, 1, 1, -1])
  seen = by_hand.evaluator(np.zeros(7), label, "abcdefg")
  trivial = {"up": np.array([1, 2, 5, 3, 4, 6, 99.0]), "down": np.array([6, 5, 4, 3, 2, 1, 99.0])}
  of = collected(seen, ("trivial",))
  of._trivial = trivial
  assert of.calibrate()["trivial"] == {"up": 1, "down": -1}
  seen.calibration = {"trivial": {"up": 1, "down": -1}}
  numbers = {}
  of._trivial_scores(numbers, {})
  assert numbers["trivial_scores"]["down"]["image_auroc"] == 1.0
  assert numbers["trivial_scores"]["up"]["image_auroc"] == pytest.approx(7 / 9)


def test_images_of_unknown_label_count_among_reconstructions_but_not_among_probabilities():
  seen = by_hand.evaluator([0, 0, 50, 1], [0, 1, -1, 0], "abcd", calibration={
      "probability": [1.0, 0.0], "scan_unit": "image", "scan_scores": [0.0, 2.0, 3.0]})
  of = collected(seen, ("probability",))
  of._images = {"mae": np.array([1.0, 5.0, 3.0, np.nan])}
  numbers, intervals, notes = {}, {}, {}
  of._likenesses(numbers, intervals)
  assert numbers == {"recon_mae": 2.0, "recon_mae_abnormal": 5.0}
  numbers = {}
  of._probabilities(numbers, notes)
  p, y = 1 / (1 + np.exp(-np.array([0, 0, 1.0]))), np.array([0, 1, 0])
  assert numbers["brier"] == pytest.approx(((p - y) ** 2).mean()) and not notes
  normal = [conformal.p_value([0.0, 2.0, 3.0], s) for s in (0, 1)]
  assert numbers["p_value_ks"] == pytest.approx(probability.uniformity(normal)[0])
  seen.split, numbers = "val", {}  # its normal scores are those that p-values are made of
  of._probabilities(numbers, notes)
  assert "p_value_ks" not in numbers and "brier" in numbers


def test_likeness_knows_the_range_of_the_images_and_averages_the_planes(monkeypatch):
  rng = np.random.default_rng(0)
  image, recon = rng.uniform(-1, 1, (2, 2, 8, 8, 1)).astype(np.float32)
  apart = np.array([1.0, 2.0, 3.0, 6.0], np.float32)  # two planes of two images
  monkeypatch.setattr(measures, "_span", lambda config: (-1, 1))
  monkeypatch.setattr(measures, "_trunk", lambda *_: (None, ()))
  monkeypatch.setattr(measures.perceptual_distance, "distance", lambda *_: apart)
  found = measures._likeness(None, True, True)(image, recon)
  np.testing.assert_allclose(found["ssim"], similarity.ssim(image, recon, data_range=2.0), rtol=1e-6)
  np.testing.assert_allclose(found["perceptual"], [2.0, 4.0])


def test_rows_that_fill_a_batch_are_of_no_image(monkeypatch):
  """The last batch repeats an image; it stands at the place of another, or of none."""
  seen = by_hand.evaluator(np.zeros(4), np.zeros(4), "abcd")
  of = collected(seen, ("similarity", "trivial"))
  of._alike = lambda image, recon: {"mae": np.asarray(image - recon).mean((1, 2, 3))}
  monkeypatch.setattr(measures, "_span", lambda config: (0, 1))
  monkeypatch.setattr(measures.trivial, "scores", lambda image, span: {"mean": image.mean((1, 2, 3))})
  image = np.array([0.25, 0.5, 0.75], np.float32)[:, None, None, None] * np.ones((1, 2, 2, 1), np.float32)
  batch = {"image": image, "position": np.array([2, 0, 0]), "valid": np.array([True, True, False])}
  of.update(batch, {"recon": 0 * image})
  for found in (of._images["mae"], of._trivial["mean"]):
    np.testing.assert_array_equal(found, [0.5, np.nan, 0.25, np.nan])
  of._images = {}
  of.update(batch, {"recon": image[:, :1]})
  assert not of._images


@pytest.mark.parametrize("asked", [(), ("boxes",), ("surface", "probability", "aupro", "lesions")])
def test_measures_of_whole_scans_are_those_asked_for(monkeypatch, asked):
  given = []
  monkeypatch.setattr(measures.findings, "measure", lambda evaluator: {})
  monkeypatch.setattr(measures.scan_measures, "measure", lambda evaluator, names, *_: given.extend(names))
  of = collected(by_hand.evaluator(np.zeros(2), np.zeros(2), "ab"), asked)
  of._probabilities = lambda *_: None
  of.result({})
  assert given == [a for a in asked if a != "probability"]


def test_a_finding_is_measured_against_all_normal_images_over_their_patients():
  rng = np.random.default_rng(3)
  label = np.r_[np.zeros(30, int), np.ones(30, int), -np.ones(5, int)]
  score = np.r_[rng.normal(size=30), rng.normal(0.8, 1, 30), np.full(5, 9.0)]
  patients = np.array(list("abcdefghijklm"))[np.arange(65) // 5]
  seen = by_hand.evaluator(score, label, patients)
  seen.metas = [{"finding": "x|y" if i < 54 else "y"} for i in range(65)]
  found = findings.measure(seen)
  assert {k: v["n"] for k, v in found["findings"].items()} == {"x": 24, "y": 30}
  known, of_x = label >= 0, np.r_[0:54]
  for rows, numbers, names in ((known, found, ("image_fpr95", "image_fpr99")),
                               (of_x, found["findings"]["x"], ("fpr95", "fpr99"))):
    false, true, _ = metrics.roc_curve(label[rows], score[rows], drop_intermediate=False)
    for name, share in zip(names, (0.95, 0.99)):
      assert numbers[name] == pytest.approx(false[np.argmax(true >= share)])
  _, group = np.unique(patients[of_x], return_inverse=True)
  want = ranking.of_images(score[of_x], label[of_x], group, bootstrap.resample_weights(11, 40, 3))["ci95"]
  for name in ("auroc", "ap"):
    np.testing.assert_allclose(found["findings"]["x"]["ci95"][name], want[f"image_{name}"], atol=1e-12)
  assert found["image_fpr95"] != found["image_fpr99"]
  assert found["findings"]["x"]["fpr95"] != found["findings"]["x"]["fpr99"]


# ---------------------------------------------------------------------------------- maps and masks
def measured(seen, *asked):
  numbers, intervals, notes = {}, {}, {}
  seen.calibration = {"threshold": 0.5}
  scan_measures.measure(seen, asked, numbers, intervals, notes)
  return numbers, intervals, notes


def test_a_box_at_half_overlap_is_found_and_small_components_make_no_box():
  mask, maps = np.zeros((2, 12, 12)), np.zeros((2, 12, 12))
  mask[:, 2:4, 2:6] = 1
  maps[0, 2:4, 2:4] = 0.9          # half of the box, and no more
  maps[1, 2:4, 2:6] = 0.9
  maps[1, 9, 9] = 1.0              # the highest pixel of the map, a speck
  seen = by_hand.with_maps(maps, mask, "ab")
  seen.config.eval.components = 2
  numbers, _, _ = measured(seen, "boxes", "lesions")
  assert numbers["box_iou"] == 0.75 and numbers["box_recall_50"] == 1.0 and numbers["pointing_game"] == 0.5
  for i, hit in ((0, 1.0), (1, 0.0)):  # of the map's highest pixel, whatever the mean inside
    assert measured(by_hand.with_maps(maps[[i]], mask[[i]], "a"), "boxes")[0]["pointing_game"] == hit
  assert numbers["false_positives_per_scan"] == 0
  seen.config.eval.components = 0
  assert measured(seen, "lesions")[0]["false_positives_per_scan"] == 0.5


def test_a_scan_without_any_mark_agrees_nowhere_and_has_no_distance():
  mask, maps = np.zeros((2, 9, 9)), np.zeros((2, 9, 9))
  mask[:, 3:6, 3:6] = 1
  maps[0, 3:6, 4:7] = 0.9          # a column too far
  seen = by_hand.with_maps(maps, mask, "ab", slices=False)
  for meta in seen.metas:
    meta["voxel_mm"] = (7.0, 1.0, 3.0)  # slice, row, column: of an image without slices the last two
  numbers, _, notes = measured(seen, "surface")
  assert numbers["hd95_mm"] == 3.0 and "hd95_mm of 1 scans with lesions" in notes
  # Of 8 + 8 surface pixels those of both columns beyond the other's lie 3 mm off: tolerance 1.
  assert numbers["surface_dice"] == pytest.approx(10 / 16 / 2)


def test_lesion_intervals_are_of_scans_and_lesions_summed_over_patients():
  rng = np.random.default_rng(4)
  mask, maps = np.zeros((8, 9, 9)), np.zeros((8, 9, 9))
  for i in range(8):
    for column in (1, 4, 7):
      mask[i, 2, column] = rng.random() < 0.7
      maps[i, 2, column] = 0.9 * (rng.random() < 0.6)
      maps[i, 6, column] = 0.8 * (rng.random() < 0.3)
  seen = by_hand.with_maps(maps, mask, "aaabbccd")
  _, intervals, _ = measured(seen, "lesions", "aupro")
  hit, false = ((maps > 0.5) & (mask > 0)).sum((1, 2)), ((maps > 0.5) & (mask == 0)).sum((1, 2))
  lesions, drawn = mask.sum((1, 2)), []
  for weight in bootstrap.resample_weights(4, 40, seed=3):
    w = weight[seen.group]
    drawn.append((w @ hit / (w @ lesions), w @ false / w.sum(), w @ hit / (w @ (hit + false))))
  names = ("lesion_sensitivity", "false_positives_per_scan", "lesion_precision")
  for name, values in zip(names, zip(*drawn)):
    np.testing.assert_allclose(intervals[name], bootstrap.interval(values), err_msg=name)
  assert intervals["aupro"][0] < intervals["aupro"][1]


def test_the_interval_of_a_mean_weighs_each_patients_values():
  seen = by_hand.evaluator(np.zeros(5), np.zeros(5), "abcde")
  values, patients = np.array([1.0, 2.0, 6.0, 7.0]), np.array([0, 0, 3, 4])  # two patients have none
  drawn = [np.repeat(values, w[[0, 0, 1, 2]]).mean() for w in bootstrap.resample_weights(3, 40, 3)]
  np.testing.assert_allclose(scan_measures.interval(seen, values, patients), bootstrap.interval(drawn))


@pytest.mark.parametrize("good", [0, 1])
def test_aupro_is_resampled_patient_by_patient(good):
  """One patient's lesion is found, the other's not: resamples of one of them alone lie at both ends."""
  mask, maps = np.zeros((2, 8, 8)), np.full((2, 8, 8), 0.2)
  mask[:, 2:4, 2:4] = 1
  maps[mask > 0], maps[good, 2:4, 2:4] = 0.1, 0.9
  _, intervals, _ = measured(by_hand.with_maps(maps, mask, "ab"), "aupro")
  np.testing.assert_allclose(intervals["aupro"], [0, 1], atol=0.2)


def test_of_one_kind_of_images_no_end_of_a_score_is_chosen():
  for label in ([0, 0, -1], [1, 1, -1]):
    of = collected(by_hand.evaluator(np.zeros(3), label, "abc"), ("trivial",))
    of._trivial = {"up": np.arange(3.0)}
    assert of.calibrate() == {}


@pytest.mark.parametrize("asked, plain, features", [
    ((), 0, 0), (("trivial",), 0, 0), (("similarity",), 1, 0), (("perceptual", "aupro"), 0, 1),
    (("similarity", "perceptual"), 1, 1), (None, 0, 0)])
def test_reconstructions_are_compared_as_asked_and_by_default_not_at_all(monkeypatch, asked, plain, features):
  seen = []
  monkeypatch.setattr(measures, "_likeness", lambda config, *flags: seen.append(flags) or (lambda *_: {}))
  config = ml_collections.ConfigDict({"eval": {} if asked is None else {"measures": asked}})
  found = measures.Measures(types.SimpleNamespace(config=config))
  assert seen == [(bool(plain), bool(features))] * bool(plain or features)
  assert (found._alike is not None) == bool(plain or features)


def test_aupro_is_of_all_images_of_a_patient():
  rng = np.random.default_rng(0)
  maps, mask = rng.random((4, 9, 9)), np.zeros((4, 9, 9), bool)
  mask[:, 2:5, 3:6] = True
  maps[0] += mask[0]
  numbers, _, _ = measured(by_hand.with_maps(maps, mask, "aabb"), "aupro")
  assert numbers["aupro"] == pytest.approx(regions.aupro(sum(map(regions.counts, np.float32(maps), mask))))


def test_what_is_at_the_threshold_is_not_above_it():
  mask = np.zeros((2, 9, 9))
  mask[:, 3:6, 3:6] = 1
  found = [measured(by_hand.with_maps(mask * height, mask, "ab"), "boxes", "lesions", "surface")[0]
           for height in (0.5, 0.625)]
  assert [(n["box_iou"], n["lesion_sensitivity"], n["surface_dice"]) for n in found] == [(0, 0, 0), (1, 1, 1)]


def test_distances_are_in_mm_where_every_image_says_how_many():
  mask, maps = np.zeros((3, 9, 9)), np.zeros((3, 9, 9))
  mask[:, 3:6, 3:6] = 1
  maps[:2, 3:6, 4:7] = 0.9         # the third has no mark
  for known, unit, far in ((3, "mm", 2.0), (2, "px", 1.0)):
    seen = by_hand.with_maps(maps, mask, "abc")
    for meta in seen.metas[:known]:
      meta["voxel_mm"] = (7.0, 2.0)
    numbers, intervals, notes = measured(seen, "surface")
    assert numbers[f"hd95_{unit}"] == far and f"hd95_{unit} of 1 scans with lesions" in notes
    assert set(intervals) == {"surface_dice", f"hd95_{unit}"} and ("hd95_mm" in notes) == (unit == "px")


def test_all_boxes_of_an_image_count_whether_found_or_not():
  mask, maps = np.zeros((2, 12, 12)), np.zeros((2, 12, 12))
  mask[:, 1:3, 1:3] = mask[:, 6:8, 6:8] = mask[0, 10, 1:3] = 1
  maps[:, 1:3, 1:3] = 0.9
  maps[:, 5, 11] = 0.8             # of no finding
  numbers, _, _ = measured(by_hand.with_maps(maps, mask, "ab"), "boxes")
  assert numbers["box_iou"] == numbers["box_recall_50"] == pytest.approx((1 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize("patients, resamples", [("aa", 40), ("ab", 0)])
def test_of_one_patient_or_without_resamples_there_is_no_interval(patients, resamples):
  mask = np.zeros((2, 9, 9))
  mask[:, 3:6, 3:6] = 1
  seen = by_hand.with_maps(0.9 * mask, mask, patients)
  seen.config.eval.bootstrap = resamples
  _, intervals, _ = measured(seen, "aupro", "boxes", "surface", "lesions")
  assert set(intervals) == {"pointing_game", "box_iou", "box_recall_50", "surface_dice", "hd95_px"}
  assert set(intervals.values()) == {None}
  seen.label[0], seen.metas[1]["finding"] = 0, "x"
  assert findings.measure(seen)["findings"]["x"]["ci95"] == {}


def test_a_finding_is_called_by_its_own_name_before_its_kind():
  for meta, names in (({"finding": "x|y", "kind": "z"}, ["x", "y"]), ({"kind": "z"}, ["z"]), ({}, []),
                      ({"finding": "", "kind": "z"}, ["z"]), ({"finding": "|x|"}, ["x"])):
    assert findings.names_of(meta) == names


def test_findings_need_both_kinds_of_images_and_two_patients_for_an_interval():
  for label in ([1, 1, -1], [0, 0, -1]):
    assert findings.measure(by_hand.evaluator([0.1, 0.2, 0.3], label, "abc")) == {}
  seen = by_hand.evaluator([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], "abab")
  seen.metas = [{"finding": "x"} for _ in range(4)]
  assert set(findings.measure(seen)["findings"]["x"]["ci95"]) == {"auroc", "ap"}


def test_an_interval_over_boxes_is_of_the_patients_of_those_images(monkeypatch):
  """Only the last two of four images have a box; they are of one patient, the others of two more."""
  mask = np.zeros((4, 9, 9))
  mask[2:, 3:6, 3:6] = 1
  seen, asked = by_hand.with_maps(0.9 * mask, mask, "abcc"), []
  monkeypatch.setattr(scan_measures, "interval", lambda of, values, patients: asked.append(
      (len(values), patients.tolist())))
  measured(seen, "boxes")
  assert asked == [(2, [seen.group[2]] * 2)] * 3 and seen.group[2] == seen.group[3] != seen.group[0]
