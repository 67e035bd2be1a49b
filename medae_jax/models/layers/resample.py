"""Maps [B,H,W,C] resampled: aligned corners, nearest, bilinear, as Pillow does; powers of two, padding."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.models.layers.pool import nearest


def aligned_matrix(size: int, nodes: int) -> np.ndarray:
  """Bilinear interpolation with aligned corners as a matrix, float64 [size, nodes].

  Output i samples the input at i (nodes - 1) / (size - 1): corner nodes land on corner pixels, as
  with PyTorch's align_corners=True. One node gives a constant.
  """
  source = np.arange(size) * (nodes - 1) / max(size - 1, 1)
  low = np.minimum(np.floor(source).astype(int), max(nodes - 2, 0))
  fraction = source - low
  matrix = np.zeros((size, nodes))
  matrix[np.arange(size), low] = 1 - fraction
  if nodes > 1:
    matrix[np.arange(size), low + 1] += fraction
  return matrix


def upsample_aligned(x: jax.Array, factor: int = 2) -> jax.Array:
  """Bilinear up-sampling with aligned corners: [B,h,w,C] -> [B,factor h,factor w,C]."""
  rows, columns = (jnp.asarray(aligned_matrix(factor * n, n), x.dtype) for n in x.shape[1:3])
  x = jnp.einsum("Hh,bhwc->bHwc", rows, x)
  return jnp.einsum("Ww,bhwc->bhWc", columns, x)


def antialiased_matrix(size: int, pixels: int) -> np.ndarray:
  """Pillow's bilinear filter along an axis as a matrix, float64 [size, pixels].

  A triangle around each output's centre (i + 1/2) pixels/size, one pixel wide, and pixels/size wide
  where the image shrinks; what the border cuts off goes to the others, so that rows add up to 1.
  """
  scale = pixels / size
  centre = (np.arange(size) + 0.5) * scale
  distance = np.abs(np.arange(pixels) + 0.5 - centre[:, None]) / max(scale, 1.0)
  weights = np.maximum(1 - distance, 0)
  return weights / weights.sum(1, keepdims=True)


def antialiased(x: jax.Array, size: tuple[int, int], *, eight_bit: bool = False) -> jax.Array:
  """[B,h,w,C] -> [B,*size,C] as Pillow's Image.resize(BILINEAR) does: along rows first, then columns.

  Pillow 13 turns the order round where that is cheaper (a tall image made wide): eight_bit may then be
  off by a grey level here and there.

  Args:
    eight_bit: for images in [0,1] that were 8 bits: Pillow's integers, exact to the grey level, instead
      of its floats.
  """
  x = jnp.round(255 * x) if eight_bit else x
  for axis, form in ((2, "Oo,bhoc->bhOc"), (1, "Oo,bowc->bOwc")):
    if x.shape[axis] != size[axis - 1]:
      matrix = antialiased_matrix(size[axis - 1], x.shape[axis])
      # A GPU would multiply with 10 bits at the default precision.
      product = functools.partial(jnp.einsum, form, precision="highest")
      x = _eight_bit(product, matrix, x) if eight_bit else product(jnp.asarray(matrix, x.dtype), x)
  return x / 255 if eight_bit else x


def _eight_bit(product, matrix, x):
  """Grey levels out of grey levels by Pillow's arithmetic: weights of 22 bits, rounded half up.

  The halves of a weight, times 8 bits, add up without rounding in float32 (up to 32 neighbours).
  """
  high, low = np.divmod(np.floor(matrix * 2**22 + 0.5), 2**11)
  high, low = (product(jnp.asarray(w, x.dtype), x).astype(jnp.int32) for w in (high, low))
  return ((high * 2**11 + low + 2**21) >> 22).astype(x.dtype)


def bilinear(x: jax.Array) -> jax.Array:
  """Bilinear x2 with half-pixel centres: [B,h,w,C] -> [B,2h,2w,C]."""
  return jax.image.resize(x, (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], x.shape[3]), "bilinear")


def downscale(x: jax.Array, factor: int, *, antialias: bool = False) -> jax.Array:
  """Bilinear down-scaling by 1, 2, 4, 8 ... as the reference runs it, without anti-aliasing.

  With half-pixel centres that is the mean of the central 2x2 pixels of each factor x factor cell;
  antialias=True takes the mean of the whole cell instead (better practice, not the reference).
  """
  if factor == 1:
    return x
  b, h, w, c = x.shape
  cells = x.reshape(b, h // factor, factor, w // factor, factor, c)
  if not antialias:
    mid = slice(factor // 2 - 1, factor // 2 + 1)
    cells = cells[:, :, mid, :, mid]
  return cells.mean((2, 4))


def mix_resolution(image: jax.Array, res: int, *, transition: bool = False, alpha=1.0,
                   antialias: bool = False) -> jax.Array:
  """The image a growing stage sees, out of the full-resolution one.

  Stable at `res`: downscale(image). Transition to `res`: (1 - alpha) nearest(downscale to res/2)
  + alpha downscale to res. [B,R,R,C] -> [B,res,res,C].

  Raises:
    UserError: R is not res times a power of two.
  """
  full = image.shape[1]
  if image.shape[2] != full or full % res or (full // res) & (full // res - 1):
    raise UserError(f"images are {image.shape[1]}x{image.shape[2]}; a network at {res} px needs "
                     f"squares of {res}, {2 * res}, {4 * res} ... pixels")
  high = downscale(image, full // res, antialias=antialias)
  if not transition:
    return high
  low = nearest(downscale(image, 2 * full // res, antialias=antialias))
  return fade(low, high, alpha)


def fade(low: jax.Array, high: jax.Array, alpha) -> jax.Array:
  """(1 - alpha) low + alpha high, alpha clipped to [0, 1]; alpha may be traced."""
  alpha = jnp.clip(jnp.asarray(alpha, low.dtype), 0, 1)
  return (1 - alpha) * low + alpha * high


def pad_to(x, height: int, width: int):
  """Zero-pads [B,h,w,C] to [B,height,width,C], floor of the difference before, the rest after.

  Raises:
    UserError: the map is larger than its target.
  """
  dh, dw = height - x.shape[1], width - x.shape[2]
  if dh < 0 or dw < 0:
    raise UserError(f"a decoder map of {x.shape[1]}x{x.shape[2]} meets a skip of {height}x{width}; "
                     "use image sides divisible by 16.")
  return jnp.pad(x, ((0, 0), (dh // 2, dh - dh // 2), (dw // 2, dw - dw // 2), (0, 0)))
