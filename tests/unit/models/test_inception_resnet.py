"""InceptionResNetV2's parts by hand: what pooling counts, how much of branches is added, what is cut at 0."""

import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.models import inception_resnet_v2 as net


def windows(x, stride, pad):
  """Every 3x3 window of one channel [H,W]: what of it lies on the map, by row and column of the result."""
  rows, cols = ((n + 2 * pad - 3) // stride + 1 for n in x.shape)
  cut = lambda i, n: slice(max(0, i * stride - pad), min(n, i * stride - pad + 3))
  return [[x[cut(i, x.shape[0]), cut(j, x.shape[1])] for j in range(cols)] for i in range(rows)]


@pytest.mark.parametrize("shape", [(5, 8), (7, 4)])
def test_means_leave_padding_out_and_maxima_have_none(shape):
  x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
  mean, most = (np.asarray(pool(jnp.asarray(x)[None, ..., None]))[0, ..., 0]
                for pool in (net._mean_pool, net._max_pool))
  np.testing.assert_allclose(mean, [[w.mean() for w in row] for row in windows(x, 1, 1)], rtol=1e-5)
  np.testing.assert_array_equal(most, [[w.max() for w in row] for row in windows(x, 2, 0)])


@pytest.mark.parametrize("block, scale, options", [
    (net._block35, 0.17, {}), (net._block17, 0.1, {}), (net._block8, 0.2, {}),
    (net._block8, 1.0, {"scale": 1.0})])
def test_a_share_of_the_branches_is_added(block, scale, options):
  """The projection has no activation, the sum has one, but for the last block."""
  def conv(x, name, channels, size=1, stride=1, pad=0, relu=True):
    assert name.startswith("here.") and relu == (name != "here.conv2d")
    return jnp.full((*x.shape[:3], channels), 0.0 if relu else -1.0)
  out = lambda value: np.asarray(block(conv, jnp.full((1, 2, 2, 7), value), "here", **options))
  np.testing.assert_allclose(out(2.0), np.full((1, 2, 2, 7), 2 - scale), rtol=1e-6)
  assert not out(0.0).any()


def test_the_last_block_is_not_cut_off_at_0():
  conv = lambda x, name, channels, *_, relu=True, **__: jnp.full((*x.shape[:3], channels), -1.0 * (not relu))
  step = [step for tap, step in net._STEPS][-2]
  assert float(step(conv, jnp.zeros((1, 2, 2, 7)), None).max()) == -1


@pytest.mark.parametrize("name, count", [("repeat", 10), ("repeat_1", 20), ("repeat_2", 9)])
def test_blocks_are_repeated_as_often_as_published(name, count):
  made = {unit.split(".")[1] for unit in net.shapes(("conv2d_7b",)) if unit.startswith(f"{name}.")}
  assert made == {str(i) for i in range(count)}


def test_the_reducing_modules_have_the_published_widths():
  """Kernels [rows, columns, in, out] of Szegedy's table, in the order of the branches."""
  k = net.shapes(("mixed_7a",))
  of = lambda module: [k[name] for name in k if name.startswith(f"{module}.")]
  assert of("mixed_5b") == [
      (1, 1, 192, 48), (5, 5, 48, 64), (1, 1, 192, 64), (3, 3, 64, 96), (3, 3, 96, 96), (1, 1, 192, 96),
      (1, 1, 192, 64)]
  assert of("mixed_6a") == [(1, 1, 320, 256), (3, 3, 256, 256), (3, 3, 256, 384), (3, 3, 320, 384)]
  assert of("mixed_7a") == [(1, 1, 1088, 256), (3, 3, 256, 384), (1, 1, 1088, 256), (3, 3, 256, 288),
                            (1, 1, 1088, 256), (3, 3, 256, 288), (3, 3, 288, 320)]
