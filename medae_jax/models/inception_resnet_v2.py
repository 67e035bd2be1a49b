"""InceptionResNetV2 (Szegedy et al., AAAI 2017, arXiv 1602.07261), frozen, up to the taps asked for.

Every unit is a convolution, batch normalisation with stored statistics, ReLU; the normalisation is
part of the kernel and of the bias here (weights/inception_resnet_v2.py), which is the same function.
`mixed_5b`, `mixed_6a` and `mixed_7a` are taken before the residual blocks that follow them.

Parameters: {"mixed_5b.branch1.0": {"kernel" [h,w,I,O], "bias" [O]}, ...}, under the names of the
published PyTorch file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import functools

import jax
import jax.numpy as jnp
import numpy as np

TAPS = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "maxpool_5a",
        "mixed_5b", "mixed_6a", "mixed_7a", "conv2d_7b")
WIDTHS = dict(zip(TAPS, (32, 32, 64, 64, 80, 192, 192, 320, 1088, 2080, 1536)))
LEAST_SIZE = 75  # one pixel is left of it at the end

# conv(x, name, channels, size=1, stride=1, pad=0, relu=True) -> x
Conv = Callable[..., jax.Array]


def features(params: Mapping, image: jax.Array, taps: Iterable[str], dtype) -> dict[str, jax.Array]:
  """{tap: [B,h,w,C]} of images [B,H,W,3] in [-1, 1]; nothing beyond the deepest tap is computed."""
  def conv(x, name, channels, size=1, stride=1, pad=0, relu=True):
    del channels, size
    unit = jax.lax.stop_gradient(params[name])
    rows, columns = (pad, pad) if np.ndim(pad) == 0 else pad
    x = jax.lax.conv_general_dilated(x, unit["kernel"].astype(dtype), (stride, stride),
                                     [(rows, rows), (columns, columns)],
                                     dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = x + unit["bias"].astype(dtype)
    return jax.nn.relu(x) if relu else x
  return _walk(conv, jnp.asarray(image, dtype), taps)


@functools.cache
def shapes(taps: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
  """{unit: shape of its kernel [h,w,I,O]} up to the deepest tap."""
  found = {}

  def conv(x, name, channels, size=1, stride=1, pad=0, relu=True):
    del stride, pad, relu
    found[name] = (*((size, size) if np.ndim(size) == 0 else size), x.shape[-1], channels)
    return jnp.zeros((*x.shape[:-1], channels))  # rows and columns do not matter to kernels
  jax.eval_shape(lambda: _walk(conv, jnp.zeros((1, 64, 64, 3)), taps, pool=lambda x: x))
  return found


def _walk(conv, x, taps, pool=None):
  """{tap: map}; `pool` replaces the max pooling, whose rows and columns have to fit otherwise."""
  wanted, found, pool = set(taps), {}, pool or _max_pool
  for tap, step in _STEPS:
    x = step(conv, x, pool)
    if tap in wanted:
      found[tap] = x
    if len(found) == len(wanted):
      break
  return found


def _max_pool(x):
  """3x3, stride 2, no padding."""
  low = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else 0
  return jax.lax.reduce_window(x, jnp.asarray(low, x.dtype), jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def _mean_pool(x):
  """3x3, stride 1; padding is not counted."""
  count = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
  zero, window = jnp.zeros((), x.dtype), (1, 3, 3, 1)
  total, n = (jax.lax.reduce_window(v, zero, jax.lax.add, window, (1, 1, 1, 1), "SAME") for v in (x, count))
  return total / n


# --------------------------------------------------------------------------------------- modules
def _mixed_5b(conv, x, _):
  n = "mixed_5b.branch"
  second = conv(conv(x, f"{n}1.0", 48), f"{n}1.1", 64, 5, pad=2)
  third = conv(conv(conv(x, f"{n}2.0", 64), f"{n}2.1", 96, 3, pad=1), f"{n}2.2", 96, 3, pad=1)
  return jnp.concatenate([conv(x, f"{n}0", 96), second, third, conv(_mean_pool(x), f"{n}3.1", 64)], -1)


def _mixed_6a(conv, x, pool):
  n = "mixed_6a.branch"
  second = conv(conv(conv(x, f"{n}1.0", 256), f"{n}1.1", 256, 3, pad=1), f"{n}1.2", 384, 3, 2)
  return jnp.concatenate([conv(x, f"{n}0", 384, 3, 2), second, pool(x)], -1)


def _mixed_7a(conv, x, pool):
  n = "mixed_7a.branch"
  first = conv(conv(x, f"{n}0.0", 256), f"{n}0.1", 384, 3, 2)
  second = conv(conv(x, f"{n}1.0", 256), f"{n}1.1", 288, 3, 2)
  third = conv(conv(conv(x, f"{n}2.0", 256), f"{n}2.1", 288, 3, pad=1), f"{n}2.2", 320, 3, 2)
  return jnp.concatenate([first, second, third, pool(x)], -1)


def _residual(conv, x, name, branches, scale, relu=True):
  x = x + scale * conv(jnp.concatenate(branches, -1), f"{name}.conv2d", x.shape[-1], relu=False)
  return jax.nn.relu(x) if relu else x


def _block35(conv, x, n):
  third = conv(conv(x, f"{n}.branch2.0", 32), f"{n}.branch2.1", 48, 3, pad=1)
  third = conv(third, f"{n}.branch2.2", 64, 3, pad=1)
  second = conv(conv(x, f"{n}.branch1.0", 32), f"{n}.branch1.1", 32, 3, pad=1)
  return _residual(conv, x, n, [conv(x, f"{n}.branch0", 32), second, third], 0.17)


def _block17(conv, x, n):
  second = conv(x, f"{n}.branch1.0", 128)
  second = conv(second, f"{n}.branch1.1", 160, (1, 7), pad=(0, 3))
  second = conv(second, f"{n}.branch1.2", 192, (7, 1), pad=(3, 0))
  return _residual(conv, x, n, [conv(x, f"{n}.branch0", 192), second], 0.10)


def _block8(conv, x, n, scale=0.20, relu=True):
  second = conv(x, f"{n}.branch1.0", 192)
  second = conv(second, f"{n}.branch1.1", 224, (1, 3), pad=(0, 1))
  second = conv(second, f"{n}.branch1.2", 256, (3, 1), pad=(1, 0))
  return _residual(conv, x, n, [conv(x, f"{n}.branch0", 192), second], scale, relu)


def _repeated(block, name, n):
  def run(conv, x, _):
    for i in range(n):
      x = block(conv, x, f"{name}.{i}")
    return x
  return run


def _unit(name, *how, **more):
  return lambda conv, x, _: conv(x, name, *how, **more)


_STEPS: tuple[tuple[str, Callable], ...] = (
    ("conv2d_1a", _unit("conv2d_1a", 32, 3, 2)), ("conv2d_2a", _unit("conv2d_2a", 32, 3)),
    ("conv2d_2b", _unit("conv2d_2b", 64, 3, pad=1)), ("maxpool_3a", lambda conv, x, pool: pool(x)),
    ("conv2d_3b", _unit("conv2d_3b", 80)), ("conv2d_4a", _unit("conv2d_4a", 192, 3)),
    ("maxpool_5a", lambda conv, x, pool: pool(x)), ("mixed_5b", _mixed_5b),
    ("", _repeated(_block35, "repeat", 10)), ("mixed_6a", _mixed_6a),
    ("", _repeated(_block17, "repeat_1", 20)), ("mixed_7a", _mixed_7a),
    ("", _repeated(_block8, "repeat_2", 9)),
    ("", lambda conv, x, _: _block8(conv, x, "block8", 1.0, relu=False)),
    ("conv2d_7b", _unit("conv2d_7b", 1536)))
