"""Gradients of slices are averaged to that of the batch: the numbers before any optimiser hides a factor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core import parallel
from medae_jax.methods import dae
from tests.unit import tiny_dae


def loss_fn(params, batch, rng):
  """A mean over examples, with a draw an example; aux is a mean as well."""
  noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(rng, i)))(batch["index"])
  error = (batch["x"] @ params["w"] + noise - batch["y"]) ** 2
  return jnp.mean(error), {"largest": jnp.mean(jnp.abs(batch["y"]))}


@pytest.mark.parametrize("accum", [2, 3, 6])
def test_slices_give_the_mean_of_the_batch(accum):
  rng = np.random.default_rng(0)
  batch = {"x": rng.normal(size=(6, 3)), "y": rng.normal(size=6), "index": np.arange(6)}
  params = {"w": jnp.array([0.3, -0.2, 0.5])}
  one, many = (jax.jit(lambda p, b, k=k: parallel.value_and_grad(
      loss_fn, p, b, jax.random.key(1), accum=k))(params, batch) for k in (1, accum))
  want, got = jax.tree.leaves(one), jax.tree.leaves(many)
  assert len(want) == len(got) == 3
  for a, b in zip(want, got):
    np.testing.assert_allclose(a, b, rtol=1e-5)
  # and the mean of the batch it is: the derivative by hand
  noise = np.array([jax.random.normal(jax.random.fold_in(jax.random.key(1), i)) for i in range(6)])
  residual = batch["x"] @ np.asarray(params["w"]) + noise - batch["y"]
  np.testing.assert_allclose(one[1]["w"], 2 * (residual[:, None] * batch["x"]).mean(0), rtol=1e-4)
  np.testing.assert_allclose(one[0][0], (residual**2).mean(), rtol=1e-4)


def test_means_over_devices_are_what_no_axis_gives():
  """pmean, psum, all_gather under a mapped axis against the whole array."""
  x = jnp.arange(12.0).reshape(4, 3)
  run = lambda fn: jax.vmap(lambda v: fn(v, "data"), axis_name="data")(x)
  np.testing.assert_allclose(run(parallel.pmean), np.tile(x.mean(0), (4, 1)))
  np.testing.assert_allclose(run(parallel.psum), np.tile(x.sum(0), (4, 1)))
  np.testing.assert_array_equal(run(parallel.all_gather)[1], x.reshape(-1))
  for fn in (parallel.pmean, parallel.psum, parallel.all_gather):
    np.testing.assert_array_equal(fn(x, None), x)


def test_gradients_travel_in_the_type_asked_for():
  """Arrays are rounded on their way and come back as float32, numbers are not."""
  x, loss = jnp.linspace(0.1, 1.3, 12).reshape(4, 3), jnp.linspace(0.1, 0.7, 4)
  run = lambda: jax.vmap(lambda *v: parallel.pmean(v, "data"), axis_name="data")(x, loss)
  with parallel.reduced_in("bfloat16"):
    mean, number = run()
    sent = str(jax.make_jaxpr(run)())
  whole, exact = run()
  assert mean.dtype == jnp.float32 and "bf16[4,3]" in sent
  np.testing.assert_allclose(mean, whole, rtol=1e-2)
  assert np.any(mean != whole)
  np.testing.assert_array_equal(number, exact)


class Scale(dae.Method):
  """The DAE with a network of two numbers a channel."""

  def _apply(self, params, image):
    return params["w"] * image + params["b"]


def test_dae_accumulates_the_gradient_of_the_batch():
  """grad_norm is taken before clipping and Adam, both of which would hide a factor."""
  image = np.random.default_rng(0).uniform(0.1, 1, (8, 16, 16, 2)).astype(np.float32)
  batch = {"image": image, "index": np.arange(8, dtype=np.int32)}
  params = {"w": jnp.array([0.5, 1.2]), "b": jnp.array([0.1, -0.3])}
  found = []
  for accum in (1, 4):
    method = Scale(tiny_dae.config(accum=accum))
    state = dae.State.create({"net": params}, opt={"net": method._tx.init(params)})
    step = jax.jit(lambda s, b, m=method: m.train_step(s, b, jax.random.key(1), stage=None,
                                                       axis_name=None))
    found.append(step(state, batch))
  (one, plain), (many, sliced) = found
  assert float(plain["grad_norm"]) > 0.05
  for key in ("loss", "grad_norm"):
    assert float(sliced[key]) == pytest.approx(float(plain[key]), rel=1e-4), key
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many)):
    np.testing.assert_allclose(a, b, atol=1e-5)
  loss_of = lambda of: float(method._losses(of, batch, jax.random.key(1)).mean())
  assert loss_of(one.params["net"]) < loss_of(params)  # a step down


def test_a_step_runs_in_the_mode_that_is_named(monkeypatch):
  monkeypatch.setattr(parallel, "_shard_map", lambda many, resident: "shard_map")
  monkeypatch.setattr(parallel, "_call", lambda mapped, given: "pmap")
  monkeypatch.setattr(parallel.loops, "dispatch", lambda step: step)
  step = lambda state, batch, rng, axis_name: (state, {})
  for mode in ("pmap", "shard_map"):
    assert parallel.train_step_fn(step, jax.random.key(0), mode=mode) == mode
  with pytest.raises(ValueError, match="config.parallel.mode='jit': use pmap or shard_map"):
    parallel.train_step_fn(step, jax.random.key(0), mode="jit")


@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_examples_are_padded_to_the_devices_with_the_last_one_and_cut_again(rows, monkeypatch):
  """Three devices, in place of which one does their parts after each other."""
  seen = []

  def mapped(fn, in_axes):
    assert in_axes == (None, 0)
    return lambda state, batch: seen.append(batch["x"]) or {"y": np.stack([fn(state, b) for b in batch["x"]])}
  monkeypatch.setattr(jax, "local_device_count", lambda: 3)
  monkeypatch.setattr(jax, "pmap", mapped)
  x = np.arange(rows * 2.0).reshape(rows, 2)
  found = parallel.per_example_fn(lambda state, part: state * part)(2.0, {"x": x})
  np.testing.assert_array_equal(found["y"], 2 * x)
  (given,), size = seen, -(-rows // 3)
  assert given.shape == (3, size, 2)
  np.testing.assert_array_equal(given.reshape(-1, 2)[rows:], np.broadcast_to(x[-1], (3 * size - rows, 2)))
