"""evaluate end to end on a known detector: every number against scikit-learn or brute force."""

import contextlib
import csv
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
from PIL import Image
import pytest
from sklearn import metrics as reference

from medae_jax import evaluate
from medae_jax.core import calibration as calibrate, trained
from medae_jax.metrics import components
from medae_jax.scores import residual as scores
from medae_jax.tasks import base
from medae_jax.tasks.anomaly import kept_maps, residual_fit
from tests.unit import fake_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  folder = fake_run.make(tmp_path_factory.mktemp("run"))
  evaluate.evaluate(folder)
  return folder


def _arrays(run, split="test"):
  """(images, maps, masks, scores) of a whole split, scored in one piece."""
  opened = trained.load(run)
  config, method, state = opened.config, opened.method, opened.state
  source = fake_run.open(config.data, config.seed).split(split)
  batch = source.read(np.arange(len(source)))
  found = jax.jit(method.score)(state, {"image": batch["image"]})
  return batch["image"], np.asarray(found["map"]), batch["mask"] > 0, np.asarray(found["score"])


def _json(run, split="test"):
  return json.loads((run / f"evaluation/{split}.json").read_text())


def _dice(mask, values, thresholds):  # scikit-learn's F1 at each, a thousand times
  called = values.ravel() > np.asarray(thresholds).astype(values.dtype)[:, None]
  return 2 * (called & mask.ravel()).sum(1) / (called.sum(1) + mask.sum())


def test_numbers_are_those_of_the_whole_split(run):
  """11 images in batches of 4: the padding of the last batch must not count."""
  image, anomaly, mask, score = _arrays(run)
  found, rounded = _json(run), anomaly.astype(np.float16).ravel()
  assert found["n_images"] == 11 and found["n_patients"] == 4
  assert found["n_lesion_pixels"] == mask.sum() and found["n_abnormal_images"] == 5
  close = lambda key, want: np.testing.assert_allclose(found[key], want, rtol=0, atol=1e-9)
  close("pixel_ap", reference.average_precision_score(mask.ravel(), rounded))
  close("pixel_auroc", reference.roc_auc_score(mask.ravel(), rounded))
  close("image_auroc", reference.roc_auc_score(mask.any((1, 2, 3)), score))
  close("image_ap", reference.average_precision_score(mask.any((1, 2, 3)), score))
  dice, best = _dice(mask, rounded, np.arange(1000) / 1000), found["dice_best_threshold"]
  assert found["dice_best"] == pytest.approx(max(dice), abs=1e-9) and best == np.argmax(dice) / 1000
  close("dice_best", reference.f1_score(mask.ravel(), rounded > np.float16(best)))
  baseline = (image[..., :1] * (image.sum(-1, keepdims=True) > 0.01)).astype(np.float16)
  np.testing.assert_allclose(found["baseline"]["pixel_ap"],
                             reference.average_precision_score(mask.ravel(), baseline.ravel()))
  assert found["baseline"]["dice_best"] == pytest.approx(max(_dice(mask, baseline, np.unique(baseline))))
  low, high = found["ci95"]["pixel_ap_minus_baseline"]
  assert found["model_better"] is (True if low > 0 else False if high < 0 else None)
  assert found["synthetic"] is True and "synthetic" in found["dataset"]


def test_threshold_comes_from_val_and_is_used_on_test(run):
  _, anomaly, mask, _ = _arrays(run, "val")
  calibration = calibrate.read(run)
  dice = _dice(mask, anomaly.astype(np.float16), np.arange(1000) / 1000)
  assert calibration["threshold"] == np.argmax(dice) / 1000
  assert "with its masks" in calibration["threshold_rule"]
  assert _json(run)["val_threshold"] == calibration["threshold"]
  _, anomaly, mask, _ = _arrays(run)
  above = anomaly > np.float32(calibration["threshold"])
  found = _json(run)
  assert found["dice_val_threshold"] == pytest.approx(reference.f1_score(mask.ravel(), above.ravel()))
  kept = np.concatenate([components.remove_small_components(above[i:i + 3, ..., 0], 3)
                         for i in range(0, 11, 3)])
  assert found["dice_val_threshold_components"] == pytest.approx(
      reference.f1_score(mask.ravel(), kept.ravel()))
  rows = list(csv.DictReader(open(run / "evaluation/test.csv")))
  assert [r["patient"] for r in rows] == ["p0", "p1", "p2", "p3"]
  for p, row in enumerate(rows):
    own = slice(3 * p, min(3 * p + 3, 11))
    assert float(row["dice_val_threshold"]) == pytest.approx(
        reference.f1_score(mask[own].ravel(), above[own].ravel()), abs=1e-5)


