"""Convolutions in tiles are the plain ones, and stand where they pay."""

import jax
import numpy as np
import pytest

from medae_jax.core.device import units
from medae_jax.models.layers import winograd


def draw(seed, *shape, dtype=np.float32):
  return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("height, width", [(4, 4), (8, 6), (10, 16)])
def test_tiles_give_the_value_and_the_gradients_of_the_plain_convolution(height, width, padding):
  x, kernel = draw(0, 2, height, width, 5), draw(1, 3, 3, 5, 7)
  want, pull = jax.vjp(lambda x, k: winograd.plain(x, k, padding), x, kernel)
  found, pull_found = jax.vjp(lambda x, k: winograd.tiled(x, k, padding == "SAME"), x, kernel)
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


def products(x, kernel, padding="VALID"):
  """How many products of matrices and how many convolutions a program has."""
  program = str(jax.make_jaxpr(lambda x, k: winograd.conv3x3(x, k, padding))(x, kernel))
  return program.count("dot_general["), program.count("conv_general_dilated[")


def test_where_it_stands(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(winograd, "LEAST", 4)
  monkeypatch.setattr(winograd, "SMALL", (4, 0))
  wide, narrow = draw(0, 3, 3, 4, 4), draw(0, 3, 3, 3, 4)
  x = draw(1, 1, 6, 8, 4)
  assert products(x, wide) == products(x, wide, "SAME") == (16, 0)
  assert products(x[..., :3], narrow) == products(x, draw(0, 3, 3, 4, 3)) == (0, 1)
  assert products(x[:, :5], wide) == products(x[:, :, :7], wide) == (0, 1)
  assert products(x.astype(np.float16), wide.astype(np.float16)) == (0, 1)
  with winograd.never():
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
  with winograd.never():
    found = jax.export.export(jax.jit(winograd.conv3x3), platforms=("cpu",))(
        of(b, 6, 8, least), of(3, 3, least, least))
  assert str(found.out_avals[0].shape) == f"(b, 4, 6, {least})"


def test_zeros_around(monkeypatch):
  monkeypatch.setattr(winograd, "LEAST", 4)
  x, kernel = draw(0, 2, 6, 8, 4), draw(1, 3, 3, 4, 4)
  want = winograd.plain(x, kernel, "SAME")
  np.testing.assert_allclose(winograd.conv3x3(x, kernel, "SAME"), want, atol=2e-5)


def test_fewer_channels_where_the_pixels_have_few_floats(monkeypatch):
  """1 image of 6x8 pixels, 4 and 6 channels: 480 floats. Both sides count, and so does the batch."""
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  x, kernel = draw(0, 1, 6, 8, 4), draw(1, 3, 3, 4, 6)
  for channels, floats, stands in ((4, 480, True), (4, 479, False), (5, 480, False)):
    monkeypatch.setattr(winograd, "SMALL", (channels, floats))
    assert products(x, kernel) == ((16, 0) if stands else (0, 1))
  monkeypatch.setattr(winograd, "SMALL", (4, 480))
  assert products(draw(0, 2, 6, 8, 4), kernel) == (0, 1)
  assert products(draw(0, 1, 6, 8, 6), draw(1, 3, 3, 6, 6)) == (0, 1)


def test_the_gradient_of_x_is_in_tiles_as_well():
  """As compiled: the kernel's gradient, which nobody asks for, is gone with its convolution."""
  x, kernel = draw(0, 1, 6, 8, 4), draw(1, 3, 3, 4, 4)
  of = lambda form: jax.jit(jax.grad(lambda x: (form(x, kernel)**2).sum())).lower(x).compile().as_text()
  assert "convolution(" in of(winograd.plain) and "convolution(" not in of(winograd.tiled)


def test_bfloat16_in_tiles_where_the_processor_multiplies_it(monkeypatch):
  """And up to other sizes than float32."""
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  monkeypatch.setattr(winograd, "SMALL", (99, 0))
  monkeypatch.setattr(winograd, "ROUNDED", (4, 480))
  x, kernel = (jax.numpy.bfloat16(draw(0, *shape)) for shape in ((1, 6, 8, 4), (3, 3, 4, 6)))
  for has, wanted in ((True, (16, 0)), (False, (0, 1))):
    monkeypatch.setattr(winograd.units, "multiply_bfloat16", lambda has=has: has)
    assert products(x, kernel) == wanted
  monkeypatch.setattr(winograd.units, "multiply_bfloat16", lambda: True)
  assert products(jax.numpy.float32(x), jax.numpy.float32(kernel)) == (0, 1)
  monkeypatch.setattr(winograd, "ROUNDED", (4, 479))
  assert products(x, kernel) == (0, 1)


def test_rounding_of_bfloat16_is_near_that_of_the_plain_form():
  """Tiles of bfloat16 are rounded once more: 0.4 % where the plain convolution has 0.18 %, its result's."""
  x, kernel = jax.numpy.bfloat16(draw(0, 1, 10, 10, 128)), jax.numpy.bfloat16(draw(1, 3, 3, 128, 8))
  exact = winograd.plain(jax.numpy.float32(x), jax.numpy.float32(kernel))
  found, plain = winograd.tiled(x, kernel), winograd.plain(x, kernel)
  assert found.dtype == plain.dtype == jax.numpy.bfloat16
  error = lambda y: float(jax.numpy.std(jax.numpy.float32(y) - exact) / jax.numpy.std(exact))
  assert error(plain) < 0.002 and error(found) < 0.006


@pytest.mark.parametrize("flags, has", [("fpu avx512f avx512_bf16", True), ("fpu amx_bf16 amx_tile", True),
                                        ("fpu avx512f avx512_bf16x", False), (None, False)])
def test_the_units_are_those_that_linux_names(monkeypatch, flags, has):
  def text(self, **_):
    if flags is None:
      raise FileNotFoundError
    return f"processor\t: 0\nvendor_id\t: x\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: none\n"
  monkeypatch.setattr(units.pathlib.Path, "read_text", text)
  assert units.multiply_bfloat16.__wrapped__() == has
