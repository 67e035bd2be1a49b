"""What validation fixes, the test split must use: val and test differ so strongly that a mix shows."""

import csv
import json

import numpy as np
import pytest

from medae_jax import evaluate
from medae_jax.core import calibration
from medae_jax.tasks import base
from tests.unit import fake_run, known_maps


def squares(normal, lesion, n=6, size=8, rim=0.0):
  """n images of `normal` with a 3x3 square of `lesion` in every second one; background 0 at the rim."""
  image = np.full((n, size, size), float(normal))
  mask = np.zeros((n, size, size))
  mask[1::2, 2:5, 2:5] = 1
  image[mask > 0] = lesion
  image[:, 0] = rim
  return {"image": image, "mask": mask, "label": mask.any((1, 2))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """On val normal pixels have 0.125 and lesions 0.25; on test 0.5 and 0.75. test is named first."""
  folder = tmp_path_factory.mktemp("run")
  file = known_maps.save(folder / "data.npz",
                         val=(squares(0.125, 0.25), known_maps.metas("aabbcc")),
                         test=(squares(0.5, 0.75), known_maps.metas("ddeeff")))
  c = known_maps.config(file)
  c.eval.splits = ("test", "val")
  return known_maps.write(folder / "run", c)


@pytest.fixture(scope="module")
def results(run):
  return evaluate.evaluate(run)


def test_val_comes_first_whatever_the_order(results, run):
  assert list(results) == ["val", "test"]
  assert calibration.read(run)["split"] == "val"


def test_threshold_is_that_of_val(results, run):
  found = calibration.read(run)
  assert found["threshold"] == 0.125  # smallest k/1000 that cuts 0.125 off and keeps 0.25
  assert results["val"]["dice_val_threshold"] == 1.0              # its normal pixels lie at the threshold
  assert results["val"]["dice_val_threshold_components"] == 1.0
  test = results["test"]
  assert test["val_threshold"] == 0.125
  # on test everything but the rim lies above val's threshold: 27 lesion pixels of 6 * 56
  assert test["dice_val_threshold"] == pytest.approx(2 * 27 / (6 * 56 + 27))
  assert test["dice_val_threshold_components"] == pytest.approx(2 * 27 / (6 * 56 + 27))
  assert test["dice_best"] == 1.0 and test["dice_best_threshold"] == 0.5
  # the mean is over the three patients with lesions: each has two slices and one lesion
  assert test["dice_patients_mean"] == pytest.approx(2 * 9 / (2 * 56 + 9))


def test_image_threshold_is_that_of_val(results, run):
  cut = calibration.read(run)["image_threshold"]
  assert cut == pytest.approx(0.125 * 56 / 64)  # the highest score of val's normal images
  assert results["val"]["image_auroc"] == 1.0
  with open(run / "evaluation/val_images.csv", encoding="utf-8") as f:
    assert [row["called_abnormal"] for row in csv.DictReader(f)] == list("010101")
  with open(run / "evaluation/test_images.csv", encoding="utf-8") as f:
    assert {row["called_abnormal"] for row in csv.DictReader(f)} == {"1"}


def test_scales_of_the_pictures_are_those_of_val(results, run):
  found = calibration.read(run)
  assert found["map_max"] == 0.25          # 99.9 % of val's non-zero scores, not test's 0.75
  assert found["window"] == [[0.0, 0.25]]


def test_test_alone_scores_val_first(results, run):
  again = evaluate.evaluate(run, splits=["test"])
  assert list(again) == ["val", "test"]
  assert again["test"]["dice_val_threshold"] == results["test"]["dice_val_threshold"]


def test_file_holds_what_is_returned(results, run):
  stored = json.loads((run / "evaluation/test.json").read_text())
  for key in ("dice_val_threshold", "dice_best", "pixel_ap", "n_patients", "split"):
    assert stored[key] == results["test"][key]


@pytest.mark.parametrize("known,wanted,order", [
    (("test", "val"), (), ["val", "test"]), (("val", "test"), ("test",), ["val", "test"]),
    (("test",), (), ["test"]), (("a", "val", "b"), ("b", "val", "a"), ["val", "b", "a"])])
def test_split_order(known, wanted, order):
  assert base.split_order(known, ("test", "val"), wanted) == order


def test_residual_is_fitted_to_the_lesions_of_val_only(tmp_path):
  """val's lesions are bright in channel 0, test's in channel 1; noise is everywhere."""
  rng = np.random.default_rng(0)
  def brains(channel):
    image = rng.uniform(0.5, 0.8, (8, *fake_run.SHAPE, 2))
    mask = np.zeros((8, *fake_run.SHAPE, 1))
    mask[::2, 4:11, 8:16] = 1
    image[..., channel] += 0.5 * mask[..., 0]
    return {"image": image, "mask": mask}, known_maps.metas("aabbccdd")
  file = known_maps.save(tmp_path / "data.npz", val=brains(0), test=brains(1))
  c = fake_run.config()
  c.data = known_maps.config(file).data
  c.eval.update(fit_residual=True, bootstrap=0, panel_images=0)
  run = fake_run.write(tmp_path / "run", c)
  found = evaluate.evaluate(run)
  positive = calibration.read(run)["score"]["weights_positive"]
  assert positive[0] > 2 * positive[1]
  # fitted weights are in use on both splits: right for val, wrong for test
  assert found["val"]["pixel_ap"] > 0.95 > 0.6 > found["test"]["pixel_ap"]


@pytest.mark.parametrize("which,gain", [("best", 2.0), ("last", 1.0)])
def test_checkpoint_is_the_one_of_the_config(run, tmp_path, which, gain):
  c = known_maps.config(run.parent / "data.npz")
  c.eval.checkpoint = which
  folder = known_maps.write(tmp_path / "run", c, last=1.0, best=2.0)
  found = evaluate.evaluate(folder, splits=["val"])
  assert found["val"]["checkpoint"]["which"] == which
  assert calibration.read(folder)["threshold"] == 0.125 * gain