def test_tables_pictures_and_report(run):
  images = list(csv.DictReader(open(run / "evaluation/test_images.csv")))
  assert len(images) == 11 and images[4]["id"] == "p1/4" and images[4]["slice"] == "4"
  assert {r["called_abnormal"] for r in images} == {"0", "1"}
  with Image.open(run / "evaluation/test_panel.png") as picture:
    assert picture.mode == "RGB" and picture.width > 800
  page = (run / "report.html").read_text()
  assert "SYNTHETIC DATA" in page and "data:image/png;base64" in page and "http" not in page
  assert f"{_json(run)['pixel_ap']:.3f}" in page and "</i>outline: generated mask" in page
  assert "there are no masks to compare with" not in page
  assert not list(run.rglob("*.tmp"))


def test_a_disk_error_while_writing_is_heard_by_all_processes(tmp_path, monkeypatch):
  heard, full = [], OSError(28, "No space left on device")

  @contextlib.contextmanager
  def listening():
    try:
      yield
    except OSError as error:
      heard.append(error)
      raise

  class Evaluator(base.BaseEvaluator):
    update = calibrate = lambda *_: None
    result = lambda self: {}

    def rows(self):
      raise full
  monkeypatch.setattr(evaluate.hosts, "heard", listening)
  monkeypatch.setattr(evaluate, "stream_through", lambda *_, **__: None)
  run = types.SimpleNamespace(config=fake_run.config(), score_fn=None, info={"which": "best", "step": 1})
  dataset = types.SimpleNamespace(name="some", synthetic=False, split=lambda name: [0])
  with pytest.raises(OSError, match="No space left"):
    evaluate._one_split(types.SimpleNamespace(Evaluator=Evaluator), run, dataset, "test", None, tmp_path)
  assert heard == [full]


def test_evaluating_again_gives_the_same(run):
  before = _json(run)
  again = evaluate.evaluate(run, {"eval.batch_size": 7}, splits=["test"])
  assert list(again) == ["val", "test"]
  for key in ("pixel_ap", "dice_components", "image_auroc", "ci95", "baseline", "val_threshold"):
    assert again["test"][key] == before[key], key


@pytest.mark.parametrize("has,null,reason", [
    (dict(lesions=False), ("pixel_ap", "dice_best", "image_auroc"), "no lesion pixel in the split"),
    (dict(masks=False), ("pixel_ap", "dice_components"), "the split has no masks"),
    (dict(masks=False, labels=False), ("pixel_ap", "image_auroc"), "the split has no masks"),
    (dict(splits=("test",)), ("dice_val_threshold",), "no validation split has set a threshold"),
])
def test_what_is_not_known_is_null_with_its_reason(tmp_path, has, null, reason):
  run = fake_run.make(tmp_path / "run", **has)
  evaluate.evaluate(run)
  found = _json(run)  # json.loads would accept NaN: look at the text
  assert "NaN" not in (run / "evaluation/test.json").read_text()
  for key in null:
    assert found[key] is None and found["notes"][key], key
  assert found["notes"][null[0]] == reason
  if has.get("splits"):
    assert found["pixel_ap"] > 0.5 and calibrate.read(run) is None
  else:
    calibration = calibrate.read(run)
    assert "quantile of the" in calibration["threshold_rule"] and calibration["threshold"] >= 0
  assert "Not available" in (run / "report.html").read_text()


