"""What bench and the plan of a step's memory make of times and bytes that are given: nothing is measured."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from data_pipelines import machine
from medae_jax import bench
from medae_jax.core.device import memory, timing
from medae_jax.core.method import Stage, State
from medae_jax.training import cost
from tests.unit import tiny_dae

PLAN = memory.Plan(needs=200, scratch=50, fixed=100, batch=4, free=1000)


def seconds(median):
  return {"median": median, "min": median / 2, "max": 2 * median, "repeats": 3, "units": 7}


@pytest.fixture
def measured(monkeypatch):
  """Steps of 0.4 s in calls of two, fed in 0.5 s; 3e9 FLOP a step; a peak of 1e10 FLOP/s."""
  monkeypatch.setattr(timing, "measure_in_turn", lambda runs, options: [
      seconds(0.8), seconds(1.0)][:len(runs)])
  monkeypatch.setattr(timing, "measure", lambda run, options: seconds(0.25))
  monkeypatch.setattr(timing, "matmul_peak", lambda *_: {"flops_per_s": 1e10, "dtype": "float32"})
  monkeypatch.setattr(bench, "_flops", lambda *_: 3e9)
  monkeypatch.setattr(bench.parallel, "train_step_fn", lambda *_, **__: lambda state, batch: (state, {}))
  monkeypatch.setattr(cost, "planned", lambda *_: PLAN)


def config(**train):
  found = ml_collections.ConfigDict(tiny_dae.config(steps_per_call=2).to_dict())
  found.train.update(train)
  return found


def fed(reason=""):
  batch = {"image": np.zeros((4, 2, 2, 1), np.float32)}
  return lambda *_: types.SimpleNamespace(
      first=None if reason else batch, resident=False, reason=reason, stack=lambda calls: batch,
      rate=lambda options: {"images_per_s": None if reason else timing.rate(seconds(0.25), 4),
                            "reason": reason})


def rows(monkeypatch, reason=""):
  monkeypatch.setattr(bench, "_Fed", fed(reason))
  stage = types.SimpleNamespace(name="main")
  method = types.SimpleNamespace(views=1, train_step=None)
  c = config()
  monkeypatch.setattr(bench.streams, "step_key", lambda *_: None)
  return bench._train(method, c, stage, State.create({}), {"image": np.zeros((4, 2, 2, 1))}, 4, {})


def test_times_of_a_call_become_those_of_a_step(measured, monkeypatch):
  found = rows(monkeypatch)
  assert found["step"]["ms"] == {"median": 400.0, "min": 200.0, "max": 800.0}
  assert found["step"]["repeats"] == 3
  assert found["step"]["images_per_s"]["median"] == pytest.approx(10)
  assert found["end_to_end"]["images_per_s"]["median"] == pytest.approx(8)
  assert found["end_to_end"]["fraction_of_step"] == pytest.approx(0.8)
  assert found["flops"]["per_s"] == pytest.approx(3e9 / 0.4)
  assert found["flops"]["fraction_of_peak"] == pytest.approx(0.75)
  assert found["plan"] == PLAN.row() and found["input_pipeline"]["images_per_s"]["median"] == 16
  alone = rows(monkeypatch, "no data")
  assert alone["end_to_end"] == {"images_per_s": None, "reason": "no data"}
  lines = bench.summary({**found, "run": {"steps": 10, "seconds": 4.0}, "score": {"images_per_s": None,
                                                                                 "reason": "unfitted"}})
  assert lines[0] == "step: 10 images/s (5 to 20)" and "80.0 % of step" in lines[3]
  assert lines[1] == "score: not measured: unfitted"
  assert lines[4].startswith("run: 10 steps of 400 ms: about 4 s")
  assert lines[5] == "flops: 7.5 GFLOP/s a device, 75.0 % of the measured float32 peak"


def test_the_whole_run_is_of_all_stages_where_it_counts_in_steps(monkeypatch, tmp_path):
  stages = [Stage("small", 30, data={"batch_size": 8}), Stage("large", 70, begin=30)]
  monkeypatch.setattr(bench.method_lib, "load", lambda _: types.SimpleNamespace())
  monkeypatch.setattr(bench.method_lib, "stages_of", lambda _: stages)
  seen = []
  monkeypatch.setattr(bench, "state_at", lambda *given: seen.append(given[3:]) or (State.create({}), {}))
  monkeypatch.setattr(bench, "_score", lambda *_: {"images_per_s": None, "reason": ""})
  monkeypatch.setattr(bench, "_train", lambda *given: seen.append(given[-2:]) or {
      "step": {"ms": {"median": 50.0}, "images_per_s": None, "reason": ""}})
  monkeypatch.setattr(bench.parallel, "check_batch_size", seen.append)
  c = config(steps=70)
  c.bench = ml_collections.ConfigDict({"repeats": 2, "seconds": 0.1, "stage": ""})
  found = bench.bench(c, str(tmp_path))
  assert found["run"] == {"steps": 100, "seconds": 5.0} and (tmp_path / "bench.json").is_file()
  assert found["setting"]["stage"] == "large" and found["setting"]["batch_size"] == 4
  assert seen == [4, (stages[1], 4), (4, {"repeats": 2, "seconds": 0.1, "stage": ""})]
  c.bench.stage = "small"
  assert bench.bench(c)["setting"]["batch_size"] == 8 and seen[-1] == (8, {"repeats": 2, "seconds": 0.1,
                                                                          "stage": "small"})
  c.train.update(steps=0, epochs=3.0)
  assert "run" not in bench.bench(c)  # the data decide
  stages.clear()  # a method that is fitted: nothing is trained
  with pytest.raises(ValueError, match="bench.stage='small': this method has no stages"):
    bench.bench(c)
  c.bench.stage = ""
  assert bench.bench(c)["setting"]["batch_size"] == c.eval.batch_size and "step" not in bench.bench(c)


def test_a_stage_is_reached_through_those_before_it_and_begins_at_its_step(monkeypatch):
  stages = [Stage("a", 3, data={"batch_size": 2}), Stage("b", 4, begin=3), Stage("c", 5, begin=7)]
  monkeypatch.setattr(bench.example, "example_batch", lambda method, c, size, stage: (stage.name, size))
  monkeypatch.setattr(bench.method_lib, "fresh_state",
                      lambda method, key, batch: State.create({"of": [batch[0]]}))
  grow = lambda state, stage, key, batch: state.replace(params={"of": [*state.params["of"], batch[0]]})
  for stage, grown in zip(stages, (["a"], ["a", "b"], ["a", "b", "c"])):
    state, batch = bench.state_at(types.SimpleNamespace(grow=grow), config(), stages, stage, 9)
    assert state.params["of"] == grown and int(state.step) == stage.begin
    assert batch == (stage.name, 2 if stage.name == "a" else 4)


def _raise(error):
  raise error


def test_scores_are_counted_in_images_and_need_what_the_batch_has(measured, monkeypatch):
  monkeypatch.setattr(bench.parallel, "per_example_fn", lambda score: score)
  method = types.SimpleNamespace(score_needs=("image", "mask"), score=None, inference_state=lambda s: s)
  batch = {"one": {"image": np.zeros((5, 2))}}
  assert bench._score(method, None, batch, {})["reason"] == "a training batch has no image, mask"
  method.score_needs = ("image",)
  assert bench._score(method, None, batch, {})["images_per_s"]["median"] == pytest.approx(20)
  for error in (KeyError("bank"), NotImplementedError("none")):
    method.inference_state = lambda s, error=error: _raise(error)
    assert bench._score(method, None, batch, {}) == {
        "images_per_s": None, "reason": f"score needs a trained state: {error!r}"}
  made = object.__new__(bench._Fed)
  made.batches, made.size, made.name, made.reason = iter(()), 6, "set", ""
  assert made.rate({})["images_per_s"]["median"] == pytest.approx(24) and made.rate({})["dataset"] == "set"


def test_operations_are_those_of_one_device_and_of_a_batch_in_one_piece(monkeypatch):
  """XLA counts a loop once: a batch in slices would seem to cost a slice."""
  seen = []
  monkeypatch.setattr(bench.method_lib, "load", lambda c: seen.append(c.train.accum))
  monkeypatch.setattr(timing, "flops_of", lambda fn, state, share: len(share["image"]))
  monkeypatch.setattr(jax, "device_count", lambda: 4)
  for size, share in ((8, 2), (2, 1)):
    assert bench._flops(config(accum=4), None, None, {"image": np.zeros(size)}) == share
  assert seen == [1, 1]


# ------------------------------------------------------------------------------------------- bytes
def test_a_plan_counts_what_is_there_at_once(monkeypatch):
  analysis = types.SimpleNamespace(
      argument_size_in_bytes=1000, output_size_in_bytes=700, alias_size_in_bytes=600, temp_size_in_bytes=400,
      generated_code_size_in_bytes=50)
  monkeypatch.setattr(memory, "free", lambda: 5000)
  compiled = types.SimpleNamespace(memory_analysis=lambda: analysis)
  state = State.create({"net": np.zeros(25, np.float32)})
  found = memory.plan(compiled, state, 8)
  assert (found.needs, found.scratch, found.batch, found.free) == (1000 + 700 - 600 + 400 + 50, 400, 8, 5000)
  assert found.fixed == 2 * 100 + 4  # parameters, a gradient of each, the step
  assert found.row() == {"needed_bytes": 1550, "scratch_bytes": 400, "fixed_bytes": 204, "free_bytes": 5000,
                         "fits": True, "largest_batch": int((4500 - 204) / ((1550 - 204) / 8))}
  assert dataclasses.replace(found, free=1549).row()["fits"] is False
  compiled.memory_analysis = lambda: None
  assert memory.plan(compiled, state, 8) is None


def test_what_is_free_is_that_of_the_smallest_device(monkeypatch):
  limits = [{"bytes_limit": 300}, {"bytes_limit": 200}]
  monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(memory_stats=lambda s=s: s)
                                                     for s in limits])
  assert memory.free() == 200
  limits[:] = [None]
  for backend, there in (("gpu", None), ("cpu", machine.free_memory)):
    monkeypatch.setattr(jax, "default_backend", lambda b=backend: b)
    found = memory.free()
    assert found is None if there is None else found > 1e6
  lines = "MemTotal:       9000 kB\nMemFree: 1 kB\nMemAvailable:    4000 kB\n"
  monkeypatch.setattr("builtins.open", lambda *_, **__: _Lines(lines))
  assert machine.free_memory() == 4000 * 1024


class _Lines(list):
  """An open file of these lines."""

  def __init__(self, text):
    super().__init__(text.splitlines())

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


def test_sizes_are_said_in_units_that_fit():
  assert memory._text(2**30) == "1.00 GiB" and memory._text(2**30 // 10 + 1) == "0.10 GiB"
  assert memory._text(3 * 2**20) == "3.0 MiB"
  assert "3.0 MiB a device at batch 4" in memory.Plan(3 * 2**20, 0, 0, 4, None).line()


def test_a_step_that_does_not_fit_is_warned_of_with_what_helps(monkeypatch, caplog):
  c = config(batch_size=64, accum=2)
  for plan, warned in ((PLAN, False), (dataclasses.replace(PLAN, free=199, batch=64), True)):
    monkeypatch.setattr(cost, "planned", lambda *_, plan=plan: plan)
    caplog.clear()
    with caplog.at_level("INFO"):
      cost.announce(None, None, None, 64, c)
    assert plan.line() in caplog.text and ("more than there is" in caplog.text) == warned
  assert "config.train.accum=4 (slices a batch is cut into; now 2)" in caplog.text
  assert cost.remedies(c).startswith("set config.train.batch_size=32 instead of 64")
  assert cost.remedies(c, 80).startswith("set config.train.batch_size=32 instead of 64")  # no larger one
  c.train.update(batch_size=2)
  assert "accum" not in cost.remedies(c)  # slices of one image cannot be cut
  c.model = ml_collections.ConfigDict()
  assert "remat" not in cost.remedies(c)


def test_several_processes_have_no_plan(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  assert cost.planned(None, None, None, 4) is None


# -------------------------------------------------------------------------------------------- time
def test_repeats_go_round_and_are_divided_by_their_units(monkeypatch):
  clock, order = [0.0], []
  monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

  def run(name, cost_of_one):
    def go(n):
      order.append((name, n))
      clock[0] += cost_of_one * n
      return jnp.zeros(())
    return go
  found = timing.measure_in_turn([run("a", 0.1), run("b", 0.2)], {"repeats": 2, "seconds": 1.0})
  # One that warms up, then twice as many until they take a third of the time asked for.
  assert [n for name, n in order if name == "a"] == [1, 1, 2, 4, 10, 10]
  assert order[-4:] == [("a", 10), ("b", 5)] * 2
  assert [(f["median"], f["units"], f["repeats"]) for f in found] == [
      (pytest.approx(0.1), 10, 2), (pytest.approx(0.2), 5, 2)]
  assert timing.rate(seconds(0.5), 4) == {"median": 8, "min": 4, "max": 16, "repeats": 3}


def test_the_peak_is_of_the_best_size_by_its_fastest_repeat(monkeypatch):
  fastest = iter((1e-3, 1e-2))
  monkeypatch.setattr(timing, "measure", lambda *_: {"min": next(fastest)})
  monkeypatch.setitem(timing.MATMUL_SIZES, "cpu", (8, 16))
  assert timing.matmul_peak("float32") == {"flops_per_s": pytest.approx(4 * 2 * 8**3 / 1e-3), "size": 8,
                                           "dtype": "float32"}
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setitem(timing.MATMUL_SIZES, "accelerator", ())
  assert timing.matmul_peak("float32")["flops_per_s"] == 0


def test_memory_in_use_is_that_of_the_busiest_device_else_of_the_process(monkeypatch):
  peaks = [{"peak_bytes_in_use": 5}, {"peak_bytes_in_use": 9}]
  monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(memory_stats=lambda s=s: s)
                                                     for s in peaks])
  assert timing.memory() == {"peak_bytes": 9, "of": "device"}
  peaks[:] = [None]
  assert timing.memory()["peak_bytes"] > 50e6  # ru_maxrss counts in KiB on Linux
  assert timing.device()["count"] == jax.device_count()


def test_a_step_is_compiled_as_training_compiles_it(measured, monkeypatch):
  asked = []
  monkeypatch.setattr(bench.parallel, "train_step_fn", lambda *_, **given: asked.append(given) or (
      lambda state, batch: (state, {})))
  own = config()
  own.parallel.update(mode="shard_map", reduce="bfloat16")
  monkeypatch.setattr(f"{__name__}.config", lambda: own)
  rows(monkeypatch)
  assert asked == [{"mode": "shard_map", "reduce": "bfloat16"}]
