"""Several runs under one loop: each is the run alone; validation may change the state; failures."""

import contextlib
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax import train
from medae_jax.core import checkpoint, parallel
from medae_jax.core.method import State
from medae_jax.training import interrupt, together
from tests.unit.training import recorder

LOSSES = (9.0, 9.0, 9.0, 5.0, 9.0, 9.0, 3.0, 9.0, 9.0, 4.0)


class PlateauMethod(recorder.Method):
  """A rate that halves when the validation loss has not fallen, kept in the state."""

  def init(self, rng, batch):
    return super().init(rng, batch).replace(
        extra={"rate": jnp.ones(()), "low": jnp.full((), 1e9), "calls": jnp.zeros((), jnp.int32)})

  def train_step(self, state, batch, rng, *, stage, axis_name):
    new, metrics = super().train_step(state, batch, rng, stage=stage, axis_name=axis_name)
    return new, {**metrics, "rate": state.extra["rate"]}

  def after_validation(self, state, values):
    e = state.extra
    better = values["val/loss"] < e["low"]
    return state.replace(extra={"rate": jnp.where(better, e["rate"], e["rate"] / 2),
                                "low": jnp.minimum(e["low"], values["val/loss"]),
                                "calls": e["calls"] + 1})


class SeedMethod(recorder.Method):
  """The validation loss stops falling for some draws only: runs end early at different steps."""

  def eval_step(self, state, batch, rng):
    falls = state.stats["net"]["init"] > self.config.method.falls_above
    value = jnp.where(falls, -state.step, 0).astype(jnp.float32)
    return {"loss": value + jnp.zeros(len(batch["image"]))}


class NanMethod(recorder.Method):
  def train_step(self, state, batch, rng, *, stage, axis_name):
    new, metrics = super().train_step(state, batch, rng, stage=stage, axis_name=axis_name)
    bad = (state.stats["net"]["init"] > self.config.method.falls_above) & (state.step == 5)
    return new, {"loss": jnp.where(bad, jnp.nan, metrics["loss"])}


def several(tmp_path, seeds=(0, 1, 2), **changes):
  configs = [recorder.config(seed=s, **changes) for s in seeds]
  return train.train_runs(configs, [str(tmp_path / f"s{s}") for s in seeds])


def stats_of(result):
  return parallel.to_host(result["state"].stats["net"])


def inits(seeds=(0, 1, 2)):
  """What each seed's run draws first."""
  from medae_jax.core import streams
  return [float(jax.random.uniform(streams.init_key(recorder.config(seed=s)))) for s in seeds]


@pytest.mark.parametrize("changes", [
    {"method__losses": LOSSES},
    {"method__losses": LOSSES, "method__stages": (("small", 4), ("large", 5)), "train__steps_per_call": 2}])
def test_each_run_is_the_run_alone(tmp_path, changes):
  """Draws, order of the data, growth, best and last checkpoints, and every line of metrics.jsonl."""
  for seed, result in enumerate(several(tmp_path, **changes)):
    alone, stats = recorder.run(tmp_path / f"alone{seed}", seed=seed, **changes)
    assert (result["step"], result["best"], result["finished"], result["error"]) == (
        alone["step"], alone["best"], True, None)
    for key in stats:
      np.testing.assert_allclose(stats_of(result)[key], stats[key], rtol=1e-6, err_msg=key)
    for key in ("train/loss", "val/loss", "val/image"):
      assert recorder.lines(tmp_path / f"s{seed}", key) == recorder.lines(tmp_path / f"alone{seed}", key)
    for which in ("last", "best"):
      assert recorder.saved(tmp_path / f"s{seed}", which)[0] == recorder.saved(
          tmp_path / f"alone{seed}", which)[0]


def test_interrupted_together_and_gone_on(tmp_path, monkeypatch):
  whole = several(tmp_path / "whole", method__losses=LOSSES)
  with monkeypatch.context() as patch:
    patch.setattr(interrupt.GracefulStop, "requested", lambda self, step: step == 5)
    assert [r["step"] for r in several(tmp_path / "broken", method__losses=LOSSES)] == [5, 5, 5]
  for a, b in zip(whole, several(tmp_path / "broken", method__losses=LOSSES), strict=True):
    assert b["finished"] and b["best"] == a["best"]
    for key, value in stats_of(a).items():
      np.testing.assert_array_equal(value, stats_of(b)[key])


def test_a_run_that_ends_early_keeps_its_state_and_the_others_go_on(tmp_path):
  draws = inits()
  middle = sorted(draws)[1]
  options = dict(method__name="tests.unit.training.test_together:SeedMethod", train__early_stop=1,
                 train__save_every=0)
  changes = {"method": {"falls_above": middle}}
  configs = []
  for s in range(3):
    c = recorder.config(seed=s, **options).copy_and_resolve_references()
    with c.unlocked():
      c.method.falls_above = changes["method"]["falls_above"]
    configs.append(c.lock())
  results = train.train_runs(configs, [str(tmp_path / f"s{s}") for s in range(3)])
  # the loss falls in the run with the largest draw alone; the others end at the second validation
  for draw, result, s in zip(draws, results, range(3), strict=True):
    step = 9 if draw > middle else 6
    assert result["step"] == step and result["finished"]
    assert recorder.saved(tmp_path / f"s{s}")[0] == [step]
    assert float(result["state"].params["net"]["w"]) == step
    assert max(recorder.lines(tmp_path / f"s{s}", "train/loss")) == step


