"""Intervals over patients, the component filter at its threshold and size, padding, zero pixels."""

import types

import ml_collections
import numpy as np
import pytest
from sklearn import metrics

from medae_jax.metrics import bootstrap, components, detection
from medae_jax.tasks.anomaly import evaluator, intervals, thresholds
from tests.unit import known_maps


class _Data:
  """One split of given arrays."""
  name = "synthetic_known"

  def __init__(self, arrays, metas):
    self._source = known_maps.ArraySource(arrays, metas)

  def split(self, name):
    return self._source


def judged(maps, mask, patients, calibration=None, pad=0, metas=None, **options):
  """An Evaluator of split "test" that has seen everything in one batch, with `pad` padding rows."""
  maps, mask = (np.asarray(a, np.float32)[..., None] for a in (maps, mask))
  c = known_maps.config("")
  c.eval.update(**options)
  data = _Data({"image": maps, "mask": mask}, metas or known_maps.metas(patients))
  judge = evaluator.Evaluator(c.lock(), data, "test", calibration)
  grow = lambda a: np.concatenate([a, np.repeat(a[-1:], pad, 0)])
  n = len(maps)
  judge.update({"image": grow(maps), "mask": grow(mask), "position": grow(np.arange(n)),
                "valid": np.arange(n + pad) < n},
               {"map": grow(maps), "score": grow(maps.mean((1, 2, 3)))})
  return judge


def two_patients():
  """All lesions of patient a are found, none of patient b; ten slices each."""
  rng = np.random.default_rng(0)
  maps = rng.uniform(0.1, 0.3, (20, 8, 8))
  mask = np.zeros((20, 8, 8))
  mask[::2, 2:5, 2:5] = 1
  maps[:10][mask[:10] > 0] = 0.9
  maps[10:][mask[10:] > 0] = 0.01
  return maps, mask, "a" * 10 + "b" * 10


def test_intervals_are_over_patients():
  """Of two patients a resample has aa, ab or bb; both extremes are likelier than 2.5 %."""
  maps, mask, patients = two_patients()
  judge = judged(maps, mask, patients, {"threshold": 0.5}, bootstrap=200)
  found = judge.result()["ci95"]
  alone = [judged(maps[part], mask[part], "x" * 10, {"threshold": 0.5}).result()
           for part in (slice(10, 20), slice(0, 10))]
  for key in ("pixel_ap", "pixel_auroc", "dice_val_threshold", "image_auroc", "image_ap"):
    np.testing.assert_allclose(found[key], [a[key] for a in alone], atol=1e-9, err_msg=key)
  assert found["dice_best"][1] == 1.0 and found["pixel_auroc"] == [0.0, 1.0]


def test_difference_to_the_baseline_is_paired():
  """The map is the intensity: model and baseline agree in every resample."""
  maps, mask, patients = two_patients()
  found = judged(maps, mask, patients, {"threshold": 0.5}, bootstrap=100).result()["ci95"]
  assert found["baseline_pixel_ap"] == found["pixel_ap"]
  assert found["pixel_ap_minus_baseline"][1] <= 1e-12


def test_resamples_draw_as_many_patients_as_there_are():
  weights = bootstrap.resample_weights(5, 4000, seed=1)
  assert weights.shape == (4000, 5) and (weights.sum(1) == 5).all()
  # with replacement: a patient is missing from a resample with probability (4/5)^5
  assert abs((weights == 0).mean() - 0.8**5) < 0.02
  assert not np.array_equal(weights, bootstrap.resample_weights(5, 4000, seed=2))


def test_interval_is_the_central_95_percent():
  values = np.arange(1001) / 1000
  np.testing.assert_allclose(bootstrap.interval(values), [0.025, 0.975])
  assert bootstrap.interval([np.nan, np.nan, np.nan, 1.0]) is None


