"""3x3 convolutions with half the multiplications, on CPUs: F(2x2, 3x3) of Winograd (Lavin, Gray, 1509.09308).

  y = A^T [(G k G^T) * (B^T x B)] A      for each 2x2 tile of the result, from a 4x4 tile of x

B and A hold 0, 1, -1, G also 1/2: rounding stays that of a plain convolution. Over channels the elementwise
product is 16 products of matrices, of a quarter of the pixels each. What the tiles cost in passes over memory
is paid by many channels only (docs/performance_trials.md). The gradient of x is such a convolution, too; that
of the kernel is XLA's.

In bfloat16 the tiles are summed in float32 and rounded before they are multiplied (2.5 times the rounding of
a plain convolution), only on processors with units for such products: XLA's own convolutions do not use them.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import contextvars
import functools
import math

import jax
import jax.numpy as jnp

from medae_jax.core.device import units

LEAST = 256  # channels on both sides
SMALL = 64, 2**21  # these do, where the pixels of x and of the result have no more floats (8 MiB)
ROUNDED = 64, 2**23  # the same in bfloat16
_allowed = contextvars.ContextVar("winograd", default=True)


@contextlib.contextmanager
def never() -> Iterator[None]:
  """What is traced inside has plain convolutions: for programs that leave this device."""
  token = _allowed.set(False)
  try:
    yield
  finally:
    _allowed.reset(token)


def conv3x3(x, kernel, padding: str = "VALID", precision=None):
  """Stride-1 convolution of x [B,H,W,I] with kernel [3,3,I,O]; padding "VALID" or, with zeros, "SAME"."""
  if not _pays(x, kernel):
    return plain(x, kernel, padding, precision)
  return tiled(x, kernel, 1 if padding == "SAME" else 0)


def plain(x, kernel, padding: str = "VALID", precision=None):
  """The same by XLA's own convolution."""
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                      precision=precision)


def _pays(x, kernel) -> bool:
  if not _allowed.get() or jax.default_backend() != "cpu":  # first: sizes of an export are symbols
    return False
  even = x.shape[1] % 2 == x.shape[2] % 2 == 0
  channels, floats = min(kernel.shape[2:]), math.prod(x.shape[:3]) * sum(kernel.shape[2:])
  least, most = ROUNDED if x.dtype == jnp.bfloat16 else SMALL
  wide = channels >= LEAST or (channels >= least and floats <= most)
  known = x.dtype in (jnp.float32, jnp.float64) or (x.dtype == jnp.bfloat16 and units.multiply_bfloat16())
  return wide and even and known


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def tiled(x, kernel, pad: int = 0):
  """[B,H+2,W+2,I] by [3,3,I,O] -> [B,H,W,O], H and W even, in tiles; x with `pad` zeros around."""
  return _tiles(_zeros_around(x, pad), [kernel[i, j] for i in range(3) for j in range(3)], 0)


def _backward(pad, saved, grad):
  """That of x is a convolution of the same kind, by the kernel turned around; the kernel's is XLA's."""
  x, kernel = saved
  turned = [kernel[i, j] for i in (2, 1, 0) for j in (2, 1, 0)]
  _, pull = jax.vjp(lambda k: plain(x, k, [(pad, pad)] * 2), kernel)
  return _tiles(_zeros_around(grad, 2 - pad), turned, 1), *pull(grad)


tiled.defvjp(lambda x, kernel, pad: (tiled(x, kernel, pad), (x, kernel)), _backward)


def _zeros_around(x, pad):
  return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))) if pad else x


def _tiles(x, kernel, contracted):
  """`kernel`: its nine matrices, row by row, whose axis `contracted` belongs to x's channels."""
  b, h, w, channels = x.shape
  h, w = h - 2, w - 2
  wide = jnp.promote_types(x.dtype, jnp.float32)
  x_parts = [x[:, i:i + h - 1:2, j:j + w - 1:2].astype(wide) for i in range(4) for j in range(4)]
  product = functools.partial(
      jax.lax.dot_general, dimension_numbers=(((1,), (contracted,)), ((), ())),
      precision="highest" if x.dtype == wide else None, preferred_element_type=wide)
  products = [product(u.reshape(-1, channels).astype(x.dtype), v.astype(x.dtype)) for u, v in zip(
      _both_sides(x_parts, 4, _b), _both_sides([k.astype(wide) for k in kernel], 3, _g))]
  y = [part.reshape(b, h // 2, w // 2, -1) for part in _both_sides(products, 4, _a)]
  rows = [jnp.stack(y[i:i + 2], 3) for i in (0, 2)]
  return jnp.stack(rows, 2).reshape(b, h, w, -1).astype(x.dtype)


def _both_sides(parts, size, change):
  """`change` of the columns of size*size parts, row by row, and of the rows: M^T parts M."""
  turned = [change(parts[size * i:size * (i + 1)]) for i in range(size)]
  changed = [change(list(column)) for column in zip(*turned)]  # of the columns
  return [column[i] for i in range(len(changed)) for column in changed]


def _b(d):
  return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _g(k):
  return [k[0], 0.5 * (k[0] + k[1] + k[2]), 0.5 * (k[0] - k[1] + k[2]), k[2]]


def _a(m):
  return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
