"""3x3 convolutions with half the multiplications, on CPUs: F(2x2, 3x3) of Winograd (Lavin, Gray, 1509.09308).

  y = A^T [(G k G^T) * (B^T x B)] A      for each 2x2 tile of the result, from a 4x4 tile of x

B and A hold 0, 1, -1, G also 1/2: rounding stays that of a plain convolution. Over channels the elementwise
product is 16 products of matrices, of a quarter of the pixels each. What the tiles cost in passes over memory
is paid by many channels only (docs/performance_trials.md). The gradient of x is such a convolution, too; that
of the kernel is XLA's.
Not in bfloat16: layers/onednn.py.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

LEAST = 256  # channels on both sides
SMALL = 64, 2**21  # these do, where the pixels of x and of the result have no more floats (8 MiB)
WORTH = 2 * 10**8  # operations of the plain form: fewer take a millisecond, and tiles a second to compile

def plain(x, kernel, pad: int = 0, precision=None):
  """Stride-1 convolution of x [B,H,W,I], `pad` zeros around it, with kernel [k,k,I,O], by XLA's own code."""
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2, precision=precision,
                                      dimension_numbers=("NHWC", "HWIO", "NHWC"))


def pays(x, kernel, pad: int) -> bool:
  """Whether tiles are the faster form of `plain`, where this program runs."""
  if jax.default_backend() != "cpu" or kernel.shape[:2] != (3, 3) or pad > 1:
    return False
  even = x.shape[1] % 2 == x.shape[2] % 2 == 0
  channels, floats = min(kernel.shape[2:]), math.prod(x.shape[:3]) * sum(kernel.shape[2:])
  wide = channels >= LEAST or (channels >= SMALL[0] and floats <= SMALL[1])
  worth = 18 * math.prod(x.shape[:3]) * math.prod(kernel.shape[2:]) >= WORTH
  return wide and even and worth and x.dtype in (jnp.float32, jnp.float64)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def tiled(x, kernel, pad: int = 0):
  """[B,H+2,W+2,I] by [3,3,I,O] -> [B,H,W,O], H and W even, in tiles; x with `pad` zeros around."""
  return _tiles(_zeros_around(x, pad), [kernel[i, j] for i in range(3) for j in range(3)], 0)


def _backward(pad, saved, grad):
  """That of x is a convolution of the same kind, by the kernel turned around; the kernel's is XLA's."""
  x, kernel = saved
  turned = [kernel[i, j] for i in (2, 1, 0) for j in (2, 1, 0)]
  _, pull = jax.vjp(lambda k: plain(x, k, pad), kernel)
  return _tiles(_zeros_around(grad, 2 - pad), turned, 1), *pull(grad)


tiled.defvjp(lambda x, kernel, pad: (tiled(x, kernel, pad), (x, kernel)), _backward)


def _zeros_around(x, pad):
  return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))) if pad else x


def _tiles(x, kernel, contracted):
  """`kernel`: its nine matrices, row by row, whose axis `contracted` belongs to x's channels."""
  b, h, w, channels = x.shape
  h, w = h - 2, w - 2
  x_parts = [x[:, i:i + h - 1:2, j:j + w - 1:2] for i in range(4) for j in range(4)]
  product = functools.partial(jax.lax.dot_general, precision="highest",
                              dimension_numbers=(((1,), (contracted,)), ((), ())))
  products = [product(u.reshape(-1, channels), v)
              for u, v in zip(_both_sides(x_parts, 4, _b), _both_sides(kernel, 3, _g))]
  y = [part.reshape(b, h // 2, w // 2, -1) for part in _both_sides(products, 4, _a)]
  rows = [jnp.stack(y[i:i + 2], 3) for i in (0, 2)]
  return jnp.stack(rows, 2).reshape(b, h, w, -1)


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