def test_labels_without_masks_keep_abnormal_images_out_of_the_threshold(tmp_path):
  run = fake_run.make(tmp_path / "run", masks=False)
  evaluate.evaluate(run)
  opened = trained.load(run)
  config, method, state = opened.config, opened.method, opened.state
  source = fake_run.open(config.data, config.seed).split("val")
  batch = source.read(np.arange(11))
  anomaly = np.asarray(jax.jit(method.score)(state, {"image": batch["image"]})["map"])
  normal = anomaly[batch["label"] == 0].astype(np.float16).ravel()
  want = np.sort(normal[normal > 0])[int(np.ceil(0.99 * (normal > 0).sum())) - 1]
  assert calibrate.read(run)["threshold"] == float(want)
  assert _json(run)["image_auroc"] == 1.0 and "n_lesion_pixels" not in _json(run)
  page = (run / "report.html").read_text()  # nobody marked anything: no pixel is called a false alarm
  assert "there are no masks to compare with" in page and "</i>false alarm" not in page
  assert "0 lesion pixels" not in page


def test_weights_fitted_on_val_reach_evaluate_and_restore(tmp_path):
  """Channel 1 of the lesions is darker than its reconstruction in no pixel: w- must not matter,
  and the fit must not be worse than the plain residual on val."""
  c = fake_run.config()
  c.eval.fit_residual = True
  run = fake_run.write(tmp_path / "run", c)
  plain = fake_run.make(tmp_path / "plain")
  results = evaluate.evaluate(run)
  assert results["val"]["pixel_ap"] >= evaluate.evaluate(plain)["val"]["pixel_ap"]
  fitted = calibrate.read(run)["score"]
  assert len(fitted["weights_positive"]) == 2 and min(fitted["weights_positive"]) >= 0
  assert calibrate.read(run)["score_fit"]["pixel_ap_fitted"] > 0.5
  config = trained.load(run).config
  assert list(config.method.score.weights_positive) == fitted["weights_positive"]
  # scoring val afresh must start from the training config, not from the last fit
  assert evaluate.evaluate(run)["test"]["pixel_ap"] == results["test"]["pixel_ap"]


def test_residual_fit_finds_sign_and_modality():
  """Lesions are dark in channel 1; channel 0 and bright residuals are noise."""
  rng = np.random.default_rng(0)
  image = np.ones((6, 24, 24, 2), np.float32)
  mask = np.zeros((6, 24, 24, 1), np.float32)
  mask[:, 8:16, 8:16] = 1
  residual = rng.normal(0, 0.3, image.shape) - mask * [0.0, 0.4]
  options = fake_run.config().method.score
  options.median = 0
  fit = residual_fit.ResidualFit(options, ["a", "a", "b", "b", "c", "c"])
  fit.update({"image": image, "mask": mask, "valid": np.ones(6, bool), "position": np.arange(6)},
             {"recon": image - residual.astype(np.float32)})
  found, summary = fit.result(), fit.summary()
  others = found["weights_positive"] + found["weights_negative"][:1]
  assert found["weights_negative"][1] > 2 * max(others)
  w = {k: tuple(v) for k, v in found.items()}
  inside = np.asarray(scores.erode(scores.foreground(image), 3))
  ap = lambda **kw: reference.average_precision_score(mask.ravel() > 0, np.ravel(
      scores.residual_map(residual.astype(np.float32), **kw) * inside))
  assert ap(**w) > 1.5 * ap()
  # the same numbers as the fit itself counts, but for float16
  assert summary["pixel_ap_plain"] == pytest.approx(ap(), abs=2e-3)
  assert summary["pixel_ap_fitted"] == pytest.approx(ap(**w), abs=2e-3)
  assert summary["pixel_ap_plain"] < summary["pixel_ap_other_patients"]
  assert summary["pixel_ap_other_patients"] < summary["pixel_ap_fitted"] + 0.01


