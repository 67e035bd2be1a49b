"""Pooling: values and gradients against NumPy and XLA's own, ties and odd sizes included; activations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.models import conv_ae, dpa_layers
from medae_jax.models.layers.leaky import leaky_relu
from medae_jax.models.layers.pool import avg_pool2x2, max_pool2x2, nearest


def image(shape, ties=True):
  x = np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)
  return np.maximum(x, 0) if ties else x  # behind a ReLU half of the pixels are equal


def blocks(x):
  b, h, w, c = x.shape
  return x[:, :h // 2 * 2, :w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 5, 7, 2), (2, 2, 3, 1), (3, 17, 22, 4)])
def test_max_pool(shape):
  x = image(shape)
  y, pull = jax.vjp(jax.jit(max_pool2x2), x)
  np.testing.assert_array_equal(y, blocks(x).max((2, 4)))
  grad = image(y.shape, ties=False)
  got = np.asarray(pull(grad)[0])
  want = np.zeros_like(x)
  for at in np.ndindex(*y.shape):  # the first of equal maxima, row by row
    b, i, j, c = at
    first = int(np.argmax(x[b, 2 * i:2 * i + 2, 2 * j:2 * j + 2, c]))
    want[b, 2 * i + first // 2, 2 * j + first % 2, c] = grad[at]
  np.testing.assert_array_equal(got, want)
  xla = jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)[1](grad)[0]
  np.testing.assert_array_equal(got, xla)


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 5, 7, 2)])
def test_average_pool(shape):
  x = image(shape, ties=False)
  y, pull = jax.vjp(avg_pool2x2, x)
  np.testing.assert_allclose(y, blocks(x).mean((2, 4)), atol=1e-6)
  grad = image(y.shape, ties=False)
  want = np.zeros_like(x)
  h, w = (n // 2 * 2 for n in shape[1:3])
  want[:, :h, :w] = grad.repeat(2, 1).repeat(2, 2) / 4
  np.testing.assert_allclose(pull(grad)[0], want, atol=1e-7)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_nearest_and_the_mean_are_each_others_gradient(monkeypatch, backend):
  """Times four; the sums of bfloat16 are rounded once on CPUs, where they are written out."""
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  x, grad = image((2, 3, 5, 2), ties=False), image((2, 6, 10, 2), ties=False)
  y, pull = jax.vjp(nearest, x)
  np.testing.assert_array_equal(y, x.repeat(2, 1).repeat(2, 2))
  np.testing.assert_allclose(pull(grad)[0], blocks(grad).sum((2, 4)), atol=1e-6)
  twice = lambda f, x: jax.grad(lambda x: jnp.sum(jax.grad(lambda x: jnp.sum(f(x) ** 3))(x) ** 2))(x)
  np.testing.assert_allclose(twice(nearest, x), 24**2 * x**3, rtol=1e-5)
  mean = blocks(grad).mean((2, 4)).repeat(2, 1).repeat(2, 2)
  np.testing.assert_allclose(twice(avg_pool2x2, grad), 9 / 4 * mean**3, rtol=1e-4, atol=1e-6)
  if backend == "cpu":
    grad = jnp.asarray([[[[1.0], [2**-8]], [[2**-8], [2**-8]]]], jnp.bfloat16)  # row by row: 1 + 2^-7
    got = jax.vjp(nearest, jnp.zeros((1, 1, 1, 1), jnp.bfloat16))[1](grad)[0]
    assert got.dtype == jnp.bfloat16 and float(got[0, 0, 0, 0]) == 1 + 2**-6


def test_second_derivative_vmap_and_bfloat16():
  x = image((2, 4, 4, 2), ties=False)
  twice = lambda f: jax.grad(lambda x: jnp.sum(jax.grad(lambda x: jnp.sum(f(x) ** 3))(x) ** 2))
  np.testing.assert_allclose(twice(max_pool2x2)(x),
                             twice(lambda x: nn.max_pool(x, (2, 2), (2, 2)))(x), rtol=1e-5)
  np.testing.assert_array_equal(jax.vmap(max_pool2x2)(np.stack([x, -x]))[1], max_pool2x2(-x))
  for pool in (max_pool2x2, avg_pool2x2):
    y, pull = jax.vjp(pool, jnp.asarray(x, jnp.bfloat16))
    assert y.dtype == pull(y)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("function, below, above", [
    (lambda x: leaky_relu(x, 0.25), -1.0, 3.0), (leaky_relu, -0.8, 3.0),
    (conv_ae.activation("leaky_relu", 0.5), -2.0, 3.0), (conv_ae.activation("relu", 0.5), 0.0, 3.0),
    (conv_ae.activation("swish", 0.5), -4 / (1 + np.exp(4)), 3 / (1 + np.exp(-3)))])
def test_what_activations_make_of_minus_four_zero_and_three(function, below, above):
  np.testing.assert_allclose(function(jnp.array([-4.0, 0.0, 3.0])), [below, 0, above], rtol=1e-6)


@pytest.mark.parametrize("function, slope", [
    (leaky_relu, 0.2), (lambda x: leaky_relu(x, 0.01), 0.01), (conv_ae.activation("leaky_relu", 0.5), 0.5),
    (conv_ae.activation("relu", 0.5), 0.0)])
def test_slopes_at_exactly_zero_are_those_of_pytorch(function, slope):
  slopes = jax.vmap(jax.grad(function))(jnp.array([-1.0, 0.0, 2.0]))
  np.testing.assert_allclose(slopes, [slope, slope, 1], rtol=1e-6)


def test_a_convolution_of_scaled_weights_multiplies_them_by_their_scale():
  net, x = dpa_layers.Conv(3, size=1, padding=0, use_wscale=True), jnp.ones((1, 2, 2, 2))
  params = {"kernel": jnp.arange(6.0).reshape(1, 1, 2, 3), "bias": jnp.array([1.0, 2.0, 3.0])}
  found = net.apply({"params": params, "batch_stats": {"scale": jnp.float32(0.5)}}, x)
  np.testing.assert_allclose(found[0, 0, 0], np.array([3, 5, 7]) * 0.5 + [1, 2, 3])
  drawn = net.init(jax.random.key(0), x)  # the scale is that of the kernel as it was drawn
  np.testing.assert_allclose(jnp.mean(drawn["params"]["kernel"] ** 2), 1, rtol=1e-5)
