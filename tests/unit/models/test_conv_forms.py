"""Convolutions in tiles and by oneDNN are the plain ones, and stand where they pay."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from medae_jax.models.layers import conv_forms, onednn, winograd


def draw(seed, *shape, dtype=np.float32):
  return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("height, width", [(4, 4), (8, 6), (10, 16)])
def test_tiles_give_the_value_and_the_gradients_of_the_plain_convolution(height, width, pad):
  x, kernel = draw(0, 2, height, width, 5), draw(1, 3, 3, 5, 7)
  want, pull = jax.vjp(lambda x, k: winograd.plain(x, k, pad), x, kernel)
  found, pull_found = jax.vjp(lambda x, k: winograd.tiled(x, k, pad), x, kernel)
  np.testing.assert_allclose(found, want, atol=2e-5)
  grad = draw(2, *want.shape)
  (x_found, kernel_found), (x_want, kernel_want) = pull_found(grad), pull(grad)
  np.testing.assert_allclose(x_found, x_want, atol=3e-5)
  np.testing.assert_array_equal(kernel_found, kernel_want)


def test_one_tile_by_hand():
  """A kernel with one 1 picks the pixel below and right of the corner; all ones sum the neighbours."""
  x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
  pick, every = np.zeros((3, 3, 1, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
  pick[2, 1] = 1
  np.testing.assert_allclose(winograd.tiled(x, pick)[0, :, :, 0], [[9, 10], [13, 14]], atol=1e-5)
  np.testing.assert_allclose(winograd.tiled(x, every)[0, :, :, 0], [[45, 54], [81, 90]], atol=1e-4)


def test_rounding_of_float32_is_that_of_the_plain_form():
  x, kernel = draw(0, 1, 10, 10, 256), draw(1, 3, 3, 256, 8)
  exact = sum(np.einsum("bhwi,io->bhwo", x[:, i:i + 8, j:j + 8].astype(np.float64), kernel[i, j])
              for i in range(3) for j in range(3))
  apart = lambda form: float(np.abs(form(x, kernel) - exact).max() / np.abs(exact).max())
  assert apart(winograd.tiled) < 1e-6 and apart(winograd.plain) < 1e-6


def products(x, kernel, pad=0):
  """How many products of matrices and how many convolutions a program has."""
  program = str(jax.make_jaxpr(lambda x, k: conv_forms.conv(x, k, pad))(x, kernel))
  return program.count("dot_general["), program.count("conv_general_dilated[")


def test_where_it_stands(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(winograd, "LEAST", 4)
  monkeypatch.setattr(winograd, "WORTH", 0)
  monkeypatch.setattr(winograd, "SMALL", (4, 0))
  wide, narrow = draw(0, 3, 3, 4, 4), draw(0, 3, 3, 3, 4)
  x = draw(1, 1, 6, 8, 4)
  assert products(x, wide) == products(x, wide, 1) == (16, 0)
  assert products(x[..., :3], narrow) == products(x, draw(0, 3, 3, 4, 3)) == (0, 1)
  assert products(x[:, :5], wide) == products(x[:, :, :7], wide) == (0, 1)
  assert products(x.astype(np.float16), wide.astype(np.float16)) == (0, 1)
  with conv_forms.never():
    assert products(x, wide) == (0, 1)
  assert products(x, wide) == (16, 0)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert products(x, wide) == (0, 1)


def test_a_program_that_leaves_may_have_any_batch_size(monkeypatch):
  """Its sizes are symbols, which cannot be compared with a limit; DAE in full size has such channels."""
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  b, = jax.export.symbolic_shape("b")
  of = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
  least = winograd.SMALL[0]
  with conv_forms.never():
    found = jax.export.export(jax.jit(conv_forms.conv), platforms=("cpu",))(
        of(b, 6, 8, least), of(3, 3, least, least))
  assert str(found.out_avals[0].shape) == f"(b, 4, 6, {least})"


def test_zeros_around(monkeypatch):
  monkeypatch.setattr(winograd, "LEAST", 4)
  monkeypatch.setattr(winograd, "WORTH", 0)
  x, kernel = draw(0, 2, 6, 8, 4), draw(1, 3, 3, 4, 4)
  want = winograd.plain(x, kernel, 1)
  np.testing.assert_allclose(conv_forms.conv(x, kernel, 1), want, atol=2e-5)


def test_fewer_channels_where_the_pixels_have_few_floats(monkeypatch):
  """1 image of 6x8 pixels, 4 and 6 channels: 480 floats. Both sides count, and so does the batch."""
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(winograd, "WORTH", 0)
  x, kernel = draw(0, 1, 6, 8, 4), draw(1, 3, 3, 4, 6)
  for channels, floats, stands in ((4, 480, True), (4, 479, False), (5, 480, False)):
    monkeypatch.setattr(winograd, "SMALL", (channels, floats))
    assert products(x, kernel) == ((16, 0) if stands else (0, 1))
  monkeypatch.setattr(winograd, "SMALL", (4, 480))
  assert products(draw(0, 2, 6, 8, 4), kernel) == (0, 1)
  assert products(draw(0, 1, 6, 8, 6), draw(1, 3, 3, 6, 6)) == (0, 1)


def test_small_convolutions_are_not_worth_compiling_tiles(monkeypatch):
  """2 images of 6x8 pixels, 4 to 6 channels: 2 * 9 * 96 * 24 = 41,472 operations."""
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(winograd, "LEAST", 4)
  x, kernel = draw(0, 2, 6, 8, 4), draw(1, 3, 3, 4, 6)
  for least, stands in ((41_472, True), (41_473, False)):
    monkeypatch.setattr(winograd, "WORTH", least)
    assert products(x, kernel) == ((16, 0) if stands else (0, 1))


def test_the_gradient_of_x_is_in_tiles_as_well():
  """As compiled: the kernel's gradient, which nobody asks for, is gone with its convolution."""
  x, kernel = draw(0, 1, 6, 8, 4), draw(1, 3, 3, 4, 4)
  of = lambda form: jax.jit(jax.grad(lambda x: (form(x, kernel)**2).sum())).lower(x).compile().as_text()
  assert "convolution(" in of(winograd.plain) and "convolution(" not in of(winograd.tiled)