@pytest.mark.parametrize("limit,kept", [(0, True), (5, True), (6, False), (7, False)])
def test_components_are_deleted_up_to_the_stated_size(limit, kept):
  """A blob of 6 voxels over three slices, stored out of order: only in slice order is it one."""
  maps = np.zeros((5, 8, 8))
  maps[1:4, 3, 3:5] = 0.6     # 2 voxels a slice
  mask = np.zeros_like(maps)
  mask[:, 6:8, 6:8] = 1
  maps[:, 6:8, 6:8] = 0.8     # the lesion: 20 voxels
  order = np.array([3, 0, 4, 1, 2])
  metas = [{"id": str(i), "patient": "p", "slice": int(i)} for i in order]
  found = judged(maps[order], mask[order], "", {"threshold": 0.5}, metas=metas,
                 components=limit).result()
  with_blob = 2 * 20 / (20 + 26)
  assert found["dice_val_threshold"] == pytest.approx(with_blob)
  assert found["dice_val_threshold_components"] == pytest.approx(with_blob if kept else 1.0)


def test_components_are_filtered_at_the_threshold_of_each_figure():
  """Above 0.5 the speck is alone and goes; above 0.3 it is part of the lesion's component."""
  maps = np.zeros((1, 8, 8))
  mask = np.zeros_like(maps)
  mask[0, :3, :3] = 1
  maps[0, :3, :3], maps[0, 1, 3:5], maps[0, 1, 5] = 0.9, 0.4, 0.6
  run = lambda cut: judged(maps, mask, "a", {"threshold": cut}, components=3).result()
  low, high = run(0.3), run(0.5)
  assert low["dice_val_threshold_components"] == low["dice_val_threshold"] == pytest.approx(18 / 21)
  assert high["dice_val_threshold"] == pytest.approx(18 / 19)
  assert high["dice_val_threshold_components"] == 1.0
  assert high["dice_best_threshold"] == 0.6 and high["dice_components"] == 1.0


def test_components_do_not_join_patients_or_diagonals_in_two_dimensions():
  """26-connected: diagonal voxels of one scan are one component; two patients never are."""
  volume = np.zeros((2, 4, 4), bool)
  volume[0, 1, 1] = volume[1, 2, 2] = True
  assert components.remove_small_components(volume, 1).sum() == 2
  assert not components.remove_small_components(volume, 2).any()
  maps = np.where(volume, 0.9, 0.0)
  mask = np.ones_like(maps)
  one, two = (judged(maps, mask, p, {"threshold": 0.5}, components=1).result() for p in ("aa", "ab"))
  assert one["dice_val_threshold_components"] > 0 and two["dice_val_threshold_components"] == 0


@pytest.mark.parametrize("pad", [1, 3])
def test_padding_rows_count_nowhere(pad):
  """The last image is the extreme one: its copies would move every number."""
  rng = np.random.default_rng(1)
  maps = rng.uniform(0.1, 0.4, (5, 8, 8))
  mask = np.zeros_like(maps)
  mask[[1, 4], 2:6, 2:6] = 1
  maps[4] = 5.0 - maps[4]
  plain, padded = (judged(maps, mask, "aabbc", {"threshold": 0.3}, pad=p, bootstrap=20)
                   for p in (0, pad))
  want, found = plain.result(), padded.result()
  for key in want:
    assert found[key] == want[key] or key == "notes", key
  assert padded.calibrate() == plain.calibrate()
  for table in ("rows", "tables"):  # as text: NaN is equal to itself there
    assert repr(getattr(padded, table)()) == repr(getattr(plain, table)())
  np.testing.assert_array_equal(padded.pixels["model"].counts(), plain.pixels["model"].counts())


def test_mean_over_patients_leaves_out_those_without_lesions():
  maps, mask, _ = two_patients()
  mask[10:], maps[15, 0, 0] = 0, 0.9     # a false alarm in the patient without lesions
  found = judged(maps, mask, "a" * 10 + "b" * 10, {"threshold": 0.5}).result()
  assert found["dice_patients_mean"] == 1.0


def test_map_of_one_patient_is_counted_for_that_patient():
  maps, mask, patients = two_patients()
  judge = judged(maps, mask, patients, {"threshold": 0.5})
  judge.result()
  rows = judge.rows()
  assert [r["patient"] for r in rows] == ["a", "b"]
  assert rows[0]["pixel_ap"] == 1.0 and rows[1]["pixel_ap"] < 0.2
  assert rows[0]["dice_val_threshold"] == 1.0 and rows[1]["dice_val_threshold"] == 0.0


