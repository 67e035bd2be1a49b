"""Every form of the reflect-padded convolution equals the plain one, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.models import reflect_conv
from medae_jax.models.reflect_conv import reflect_conv3x3


def by_hand(x, kernel):
  """NumPy: windows of the reflect-padded image times the kernel, in float64."""
  padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
  return np.einsum("bhwikl,klio->bhwo", windows, kernel.astype(np.float64))


def plain(x, kernel):
  """By jnp.pad, differentiated automatically."""
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
  return reflect_conv.conv(padded, kernel, "VALID", "highest")


def arrays(height, width, i=3, o=5, batch=2):
  rng = np.random.default_rng(height + width)
  f32 = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return f32(batch, height, width, i), f32(3, 3, i, o), f32(batch, height, width, o)


@pytest.fixture(params=[1, 64])
def rim_from(request, monkeypatch):
  """Both ways of the split form, whatever the size of the test image."""
  monkeypatch.setattr(reflect_conv, "_RIM_FROM", request.param)


@pytest.mark.parametrize("height, width", [(2, 2), (2, 5), (4, 3), (12, 10), (7, 40), (66, 64)])
@pytest.mark.parametrize("form", ["valid", "same", "split"])
def test_value_and_gradients(rim_from, form, height, width):
  x, kernel, grad = arrays(height, width)
  call = lambda x, k: reflect_conv3x3(x, k, form=form, precision="highest")
  out, pull = jax.vjp(call, x, kernel)
  np.testing.assert_allclose(out, by_hand(x, kernel), atol=2e-5)
  for got, want in zip(pull(grad), jax.vjp(plain, x, kernel)[1](grad), strict=True):
    # sums of up to 8448 products in another order, float32
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())


def test_kernel_gradient_by_finite_differences(rim_from):
  x, kernel, grad = arrays(6, 9)
  loss = lambda k: np.sum(by_hand(x, k) * grad)
  got = jax.grad(lambda k: jnp.sum(reflect_conv3x3(x, k, form="split") * grad))(kernel)
  rng = np.random.default_rng(0)
  for at in rng.integers(0, kernel.size, 8):
    step = np.zeros(kernel.size)
    step[at] = 1e-3
    step = step.reshape(kernel.shape)
    want = (loss(kernel + step) - loss(kernel - step)) / 2e-3  # linear: exact up to rounding
    np.testing.assert_allclose(np.asarray(got).ravel()[at], want, rtol=1e-4, atol=1e-4)


def test_bfloat16_keeps_its_dtypes_and_float32_sums():
  x, kernel, grad = (jnp.asarray(a, jnp.bfloat16) for a in arrays(16, 16, 8, 8))
  out, pull = jax.vjp(lambda x, k: reflect_conv3x3(x, k, form="split"), x, kernel)
  dx, dk = pull(grad)
  assert out.dtype == dx.dtype == dk.dtype == jnp.bfloat16
  f32 = lambda a: a.astype(jnp.float32)
  want = jax.grad(lambda k: jnp.sum(reflect_conv3x3(f32(x), k, form="valid") * f32(grad)))(
      f32(kernel))
  np.testing.assert_allclose(f32(dk), want, rtol=1e-2, atol=1e-2 * np.abs(want).max())


def test_forward_mode_of_the_same_form():
  x, kernel, _ = arrays(6, 9)
  call = lambda x: reflect_conv3x3(x, kernel, form="same", precision="highest")
  out, moved = jax.jit(lambda x, t: jax.jvp(call, (x,), (t,)))(x, np.ones_like(x))
  np.testing.assert_allclose(out, by_hand(x, kernel), atol=2e-5)
  np.testing.assert_allclose(moved, by_hand(np.ones_like(x), kernel), atol=2e-5)  # linear in x


@pytest.mark.parametrize("form", ["valid", "split"])
def test_second_derivative_and_rematerialisation(form):
  x, kernel, _ = arrays(6, 9, i=4, o=4)
  call = jax.checkpoint(lambda x: reflect_conv3x3(x, kernel, form=form, precision="highest"))
  twice = lambda f: jax.grad(lambda x: jnp.sum(jax.grad(lambda x: jnp.sum(f(x) ** 3))(x) ** 2))
  got, want = twice(call)(x), twice(lambda x: plain(x, kernel))(x)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("form", ["valid", "split"])
def test_vmap_and_jit(form):
  x, kernel, grad = arrays(8, 8)
  loss = lambda x, k, g: jnp.sum(reflect_conv3x3(x, k, form=form) * g)
  several = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (None, 0, None)))(
      x, np.stack([kernel, 2 * kernel]), grad)
  for i, k in enumerate((kernel, 2 * kernel)):
    for got, want in zip(several, jax.grad(loss, (0, 1))(x, k, grad), strict=True):
      np.testing.assert_allclose(got[i], want, rtol=1e-5, atol=1e-4)


def test_refusals():
  x, kernel, _ = arrays(4, 4)
  with pytest.raises(ValueError, match="use one of auto, valid, same, split"):
    reflect_conv3x3(x, kernel, form="fast")
  with pytest.raises(ValueError, match="cannot be reflect-padded"):
    reflect_conv3x3(x[:, :1], kernel)
