"""Reflect padding in parts equals NumPy's and jnp.pad's, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.models.layers.reflect_pad import fold, reflect_pad

_WIDTHS = ((0, 0), (1, 1), (1, 1), (0, 0))


def plain(x):
  """Differentiated automatically."""
  return jnp.pad(x, _WIDTHS, mode="reflect")


def arrays(height, width, channels=3, batch=2):
  rng = np.random.default_rng(height + width)
  f32 = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return f32(batch, height, width, channels), f32(batch, height + 2, width + 2, channels)


@pytest.mark.parametrize("height, width", [(2, 2), (2, 5), (4, 3), (12, 10), (7, 40), (66, 64)])
def test_value_and_gradient(backend, height, width):
  x, grad = arrays(height, width)
  out, pull = jax.vjp(jax.jit(reflect_pad), x)
  np.testing.assert_array_equal(out, np.pad(x, _WIDTHS, mode="reflect"))
  want = jax.vjp(plain, x)[1](grad)[0]  # up to four terms a pixel, in another order
  np.testing.assert_allclose(pull(grad)[0], want, atol=2e-6)
  np.testing.assert_array_equal(fold(grad), pull(grad)[0])


def test_bfloat16_stays():
  x, grad = (jnp.asarray(a, jnp.bfloat16) for a in arrays(6, 4))
  out, pull = jax.vjp(reflect_pad, x)
  assert out.dtype == pull(grad)[0].dtype == jnp.bfloat16


def test_second_derivative_and_rematerialisation():
  x, _ = arrays(6, 9)
  twice = lambda f: jax.grad(lambda x: jnp.sum(jax.grad(lambda x: jnp.sum(f(x) ** 3))(x) ** 2))
  got, want = twice(jax.checkpoint(reflect_pad))(x), twice(plain)(x)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_vmap():
  x, grad = arrays(8, 8)
  several = jax.vmap(lambda x, g: jax.vjp(reflect_pad, x)[1](g)[0])(
      np.stack([x, 2 * x]), np.stack([grad, 3 * grad]))
  np.testing.assert_allclose(several, np.stack([fold(grad), fold(3 * grad)]), rtol=1e-6)


def test_refusal():
  with pytest.raises(ValueError, match="cannot be reflect-padded"):
    reflect_pad(np.zeros((2, 1, 4, 3), np.float32))
