"""A trained run is opened once: one checkpoint choice and one calibration for every mode."""

import types

import flax.linen
import jax.numpy as jnp
import numpy as np
import pytest

import medae_jax
from medae_jax import evaluate, export, predict
from medae_jax.core import checkpoint, files, scoring, trained
from medae_jax.core.errors import UserError
from medae_jax.tasks import base
from tests.unit import fake_run
from tests.unit.modes.test_predict import brain, save

LEVELS = {"best": 0.6, "last": 0.3}  # of the detector: what is above is cut off


def make(folder, which):
  """A workdir whose best and last checkpoints hold other parameters."""
  c = fake_run.config()
  c.eval.checkpoint = which
  files.write_json(folder / "config.json", c.to_dict())
  saver = checkpoint.Checkpoints(folder)
  for step, (name, level) in enumerate(LEVELS.items()):
    state = fake_run.State.create({"net": {"level": jnp.float32(level)}}).replace(
        step=jnp.int32(step + 1))
    saver.save(name, state, {"stage": "main", "best": None,
                             "batches": {"main": {"image": [[4, *fake_run.SHAPE, 2], "float32"]}},
                             "checksum": checkpoint.checksum(state.params)})
  saver.close()
  return folder


def scored_with(value, image, level):
  """Whether a map is that of the detector with this level."""
  method = fake_run.Method(fake_run.config())
  state = fake_run.State.create({"net": {"level": jnp.float32(level)}})
  return np.allclose(value, method.score(state, {"image": image})["map"], atol=1e-6)


@pytest.mark.parametrize("which", ["best", "last"])
def test_every_mode_takes_the_checkpoint_of_the_config(tmp_path, which, monkeypatch):
  level, step = LEVELS[which], 1 + list(LEVELS).index(which)
  run = make(tmp_path / "run", which)
  result = evaluate.evaluate(run)["test"]
  noted = {"which": which, "step": step, "checksum": float(np.float32(level))}
  assert result["checkpoint"] == noted
  opened = medae_jax.load(run)
  assert float(opened.state.params["net"]["level"]) == np.float32(level)
  assert opened.calibration["checkpoint"] == noted
  assert opened.calibration["prepared"] == {"modalities": ["flair", "t1"], "image_size": list(fake_run.SHAPE)}
  assert opened.calibration["scored_with"]["median"] == 3
  image = fake_run.open(opened.config.data, 0).split("test").read(np.arange(3))["image"]
  assert scored_with(opened.score(image)["map"], image, level)

  folder = export.export(run)
  with np.load(folder / "weights.npz") as weights:
    assert weights["params/net/level"] == np.float32(level)
  assert scored_with(export.load(folder)({"image": image})["map"], image, level)

  seen = []
  class Predictor(base.BasePredictor):
    """Scores one image and keeps the map."""
    def __init__(self, config, calibration, score_fn):
      self.score_fn, self.calibration = score_fn, calibration
    def find_inputs(self, _):
      return [0]
    def files_of(self, _):
      return []
    def name_of(self, _):
      return "image"
    def predict_one(self, *_):
      seen.append((np.asarray(self.score_fn({"image": image})["map"]), self.calibration))
      return {}
  monkeypatch.setattr("medae_jax.tasks.anomaly.predictor.Predictor", Predictor)
  predict.predict(run, {"predict.input": str(tmp_path), "predict.output": str(tmp_path / "out")})
  assert scored_with(seen[0][0], image, level)
  assert seen[0][1]["threshold"] == opened.calibration["threshold"]


def test_the_choice_can_be_changed_for_one_command(tmp_path):
  run = make(tmp_path / "run", "best")
  other = trained.load(run, {"eval.checkpoint": "last"})
  assert other.info["which"] == "last" and float(other.state.params["net"]["level"]) < 0.5
  folder = export.export(run, tmp_path / "out", overrides={"eval.checkpoint": "last", "predict.force": True})
  with np.load(folder / "weights.npz") as weights:
    assert weights["params/net/level"] == np.float32(LEVELS["last"])
  assert files.read_json(folder / "config.json", "")["predict"]["force"] is False  # nobody insists for others
  with pytest.raises(ValueError, match="eval.checkpoint='nosuch': it must be one of 'best', 'last'"):
    trained.load(run, {"eval.checkpoint": "nosuch"})


