"""configs/noisy_skin.py from training to masks: evaluation, annotation quality, prediction."""

import csv
import json
import shutil

import jax
import numpy as np
from PIL import Image
import pytest

from configs import noisy_skin
from data_pipelines.masks import synthetic_lesions
from medae_jax import evaluate, predict, train
from medae_jax.models import noisy_unet

pytestmark = pytest.mark.usefixtures("one_trace")


def config(arg="smoke", **changes):
  c = noisy_skin.get_config(arg).copy_and_resolve_references()
  with c.unlocked():
    c.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
  return c.lock()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("noisy")
  assert train.train(config(eval__checkpoint="last"), str(path))["finished"]
  evaluate.evaluate(path)
  return path


def table(path):
  with open(path, newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def test_evaluation_files(workdir):
  for split, n in (("val", 4), ("test", 4), ("noisy", 12), ("clean", 4)):
    result = json.loads((workdir / "evaluation" / f"{split}.json").read_text(encoding="utf-8"))
    assert result["n_images"] == n and result["synthetic"] and result["dataset"] == (
        "synthetic_lesions")
    rows = table(workdir / "evaluation" / f"{split}.csv")
    assert np.isclose(np.mean([float(r["dice"]) for r in rows]), result["dice"], atol=1e-5)
    low, high = result["ci95"]["dice"]
    assert low <= result["dice"] <= high and result["dice_best"] >= result["dice"] - 1e-12
    assert result["against"] == "expert masks" + " trained on" * (split == "clean")
  calibration = json.loads((workdir / "calibration.json").read_text(encoding="utf-8"))
  val = json.loads((workdir / "evaluation" / "val.json").read_text(encoding="utf-8"))
  assert calibration["threshold"] == val["dice_best_threshold"] == val["val_threshold"]
  assert val["dice_val_threshold"] == pytest.approx(val["dice_best"])
  assert (workdir / "evaluation" / "test_panel.png").exists()


def test_native_size_by_hand(workdir):
  """Mask counts in the CSV are those of the files, at 72 x 96, not of the network's 16 x 16."""
  rows = table(workdir / "evaluation" / "test.csv")
  for i, row in enumerate(rows):
    assert int(row["mask_pixels"]) == synthetic_lesions.draw(0, "test", i)[1].sum()


def test_annotation_quality(workdir):
  rows = table(workdir / "evaluation" / "noisy_quality.csv")
  assert len(rows) == 12 and [int(r["rank"]) for r in rows] == list(range(1, 13))
  seen = [r for r in rows if int(r["times_seen"])]
  assert sum(int(r["times_seen"]) for r in rows) == 4 * 4  # steps x noisy images
  assert len(seen) >= 8 and all(0 <= float(r["agreement"]) <= 1 for r in seen)
  agreement = [float(r["agreement"]) for r in seen]
  assert agreement == sorted(agreement)
  assert all(0 < float(r["dice_label_expert"]) < 1 for r in rows)
  picture = np.asarray(Image.open(workdir / "evaluation" / "noisy_overlays.png"))
  assert picture.shape[0] > 4 * 200 and picture.std() > 10
  result = json.loads((workdir / "evaluation" / "noisy.json").read_text(encoding="utf-8"))
  assert result["annotation_quality"]["n_with_learnt_weight"] == len(seen)


def test_predict_writes_masks_in_the_size_of_the_input(workdir, tmp_path):
  inputs = tmp_path / "inputs"
  inputs.mkdir()
  image = synthetic_lesions.draw(0, "new", 0)[0]
  Image.fromarray(image).save(inputs / "wide.jpg")
  Image.fromarray(image[:40, :33, 0]).save(inputs / "grey.png")
  (inputs / "wide_segmentation.png").write_bytes(b"left alone")
  rows = predict.predict(workdir, {"predict.input": str(inputs),
                                   "predict.output": str(tmp_path / "o")})
  assert [r["input"] for r in rows] == ["grey.png", "wide.jpg"]
  assert not any(r["error"] for r in rows)
  for name, size in (("wide", (72, 96)), ("grey", (40, 33))):
    prob = np.asarray(Image.open(tmp_path / "o" / f"{name}_prob.png"))
    mask = np.asarray(Image.open(tmp_path / "o" / f"{name}_mask.png"))
    assert prob.shape == mask.shape == size and set(np.unique(mask)) <= {0, 255}
    threshold = rows[0]["threshold"]
    clear = np.abs(prob / 255 - threshold) > 0.004  # beyond the rounding to 256 levels
    np.testing.assert_array_equal((prob / 255 > threshold)[clear], (mask > 0)[clear])
  (inputs / "broken.png").write_bytes(b"no image")
  with pytest.raises(ValueError, match="1 of 3 inputs failed.*broken.png.*not a readable image"):
    predict.predict(workdir, {"predict.input": str(inputs), "predict.output": str(tmp_path / "p")})
  assert (tmp_path / "p" / "wide_mask.png").exists()


@pytest.fixture
def shallow(monkeypatch):
  """A U-Net of one pooling: what the published one makes is looked at above and in tests/contract."""
  monkeypatch.setattr(noisy_unet, "POOLS", 1)


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["image_reweight", "plain", "supervised", "finetune"])
def test_every_baseline_trains_and_resumes_exactly(baseline, tmp_path, shallow):
  arg = f"smoke,baseline={baseline}"
  result = train.train(config(arg), str(tmp_path / "a"))
  assert result["finished"] and result["step"] == 4
  shutil.copytree(tmp_path / "a", tmp_path / "b")
  shutil.rmtree(tmp_path / "b" / "checkpoints" / "last" / "4")
  again = train.train(config(arg), str(tmp_path / "b"))
  for a, b in zip(jax.tree.leaves(result["state"]), jax.tree.leaves(again["state"]), strict=True):
    np.testing.assert_array_equal(a, b)
  found = evaluate.evaluate(tmp_path / "a", {"eval.bootstrap": 20})
  assert 0 <= found["test"]["dice"] <= 1


@pytest.mark.slow
def test_pictures_and_noise_from_the_command_line_of_the_config(tmp_path, shallow):
  """A mixture of noise kinds, crops and a tracked map, to the end."""
  c = config("smoke,noise=polygon:7*0.5+box:0.2*0.5,clean=6", data__crop=4)
  train.train(c, str(tmp_path))
  result = evaluate.evaluate(tmp_path)["noisy"]
  assert 0.2 < result["annotation_quality"]["mean_dice_label_expert"] < 1