def test_a_run_that_fails_leaves_the_others_alone(tmp_path):
  draws, configs = inits(), []
  for s in range(3):
    c = recorder.config(seed=s, method__name="tests.unit.training.test_together:NanMethod"
                        ).copy_and_resolve_references()
    with c.unlocked():
      c.method.falls_above = sorted(draws)[1]
    configs.append(c.lock())
  results = train.train_runs(configs, [str(tmp_path / f"s{s}") for s in range(3)])
  failed = int(np.argmax(draws))
  for s, result in enumerate(results):
    if s == failed:
      assert "not finite at step 5" in result["error"] and "step 4 is kept" in result["error"]
      assert not result["finished"] and recorder.saved(tmp_path / f"s{s}")[0] == [4]
    else:
      assert result["error"] is None and result["finished"] and result["step"] == 9
      assert recorder.saved(tmp_path / f"s{s}")[0] == [4, 8, 9]


@pytest.mark.parametrize("runs", [1, 2])
def test_what_validation_changes_stays_in_the_state(tmp_path, monkeypatch, runs):
  """5 at step 3, 3 at 6, 4 at 9: the rate halves after the last one only; a resumed run counts on."""
  options = dict(method__name="tests.unit.training.test_together:PlateauMethod", method__losses=(
      9.0, 9.0, 9.0, 5.0, 9.0, 9.0, 6.0, 9.0, 9.0, 4.0))
  for at in (None, 7):
    workdir = tmp_path / str(at)
    if at:
      with monkeypatch.context() as patch:
        patch.setattr(interrupt.GracefulStop, "requested", lambda self, step: step == at)
        several(workdir, range(runs), **options)
    for s, result in enumerate(several(workdir, range(runs), **options)):
      extra = parallel.to_host(result["state"].extra)
      assert (float(extra["rate"]), float(extra["low"]), int(extra["calls"])) == (0.5, 4.0, 3)
      rates = recorder.lines(workdir / f"s{s}", "train/rate")
      assert [rates[k] for k in range(1, 10)] == [1.0] * 6 + [0.5] * 3


def test_runs_that_do_not_fit_are_said(tmp_path):
  one, two = recorder.config(), recorder.config(seed=1, train__batch_size=2)
  assert together.signature(one) != together.signature(two)
  assert together.signature(one) == together.signature(recorder.config(seed=5))
  with pytest.raises(ValueError, match="differ in config"):
    train.train_runs([one, recorder.config(seed=1, train__early_stop=3)],
                     [str(tmp_path / "a"), str(tmp_path / "b")])
  with pytest.raises(ValueError, match="config.seeds"):
    train.train(recorder.config(seeds=(0, 1)), str(tmp_path / "c"))


@pytest.mark.parametrize("steps, wanted", [
    ([{4, 6}], None), ([{4, 6}, {4, 6}], None), ([{2, 4, 6}, {2, 4}], 4), ([{4, 6}, {2, 4}, {4}], 4),
    ([{2}, set()], 0), ([{2, 4}, set()], None), ([{6}, {2}], None), ([set(), set()], None)])
def test_runs_go_on_together_from_the_newest_step_that_all_have(steps, wanted, monkeypatch):
  """From the start where some had not saved yet and the others just once, at step 2."""
  monkeypatch.setattr(checkpoint, "finished_steps", lambda workdir: steps[workdir])
  config = ml_collections.ConfigDict({"train": {"save_every": 2}})
  assert together.common_step([config] * len(steps), list(range(len(steps)))) == wanted


def test_each_run_draws_at_each_step_what_it_would_draw_alone():
  class Method:
    def train_step(self, state, batch, rng, *, stage, axis_name):
      return state.replace(step=state.step + 1), {"drawn": jax.random.uniform(rng)}
  keys = jnp.stack([jax.random.key(3), jax.random.key(4)])
  states = State.create({}).replace(step=jnp.asarray([5, 5]))
  step = together._step_fn(Method(), None, jax.tree.map(lambda _: 0, states), keys)
  _, metrics = step(states, {"index": np.zeros((3, 2, 1))})
  want = [[jax.random.uniform(jax.random.fold_in(key, s)) for key in keys] for s in (5, 6, 7)]
  np.testing.assert_allclose(metrics["drawn"], want, rtol=1e-6)


@pytest.mark.parametrize("steps, alike", [((3, 3), True), ((3, 4), False), ((3, 3, 4), False), ((3,), True)])
def test_runs_at_two_steps_do_not_go_on_together(steps, alike):
  """Two different ones are enough: the later one's steps would be trained twice."""
  runs = [types.SimpleNamespace(state=types.SimpleNamespace(step=s), config=recorder.config(),
                                first_batch={"image": np.zeros((2, 3))}) for s in steps]
  with contextlib.nullcontext() if alike else pytest.raises(ValueError, match="stand at different steps"):
    together.check_alike(runs)
