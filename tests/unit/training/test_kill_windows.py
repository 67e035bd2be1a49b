"""What a kill between two writes leaves: the moments that the campaign of kills (tests/campaign) aims at."""

import json
import os
import shutil
import types

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import whole_folder
from data_pipelines.errors import UserError
from medae_jax import evaluate, report, sweep, train
from medae_jax.core import checkpoint, files, parallel
from medae_jax.core.method import State
from medae_jax.training import stage_pictures, together, writer
from medae_jax.training.job import Job
from tests.unit import fake_run
from tests.unit.training import recorder


class Killed(BaseException):
  """Ends a run without its own clean-up of results."""


def _die(*_, **__):
  raise Killed


def _state(scale):
  return State.create({"net": {"w": scale * jnp.ones(3)}}).replace(step=jnp.int32(5))


def _meta(state):
  return {"stage": "", "batches": {}, "best": 0.5, "stale": 0, "evaluated": 1, "done": False,
          "checksum": checkpoint.checksum(state.params)}


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_checkpoint_that_is_replaced_is_never_away(tmp_path, monkeypatch, which):
  """`replace` is killed before the new one, or before the old one is removed."""
  saver = checkpoint.Checkpoints(tmp_path)
  saver.save(which, _state(1), _meta(_state(1)))
  with monkeypatch.context() as patch:
    patch.setattr(saver, "save", _die)
    with pytest.raises(Killed):
      saver.replace(which, _state(2), _meta(_state(2)))
  assert not checkpoint.Checkpoints(tmp_path).steps(which)
  again = checkpoint.Checkpoints(tmp_path)
  again.put_back()
  assert float(again.restore_model(which)[0].params["net"]["w"][0]) == 1
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.shutil, "rmtree", _die)
    with pytest.raises(Killed):
      again.replace(which, _state(3), _meta(_state(3)))
  last = checkpoint.Checkpoints(tmp_path)
  last.put_back()
  assert float(last.restore_model(which)[0].params["net"]["w"][0]) == 3
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["best", "last"]


def test_a_stage_is_done_only_with_its_picture(tmp_path, monkeypatch):
  changes = {"method__stages": (("small", 4), ("large", 5)), "train__save_every": 0}
  with monkeypatch.context() as patch:
    patch.setattr(stage_pictures, "write", _die)
    with pytest.raises(Killed):
      recorder.run(tmp_path / "w", **changes)
  assert not checkpoint.finished_steps(tmp_path / "w")


def test_the_validation_that_begins_a_stage_has_one_line(tmp_path, monkeypatch):
  """The checkpoint is of the end of the stage before: resumed from there, the validation comes again."""
  changes = {"method__stages": (("small", 4), ("large", 5)), "train__eval_every": 4,
             "method__losses": (1.0,) * 10}
  whole = recorder.run(tmp_path / "whole", **changes)[1]
  scalars = writer.Writer.scalars
  with monkeypatch.context() as patch:
    patch.setattr(writer.Writer, "scalars",
                  lambda self, step, values: _die() if step == 5 else scalars(self, step, values))
    with pytest.raises(Killed):
      recorder.run(tmp_path / "w", **changes)
  assert 4 in recorder.lines(tmp_path / "w", "val/loss")
  stats = recorder.run(tmp_path / "w", **changes)[1]
  for key in ("val/loss", "train/loss"):
    assert recorder.lines(tmp_path / "w", key) == recorder.lines(tmp_path / "whole", key)
  for key in whole:
    np.testing.assert_array_equal(stats[key], whole[key], err_msg=key)


def _pair(tmp_path):
  configs = [recorder.config(seed=s) for s in (0, 1)]
  found = train.train_runs(configs, [str(tmp_path / f"s{s}") for s in (0, 1)])
  return [parallel.to_host(r["state"].stats["net"]) for r in found]


@pytest.mark.parametrize("left", [{8}, {4}, set()])
def test_runs_together_stay_together_where_one_is_a_checkpoint_ahead(tmp_path, monkeypatch, left):
  """The second run was killed in its save: its newest checkpoints are missing."""
  whole = _pair(tmp_path / "whole")
  configs, folders = [recorder.config(seed=s) for s in (0, 1)], [str(tmp_path / f"s{s}") for s in (0, 1)]
  _pair(tmp_path)
  for s, kept in ((1, left), (0, left | {4} if left <= {4} else {8, 9})):
    for step in checkpoint.finished_steps(tmp_path / f"s{s}") - kept:
      shutil.rmtree(tmp_path / f"s{s}" / "checkpoints" / "last" / str(step))
  common = together.common_step(configs, folders)
  assert common == (8 if left == {8} else None if left == {4} else 0)
  monkeypatch.setattr(together, "check_alike", lambda runs: _same_step(runs, common))
  for a, b in zip(_pair(tmp_path), whole, strict=True):
    for key in a:
      np.testing.assert_array_equal(a[key], b[key], err_msg=key)
  for s in (0, 1):
    assert sorted(recorder.lines(tmp_path / f"s{s}", "train/loss")) == list(range(1, 10))


