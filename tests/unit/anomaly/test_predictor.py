"""What predict says of a scored input, and where an input is let through: by hand, nothing is scored."""

import types

import ml_collections
import numpy as np
from PIL import Image
import pytest

from configs import dae_nifti
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import fit
from medae_jax.tasks import admit, external, score_of
from medae_jax.tasks.anomaly import predictor
from tests.unit import fake_run

VAL = {"image_threshold": 0.3, "threshold": 0.5, "map_max": 4.0, "window": [[0.1, 0.7], [0, 1]]}


def made(calibration):
  """A Predictor of a calibration whose config is not asked."""
  found = object.__new__(predictor.Predictor)
  vars(found).update(calibration=calibration, threshold=0.5, image_threshold=(calibration or {}).get(
      "image_threshold"), modalities=("flair",))
  return found


def scored(*scores):
  maps = np.zeros((len(scores), 2, 2), np.float32)
  return predictor.Scored(maps, maps, np.array(scores))


def test_the_row_of_a_volume_names_its_highest_slice_and_the_call_on_scans():
  slices, anomaly = np.array([3, 5, 8]), np.array([[0.25, 2.0]])
  row = made(VAL)._row(scored(0.25, 1.0, 0.25), slices, anomaly)
  assert row == {"score": 1.0, "score_mean": 0.5, "slices": 3, "highest_slice": 5, "map_max": 2.0,
                 "threshold": 0.5}
  known = {**VAL, "scan_unit": "scan", "scan_scores": [0.5, 1.5], "scan_threshold": 1.0}
  row = made(known)._row(scored(0.25, 1.0), slices[:2])
  assert (row["p_value"], row["called_abnormal"], row["verdict"]) == (2 / 3, 0, "normal")  # not above it


def test_the_call_on_an_image_goes_by_its_own_threshold():
  assert made(VAL)._row(scored(0.3), None)["called_abnormal"] == 0
  assert made(VAL)._row(scored(0.31), None)["called_abnormal"] == 1
  known = {**VAL, "scan_unit": "image", "scan_scores": [0.5, 1.5], "scan_threshold": 1.0}
  assert made(known)._row(scored(0.9), None)["verdict"] == "normal"
  of_scans = {**known, "scan_unit": "scan"}
  assert "verdict" not in made(of_scans)._row(scored(0.9), None)
  assert "called_abnormal" not in made(None)._row(scored(0.9), None)


BEST = {"threshold": 0.5, "threshold_rule": "best F1"}


@pytest.mark.parametrize("given, calibration, words", [
    (None, None, "No threshold: calibration.json is missing"), (None, {}, "No threshold"),
    (0.25, BEST, "Masks: score > 0.25 (config.predict.threshold)."),
    (None, {**BEST, "components": 7},
     "Masks: score > 0.5, the best F1; without components of 7 pixels or fewer."),
    (None, {**BEST, "components": 0}, "Masks: score > 0.5, the best F1.")])
def test_what_becomes_a_mask_is_said_before_the_first_scan(caplog, given, calibration, words):
  caplog.set_level("INFO")
  config = dae_nifti.get_config("smoke").copy_and_resolve_references()
  with config.unlocked():
    config.predict.threshold = given
  predictor.Predictor(config, calibration, None)
  said = [r.getMessage() for r in caplog.records if r.getMessage().startswith(("Masks", "No threshold"))]
  assert len(said) == 1 and (said[0] == words if words.endswith(".") else said[0].startswith(words))
  assert caplog.records[-1].levelname == ("INFO" if words.startswith("Masks") else "WARNING")


def test_what_predict_says_of_a_run_reaches_files_of_both_kinds():
  found = made(VAL)
  told = []
  listener = types.SimpleNamespace(begin=lambda *given: told.append(given))
  found._layout = found._dicom = listener
  found.begin("out", {"method": "dae"})
  assert told == [("out", {"method": "dae"}), ({"method": "dae"},)]


def test_pictures_are_on_the_scales_of_val_else_on_those_of_the_input():
  anomaly = np.linspace(0, 1, 1001)
  look = made(VAL)._look(anomaly)
  assert (look.window, look.top, look.threshold) == ([0.1, 0.7], 4.0, VAL["threshold"])
  bare = made(None)._look(anomaly)
  assert bare.window == [0.0, 1.0] and bare.top == pytest.approx(0.999)
  assert made(None)._look(0 * anomaly).top > 0


@pytest.mark.parametrize("score, word", [(0.9, "normal"), (1.1, "abnormal")])
def test_a_threshold_with_a_promise_goes_before_the_one_of_images(score, word):
  config = ml_collections.ConfigDict({"predict": {"threshold": 0.0}, "eval": {"components": 0}})
  known = {"image_threshold": 0.3, "scan_unit": "image", "scan_scores": [0.5], "scan_threshold": 1.0}
  assert score_of.arrays(config, known, {"score": np.array([score])}, single=True).verdict == word
  del known["scan_threshold"]
  assert score_of.arrays(config, known, {"score": np.array([score])}, single=True).verdict == "abnormal"


@pytest.mark.parametrize("asked, wanted", [("RAS", "RAS"), ("", "LPS")])
def test_a_volume_is_turned_as_asked_for_else_as_in_training(tmp_path, monkeypatch, asked, wanted):
  config = fake_run.config(orientation="LPS")
  config.predict.orientation = asked
  seen = []
  monkeypatch.setattr(predictor.admit, "volume", lambda files: fit.Seen("volume"))
  monkeypatch.setattr(predictor.inputs, "read_scan", lambda *given: seen.append(given[1:]) or 1 / 0)
  scan = types.SimpleNamespace(series={}, title="x", name="x")
  with pytest.raises(ZeroDivisionError):
    predictor.Predictor(config, None, None)._volume(scan, tmp_path)
  assert seen == [(("flair", "t1"), wanted)]


