"""The kernel gradients that CPUs run fastest are those of the plain convolution."""

import jax
import numpy as np
import pytest

from medae_jax.models import annotation_layers
from medae_jax.models.layers import conv_forms, winograd
from medae_jax.models.layers.same_conv import plain_conv, same_conv


def plain(x, kernel):
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("batch", [2, 16])  # padded before, or by the convolution
@pytest.mark.parametrize("size, channels, features", [(3, 3, 5), (3, 5, 3), (3, 4, 4), (5, 6, 2), (1, 3, 2)])
def test_value_and_gradients_are_those_of_the_plain_convolution(backend, batch, size, channels, features):
  draw = lambda seed, *shape: np.random.default_rng(seed).normal(size=shape).astype(np.float32)
  x, kernel = draw(0, batch, 6, 9, channels), draw(1, size, size, channels, features)
  want, pull = jax.vjp(plain, x, kernel)
  found, pull_found = jax.vjp(same_conv, x, kernel)
  np.testing.assert_allclose(found, want, atol=1e-5)
  grad = draw(2, batch, 6, 9, features)
  for a, b in zip(pull_found(grad), pull(grad), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()))


@pytest.mark.parametrize("size, dilation", [(3, 2), (5, 3), (1, 2)])
def test_a_dilated_kernel_is_the_one_with_zeros_between_its_taps(size, dilation):
  draw = lambda *shape: np.random.default_rng(0).normal(size=shape).astype(np.float32)
  x, kernel = draw(1, 7, 9, 2), draw(size, size, 2, 3)
  spread = np.zeros((dilation * (size - 1) + 1,) * 2 + (2, 3), np.float32)
  spread[::dilation, ::dilation] = kernel
  want, pull = jax.vjp(lambda *of: plain_conv(*of, dilation), x, kernel)
  np.testing.assert_allclose(want, plain(x, spread), atol=1e-5)
  _, pull_found = jax.vjp(lambda *of: annotation_layers._dilated_conv(*of, dilation), x, kernel)
  for a, b in zip(pull_found(want), pull(want), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()))


def test_where_the_own_gradient_is_taken_and_in_which_form(monkeypatch):
  """The figures of docs/performance_trials.md: fewer channels first, small batches padded before."""
  def products(batch, channels, features):
    zeros = lambda *shape: np.zeros(shape, np.float32)
    x, grad = zeros(batch, 6, 6, channels), zeros(batch, 6, 6, features)
    program = jax.make_jaxpr(lambda k: jax.vjp(lambda k: same_conv(x, k), k)[1](grad))(
        zeros(3, 3, channels, features))
    last = [e for e in program.eqns if e.primitive.name == "conv_general_dilated"][-1]
    return last.invars[0].aval.shape, last.params["padding"], last.params["dimension_numbers"].lhs_spec
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  own = (3, 0, 1, 2)  # images as channels
  assert products(16, 2, 5) == ((16, 6, 6, 2), ((1, 1), (1, 1)), own)
  assert products(16, 5, 2) == ((16, 6, 6, 2), ((1, 1), (1, 1)), own)
  assert products(15, 5, 2) == ((15, 8, 8, 2), ((0, 0), (0, 0)), own)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert products(15, 5, 2)[0] == (15, 6, 6, 5)


def test_tiles_where_they_pay_and_the_same_kernel_gradient(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(winograd, "LEAST", 4)
  monkeypatch.setattr(winograd, "WORTH", 0)
  draw = lambda seed, *shape: np.random.default_rng(seed).normal(size=shape).astype(np.float32)
  x, kernel, grad = draw(0, 2, 6, 8, 4), draw(1, 3, 3, 4, 5), draw(2, 2, 6, 8, 5)
  program = str(jax.make_jaxpr(lambda x, k: jax.vjp(same_conv, x, k)[1](grad))(x, kernel))
  assert program.count("dot_general[") >= 32  # of the value, and of the gradient of x
  want, pull = jax.vjp(plain, x, kernel)
  found, pull_found = jax.vjp(same_conv, x, kernel)
  np.testing.assert_allclose(found, want, atol=2e-5)
  for a, b in zip(pull_found(grad), pull(grad), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5 * float(np.abs(b).max()))
  with conv_forms.never():
    assert "dot_general[" not in str(jax.make_jaxpr(same_conv)(x, kernel))
