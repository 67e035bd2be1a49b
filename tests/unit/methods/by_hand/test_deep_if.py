"""Deep isolation forest: its network around a convolution that is a constant, its weights, its forest."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core.method import State
from medae_jax.methods import _features, deep_if
from medae_jax.models import inception_resnet_v2 as network
from medae_jax.scores import forest
from medae_jax.weights import batch_norm
from tests.unit.methods import test_features

X = np.float32([-3, -0.15, 0, 2])  # relu(x + scale) tells the scale and the relu apart


def ones(seen):
  """A convolution whose result is 1 everywhere; `seen` gets (name, channels, size, stride, pad, relu)."""
  def conv(x, name, channels, size=1, stride=1, pad=0, relu=True):
    seen.append((name, channels, size, stride, pad, relu))
    return jnp.ones((*x.shape[:-1], channels))
  return conv


@pytest.mark.parametrize("block, scale, relu", [
    (network._block35, 0.17, True), (network._block17, 0.10, True), (network._block8, 0.20, True),
    (lambda conv, x, name: network._STEPS[-2][1](conv, x, None), 1.0, False)])
def test_a_residual_block_adds_its_share_and_all_but_the_last_cut_below_zero(block, scale, relu):
  seen = []
  found = block(ones(seen), jnp.asarray(X).reshape(1, 1, 4, 1), "b").ravel()
  np.testing.assert_allclose(found, np.maximum(X + scale, 0 if relu else -np.inf), rtol=1e-5)
  assert [layer[0].endswith("conv2d") for layer in seen] == [not layer[-1] for layer in seen]  # P: no relu
  assert sum(not layer[-1] for layer in seen) == 1


def test_residual_blocks_are_repeated_as_often_as_published():
  seen = []
  network._walk(ones(seen), jnp.zeros((1, 2, 2, 3)), network.TAPS, pool=lambda x: x)
  blocks = [name.removesuffix(".conv2d") for name, *_ in seen if name.endswith(".conv2d")]
  assert blocks == [*(f"repeat.{i}" for i in range(10)), *(f"repeat_1.{i}" for i in range(20)),
                    *(f"repeat_2.{i}" for i in range(9)), "block8"]


def windows(x, stride, pad):
  """Every 3x3 window of one channel [H,W]: what of it lies on the map, by row and column of the result."""
  rows, cols = ((n + 2 * pad - 3) // stride + 1 for n in x.shape)
  cut = lambda i, n: slice(max(0, i * stride - pad), min(n, i * stride - pad + 3))
  return [[x[cut(i, x.shape[0]), cut(j, x.shape[1])] for j in range(cols)] for i in range(rows)]


@pytest.mark.parametrize("shape", [(5, 8), (7, 4)])
def test_means_leave_padding_out_and_maxima_have_none(shape):
  x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
  mean, most = (np.asarray(pool(jnp.asarray(x)[None, ..., None]))[0, ..., 0]
                for pool in (network._mean_pool, network._max_pool))
  np.testing.assert_allclose(mean, [[w.mean() for w in row] for row in windows(x, 1, 1)], rtol=1e-5)
  np.testing.assert_array_equal(most, [[w.max() for w in row] for row in windows(x, 2, 0)])


def test_the_reducing_modules_have_the_published_widths():
  """Kernels [rows, columns, in, out] of Szegedy's table, in the order of the branches."""
  k = network.shapes(("mixed_7a",))
  of = lambda module: [k[name] for name in k if name.startswith(f"{module}.")]
  assert of("mixed_5b") == [
      (1, 1, 192, 48), (5, 5, 48, 64), (1, 1, 192, 64), (3, 3, 64, 96), (3, 3, 96, 96), (1, 1, 192, 96),
      (1, 1, 192, 64)]
  assert of("mixed_6a") == [(1, 1, 320, 256), (3, 3, 256, 256), (3, 3, 256, 384), (3, 3, 320, 384)]
  assert of("mixed_7a") == [(1, 1, 1088, 256), (3, 3, 256, 384), (1, 1, 1088, 256), (3, 3, 256, 288),
                            (1, 1, 1088, 256), (3, 3, 256, 288), (3, 3, 288, 320)]


def test_a_stored_normalisation_has_a_thousandth_beside_its_variance():
  tensors = {"c.weight": np.full((2, 1, 1, 1), 3.0), "n.weight": np.float64([2, 1]),
             "n.bias": np.float64([5, 0]), "n.running_mean": np.float64([4, 0]),
             "n.running_var": np.float64([0, 0.003])}
  found = batch_norm.folded(batch_norm.getter(tensors, "the file"), "c", "n")
  scale = np.array([2 / np.sqrt(0.001), 1 / np.sqrt(0.004)])
  np.testing.assert_allclose(found["kernel"].ravel(), 3 * scale, rtol=1e-6)
  np.testing.assert_allclose(found["bias"], [5 - 4 * scale[0], 0], rtol=1e-6)


def test_the_forest_has_the_trees_and_samples_and_the_seed_of_the_config(monkeypatch):
  seen = []
  rows = np.random.default_rng(0).random((40, 3), np.float32)
  grown = forest.fit(rows, trees=2)
  monkeypatch.setattr(forest, "fit", lambda given, **kw: seen.append((given, kw)) or grown)
  c = test_features.config(forest={"trees": 7, "samples": 9}).copy_and_resolve_references()
  c.seed = 321
  method = deep_if.Method(c)
  monkeypatch.setattr(method.features, "rows", lambda state, batches: (state, batches))
  state = State.create({})
  fitted = method.finalize(state, "images")
  assert seen == [((state, "images"), {"trees": 7, "samples": 9, "seed": 321})]
  found = method.score(fitted, {"features": rows, "image": None})
  np.testing.assert_array_equal(found["score"], forest.score(grown, rows))


def test_default_is_the_last_layer_and_concat_all_in_their_order():
  net = types.SimpleNamespace(name="n", taps=network.TAPS)
  assert _features.parse_taps("default", net, "taps") == ("conv2d_7b",)
  assert _features.parse_taps("concat", net, "taps") == network.TAPS
