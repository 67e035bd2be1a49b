"""Memory of a step, the largest batch, expected time: said from XLA's plan before training."""

import datetime

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from medae_jax.core import parallel
from medae_jax.core.device import memory
from medae_jax.core.method import State
from medae_jax.training import cost


def test_plan_of_the_step_that_training_calls():
  """Compiled ahead, the call compiles nothing; state, batch and the products' scratch are in the plan."""
  def step(state, batch, rng, axis):
    del rng, axis
    hidden = jnp.tanh(batch["image"] @ state.params["net"])
    params = jax.tree.map(lambda p: p + hidden.mean(), state.params)
    return state.replace(params=params), {"loss": hidden.sum()}
  state = State.create({"net": jnp.ones((64, 64)), "bias": jnp.ones(8)})
  batches = {"image": np.ones((1, 32 * jax.device_count(), 64), np.float32)}
  train = parallel.train_step_fn(step, jax.random.key(0))
  compiled = train.lower(state, batches).compile()
  seen = []
  jax.monitoring.register_event_duration_secs_listener(
      lambda name, seconds, **_: seen.append(name) if "backend_compile" in name else None)
  found = memory.plan(compiled, state, 32)
  assert found.fixed == 2 * (64 * 64 + 8) * 4 + 4  # parameters, a gradient of each, the step
  assert found.needs >= 64 * 64 * 4 + 32 * 64 * 4 and found.scratch > 0 and found.fits
  parallel.replicate(state)
  seen.clear()
  jax.block_until_ready(train(state, batches))
  assert not seen


@pytest.mark.parametrize("free, largest", [(None, None), (1000, 80), (90, None), (111, None), (112, 0)])
def test_largest_batch_grows_in_proportion(free, largest, monkeypatch):
  monkeypatch.setattr(jax, "device_count", lambda: 4)
  plan = memory.Plan(needs=200, scratch=50, fixed=100, batch=10, free=free)
  assert plan.largest_batch == largest and plan.fits == (None if free is None else free >= 200)
  assert ("largest batch" in plan.line()) == (free is not None)
  if free is not None:
    assert plan.line().endswith(f"about {largest}" if largest else "smaller than one image a device")


def test_remedies_name_the_fields_there_are():
  config = ml_collections.ConfigDict({
      "train": {"batch_size": 64, "accum": 1}, "data": {"resident": True},
      "model": {"dtype": "float32", "remat": False}})
  text = cost.remedies(config, largest_batch=24)
  assert text.startswith("set config.train.batch_size=24 instead of 64, or config.train.accum=2")
  assert "config.model.remat=True" in text and "config.model.dtype=bfloat16" in text
  assert "config.data.resident=False" in text
  config.model, config.data, config.train.batch_size = ml_collections.ConfigDict(), {}, 1
  assert cost.remedies(config) == "use a device with more memory"


def test_expected_time():
  noon = datetime.datetime(2026, 1, 1, 12)
  assert cost.expected(900, 0.12, noon) == (
      "900 steps of 120 ms: about 1 min 48 s, until 12:01, without validation and saving")
  assert "about 2 d 7 h, until 2026-01-03 19:33" in cost.expected(100_000, 2, noon)
  assert cost.left(9, 3, 990, noon) == (
      "3 of 9 runs done, 5 min 30 s each; the others: about 33 min 0 s, until 12:33")
  assert cost.left(2, 2, 60, noon) == "2 of 2 runs done, 30 s each"