def test_files_of_two_runs_in_one_folder_are_said(tmp_path, caplog):
  """A calibration of another run of as many steps gave its thresholds; other parameters were a KeyError."""
  run = make(tmp_path / "run", "best")
  for checksum, said in ((float(np.float32(LEVELS["best"])), False), (0.61, True)):
    files.write_json(run / "calibration.json", {"threshold": 0.5, "checkpoint": {
        "which": "best", "step": 1, "checksum": checksum}})
    trained.load(run)
    assert ("calibration.json was made with another network than this one" in caplog.text) == said
  config = files.read_json(run / "config.json", "")
  config["method"]["name"] = "dpa"
  files.write_json(run / "config.json", config)
  with pytest.raises(UserError, match="of the method .*, and config.json says dpa: files of two runs"):
    checkpoint.Checkpoints(run).restore_model("best")


@pytest.mark.parametrize("params", [{"kernel": np.zeros((3, 4)), "bias": np.zeros(4)}, {"bias": np.zeros(5)}])
def test_parameters_of_another_network_are_said_in_one_line(params):
  """An edited config.model was called a fault of the program."""
  method = types.SimpleNamespace(
      score=lambda state, batch: {"score": flax.linen.Dense(5).apply({"params": state}, batch["image"])})
  batch = {"image": np.zeros((1, 3), np.float32)}
  with pytest.raises(UserError, match="w/config.json: the parameters of the checkpoint do not fit"):
    scoring.trace(fake_run.config(), method, params, batch, "w/config.json: ")
  scoring.trace(fake_run.config(), method, {"kernel": np.zeros((3, 5)), "bias": np.zeros(5)}, batch)
  method.score_optional = ()
  call = scoring.explained(fake_run.config(), method, method.score, params, ("image",))
  with pytest.raises(UserError, match=r"do not fit the network .*, or images of shape \(3,\) are none"):
    call(batch)


def test_the_folder_of_a_run_is_neither_input_nor_output(tmp_path):
  run = make(tmp_path / "run", "best")
  save(tmp_path / "in", brain())
  with pytest.raises(UserError, match="--output=.*run is the folder of a run, among whose files results"):
    predict.predict(run, {"predict.input": str(tmp_path / "in"), "predict.output": str(run)})
  with pytest.raises(UserError, match="--input=.*run is the folder of a run: its pictures are no inputs"):
    predict.predict(run, {"predict.input": str(run)})


@pytest.mark.parametrize("error,raised,lines", [
    (KeyError("nosuch"), ValueError, ["a,1,", "b,,too large",
                                      "c,,KeyError: 'nosuch' (a fault of the program; see errors.log)",
                                      "d,1,"]),
    (KeyboardInterrupt(), KeyboardInterrupt, ["a,1,", "b,,too large", "c,,not predicted: interrupted",
                                              "d,,not predicted: interrupted"])])
def test_a_fault_in_mid_prediction_keeps_the_table_of_what_is_finished(
    tmp_path, error, raised, lines, monkeypatch):
  run = make(tmp_path / "run", "last")

  class Predictor(base.BasePredictor):
    """The second input has a bad file, the third meets a fault of the program."""
    def __init__(self, *_):
      pass
    def find_inputs(self, _):
      return ["a", "b", "c", "d"]
    def files_of(self, _):
      return []
    def name_of(self, item):
      return item
    def predict_one(self, item, out_dir):
      if item == "b":
        raise MemoryError("too large")
      if item == "c":
        (out_dir / "half.png").write_text("")
        raise error
      (out_dir / f"{item}.png").write_text("")
      return {"score": 1.0}
  monkeypatch.setattr("medae_jax.tasks.anomaly.predictor.Predictor", Predictor)
  out = tmp_path / "out"
  with pytest.raises(raised):
    predict.predict(run, {"predict.input": str(tmp_path), "predict.output": str(out)})
  assert (out / "predictions.csv").read_text().splitlines() == ["input,score,error", *lines]
  assert sorted(p.name for p in out.glob("*.png")) == [f"{line[0]}.png" for line in lines if ",1," in line]
  log = out / "errors.log"
  assert log.exists() == (raised is ValueError) and not list(out.glob(".partial_*"))
  assert not log.exists() or "KeyError: 'nosuch'" in log.read_text()


