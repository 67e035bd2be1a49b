"""Geometric transformations that are permutations or gathers of pixels (Golan & El-Yaniv 2018, section 4).

Transformation t of [flip] x [shift of rows] x [shift of columns] x [rotation], the last factor fastest:
first the image is mirrored left-right, then shifted: out[i, j] = in[r(i + dy), r(j + dx)] with dy, dx of
(0, -shift, +shift) and r the half-sample symmetric reflection at the border, then turned by quarter turns
counter-clockwise. With a flip, a shift and four rotations these are the 72 of the published code; t = 0 is
the identity.

Rows and columns go apart: a transformation is a vector of source rows, one of source columns, and
whether the axes are exchanged. The constants in a compiled step are so K (H + W) numbers, not K H W.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Transformations:
  """A set of transformations.

  Attributes:
    flip: with the mirror images. shift: pixels, 0 = no shifts.
    rotations: 4 (quarter turns), 2 (0 and 180 degrees: also for images that are not square) or 1.
  """
  flip: bool
  shift: int
  rotations: int

  @functools.cached_property
  def parameters(self) -> tuple[tuple[int, int, int, int], ...]:
    """(flip, shift of rows, shift of columns, quarter turns) of every transformation, in order."""
    shifts = (0, -self.shift, self.shift) if self.shift else (0,)
    turns = {1: (0,), 2: (0, 2), 4: (0, 1, 2, 3)}[self.rotations]
    return tuple(itertools.product((0, 1) if self.flip else (0,), shifts, shifts, turns))

  def __len__(self):
    return len(self.parameters)

  def check(self, height: int, width: int) -> None:
    """Raises UserError where images of this size cannot be turned by a quarter, or are shifted too far.

    A shift by a whole side is the mirror image: another transformation would give the same one. The public
    code lets it pass, and so does `apply`.
    """
    if self.shift >= min(height, width):
      raise UserError(f"config.method.shift={self.shift}: images are {height}x{width}, shift them by less")
    self._check_turns(height, width)

  def _check_turns(self, height, width):
    if self.rotations == 4 and height != width:
      raise UserError(f"images are {height}x{width}: rotations by 90 degrees need square ones. Set "
                      "config.method.rotations=2 (0 and 180 degrees), or crop them in config.data")

  def sources(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows int32 [K,H], columns int32 [K,W], turned bool [K]).

    out[i, j] = in[rows[i], columns[j]], or in[rows[j], columns[i]] where turned.
    """
    rows, columns = [], []
    for flip, dy, dx, turns in self.parameters:
      r, c = _reflected(height, dy), _reflected(width, dx)
      c = width - 1 - c if flip else c
      # numpy.rot90: 1: out[i,j] = in[j, n-1-i]; 2: in[n-1-i, n-1-j]; 3: in[n-1-j, i].
      rows.append(r[::-1] if turns >= 2 else r)
      columns.append(c[::-1] if turns in (1, 2) else c)
    turned = np.array([turns % 2 for *_, turns in self.parameters], bool)
    return np.array(rows, np.int32), np.array(columns, np.int32), turned

  def apply(self, image: jax.Array, view: jax.Array) -> jax.Array:
    """Image b under transformation view[b]: [B,H,W,C], int32 [B] -> [B,H,W,C], in the image's dtype."""
    b, h, w, c = image.shape
    source = self._pixels(view, h, w)
    return jnp.take_along_axis(image.reshape(b, h * w, c), source[..., None], 1,
                               mode="promise_in_bounds").reshape(b, h, w, c)

  def each(self, image: jax.Array, views: jax.Array) -> jax.Array:
    """Every image under every one of `views`: [B,H,W,C], int32 [V] -> [B,V,H,W,C]."""
    b, h, w, c = image.shape
    found = jnp.asarray(image).reshape(b, h * w, c)[:, self._pixels(views, h, w)]
    return found.reshape(b, len(views), h, w, c)

  def _pixels(self, view, h, w):
    """Source pixel (row times W plus column) of every pixel under every one of `view`, int32 [V,H W]."""
    self._check_turns(h, w)
    rows, columns, turned = self.sources(h, w)
    source = jnp.asarray(rows)[view][:, :, None] * w + jnp.asarray(columns)[view][:, None, :]
    if turned.any():
      source = jnp.where(jnp.asarray(turned)[view][:, None, None], source.swapaxes(1, 2), source)
    return source.reshape(-1, h * w)


def _reflected(n: int, shift: int) -> np.ndarray:
  """Places int [n] that `i + shift` is reflected to: the edge pixel is repeated, the period is 2n."""
  k = (np.arange(n) + shift) % (2 * n)
  return np.where(k < n, k, 2 * n - 1 - k)