def stand_in(x, kernel, shape, pad):
  """What a custom call of oneDNN computes, by XLA's own convolution."""
  found = jax.lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2,
                                       dimension_numbers=("NHWC", "HWIO", "NHWC"))
  assert found.shape == tuple(shape)
  return found


SHAPES = [(3, 1, (2, 5, 8, 9), 11), (3, 0, (3, 4, 3, 8), 8), (5, 2, (1, 6, 7, 8), 9), (1, 0, (2, 3, 4, 8), 8),
          (4, 3, (2, 1, 5, 8), 8), (3, 1, (2, 5, 6, 3), 8), (3, 1, (2, 5, 6, 8), 1)]


@pytest.mark.parametrize("size, pad, shape, features", SHAPES)
def test_gradients_of_gradients_by_onednn(monkeypatch, size, pad, shape, features):
  """By the formulas, in float32: those of WGAN-GP's critics are gradients of gradients."""
  monkeypatch.setattr(onednn, "_call", stand_in)
  x, kernel = draw(0, *shape), draw(1, size, size, shape[3], features)
  grad = draw(2, *winograd.plain(x, kernel, pad).shape)

  def change(form, x, kernel, grad):
    value, pull = jax.vjp(lambda x, k: form(x, k, pad), x, kernel)
    of_x, of_kernel = pull(grad)
    return value, of_x, of_kernel

  want, pull = jax.vjp(lambda *args: change(winograd.plain, *args), x, kernel, grad)
  found, pull_found = jax.vjp(lambda *args: change(onednn.conv, *args), x, kernel, grad)
  changes = tuple(draw(3 + i, *part.shape) for i, part in enumerate(want))
  for a, b in zip((*found, *pull_found(changes)), (*want, *pull(changes)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()))


@pytest.mark.skipif(not onednn.there(), reason="this processor or this jaxlib has no such convolutions")
@pytest.mark.parametrize("size, pad, shape, features", [*SHAPES, (3, 1, (4, 16, 17, 33), 65)])
def test_onednn_rounds_as_bfloat16_does(size, pad, shape, features):
  """Sums are float32, results bfloat16: 0.2 % of a value; twice that for the largest of many."""
  x, kernel = jax.numpy.bfloat16(draw(0, *shape)), jax.numpy.bfloat16(draw(1, size, size, shape[3], features))
  plain = lambda x, k: winograd.plain(x, k, pad, "highest")
  want, pull = jax.vjp(plain, jax.numpy.float32(x), jax.numpy.float32(kernel))
  found, pull_found = jax.vjp(jax.jit(lambda x, k: onednn.conv(x, k, pad)), x, kernel)
  grad = jax.numpy.bfloat16(draw(2, *want.shape))
  for a, b in zip((found, *pull_found(grad)), (want, *pull(jax.numpy.float32(grad))), strict=True):
    assert a.dtype == jax.numpy.bfloat16
    np.testing.assert_allclose(jax.numpy.float32(a), b, atol=0.005 * float(np.abs(b).max()))


