"""layers/norm.py: batch statistics, running averages and their variants, by hand and against flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.models import dae_unet
from medae_jax.models.layers import norm


def _images(seed=0, shape=(6, 4, 5, 3)):
  return (np.random.default_rng(seed).normal(size=shape) * 3 + [5, 0, -2]).astype(np.float32)


def _apply(module, x, variables=None, **kwargs):
  variables = variables or module.init(jax.random.key(0), x)
  return module.apply(variables, x, mutable=["batch_stats"], **kwargs)


@pytest.mark.usefixtures("backend")
def test_batch_statistics_and_running_averages_by_hand():
  x = _images()
  y, after = _apply(norm.BatchNorm(True, momentum=0.3, eps=1e-3), x)
  mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-3), atol=1e-5)
  np.testing.assert_allclose(after["batch_stats"]["mean"], 0.3 * mean, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(after["batch_stats"]["var"], 0.7 + 0.3 * var, rtol=1e-5)


@pytest.mark.usefixtures("backend")
def test_the_running_variance_is_unbiased_if_asked_for():
  x, n = _images(), 6 * 4 * 5
  biased, after = _apply(norm.BatchNorm(True), x)
  same, unbiased = _apply(norm.BatchNorm(True, unbiased=True), x)
  np.testing.assert_array_equal(biased, same)  # the normalisation itself never is
  var = x.var((0, 1, 2))
  np.testing.assert_allclose(after["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-5)
  np.testing.assert_allclose(unbiased["batch_stats"]["var"], 0.9 + 0.1 * var * n / (n - 1), rtol=1e-5)


@pytest.mark.usefixtures("backend")
def test_one_value_a_channel_leaves_a_finite_running_variance():
  _, after = _apply(norm.BatchNorm(True, unbiased=True), np.ones((1, 1, 1, 2), np.float32))
  np.testing.assert_allclose(after["batch_stats"]["var"], 0.9)


def test_frozen_it_uses_and_keeps_the_running_averages():
  x = _images()
  variables = {"params": {"scale": jnp.array([1.0, 2, 3]), "bias": jnp.array([0.0, 1, 2])},
               "batch_stats": {"mean": jnp.array([5.0, 0, -1]), "var": jnp.array([4.0, 1, 9])}}
  y, after = _apply(norm.BatchNorm(False), x, variables)
  want = (x - [5, 0, -1]) / np.sqrt(np.array([4, 1, 9]) + 1e-5) * [1, 2, 3] + [0, 1, 2]
  np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], variables["batch_stats"])
  alone, _ = _apply(norm.BatchNorm(False), x[:1], variables)
  np.testing.assert_array_equal(alone, y[:1])  # examples do not mix


@pytest.mark.usefixtures("backend")
def test_it_equals_flax_for_values_and_gradients():
  x, variables = _images(), None
  ours = norm.BatchNorm(True)
  theirs = nn.BatchNorm(use_running_average=False, momentum=0.9, use_fast_variance=False)
  variables = ours.init(jax.random.key(0), x)
  loss = lambda module: jax.grad(lambda x: jnp.sum(
      module.apply(variables, x, mutable=["batch_stats"])[0] ** 3))(x)
  np.testing.assert_allclose(loss(ours), loss(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("backend")
def test_statistics_are_those_of_all_devices():
  x = _images(shape=(8, 4, 4, 3))
  y, after = _apply(norm.BatchNorm(True, unbiased=True), x)
  module = norm.BatchNorm(True, "data", unbiased=True)
  variables = norm.BatchNorm(True).init(jax.random.key(0), x)
  run = jax.vmap(lambda part: module.apply(variables, part, mutable=["batch_stats"]),
                 axis_name="data")
  parts, stats = run(x.reshape(4, 2, 4, 4, 3))
  np.testing.assert_allclose(parts.reshape(y.shape), y, atol=1e-5)
  for device in range(4):
    jax.tree.map(lambda a, b, d=device: np.testing.assert_allclose(a[d], b, rtol=1e-5),
                 stats["batch_stats"], after["batch_stats"])


@pytest.mark.usefixtures("backend")
def test_bfloat16_keeps_float32_statistics():
  x = _images().astype(jnp.bfloat16)
  y, after = _apply(norm.BatchNorm(True), x)
  assert y.dtype == jnp.bfloat16 and after["batch_stats"]["mean"].dtype == jnp.float32
  np.testing.assert_allclose(after["batch_stats"]["mean"],
                             0.1 * np.asarray(x, np.float32).mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
  assert _apply(norm.BatchNorm(True, dtype=jnp.float32), x)[0].dtype == jnp.float32


def test_one_pass_is_two_for_means_far_from_zero_and_gradients_on_several_devices(monkeypatch):
  x = _images(shape=(8, 6, 4, 3)) + np.array([1e3, 0, 0], np.float32)
  x[:, 3] += [0, 50, 0]  # the rows that sums are taken about are far from the others
  module, variables = norm.BatchNorm(True, "data"), norm.BatchNorm(True).init(jax.random.key(0), x)

  def loss(x, params):
    y, after = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
    return jnp.sum(y**3), after
  results = []
  for backend in ("cpu", "gpu"):
    monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
    run = jax.vmap(jax.grad(loss, argnums=(0, 1), has_aux=True), (0, None), axis_name="data")
    results.append(run(x.reshape(4, 2, 6, 4, 3), variables["params"]))
  for a, b in zip(*map(jax.tree.leaves, results)):
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * np.abs(a).max())


def test_normalisations_by_name():
  x = _images()

  class Net(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x):
      return norm.by_name(self.kind, True, name="norm")(x)
  results = {kind: _apply(Net(kind), x)[0] for kind in norm.KINDS}
  np.testing.assert_array_equal(results["none"], x)
  assert Net("bn").init(jax.random.key(0), x)["params"]["norm"]["scale"].shape == (3,)
  np.testing.assert_allclose(results["bn"].mean((0, 1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(results["in"].mean((1, 2)), 0, atol=1e-5)
  np.testing.assert_allclose(results["in"].std((1, 2)), 1, rtol=1e-3)
  np.testing.assert_allclose((results["pixel"] ** 2).mean(-1), 1, rtol=1e-4)
  with pytest.raises(ValueError, match="norm='batch': use none, bn, in, pixel"):
    Net("batch").init(jax.random.key(0), x)


@pytest.mark.parametrize("channels, groups", [
    (1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (8, 4), (12, 4), (16, 4), (32, 8), (64, 8), (128, 16), (256, 16)])
def test_groups_of_the_denoising_network_are_the_middle_divisor(channels, groups):
  """Of an even number of divisors (1, 2, 4, 8) the larger one in the middle."""
  assert dae_unet.group_count(channels) == groups


def test_the_statistic_of_a_minibatch_is_of_the_images_of_all_devices():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6)).astype(np.float32) + [[[[[0]]]], [[[[4]]]]]
  parts = jax.vmap(lambda part: norm.minibatch_std(part, "d"), axis_name="d")(jnp.asarray(x, jnp.float32))
  whole = x.reshape(6, 4, 5, 6)
  np.testing.assert_array_equal(parts[..., :-1].reshape(whole.shape), np.float32(whole))
  np.testing.assert_allclose(parts[..., -1], np.sqrt(whole.var(0) + 1e-8).mean(), rtol=1e-5)