def _same_step(runs, step):
  assert {int(r.state.step) for r in runs} == {4 if step is None else step}


def test_runs_far_apart_are_not_thrown_back(tmp_path):
  configs, folders = [recorder.config(seed=s) for s in (0, 1)], [str(tmp_path / f"s{s}") for s in (0, 1)]
  recorder.run(folders[0])
  assert together.common_step(configs, folders) is None  # a seed that was added later
  assert together.common_step(configs[:1], folders[:1]) is None


def test_the_numbers_of_a_split_come_last(tmp_path, monkeypatch):
  """<split>.json is what sweeps take for done: killed before the pictures, it is not there."""
  run = fake_run.make(tmp_path / "run")
  evaluate.evaluate(run)
  with monkeypatch.context() as patch:
    patch.setattr(files, "write_png", _die)
    with pytest.raises(Killed):
      evaluate.evaluate(run)
  assert not (run / "evaluation" / "val.json").exists() and (run / "calibration.json").exists()
  evaluate.evaluate(run)
  assert (run / "evaluation" / "val.json").exists()


def test_a_sweep_writes_the_page_of_a_run_that_was_killed_before_it(tmp_path, monkeypatch):
  monkeypatch.setattr(Job, "read", lambda self, split: {})
  monkeypatch.setattr(report, "write", lambda folder: (folder / "report.html").write_text("page"))
  job = Job("a", recorder.config(), tmp_path / "a")
  for _ in range(2):
    assert sweep.run([job], ("test",), 1) == {}
  assert (tmp_path / "a" / "report.html").read_text() == "page"


def test_a_prepared_folder_appears_whole_or_not_at_all(tmp_path):
  out, hidden = tmp_path / "out", tmp_path / ".out.unfinished"
  hidden.mkdir()
  (hidden / "half").write_text("of a killed process")
  (hidden / "deep" / "er").mkdir(parents=True)
  (tmp_path / "elsewhere").mkdir()
  (hidden / "link").symlink_to(tmp_path / "elsewhere")
  with pytest.raises(Killed), whole_folder.filled(out) as folder:
    assert not any(folder.iterdir()) and not out.exists()
    with pytest.raises(UserError, match="another process is writing"), whole_folder.filled(out):
      pass
    (folder / "a").write_text("1")
    raise Killed
  assert not out.exists() and not hidden.exists()
  out.mkdir()
  with whole_folder.filled(out) as folder:
    (folder / "a").write_text("2")
  assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out"] and (out / "a").read_text() == "2"
  with pytest.raises(FileExistsError, match="not empty"), whole_folder.filled(out):
    pass


@pytest.mark.parametrize("killed", ["rows", "tables", "curves", "gallery", "panels", ""])
def test_a_split_is_done_only_when_all_of_its_files_are_those_of_this_evaluation(tmp_path, killed):
  """A sweep takes <split>.json for "done": that of the evaluation before goes first."""
  evaluator = types.SimpleNamespace(
      rows=lambda: [{"id": 1}], tables=lambda: {"scans": [{"id": 2}]}, curves=dict, gallery=list,
      panels=lambda: {"worst": np.zeros((2, 2, 3), np.uint8)})
  done, folder = tmp_path / "evaluation/test.json", tmp_path / "evaluation"
  folder.mkdir()
  done.write_text('{"image_auroc": 0.1}')
  if killed:
    setattr(evaluator, killed, _die)
    with pytest.raises(Killed):
      evaluate._write(tmp_path, "test", evaluator, {"image_auroc": 0.9}, {})
    assert not done.exists()
    return
  evaluate._write(tmp_path, "test", evaluator, {"image_auroc": 0.9}, {})
  assert json.loads(done.read_text()) == {"image_auroc": 0.9} and not (tmp_path / "calibration.json").exists()
  assert {"test.csv", "test_scans.csv", "test_worst.png", "curves"} <= {p.name for p in folder.iterdir()}
