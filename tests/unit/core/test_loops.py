"""Loops of core/device/loops.py: the numbers of lax.scan, and on a CPU no while loop around them."""

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.device import loops


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
