"""What a refused, interrupted or too large run leaves and says."""

import json
import logging
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax import train
from medae_jax.core import checkpoint, config as config_lib, trained
from medae_jax.core.errors import UserError
from medae_jax.training import bookkeeping, foresee, interrupt, start
from tests.contract import cases
from tests.unit.training import recorder


class WideMethod(recorder.Method):
  """Cannot be built with config.model.width=0."""

  def init(self, rng, batch):
    if not self.config.model.width:
      raise ValueError("config.model.width=0: at least one channel")
    return super().init(rng, batch)


class LargeMethod(recorder.Method):
  def train_step(self, state, batch, rng, *, stage, axis_name):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9GiB")


def test_a_refused_run_does_not_block_the_corrected_command(tmp_path):
  def config(width):
    c = recorder.config(method__name="tests.unit.training.test_start:WideMethod"
                        ).copy_and_resolve_references()
    with c.unlocked():
      c.model.width = width
    return c.lock()
  with pytest.raises(ValueError, match="width=0"):
    train.train(config(0), str(tmp_path / "w"))
  assert not (tmp_path / "w" / "config.json").exists()
  assert train.train(config(1), str(tmp_path / "w"))["finished"]
  with pytest.raises(ValueError, match="another config.model.width: 1 there, 2 here; give"):
    train.train(config(2), str(tmp_path / "w"))
  assert config_lib.read_config(tmp_path / "w").model.width == 1


def test_exhausted_memory_names_what_to_change(tmp_path):
  with pytest.raises(ValueError, match="out of device memory while training.*config.train.batch_size=2 "
                     "instead of 4, or config.train.accum=2"):
    recorder.run(tmp_path / "w", method__name="tests.unit.training.test_start:LargeMethod")


def test_an_interrupted_run_says_what_is_saved_and_how_to_go_on(tmp_path, monkeypatch, caplog):
  with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
    patch.setattr(interrupt.GracefulStop, "requested", lambda self, step: step == 5)
    recorder.run(tmp_path / "w")
  said = [r.getMessage() for r in caplog.records if "Interrupted" in r.getMessage()]
  assert len(said) == 1 and "checkpoint of step 5 of 9" in said[0] and "same command" in said[0]
  assert recorder.saved(tmp_path / "w")[0] == [4, 5]


def test_files_are_looked_at_before_a_first_step_and_a_resumed_run_says_where_it_differs(
    tmp_path, monkeypatch, caplog):
  seen = []
  monkeypatch.setattr(foresee, "look", lambda config, data: seen.append(data.name))
  recorder.run(tmp_path / "w")
  with caplog.at_level(logging.WARNING):
    recorder.run(tmp_path / "w", train__batch_size=2)  # finished: it is restored, and trains no further
  assert seen == ["synthetic_numbers"]
  assert any("config.train.batch_size=2 (4 so far)" in r.getMessage() for r in caplog.records)


def test_epochs_are_resolved_from_the_data_and_written_down(tmp_path):
  """12 images in batches of 4: three steps an epoch."""
  c = cases.config("BatchNormMethod").copy_and_resolve_references()
  with c.unlocked():  # 20 images in batches of 16
    c.train.update(steps=0, epochs=2.0, eval_every=0, eval_every_epochs=1.0, save_every=0,
                   save_every_epochs=1.0)
  result = train.train(c.lock(), str(tmp_path / "w"))
  assert result["step"] == 4 and result["finished"]
  written = config_lib.read_config(tmp_path / "w").train
  assert (written.steps, written.epochs, written.eval_every, written.save_every) == (4, 0.0, 2, 2)
  run = trained.load(tmp_path / "w", {"eval.checkpoint": "last"})  # needs no data
  assert int(run.state.step) == 4
  manager = checkpoint.Checkpoints(tmp_path / "w")
  assert manager.steps() == [4, 2]
  manager.close()
  assert train.train(c, str(tmp_path / "w"))["step"] == 4  # the same command: nothing to do


def test_a_run_that_goes_on_from_its_best_checkpoint_is_not_done(monkeypatch):
  """What was fitted after training went with the last checkpoints."""
  def restore(which, opt_of, at_most=None):
    if which == "last":
      raise UserError("no checkpoint can be read")
    return recorder.State.create({}), {"stage": "main", "done": True}
  state, meta = start._restore(types.SimpleNamespace(restore=restore), None, None)
  assert meta == {"stage": "main", "done": False} and int(state.step) == 0


def test_the_numbers_of_a_line_are_means_over_steps_whatever_their_dispatch():
  lines = []
  writer = types.SimpleNamespace(scalars=lambda step, values: lines.append((step, values)))
  fetched = [(3, {"loss": np.array([1.0, 2.0, 3.0])}), (4, {"loss": np.array([10.0])})]
  assert bookkeeping.Run.log(types.SimpleNamespace(writer=writer), fetched, None) == {"loss": 4.0}
  assert lines == [(4, {"train/loss": 4.0})]