@pytest.mark.parametrize("noted", [True, False])
def test_a_field_that_the_score_lacks_is_one_line_before_any_result(tmp_path, noted):
  """Where the checkpoint does not note the shape of an image, at the first input."""
  c = fake_run.config()
  del c.method.score.image_score
  batch = {"image": [[4, *fake_run.SHAPE, 2], "float32"]}
  run = fake_run.write(tmp_path / "run", c, noted=batch if noted else None)
  save(tmp_path / "in", brain(slices=2), name="a")
  save(tmp_path / "in", brain(slices=2), name="b")
  with pytest.raises(ValueError, match="the config has no field 'image_score'") as e:
    predict.predict(run, {"predict.input": str(tmp_path / "in"), "predict.output": str(tmp_path / "out")})
  assert "\n" not in str(e.value) and "fault of the program" not in str(e.value)
  assert noted == ("config.json: the config" in str(e.value)) == (not (tmp_path / "out").exists())
  assert not list(tmp_path.glob("out/*.nii.gz")) and not (tmp_path / "out/errors.log").exists()


def test_volumes_are_prepared_as_in_training(tmp_path):
  folder = make(tmp_path / "run", "last")
  config = files.read_json(folder / "config.json", "")
  config["data"] |= {"modalities": ["flair", "t1"], "unit": "percentile", "placement": "anatomy",
                     "orientation": ""}
  files.write_json(folder / "config.json", config)
  other = {"data.unit": "median", "data.placement": "scan", "data.modalities": ("t1", "flair")}
  for name, value in other.items():
    with pytest.raises(UserError, match=f"--config.{name}=.*was trained with .*predict.force=True"):
      trained.load(folder, {name: value})
    with pytest.raises(UserError, match=name):
      trained.load(folder).override({name: value})
    assert trained.load(folder, {name: value, "predict.force": True})
  # Names of another data set's columns, and an orientation for what was trained as stored.
  assert trained.load(folder, {"data.modalities": ("FLAIR", "T1"), "data.orientation": "LPS"})


def tree(folder):
  return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_what_is_refused_changes_no_file(tmp_path):
  run = make(tmp_path / "run", "last")
  (tmp_path / "in").mkdir()
  before = tree(tmp_path)
  wrong = {"data.image_size": (8, 8)}
  for mode in (lambda: evaluate.evaluate(run, wrong), lambda: export.export(run, overrides=wrong),
               lambda: predict.predict(run, {**wrong, "predict.input": str(tmp_path / "in")})):
    with pytest.raises(UserError, match=r"image_size=\(8, 8\): the network was trained with \(16, 20\)"):
      mode()
  assert tree(tmp_path) == before


def test_thresholds_say_which_score_they_were_made_with(tmp_path, caplog):
  run = make(tmp_path / "run", "last")  # median 3
  files.write_json(run / "calibration.json", {"threshold": 0.1, "scored_with": {"median": 5}})
  other = {"method.score.median": 5}
  said = lambda values, **options: (
      caplog.clear(), trained.load(run, values, **options), "may not fit" in caplog.text)[-1]
  assert said({}) and not said(other)
  assert not said({"method.score.median": 7}, calibrated=False)  # evaluate makes them anew
  opened = trained.load(run, other)
  caplog.clear()
  opened.override({"predict.threshold": 0.2})
  assert not caplog.text
  opened.override({"method.score.median": 3})
  assert caplog.text.count("median=3 (there 5)") == 1


def test_a_score_that_val_has_fitted_is_that_of_the_run(tmp_path):
  run = make(tmp_path / "run", "last")
  files.write_json(run / "calibration.json", {"threshold": 0.5, "score": {"erosion": 1, "median": 5}})
  score = lambda **more: trained.load(run, **more).config.method.score
  assert (score().erosion, score().median) == (1, 5)
  assert (score(calibrated=False).erosion, score(calibrated=False).median) == (3, 3)
  assert score(overrides={"method.score.median": 1, "predict.force": True}).median == 1


def test_another_score_is_of_a_method_that_knows_it(tmp_path):
  run = trained.load(make(tmp_path / "run", "last"))
  other = run.override({"method.score.median": 1})
  assert (other.method.config.method.score.median, run.method.config.method.score.median) == (1, 3)