@pytest.mark.parametrize("room", [10, 5 * 7 * 9 * 4])
def test_maps_go_to_a_file_where_they_do_not_fit(monkeypatch, room):
  rng = np.random.default_rng(0)
  maps, masks = rng.random((5, 7, 9), np.float32), rng.random((5, 7, 9)) < 0.4
  monkeypatch.setattr(kept_maps, "_IN_MEMORY", room)
  store = kept_maps.MapStore(5, (7, 9))
  assert (store._file is not None) == (room == 10)
  for rows in (np.array([3, 4]), np.array([0, 1, 2])):
    store.put(rows, maps[rows], masks[rows])
  for found, want in zip(store.get(np.array([4, 0])), (maps[[4, 0]], masks[[4, 0]]), strict=True):
    np.testing.assert_array_equal(found, want, strict=True)
  if room == 10:  # a full disk takes a part
    for name in ("pwrite", "preadv"):
      with monkeypatch.context() as patch:
        patch.setattr(kept_maps.os, name, lambda *_: 7 * 9 * 4 - 1)
        with pytest.raises(OSError, match="is the disk of .* full"):
          store.put(np.array([0]), maps[:1], masks[:1]) if name == "pwrite" else store.get(np.array([0]))
  store.close()


@pytest.mark.parametrize("change,error,words", [
    ({"eval.kind": "nonsense"}, ValueError, "config.eval.kind='nonsense'"),
    ({"eval.nonsense": 1}, ValueError, "config.eval.nonsense: there is no 'nonsense'"),
    ({"nonsense.field": 1}, ValueError, "there is no 'nonsense'"),
    ({"eval.splits": ("train",)}, ValueError, "no split train; config.eval.splits can be val"),
    ({"eval.checkpoint": "best", "data.name": "nothing"}, ValueError, "nothing"),
])
def test_one_clear_line(run, change, error, words):
  with pytest.raises(error, match=words) as found:
    evaluate.evaluate(run, change)
  assert "\n" not in str(found.value)


def test_workdir_without_checkpoint_or_config(tmp_path):
  with pytest.raises(FileNotFoundError, match="config.json"):
    evaluate.evaluate(tmp_path)
  fake_run.files.write_json(tmp_path / "config.json", fake_run.config().to_dict())
  with pytest.raises(FileNotFoundError, match="no checkpoint"):
    evaluate.evaluate(tmp_path)


def test_damaged_calibration_is_named(tmp_path):
  (tmp_path / calibrate.FILE).write_text("{\"threshold\": 0.")
  with pytest.raises(ValueError, match="is damaged"):
    calibrate.read(tmp_path)


def test_checkpoint_of_four_devices_is_scored_on_one(tmp_path):
  """A fresh process must restore onto its own devices, not onto those that saved."""
  script = ("import pathlib, sys, jax; from tests.unit import fake_run; "
            "from medae_jax.core import parallel; assert jax.device_count() == 4; "
            "fake_run.make(pathlib.Path(sys.argv[1]), put=parallel.replicated())")
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
  subprocess.run([sys.executable, "-c", script, str(tmp_path)], env={**os.environ, "XLA_FLAGS": flags},
                 check=True, cwd=pathlib.Path(__file__).parents[3])
  level = trained.load(tmp_path).state.params["net"]["level"]
  assert len(level.devices()) == jax.local_device_count() and float(level) == pytest.approx(0.6)


def test_method_without_maps(tmp_path):
  c = fake_run.config()
  c.method.name = "tests.unit.fake_run:ScoreOnly"
  c.variant = "as published"
  run = fake_run.write(tmp_path / "run", c)
  found = evaluate.evaluate(run)["test"]
  assert found["variant"] == "as published" and "trunk" not in found
  assert found["image_auroc"] == 1.0 and found["model_better"] is None  # the baseline has 1.0 too
  assert _json(run)["pixel_ap"] is None and found["notes"]["pixel_ap"] == "the method gives no map"
  calibration = calibrate.read(run)
  assert calibration["threshold"] is None and calibration["image_threshold"] < 0
  assert (run / "evaluation/test_panel.png").exists()