def test_an_old_workdir_keeps_its_random_numbers(tmp_path, monkeypatch):
  """Begun with the old streams, interrupted, gone on with today's default: the old run, unbroken."""
  old = {"train__random_streams": "legacy"}
  _, want = recorder.run(tmp_path / "whole", **old)
  with monkeypatch.context() as patch:
    patch.setattr(interrupt.GracefulStop, "requested", lambda self, step: step == 5)
    recorder.run(tmp_path / "w", **old)
  file = tmp_path / "w" / "config.json"
  plain = json.loads(file.read_text())
  del plain["train"]["random_streams"]  # as written before there was a choice
  file.write_text(json.dumps(plain))
  _, found = recorder.run(tmp_path / "w")
  for key in want:
    assert (want[key] == found[key]).all(), key
  assert json.loads(file.read_text())["train"]["random_streams"] == "legacy"
  _, named = recorder.run(tmp_path / "new")
  assert not set(named["draw"]) & set(want["draw"])


class PairMethod(recorder.Method):
  """Two weights instead of one, which `pretrained` may give from a "file" of config.method.width."""

  def init(self, rng, batch):
    state = super().init(rng, batch)
    return state.replace(params={"net": {"w": jnp.zeros(2)}})

  def pretrained(self):
    width = self.config.method.get("width", 0)
    return {"net": {"w": np.full(width, 7.0, np.float32)}} if width else {}


PAIR = "tests.unit.training.test_start:PairMethod"


def weight(found):
  return np.asarray(found["state"].params["net"]["w"]).tolist()


def test_another_runs_best_parameters_start_a_run(tmp_path):
  losses = (9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 9.0, 9.0, 9.0)  # the best state is that of step 6
  recorder.run(tmp_path / "first", method__losses=losses)
  found, stats = recorder.run(tmp_path / "second", train__init_from=str(tmp_path / "first"))
  assert weight(found) == 6 + 9 and found["step"] == 9  # 9 steps, each adds 1
  assert stats["init"] == recorder.run(tmp_path / "third")[1]["init"]  # parameters alone are taken


def test_parameters_of_another_network_start_nothing(tmp_path):
  recorder.run(tmp_path / "first")
  with pytest.raises(UserError, match="init_from=.*first: its parameters do not fit config.model"):
    recorder.run(tmp_path / "second", method__name=PAIR, train__init_from=str(tmp_path / "first"))
  with pytest.raises(UserError, match="init_from=.*nothing.*config.json"):
    recorder.run(tmp_path / "second", train__init_from=str(tmp_path / "nothing"))
  assert not (tmp_path / "second" / "config.json").exists()


@pytest.mark.parametrize("width, fits", [(2, True), (3, False)])
def test_pretrained_networks_have_the_shapes_of_the_network(tmp_path, width, fits):
  config = recorder.config(method__name=PAIR).copy_and_resolve_references()
  with config.unlocked():
    config.method.width = width
  if fits:
    assert weight(train.train(config.lock(), str(tmp_path / "w"))) == [16.0, 16.0]
  else:
    with pytest.raises(UserError, match=r"'net' does not fit config.method: w is \(3,\), \(2,\) is needed"):
      train.train(config.lock(), str(tmp_path / "w"))


@pytest.mark.parametrize("modalities,lesions,expected", [
    (("flair", "t1"), "marked", "drawn"),   # nothing is marked in val: drawn ones instead
    (("flair", "t1"), "drawn", "drawn"),
    (("ct",), "marked", False)])            # nobody knows how they look: the published score
def test_where_nothing_is_marked_the_score_is_fitted_to_drawn_lesions(modalities, lesions, expected):
  config = ml_collections.ConfigDict({"data": {"modalities": modalities},
                                      "eval": {"fit_residual": True, "fit_lesions": lesions}})
  data = types.SimpleNamespace(decided={}, splits=("val",), name="x", has_lesions=lambda _: False,
                               validation=lambda: [0])
  found = start._decided(config, data).eval
  assert (found.fit_lesions if expected else found.fit_residual) == expected
  data.validation = lambda: None  # no slice to draw them on
  assert start._decided(config, data).eval.fit_residual == (lesions == "drawn")
  data.has_lesions = lambda _: True
  assert start._decided(config, data).eval == config.eval


@pytest.mark.parametrize("modalities, expected", [(("flair",), "both"), (("ct",), "marked")])
def test_weights_of_both_kinds_of_lesions_where_they_can_be_drawn(modalities, expected):
  config = ml_collections.ConfigDict({"data": {"modalities": modalities},
                                      "eval": {"fit_residual": True, "fit_lesions": "both"}})
  data = types.SimpleNamespace(decided={}, splits=("val",), name="x", has_lesions=lambda _: True,
                               validation=lambda: [0])
  assert start._decided(config, data).eval.fit_lesions == expected


@pytest.mark.parametrize("where", ["checks", "tasks"])
def test_a_config_is_checked_before_anything_is_opened(tmp_path, monkeypatch, where):
  def refuse(config):
    raise UserError("it was looked at")
  monkeypatch.setattr(getattr(start, where), "check", refuse)
  with pytest.raises(UserError, match="it was looked at"):
    start.open_run(recorder.config(), str(tmp_path / "w"))
  assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("sound", [True, False])
def test_a_best_checkpoint_that_cannot_be_read_gives_its_number_up(tmp_path, monkeypatch, sound):
  """Else no later validation would beat the number of a state that is lost."""
  recorder.run(tmp_path)
  monkeypatch.setattr(start.checkpoint.Checkpoints, "sound", lambda self, which: sound)
  made = start.open_run(recorder.config(), str(tmp_path))
  made.close()
  assert (made.meta["best"] is not None) == sound and (sound or made.meta["stale"] == 0)
