"""The written-out gradient of bias + Swish + GroupNorm against automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.models.layers import swish_norm
from medae_jax.models.layers.swish_norm import plain, swish_group_norm


def arrays(shape, spread=3.0, offset=0.0):
  rng = np.random.default_rng(sum(shape))
  c = shape[-1]
  f32 = lambda *s: rng.normal(size=s).astype(np.float32)
  return spread * f32(*shape) + offset, f32(c), 1 + 0.3 * f32(c), f32(c), f32(*shape)


@pytest.mark.slow
@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("shape, groups", [((2, 5, 7, 6), 3), ((3, 8, 8, 8), 4), ((1, 4, 4, 4), 1),
                                           ((2, 4, 6, 5), 5)])
def test_value_and_gradients_in_float64(backend, shape, groups, pad):
  """Both forms in float32 against the plain one in float64."""
  *inputs, grad = arrays(shape)
  mirror = lambda y: jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect") if pad else y
  grad = np.asarray(mirror(grad)) + 0.5
  with jax.enable_x64(True):
    wide = [jnp.asarray(a, jnp.float64) for a in inputs]
    want, pull = jax.vjp(lambda *a: mirror(_wide_plain(*a, groups)), *wide)
    wants = [np.asarray(a) for a in (want, *pull(jnp.asarray(grad, jnp.float64)))]
  out, pull = jax.vjp(lambda *a: swish_group_norm(*a, groups, pad), *inputs)
  for got, want in zip((out, *pull(grad)), wants, strict=True):
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())


def _wide_plain(x, bias, scale, shift, groups):
  """`plain` without its float32."""
  s = jax.nn.swish(x + bias)
  g = s.reshape(*x.shape[:-1], groups, -1)
  g = (g - g.mean((1, 2, 4), keepdims=True)) / jnp.sqrt(g.var((1, 2, 4), keepdims=True) + 1e-5)
  return g.reshape(x.shape) * scale + shift


def test_large_mean_does_not_cancel(backend):
  *inputs, grad = arrays((2, 8, 8, 4), spread=0.1, offset=300.0)
  got = jax.vjp(lambda *a: swish_group_norm(*a, 2), *inputs)
  want = jax.vjp(lambda *a: plain(*a, 2), *inputs)
  np.testing.assert_allclose(got[0], want[0], atol=2e-3)  # 300 has a spacing of 3e-5, sd is 1
  for a, b in zip(got[1](grad), want[1](grad), strict=True):
    np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-3 * np.abs(b).max())


def test_constant_image_is_finite(backend):
  _, bias, scale, shift, grad = arrays((2, 4, 4, 4))
  out, pull = jax.vjp(lambda *a: swish_group_norm(*a, 4), jnp.zeros((2, 4, 4, 4)), bias, scale,
                      shift)
  for a in (out, *pull(grad)):
    assert np.all(np.isfinite(a))


def test_bfloat16(backend):
  *inputs, grad = arrays((2, 8, 8, 8))
  x = jnp.asarray(inputs[0], jnp.bfloat16)
  out, pull = jax.vjp(lambda *a: swish_group_norm(*a, 4), x, *inputs[1:])
  grads = pull(jnp.asarray(grad, jnp.bfloat16))
  assert out.dtype == grads[0].dtype == jnp.bfloat16
  assert all(g.dtype == jnp.float32 for g in grads[1:])
  want = plain(x.astype(jnp.float32), *inputs[1:], 4)
  np.testing.assert_allclose(out.astype(jnp.float32), want, atol=0.03)


def test_examples_are_independent():
  *inputs, _ = arrays((4, 6, 6, 4))
  whole = swish_group_norm(*inputs, 2)
  one = swish_group_norm(inputs[0][2:3], *inputs[1:], 2)
  np.testing.assert_allclose(whole[2:3], one, atol=1e-6)


@pytest.mark.parametrize("passes", [swish_norm._two_passes, swish_norm._one_pass])
def test_statistics_where_the_middle_row_is_far_from_the_others(passes):
  """Float32 against float64: sums about zero would lose all digits of the variance."""
  x = np.random.default_rng(0).normal(1000, 1, (2, 32, 16, 4))
  x[:, 16] += 300
  mean, variance = passes(jnp.asarray(x, jnp.float32), jnp.zeros(4), 2)
  groups = np.asarray(x, np.float32).astype(np.float64).reshape(2, 32, 16, 2, 2)  # swish(x) = x here
  np.testing.assert_allclose(mean[:, 0, 0, ::2], groups.mean((1, 2, 4)), rtol=1e-6)
  np.testing.assert_allclose(variance[:, 0, 0, ::2], groups.var((1, 2, 4)), rtol=2e-5)


def test_a_flat_group_is_its_shift_and_no_division_by_zero():
  flat, shift = jnp.full((1, 2, 3, 4), 3.0), jnp.arange(4.0)
  for form in (plain, swish_group_norm):
    found = form(flat, jnp.zeros(4), jnp.ones(4), shift, 2)
    np.testing.assert_allclose(found, jnp.broadcast_to(shift, flat.shape), atol=1e-3, err_msg=str(form))