@pytest.mark.skipif(not onednn.there(), reason="this processor or this jaxlib has no such convolutions")
def test_runs_at_once_by_onednn():
  """Networks of several runs are trained under vmap, each with a kernel of its own."""
  x, kernel = jax.numpy.bfloat16(draw(0, 2, 1, 5, 6, 8)), jax.numpy.bfloat16(draw(1, 2, 3, 3, 8, 9))
  both = lambda x, kernel: jax.vjp(lambda k: onednn.conv(x, k, 1), kernel)[1](onednn.conv(x, kernel, 1))[0]
  found = jax.jit(jax.vmap(both))(x, kernel)
  np.testing.assert_array_equal(found, [both(x[i], kernel[i]) for i in range(2)])


def test_where_onednn_is_there(monkeypatch):
  """Versions that were not tried may end the process."""
  there = onednn.there.__wrapped__
  monkeypatch.setattr(onednn.units, "multiply_bfloat16", lambda: True)
  monkeypatch.setattr(onednn.sys, "platform", "linux")
  monkeypatch.setattr(onednn.platform, "machine", lambda: "x86_64")
  for version, wanted in (("0.10.2", True), ("0.12.0", False), ("0.11.2", True)):
    monkeypatch.setattr(onednn.importlib.metadata, "version", {"jaxlib": version}.get)
    assert there() is wanted
  others = ((onednn.units, "multiply_bfloat16", lambda: False), (onednn.sys, "platform", "darwin"),
            (onednn.platform, "machine", lambda: "aarch64"))
  for owner, name, value in others:
    with monkeypatch.context() as patch:
      patch.setattr(owner, name, value)
      assert not there()
  assert there()


def test_where_onednn_stands(monkeypatch):
  """bfloat16 on CPUs, in any number of channels; never in a program that leaves."""
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(onednn, "there", lambda: True)
  x, kernel = jax.numpy.bfloat16(draw(0, 1, 6, 8, 1)), jax.numpy.bfloat16(draw(1, 3, 3, 1, 2))


  def takes(x=x, kernel=kernel):
    again = functools.partial(conv_forms.conv, pad=0)  # one of its own: JAX keeps what it has traced
    return "ffi_call" in str(jax.make_jaxpr(again)(x, kernel))

  assert takes()
  assert not takes(jax.numpy.float32(x), jax.numpy.float32(kernel))
  assert not takes(x.astype(np.float16), kernel.astype(np.float16))
  assert not takes(x[:0])
  with conv_forms.never():
    assert not takes()
  monkeypatch.setattr(onednn, "there", lambda: False)
  assert not takes()
  monkeypatch.setattr(onednn, "there", lambda: True)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert not takes()


def test_flax_convolutions_by_onednn_where_it_can(monkeypatch):
  """Stride 1, all channels together, a square kernel, the same zeros on every side."""
  monkeypatch.setattr(onednn, "takes", lambda x, kernel: True)
  monkeypatch.setattr(onednn, "_call", lambda *of: 77 * stand_in(*of))
  x = draw(0, 2, 6, 8, 4)

  def factor(size=(3, 3), padding="SAME", **settings):
    layer = nn.Conv(4, size, padding=padding, use_bias=False, **settings)
    found, variables = layer.init_with_output(jax.random.key(0), x)
    other = layer.clone(conv_general_dilated=conv_forms.general).apply(variables, x)
    ratio = float(np.median(other[found != 0] / found[found != 0]))
    np.testing.assert_allclose(other, ratio * found, rtol=1e-4, atol=1e-4)
    return round(ratio)

  assert factor() == factor(padding="VALID") == factor((5, 5), [(2, 2), (2, 2)]) == factor((1, 1), 0) == 77
  assert factor((4, 4), [(1, 1), (1, 1)]) == 77
  assert factor((4, 4)) == factor((3, 1)) == 1
  assert factor(padding=[(1, 1), (0, 0)]) == factor(padding=[(1, 0), (1, 1)]) == 1
  assert factor(strides=(2, 1)) == factor(kernel_dilation=2) == factor(feature_group_count=2) == 1
  assert factor(padding=[(1, 1), (1, 1)], input_dilation=2) == factor((1, 1), [(1, 1), (1, 1)]) == 1


def test_the_gradient_of_a_bias_by_onednn(monkeypatch):
  monkeypatch.setattr(onednn, "takes", lambda y, bias: True)
  y, bias, grad = draw(0, 2, 3, 4, 5), draw(1, 5), draw(2, 2, 3, 4, 5)
  found, pull = jax.vjp(conv_forms.add_bias, y, bias)
  np.testing.assert_array_equal(found, y + bias)
  of_y, of_bias = pull(grad)
  np.testing.assert_array_equal(of_y, grad)
  np.testing.assert_allclose(of_bias, grad.sum((0, 1, 2)), rtol=1e-5)
  assert "optimization_barrier" in str(jax.make_jaxpr(pull)(grad))
