"""Loops of core/device/loops.py: the numbers of lax.scan, and on a CPU no while loop around them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core import parallel
from medae_jax.core.device import loops
from medae_jax.core.method import State
from medae_jax.training import together


def test_scan_is_lax_scan_without_a_loop():
  step = lambda c, x: (c * 0.5 + x["a"], {"sum": c + x["a"]})
  xs = {"a": jnp.arange(6.0).reshape(3, 2)}
  found = jax.jit(lambda c: loops.scan(step, c, xs))(jnp.ones(2))
  want = jax.lax.scan(step, jnp.ones(2), xs)
  jax.tree.map(np.testing.assert_array_equal, found, want)
  text = jax.jit(lambda c: loops.scan(step, c, xs)).lower(jnp.ones(2)).as_text()
  assert ("while" in text) == (jax.default_backend() != "cpu")


def test_dispatch_gives_each_step_its_batch():
  calls = []

  def fn(state, batches):
    calls.append(len(batches["x"]))
    return jax.lax.scan(lambda s, x: (s + x, {"loss": s}), state, batches["x"])
  batches = {"x": jnp.arange(5.0)}
  state, metrics = loops.dispatch(fn)(jnp.zeros(()), batches)
  assert float(state) == 10
  np.testing.assert_array_equal(metrics["loss"], [0, 0, 1, 3, 6])
  assert calls == ([1] * 5 if jax.default_backend() == "cpu" else [5])


class Drawing:
  """A method whose step draws one number."""

  def train_step(self, state, batch, rng, *, stage, axis_name):
    del batch, stage, axis_name
    return state.replace(step=state.step + 1), {"draw": jax.random.uniform(rng)}


@pytest.mark.parametrize("mode", ["shard_map", "together"])
@pytest.mark.parametrize("begin", [0, 5])
def test_every_step_draws_its_own_numbers_by_where_it_stands(mode, begin):
  """A resumed run draws what an unbroken one would have drawn; a run beside others what it would alone."""
  key, batches = jax.random.key(3), {"x": np.zeros((3, jax.local_device_count(), 1), np.float32)}
  state = State.create({"w": jnp.zeros(1)}).replace(step=jnp.int32(begin))
  if mode == "together":
    states = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    step = together._step_fn(Drawing(), None, jax.tree.map(lambda _: 0, states), jnp.stack([key, key]))
    found = step(states, {"x": np.zeros((3, 2, 1, 1), np.float32)})[1]["draw"][:, 1]
  else:
    step = lambda *given: Drawing().train_step(*given[:3], stage=None, axis_name=None)
    found = parallel.train_step_fn(step, key, mode=mode)(state, batches)[1]["draw"]
  want = [jax.random.uniform(jax.random.fold_in(key, begin + i)) for i in range(3)]
  np.testing.assert_array_equal(np.ravel(found), want)