# ------------------------------------------------------------------------------------- the gate
def test_who_insists_is_warned_and_who_does_not_is_refused(monkeypatch):
  monkeypatch.setattr(admit.fit, "of_form", lambda *_: "it is a volume")
  monkeypatch.setattr(admit.fit, "of_picture", lambda *_: "it is full")
  monkeypatch.setattr(admit.fit, "warning", lambda *_: "it is bright")
  volume, picture, image = fit.Seen("volume"), fit.Seen("image"), np.zeros((1, 2, 2, 1))
  strict, forced = (admit.Gate(types.SimpleNamespace(), force) for force in (False, True))
  with pytest.raises(UserError, match="x does not fit the model: it is a volume"):
    strict.form("x", volume)
  with pytest.raises(UserError, match="it is full"):
    strict.content("x", picture, image)
  strict.content("x", volume, image)  # of volumes the background is not asked
  assert strict.taken() == "it is bright" and strict.taken() == ""
  forced.form("x", volume)
  assert "it is a volume" in forced.warnings[0] and "predict.force" in forced.taken()
  nothing_known = admit.Gate(None, False)
  nothing_known.form("x", volume)
  nothing_known.content("x", picture, image)
  assert nothing_known.warnings == []


def test_one_coloured_file_of_several_makes_a_coloured_picture(tmp_path):
  grey, colour = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) // 3 * 3, np.zeros((4, 4, 3), np.uint8)
  colour[:2, :, 0] = 255
  paths = [tmp_path / "a.png", tmp_path / "b.png"]
  for path, pixels in zip(paths, (grey[..., :1].repeat(3, -1), colour)):
    Image.fromarray(pixels).save(path)
  seen = admit.picture(paths, apart=True)
  assert seen.planes == 6 and seen.coloured == 0.5 and seen.apart
  assert admit.picture(paths[:1]).coloured == 0


# ------------------------------------------------------------------------------------- other data
def test_on_other_data_val_is_scored_only_where_it_is_asked_for_or_all_there_is(tmp_path):
  config = fake_run.config().lock()
  run = types.SimpleNamespace(calibration={"threshold": 0.5}, config=config)
  seen = []
  def one_split(module, run, dataset, split, calibration, out):
    seen.append((split, calibration["threshold"]))
    return {}, {}
  def go(splits, wanted=()):
    seen.clear()
    data = types.SimpleNamespace(name="other", splits=splits)
    external.evaluate(None, run, data, tmp_path, tmp_path / "out", wanted, one_split, lambda out: out)
    return [split for split, threshold in seen if threshold == 0.5]
  assert go(("val", "test")) == ["test"] and go(("val", "test"), ("val",)) == ["val"]
  assert go(("val",)) == ["val"] and go(("a", "b")) == ["a", "b"]
  with pytest.raises(UserError, match="no split test"):
    go(("val",), ("test",))
  assert (tmp_path / "out/calibration.json").is_file()


@pytest.mark.parametrize("score, map_of, grey, said", [
    (0.0, 0.0, 1.0, "its map is 0 in every pixel, nothing of it was scored"),
    (np.nan, 1.0, 1.0, "is not finite"),
    (0.0, 1e-6, 1.0, ""), (0.3, None, 1.0, ""), (0.0, 0.0, 0.0, "")])
def test_an_input_of_which_nothing_was_scored_is_not_normal(score, map_of, grey, said):
  """A brain of exchanged axes is thinner than the eroded outline: it was "normal", with score 0."""
  def found(batch):
    n = len(batch["image"])
    maps = {} if map_of is None else {"map": np.eye(4, dtype=np.float32)[None, ..., None] * map_of}
    return {"score": np.full(n, score, np.float32), **{k: np.repeat(v, n, 0) for k, v in maps.items()}}
  one = made(None)
  config = ml_collections.ConfigDict({"predict": {"batch_size": 2}})
  vars(one).update(config=config, score_fn=found, threshold=None)
  images = grey * np.arange(48, dtype=np.float32).reshape(3, 4, 4, 1)
  if said:
    with pytest.raises(UserError, match=said):
      one._score(images)
  else:
    assert one._score(images).scores.tolist() == [np.float32(score)] * 3


def test_a_negative_threshold_that_marks_all_is_refused():
  """Below every value of a map it made a mask of the whole image, background too."""
  images, maps = np.zeros((1, 2, 2, 1)), np.array([[[0.0, 0.5], [0.2, 0.3]]])
  with pytest.raises(UserError, match="threshold -0.1 is below every value of its map.* from 0 to 0.5, or 0"):
    admit.check_scored(images, np.ones(1), maps, -0.1)
  for threshold, values in ((0.1, maps), (None, maps), (-0.1, maps - 0.4), (-0.1, maps[:, :0])):
    admit.check_scored(images, np.ones(1), values, threshold)
  one = made(None)
  vars(one).update(config=ml_collections.ConfigDict({"predict": {"batch_size": 1}}), threshold=-1.0,
                   score_fn=lambda batch: {"score": np.ones(1), "map": maps[..., None]})
  with pytest.raises(UserError, match="threshold -1 is below"):
    one._score(images)