# ------------------------------------------------------------------------------- thresholds on val
def calibrated(maps, mask=None, label=None, **options):
  """thresholds.choose on given maps [n,h,w]; without masks only the counts of normal pixels."""
  maps = np.asarray(maps, np.float32)
  c = known_maps.config("")
  c.eval.update(**options)
  counts = np.zeros((2, detection.CODES), np.int64)
  mask = np.zeros(maps.shape) if mask is None else np.asarray(mask)
  for y in (0, 1):
    np.add.at(counts[y], detection.code_of(maps[mask == y]), 1)
  label = np.zeros(len(maps), int) if label is None else np.asarray(label)
  sample = thresholds.IntensitySample()
  sample.add(maps[..., None])
  return thresholds.choose(counts, maps.mean((1, 2)), label, sample, c.eval)


def test_zero_pixels_do_not_count_for_quantile_scale_and_window():
  """99 % of the pixels are background 0; of the others a tenth has 0.5."""
  maps = np.zeros((10, 40, 40))
  maps[:, :4, :4] = 0.25
  maps[0, :4, :4] = 0.5
  found = calibrated(maps, quantile=0.8)
  assert found["threshold"] == 0.25 and found["map_max"] == 0.5
  assert calibrated(maps, quantile=0.95)["threshold"] == 0.5
  np.testing.assert_allclose(found["window"], [[0.0, 0.5]])


def test_a_method_without_maps_has_no_threshold_of_pixels():
  c = known_maps.config("")
  sample = thresholds.IntensitySample()
  sample.add(np.ones((2, 3, 3, 1), np.float32))
  found = thresholds.choose(None, np.array([0.2, 0.8]), np.array([0, 1]), sample, c.eval)
  assert found["threshold"] is None and found["map_max"] is None and "threshold_rule" not in found
  assert found["image_threshold"] is not None and found["image_threshold_rule"]


def test_best_dice_of_the_stated_grid():
  maps = np.full((2, 8, 8), 0.2504)
  mask = np.zeros(maps.shape)
  mask[:, :2] = 1
  maps[mask > 0] = 0.2508          # no k/1000 lies between: only the finer grid separates them
  maps[:, -1] = 0.125
  coarse, fine = (calibrated(maps, mask, dice_thresholds=g) for g in ("1000", "all"))
  assert coarse["threshold"] == 0.125
  assert fine["threshold"] == pytest.approx(0.2504, abs=2e-4) and "1.000" in fine["threshold_rule"]


def test_image_threshold_by_labels_else_by_the_quantile_of_normal_images():
  maps = np.arange(10.0)[:, None, None] * np.ones((10, 4, 4)) / 10
  label = np.r_[np.zeros(6, int), np.ones(4, int)]
  assert calibrated(maps, label=label)["image_threshold"] == pytest.approx(0.5)
  assert calibrated(maps, quantile=0.5)["image_threshold"] == pytest.approx(0.45)
  unknown = calibrated(maps, label=np.full(10, -1), quantile=1.0)
  assert unknown["image_threshold"] == pytest.approx(0.9)
  assert "normal" in unknown["image_threshold_rule"]


def test_components_of_the_config_go_into_the_calibration():
  assert calibrated(np.ones((1, 4, 4)), components=7)["components"] == 7


def test_intervals_of_a_score_of_images_are_of_the_score():
  """Unlabelled images do not count; the area is scikit-learn's."""
  rng = np.random.default_rng(0)
  label = np.array([0, 1, 1, 0, 1, 0, 0, -1])
  score = label + rng.normal(size=8)
  seen = types.SimpleNamespace(label=label, patients=list("abcdefgh"), group=np.arange(8), config=(
      ml_collections.ConfigDict({"seed": 0, "eval": {"bootstrap": 50}})))
  found = intervals.of_images(seen, score)
  assert found["image_auroc"] == pytest.approx(metrics.roc_auc_score(label[:7], score[:7]))
  assert found["image_ap"] == pytest.approx(metrics.average_precision_score(label[:7], score[:7]))
  low, high = found["ci95"]["image_auroc"]
  assert low <= found["image_auroc"] <= high
