"""What the Python API hands to the modes: overrides of the run and of the call, places, who decides."""

import dataclasses
import pathlib
import types

import ml_collections
import numpy as np
import pytest

from medae_jax import api, evaluate, export, predict, train
from medae_jax.core import trained
from medae_jax.core.errors import UserError
from medae_jax.core.exported import opened
from medae_jax.reporting import results
from medae_jax.tasks import base, score_of


@pytest.fixture
def run(tmp_path):
  """A run opened with one override; nothing is in its folder."""
  opened = types.SimpleNamespace(score_fn=None, config=None, calibration=None)
  return api.Run(tmp_path / "w", opened, {"method.score.median": 0})


def test_fields_of_the_call_go_before_those_of_the_run_and_places_before_both(run, tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(predict, "predict", lambda *a, **k: seen.append((*a, k)) or [{"input": "x"}])
  run.predict("in", "out", **{"predict.threshold": 0.3, "predict.output": "elsewhere"})
  run.predict("in")
  assert [s[0] for s in seen] == [tmp_path / "w"] * 2 and all(s[2] == {"run": run.trained, "at_most": None}
                                                               for s in seen)
  assert seen[0][1] == {"predict.threshold": 0.3, "predict.input": "in", "predict.output": "out"}
  assert seen[1][1]["predict.output"] == str(tmp_path / "w/predictions")
  monkeypatch.setattr(score_of, "files", lambda folder, row: (folder.name, row))
  assert run.score("in") == ("out", {"input": "x"}) and seen[-1][2]["at_most"] == 1
  monkeypatch.setattr(export, "export", lambda *a, **k: seen.append((*a, k)) or "there")
  assert run.export() == pathlib.Path("there") and seen[-1][2] == {"overrides": {"method.score.median": 0}}
  assert run.export("out", **{"method.score.median": 5, "export.image_size": 8}) == pathlib.Path("there")
  assert seen[-1][:2] == (tmp_path / "w", "out")
  assert seen[-1][2] == {"overrides": {"method.score.median": 5, "export.image_size": 8}}


def test_an_evaluation_is_of_the_run_as_it_was_opened_and_renews_its_thresholds(run, tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(evaluate, "evaluate", lambda *a: seen.append(a) or {"val": {"split": "val"}})
  monkeypatch.setattr(trained, "load", lambda *a: seen.append(a) or "anew")
  monkeypatch.setattr("medae_jax.tasks.external.folder", lambda workdir, changed: None)
  found = run.evaluate("val", **{"eval.bootstrap": 20})
  assert seen == [(tmp_path / "w", {"method.score.median": 0, "eval.bootstrap": 20}, ["val"]),
                  (tmp_path / "w", {"method.score.median": 0})]
  assert run.trained == "anew" and found.folder == tmp_path / "w"
  monkeypatch.setattr("medae_jax.tasks.external.folder", lambda workdir, changed: workdir / "external")
  assert run.evaluate("val", **{"data.dir": "other"}).folder == tmp_path / "w/external"


@pytest.mark.parametrize("stopped, asked, evaluated", [(False, True, 1), (True, True, 0), (False, False, 0)])
def test_what_was_stopped_or_not_to_be_evaluated_is_not(tmp_path, monkeypatch, stopped, asked, evaluated):
  done, allowed = [], []
  monkeypatch.setattr(train, "train", lambda config, workdir: {"stopped": stopped})
  monkeypatch.setattr(evaluate, "evaluate", done.append)
  monkeypatch.setattr(api, "load", lambda workdir: workdir)
  monkeypatch.setattr(api, "allow_outside_code", lambda: allowed.append(1))
  assert api.train("dae_brats:smoke", tmp_path / "w", evaluate=asked) == tmp_path / "w"
  assert len(done) == evaluated and not allowed
  api.train("dae_brats:smoke", tmp_path / "w", allow_code=True)
  assert allowed == [1]
  with pytest.raises(UserError, match="config.seeds trains several runs"):
    api.train(api.config("dae_brats:smoke", seeds=(0, 1)), tmp_path / "w")
  monkeypatch.setattr(api.places, "check_workdir", lambda workdir: 1 / 0)
  with pytest.raises(ZeroDivisionError):  # before anything is trained
    api.train("dae_brats:smoke", tmp_path / "w")


def test_outside_code_is_allowed_by_those_who_ask_for_it(tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr("medae_jax.core.exported.opened.load", lambda *a, **k: seen.append(k["allow_code"]))
  api.load(tmp_path)
  api.load(tmp_path, allow_code=True)
  assert seen == [False, True]


@pytest.mark.parametrize("allowed", [False, True])
def test_outside_code_of_a_workdir_and_of_an_export_is_allowed_alike(tmp_path, monkeypatch, allowed):
  seen = []
  monkeypatch.setattr(trained, "load", lambda *a, allow_code: seen.append((*a, allow_code)))
  opened.load(tmp_path, {"a.b": 1}, allow_code=allowed)
  assert seen == [(tmp_path, {"a.b": 1}, allowed)]
  monkeypatch.setattr(opened.artefact, "is_export", lambda folder: True)
  monkeypatch.setattr(opened, "allow_outside_code", lambda: seen.append("allowed"))
  with pytest.raises((UserError, OSError)):  # there is none
    opened.load(tmp_path, allow_code=allowed)
  assert seen[1:] == (["allowed"] if allowed else [])


def test_a_threshold_of_ones_own_and_a_limit_of_zero_count():
  maps = np.zeros((1, 4, 4, 1), np.float32)
  maps[0, 0, 0], maps[0, 2, 2] = 0.4, 0.8
  def mask(threshold, known, components=3):
    config = ml_collections.ConfigDict({"predict": {"threshold": threshold},
                                        "eval": {"components": components}})
    found = score_of.arrays(config, known, {"map": maps}, single=True)
    return int(found.mask.sum()), found.threshold
  assert mask(0.0, {"threshold": 0.5, "components": 0}) == (1, 0.5)  # what val used, although it is 0
  assert mask(0.3, {"threshold": 0.5, "components": 0}) == (2, 0.3)
  assert mask(0.3, {"threshold": 0.5}) == (0, 0.3) and mask(0.3, None, 0) == (2, 0.3)


@pytest.mark.parametrize("elsewhere", [None, pathlib.Path("external/x")])
def test_thresholds_of_the_run_are_read_for_the_data_of_others_alone(monkeypatch, elsewhere):
  """On its own data they are made anew, and old ones must not stand in the way."""
  seen = []
  monkeypatch.setattr(evaluate.external, "folder", lambda workdir, asked: elsewhere)
  monkeypatch.setattr(evaluate.trained, "load", lambda *a, **k: seen.append(k) or 1 / 0)
  with pytest.raises(ZeroDivisionError):
    evaluate._evaluate(pathlib.Path("w"), {}, ())
  assert seen == [{"calibrated": elsewhere is not None, "splits": True}]


@pytest.mark.parametrize("there", [{}, {"last": 3}, {"best": None, "last": 3}, {"best": None}])
def test_checkpoints_are_closed_whatever_was_found(monkeypatch, there):
  """`None` stands for damage: the next kind is taken, and if there is none the damage is said."""
  closed = []

  class Checkpoints:
    def __init__(self, workdir):
      pass

    def restore_model(self, name):
      if there.get(name, 0) is None:
        raise UserError("damaged")
      return (types.SimpleNamespace(step=there[name]), {"done": True}) if name in there else None

    def close(self):
      closed.append(True)
  monkeypatch.setattr(trained.checkpoint, "Checkpoints", Checkpoints)
  if "last" in there:
    state, meta = trained._restore("w", "best")
    assert state.step == 3 and meta == {"done": True, "which": "last", "step": 3}
  else:
    kind, said = (UserError, "damaged") if there else (FileNotFoundError, "train first .*where it is trained")
    with pytest.raises(kind, match=said):
      trained._restore("w", "best")
  assert closed == [True]


@dataclasses.dataclass
class Found:
  """A Score, as far as arrays need one."""
  outputs: dict
  single: bool
  row: dict = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize("shape, given, single", [
    ((6, 5), (1, 6, 5, 1), True), ((6, 5, 3), (1, 6, 5, 3), True), ((2, 6, 5, 3), (2, 6, 5, 3), False)])
def test_an_array_is_one_image_or_a_batch_and_grey_has_one_channel(run, shape, given, single, monkeypatch):
  run.trained.score = lambda batch: {"shape": np.shape(batch["image"]), "batch": batch["image"]}
  run.trained.override = lambda changed: run.trained
  run.trained.method = types.SimpleNamespace(needs={})
  run.trained.config = types.SimpleNamespace(eval=types.SimpleNamespace(kind="anomaly"))
  run.trained.image_shape = None
  monkeypatch.setattr(base, "check", lambda config, shape: None)
  monkeypatch.setattr(score_of, "arrays", lambda config, calibration, outputs, single: Found(outputs, single))
  image = np.random.default_rng(0).random(shape)
  for asked in (image, {"image": image.astype(np.float32)}):
    found = run.score(asked)
    assert (found.outputs["shape"], found.single, found.row) == (given, single, {})
    np.testing.assert_array_equal(np.ravel(found.outputs["batch"]), image.astype(np.float32).ravel())


def test_an_evaluation_knows_its_page(tmp_path):
  found = results.Evaluation({"split": "val", "pixel_ap": 0.5}, tmp_path)
  assert found.report == tmp_path / "report.html" and found.split == "val"
  assert dict(found) == {"split": "val", "pixel_ap": 0.5} and len(found) == 2


def test_fields_of_a_call_hold_for_arrays(run, monkeypatch):
  """They were left aside: another threshold gave the same mask, a misspelt one no word."""
  other, run.trained.calibration = types.SimpleNamespace(
      config="changed", image_shape=(4, 4, 1), score=lambda batch: {}), "its"
  run.trained.method, run.trained.override = types.SimpleNamespace(needs={}), lambda changed: {
      (("predict.threshold", 0.1),): other}[tuple(changed.items())]
  run.trained.config = types.SimpleNamespace(eval=types.SimpleNamespace(kind="anomaly"))
  asked = []
  monkeypatch.setattr(base, "check", lambda config, shape: asked.append((config, shape)))
  monkeypatch.setattr(score_of, "arrays", lambda *args, single: asked.append(args) or Found({}, single))
  run.score(np.zeros((4, 4), np.float32), **{"predict.threshold": 0.1})
  assert asked == [("changed", (4, 4, 1)), ("changed", "its", {})]


@pytest.mark.parametrize("call", [
    lambda run, bad: run.predict(bad, "out"), lambda run, bad: api.load(bad),
    lambda run, bad: api.config(bad),
    lambda run, bad: run.predict("in", bad) if bad is not None else run.predict(bad),
    lambda run, bad: api.train(ml_collections.ConfigDict(), bad)])
@pytest.mark.parametrize("bad", [None, 3, ["a.png"], "", "  "])
def test_what_is_no_path_is_one_line(run, call, bad):
  """A blank one meant the folder that the program ran in: all of its images were scored."""
  with pytest.raises(UserError, match="is blank: give a path" if isinstance(bad, str) else
                     "is the path of a file or folder, not"):
    call(run, bad)


def test_what_is_no_config_and_no_split_is_one_line(run, tmp_path):
  with pytest.raises(UserError, match="mx.train takes what mx.config returns, or its name, not dict"):
    api.train({"train.steps": 3}, tmp_path / "w")
  for split in (None, ["test"], 3):
    with pytest.raises(UserError, match="a split is a name, as 'test', not"):
      run.evaluate(split)
  with pytest.raises(UserError, match="what is to be scored is blank"):
    run.score("")
  for changed in ([("seed", 1)], "seed=1", {1: 2}):
    with pytest.raises(UserError, match="fields are changed by .*group.field"):
      api.config("dae_brats:smoke", changed)
  with pytest.raises(UserError, match=r"config.train is a group of fields: change one of them, such as \S+$"):
    api.config("dae_brats:smoke", {"train": 3})
