"""Normalisation, ReLU and squeeze-excitation as one operation: the values and gradients of the three."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.models.annotation_nets import EncoderBlock
from medae_jax.models.layers import gated_norm
from medae_jax.models.layers.norm import BatchNorm


def block(train, dtype):
  norm = lambda name, **more: BatchNorm(train, None, unbiased=True, dtype=dtype, name=name, **more)
  return EncoderBlock(16, norm, dtype)


@functools.cache
def inputs(offset):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 5, 6, 3)) + offset, jnp.float32)
  variables = block(True, jnp.float32).init(jax.random.key(0), x)
  perturbed = lambda v: v + jnp.asarray(0.3 * rng.normal(size=v.shape), v.dtype)
  return {**variables, "params": jax.tree.map(perturbed, variables["params"])}, x, jnp.asarray(
      rng.normal(size=(2, 5, 6, 16)), jnp.float32)


def everything(train, dtype, offset):
  """Value, gradients of parameters and x, new running averages."""
  variables, x, grad = inputs(offset)

  @jax.jit
  def run(params, x, grad):
    def forward(params, x):
      return block(train, dtype).apply({**variables, "params": params}, x, mutable=["batch_stats"])
    y, pull, stats = jax.vjp(forward, params, x, has_aux=True)
    return y, pull(grad.astype(y.dtype)), stats
  return run(variables["params"], x, grad)


@pytest.mark.parametrize("train, dtype, offset, tolerance", [
    (True, "float32", 0.0, 2e-5), (False, "float32", 0.0, 2e-5), (True, "float32", 30.0, 2e-4),
    (True, "bfloat16", 0.0, 4e-2)])
def test_value_gradients_and_averages(monkeypatch, train, dtype, offset, tolerance):
  dtype = jnp.dtype(dtype)
  one, used = everything(train, dtype, offset), []

  def one_by_one(x, mean, gain, bias, first, second, dtype):
    used.append(x.shape)
    z = jax.nn.relu(((x - mean) * gain + bias).astype(dtype))
    gate = gated_norm.gate_of(jnp.mean(z, (1, 2), jnp.float32), first, second)
    return z * gate[:, None, None, :].astype(dtype)
  monkeypatch.setattr("medae_jax.models.annotation_layers.gated_norm", one_by_one)
  plain = everything(train, dtype, offset)
  assert len(used) == 2 and one[0].dtype == dtype
  assert jax.tree.structure(one) == jax.tree.structure(plain)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(plain), strict=True):
    b = np.asarray(b, np.float32)
    atol = tolerance * (np.abs(b).max() + 0.01)
    np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=0, atol=atol,
                               err_msg=jax.tree_util.keystr(path))
