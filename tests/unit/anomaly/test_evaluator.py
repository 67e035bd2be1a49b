"""The anomaly evaluator on images whose numbers are known: baselines, unknown labels, scales, pictures."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics

from medae_jax.metrics import conformal
from medae_jax.reporting import panels, rulers
from medae_jax.tasks.anomaly import evaluator, pictures, thresholds
from tests.unit import known_maps
from tests.unit.anomaly import by_hand
from tests.unit.tasks.test_intervals_and_components import _Data, calibrated, judged


@pytest.fixture(scope="module")
def labelled():
  """40 single images of two channels, half background, labels of either kind or none; nothing is masked."""
  rng = np.random.default_rng(0)
  image = rng.uniform(0.2, 0.6, (40, 8, 8, 2)).astype(np.float32)
  label = np.tile([0, 1, -1, 1], 10)
  image[label == 1, 3, 3, 1] += 0.2
  image[:, :, :3], image[:, :, 2, 1] = 0, 0.02
  c = known_maps.config("")
  c.eval.baseline_channel = 1
  with c.unlocked():
    c.method.score = {"image_score": "foreground_mean"}
  judge = evaluator.Evaluator(c.lock(), _Data({"image": image, "label": label.astype(np.int32)}, [
      {"id": str(i)} for i in range(40)]), "test", None)
  maps = image[..., 1:]
  judge.update({"image": image, "label": label, "position": np.arange(40), "valid": np.ones(40, bool)},
               {"map": maps, "score": maps.mean((1, 2, 3))})
  return judge, image, label


def test_the_baselines_are_the_intensity_of_their_channel_in_the_body(labelled):
  judge, image, _ = labelled
  plain = image[..., 1] * (image.sum(-1) > 0.01)
  median = np.stack([ndimage.median_filter(m, 5, mode="mirror") for m in plain])
  for name, maps in (("intensity", plain), ("intensity_median5", median)):
    want = [m[body].mean() for m, body in zip(maps, image.sum(-1) > 0.01)]
    np.testing.assert_allclose(judge.image_scores[name], want, rtol=1e-5)


def test_unknown_labels_are_no_abnormal_images_and_the_better_baseline_is_the_one_to_beat(labelled):
  judge, _, label = labelled
  found, known = judge.result(), label >= 0
  assert found["n_abnormal_images"] == (label == 1).sum() and "n_lesion_pixels" not in found
  area = {k: metrics.roc_auc_score(label[known], v[known]) for k, v in judge.image_scores.items()}
  assert area["intensity"] != area["intensity_median5"]
  best = max(area["intensity"], area["intensity_median5"])
  assert found["model_better_by"] == {"metric": "image_auroc",
                                      "difference": pytest.approx(area["model"] - best)}


def test_of_single_normal_images_the_threshold_is_the_one_with_a_promise(labelled, monkeypatch):
  judge, _, _ = labelled
  monkeypatch.setattr(judge, "label", np.zeros(40, int))
  found = judge.calibrate()
  assert found["image_threshold"] == conformal.threshold(judge.image_scores["model"], 0.05)
  assert found["image_threshold_rule"].startswith("conformal")


def test_intensities_above_one_are_cut_at_any_value():
  maps = np.full((2, 8, 8), 2.0)
  maps[:, 2:4, 2:4] = 3.0
  judge = judged(maps, maps > 2, "ab", {"threshold": 2.5}, panel_images=4)
  found = judge.result()
  assert found["dice_best"] < 0.5 and found["baseline"]["dice_best"] == found["dice_best_any"] == 1.0


def test_a_picture_shows_the_image_that_was_chosen(monkeypatch):
  maps, mask = np.zeros((5, 8, 8)), np.zeros((5, 8, 8))
  maps[:, 2:4, 2:4], maps[2] = 0.9, 0
  mask[3, 2:4, 2:4] = mask[1, 2:4, 2:5] = 1
  judge = judged(maps, mask, "abcde", {"threshold": 0.5, "image_threshold": 0.2}, panel_images=2)
  judge.result()
  chosen = judge.choose()
  judge.show({"image": judge.source.read(chosen)["image"], "mask": judge.source.read(chosen)["mask"],
              "position": np.arange(len(chosen)), "valid": np.ones(len(chosen), bool)},
             {"map": maps[chosen][..., None]}, {})
  assert [case["row"] for case in judge._cases] == chosen.tolist() and len(chosen) > 2
  drawn = []
  monkeypatch.setattr(evaluator.pictures, "draw", lambda of, cases, scale: drawn.extend(cases))
  judge.panels()
  assert [case["row"] for case in drawn] == judge._chosen["panel"].tolist()  # not the misses


@pytest.mark.parametrize("meta, name", [
    ({"patient": "p", "group": "g", "id": "i"}, "p"), ({"group": "g", "id": "i"}, "g"), ({"id": "i"}, "i"),
    ({}, "7")])
def test_images_belong_to_their_patient_else_to_their_group(meta, name):
  assert evaluator._patient(meta, 7) == name


# ------------------------------------------------------------------------------------------- scales
def test_maps_far_below_a_thousandth_are_cut_between_their_own_values():
  maps = np.full((2, 8, 8), 0.0002)
  maps[:, :2] = 0.0004
  found = calibrated(maps, maps > 0.0003)
  assert 0.00019 < found["threshold"] < 0.0004 and "all float16 values" in found["threshold_rule"]


def test_the_scale_ends_at_the_highest_scores_or_at_twice_the_threshold():
  maps = np.full((10, 40, 40), 0.25)
  maps[0, :4, :10], maps[0, 0, 0] = 0.75, 0.875   # 0.25 % of the pixels, and one
  assert calibrated(maps, quantile=0.5)["map_max"] == 0.75
  assert calibrated(maps, quantile=0.999)["map_max"] == 1.5
  assert calibrated(0 * maps)["map_max"] == 1.0     # a map of nothing has no scale of its own


def test_the_grey_window_is_of_all_images_and_begins_at_zero_or_below():
  sample = thresholds.IntensitySample()
  for value in np.linspace(0.2, 1.0, 401):  # thinned out on the way, evenly
    sample.add(np.stack([np.full((1, 4, 4), value), np.full((1, 4, 4), -value)], -1))
  (low, high), (negative, zero) = sample.window()
  assert low == 0 and high == pytest.approx(0.995 * 0.8 + 0.2, abs=0.01)
  assert negative == pytest.approx(-high, abs=0.01) and zero == pytest.approx(-0.2, abs=0.01)


# ----------------------------------------------------------------------------------------- pictures
def test_pictures_show_the_channel_of_the_baseline_on_its_own_window():
  rng = np.random.default_rng(0)
  side = pictures._CELL  # as large as a cell: nothing is enlarged
  image = rng.uniform(0.2, 1, (side, side, 2)).astype(np.float32)
  image[:, :9] = 0
  mask, found = np.zeros((2, side, side, 1), np.float32)
  mask[40:60, 20:40], found[40:60, 20:40] = 1, 0.9
  found[100, 50] = 0.5  # at the threshold: not marked
  seen = by_hand.evaluator([0.5], [1], "a", metas=[{"slice": 0}], lesion_px=np.array([400]))
  seen.config.data.modalities, seen.config.eval.baseline_channel = ("t1", "flair"), 1
  case = {"image": image, "mask": mask, "map": found, "recon": image + 0.3, "row": 0}
  (row,) = pictures.rows(seen, [case], {"window": [[0, 1], [0.1, 0.8]], "threshold": 0.5, "map_max": 1.0})
  turned = panels.grey(image[..., 1].T, (0.1, 0.8))
  np.testing.assert_array_equal(row["input, flair"], turned)
  (bare,) = pictures.rows(seen, [{**case, "mask": None}], {"window": [[0, 1]], "map_max": 1.0})
  framed = (row["anomaly score"] != bare["anomaly score"]).any(-1)
  assert framed[20, 40:60].any() and not framed[80:].any()  # the finding, turned as the image is
  free = (mask[..., 0] == 0).T
  np.testing.assert_array_equal(row["prediction"][free], turned[free])
  body = image.any(-1).T
  assert not row["reconstruction"][~body].any()  # beside the body the network's output means nothing
  want = panels.grey((image + 0.3)[..., 1].T, (0.1, 0.8))
  np.testing.assert_array_equal(row["reconstruction"][body], want[body])
  assert [head for head in row if "mask" in head] == ["expert mask"]
  seen.dataset.synthetic = True  # drawn with its lesion: no expert has seen it
  assert [head for head in pictures.rows(seen, [case], {"window": [[0, 1]]})[0] if "mask" in head] == [
      "generated mask"]
  seen.lesion_px = np.zeros(1)  # masks that mark nothing anywhere are nobody's judgement
  assert "generated mask" not in pictures.rows(seen, [case], {"window": [[0, 1]], "map_max": 1.0})[0]


def test_a_slice_says_its_sides_and_its_size_where_they_are_known(monkeypatch):
  said = []
  monkeypatch.setattr(rulers, "sides", lambda picture, *sides: said.append(sides) or picture)
  monkeypatch.setattr(rulers, "ruler", lambda picture, mm: said.append(round(mm, 6)) or picture)
  seen = by_hand.evaluator([0.5], [1], "a", metas=[{"slice": 0, "voxel_mm": (5.0, 1.5, 2.0)}])
  seen.config.data.orientation = "LPS"
  case = {"image": np.full((90, 60, 1), 0.5, np.float32), "mask": None, "row": 0}
  pictures.rows(seen, [case], {"window": [[0, 1]]})
  assert said == [("R", "L"), 0.75]  # 1.5 mm from row to row, drawn twice as large
  seen.dataset.synthetic = True
  pictures.rows(seen, [case], {"window": [[0, 1]]})
  assert len(said) == 2  # a made-up head has neither
  seen.dataset.synthetic, seen.metas[0]["voxel_mm"] = False, ()
  pictures.rows(seen, [case], {"window": [[0, 1]]})
  assert said[2:] == [("R", "L")]


def test_no_slices_no_turn():
  seen = by_hand.evaluator([0.5], [-1], "a")
  image = np.arange(12, dtype=np.float32).reshape(3, 4, 1) / 12
  drawn = pictures.rows(seen, [{"image": image, "mask": None, "row": 0}], {"window": [[0, 1]]})[0]["input"]
  assert drawn.shape[0] / drawn.shape[1] == 3 / 4


def test_what_explains_a_map_is_shown_under_its_name_and_what_is_not_there_is_not():
  side = pictures._CELL
  seen = by_hand.evaluator([0.5], [-1], "a")
  image, prior, field, jacobian = (np.full((side, side, c), v, np.float32)
                                   for c, v in ((1, 0.25), (1, 0.5), (3, 0.2), (3, 0.8)))
  case = {"image": image, "mask": None, "row": 0}
  (row,) = pictures.rows(seen, [{**case, "prior": prior, "field": field, "jacobian": jacobian}],
                         {"window": [[0, 0.5]]})
  assert {head: int(picture[0, 0, 0]) for head, picture in row.items()} == {
      "input": 128, "healthy prior": 255, "deformation": 51, "Jacobian determinant": 204}
  (row,) = pictures.rows(seen, [{**case, "prior": prior}], {"window": [[0, 0.5]]})
  assert list(row) == ["input", "healthy prior"]


@pytest.mark.parametrize("n, rows", [(0, []), (1, [1]), (3, [2, 0, 1]), (8, [2, 4, 5, 0, 1])])
def test_a_quarter_of_the_panel_and_one_at_least_is_normal(n, rows):
  """Without masks: abnormal images from the highest to the lowest score, normal ones down to the middle."""
  seen = by_hand.evaluator([0.1, 0.9, 0.8, 0.3, 0.7, 0.5], [1, 0, 1, 0, 1, 1], "abcdef")
  assert pictures.choose(seen, n).tolist() == rows
  seen.label[:] = 0
  assert len(pictures.choose(seen, 3)) == 3


def test_scores_of_zero_are_background_where_there_are_others():
  counts = np.zeros((2, 8), int)
  counts[:, 0] = 90, 5
  np.testing.assert_array_equal(thresholds._without_zero(counts), counts)
  counts[0, 3] = 2
  np.testing.assert_array_equal(thresholds._without_zero(counts), [[0, 0, 0, 2, 0, 0, 0, 0], [0] * 8])
  assert counts[0, 0] == 90
