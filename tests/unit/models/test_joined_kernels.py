"""All kernels of a network standardised together: as one by one, up to rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.methods import dae
from medae_jax.models import dae_unet
from medae_jax.models.layers import conv, joined_kernels
from tests.unit import tiny_dae

# The first is no multiple of the widest; the others are of three widths.
SHAPES = ((3, 3, 1, 4), (3, 3, 4, 8), (3, 3, 8, 16), (3, 3, 16, 16), (3, 3, 16, 8))


def kernels(offset=0.0, outlier=0.0):
  rng = np.random.default_rng(0)
  drawn = [rng.normal(size=s) + offset for s in SHAPES]
  for k in drawn:
    k[0, 0, 0] += outlier
  return [jnp.asarray(k, jnp.float32) for k in drawn], [jnp.asarray(rng.normal(size=s)) for s in SHAPES]


def value_and_gradient(form, arrays, grads, dtype):
  def both(arrays, grads):
    y, pull = jax.vjp(form, arrays)
    return [*y, *pull(grads)[0]]
  return jax.jit(both)(arrays, [g.astype(dtype) for g in grads])


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("bfloat16", 8e-3)])
def test_value_and_gradient_are_those_of_each(dtype, tolerance):
  arrays, grads = kernels()
  got = value_and_gradient(lambda ks: joined_kernels.standardised(ks, dtype), arrays, grads, dtype)
  want = value_and_gradient(lambda ks: [conv.standardise(k).astype(dtype) for k in ks], arrays, grads, dtype)
  for g, w in zip(got, want, strict=True):
    assert (g.shape, g.dtype) == (w.shape, w.dtype)
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (g, w)), rtol=0,
                               atol=tolerance * float(jnp.abs(w).max()))


@pytest.mark.parametrize("offset, outlier", [(0, 300), (300, 0)])
def test_nothing_cancels(offset, outlier):
  """A row, that which sums start from, far from the others; a mean far from zero."""
  arrays, _ = kernels(offset, outlier)
  found = jax.jit(lambda ks: joined_kernels.standardised(ks, "float32"))(arrays)
  for got, k in zip(found, arrays, strict=True):
    k = np.asarray(k, np.float64)
    want = (k - k.mean((0, 1, 2))) / (k.std((0, 1, 2), ddof=1) + 1e-5)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max() + 1e-4 * (offset > 0))


def test_a_step_of_the_network_on_gpus_is_that_of_other_devices(monkeypatch):
  """Same parameters by name; loss, gradient and update agree up to rounding."""
  method, rng = dae.Method(tiny_dae.config(depth=2, wf=3)), np.random.default_rng(0)
  batch = {"image": jnp.asarray(rng.uniform(size=(2, 16, 16, 2)), jnp.float32), "index": jnp.arange(2)}
  state = method.init(jax.random.key(0), batch)
  train = functools.partial(method.train_step, stage=None, axis_name=None)
  step = lambda: jax.jit(functools.partial(train))(state, batch, jax.random.key(1))  # traced each time
  plain, metrics = step()
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  used = []
  whole = joined_kernels.standardised
  monkeypatch.setattr(joined_kernels, "standardised", lambda ks, d: used.append(len(ks)) or whole(ks, d))
  joined, others = step()
  assert used == [6] and jax.tree.structure(joined) == jax.tree.structure(plain)
  for name in ("loss", "grad_norm"):
    np.testing.assert_allclose(others[name], metrics[name], rtol=1e-4)
  for a, b in zip(jax.tree.leaves(joined.opt), jax.tree.leaves(plain.opt), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * float(jnp.abs(b).max()) + 1e-7)


def test_which_parameters_are_standardised():
  net = dae_unet.UNet(1, 2, 2)
  params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
  paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params) if dae_unet.is_standardised(path)]
  assert len(paths) == 6 and {p[0].key for p in paths} == {"down_0", "down_1", "up_block_0"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kernels_of_blocks_come_in_the_precision_asked_for_and_the_rest_as_it_was(dtype):
  rng = np.random.default_rng(1)
  params = {"down_0": {"conv_a": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 4)), jnp.float32)},
                       "norm": {"kernel": jnp.ones((3,))}},
            "last": {"kernel": jnp.asarray(rng.normal(size=(4, 2)), jnp.float32)}}
  found = dae_unet.standardised(params, jnp.dtype(dtype))
  kernel = found["down_0"]["conv_a"]["kernel"]
  assert kernel.dtype == dtype and kernel.shape == (3, 3, 2, 4)
  for own in (lambda p: p["last"]["kernel"], lambda p: p["down_0"]["norm"]["kernel"]):
    assert own(found).dtype == "float32"
    np.testing.assert_array_equal(own(found), own(params))
