"""The kernels of swish_norm_pallas.py: what one program (block of threads) of each does.

All take the plan, the program's place in the grid (image; part, or group) and references to whole arrays
[B,pixels,C]. Every sum has a fixed order; there are no atomics.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
import jax.numpy as jnp

TILE = 4096  # values that a block of four warps works on at a time: 32 a thread
PARTS = 64  # blocks at most that share an image
HELD = 32768  # values of a group that one block holds: 64 for each of 512 threads


class Plan(NamedTuple):
  """How an image [height, width, channels] is cut: `parts` blocks, each of `tiles` tiles of `tile` pixels."""
  height: int
  width: int
  channels: int
  groups: int
  pad: bool
  eps: float
  interpret: bool

  @property
  def pixels(self) -> int:
    return self.height * self.width

  @property
  def size(self) -> int:
    """Channels of a group."""
    return self.channels // self.groups

  @property
  def tile(self) -> int:
    return max(1, TILE // self.channels)

  def parts(self, pixels: int) -> int:
    return min(PARTS, pl.next_power_of_2(pl.cdiv(pixels, self.tile)))

  def tiles(self, pixels: int) -> int:
    return pl.cdiv(pixels, self.tile * self.parts(pixels))

  def held(self, arrays: int) -> bool:
    """Whether a block holds a group of so many arrays."""
    return pl.next_power_of_2(self.pixels) * self.size * arrays <= HELD

  @property
  def out(self) -> tuple[int, int]:
    return (self.height + 2, self.width + 2) if self.pad else (self.height, self.width)


def statistics(plan, at, x_ref, bias_ref, out_ref):
  bias = bias_ref[:]

  def add(pixel, inside, carry):
    count, mean, square = carry
    s = _grouped(plan, _swish(_load(x_ref, at, pixel, inside), bias)[2])
    here = _count(inside)
    local = _over(jnp.where(inside[:, None, None], s, 0)) / (jnp.maximum(here, 1) * plan.size)
    spread = _over(jnp.where(inside[:, None, None], (s - local[None, :, None])**2, 0))
    share, delta = here / jnp.maximum(count + here, 1), local - mean
    return count + here, mean + delta * share, square + spread + delta**2 * count * share * plan.size
  zeros = jnp.zeros(plan.groups, jnp.float32)
  _, mean, square = _tiles(plan, at, plan.pixels, add, (jnp.float32(0), zeros, zeros))
  out_ref[(*at, 0)] = mean
  out_ref[(*at, 1)] = square


def normalise(plan, at, x_ref, bias_ref, scale_ref, shift_ref, statistics_ref, y_ref):
  bias, shift = bias_ref[:], shift_ref[:]
  mean, inverse = _mean_and_inverse(plan, statistics_ref, at)
  gain = inverse * scale_ref[:]

  def write(pixel, inside, carry):
    s = _swish(_load(x_ref, at, _source(plan, pixel), inside), bias)[2]
    _store(y_ref, at, pixel, inside, (s - mean) * gain + shift)
    return carry
  _tiles(plan, at, math.prod(plan.out), write, 0)


def gradient_sums(plan, at, x_ref, grad_ref, bias_ref, scale_ref, statistics_ref, rows_ref, sums_ref):
  bias = bias_ref[:]
  mean, inverse = _mean_and_inverse(plan, statistics_ref, at)

  def add(pixel, inside, carry):
    grad = _folded(plan, grad_ref, at, pixel, inside)
    normal = (_swish(_load(x_ref, at, pixel, inside), bias)[2] - mean) * inverse
    return carry[0] + jnp.sum(grad, 0), carry[1] + jnp.sum(grad * normal, 0)
  zeros = jnp.zeros(plan.channels, jnp.float32)
  rows = _tiles(plan, at, plan.pixels, add, (zeros, zeros))
  for i, row in enumerate(rows):
    rows_ref[(*at, i)] = row
    sums_ref[(*at, i)] = jnp.sum((row * scale_ref[:]).reshape(plan.groups, plan.size), 1)


def gradient(plan, at, x_ref, grad_ref, bias_ref, scale_ref, statistics_ref, rows_ref, sums_ref,
             dx_ref, out_ref):
  bias, scale = bias_ref[:], scale_ref[:]
  mean, inverse = _mean_and_inverse(plan, statistics_ref, at)
  count = plan.pixels * plan.size
  offset, tilt = (_spread(plan, jnp.sum(sums_ref[at[0], :, i], 0) / count) for i in (0, 1))

  def write(pixel, inside, carry):
    grad = _folded(plan, grad_ref, at, pixel, inside)
    dx = _through(_swish(_load(x_ref, at, pixel, inside), bias), grad, scale, mean, inverse, offset, tilt)
    _store(dx_ref, at, pixel, inside, dx)
    return carry + jnp.sum(jnp.where(inside[:, None], dx, 0), 0)
  out_ref[(*at, 0)] = _tiles(plan, at, plan.pixels, write, jnp.zeros(plan.channels, jnp.float32))
  out_ref[(*at, 1)] = rows_ref[(*at, 1)]
  out_ref[(*at, 2)] = rows_ref[(*at, 0)]


def whole(plan, at, x_ref, bias_ref, scale_ref, shift_ref, y_ref, statistics_ref):
  image, group = at
  pixel, inside, channel = _group(plan, group)
  s = _swish(_load(x_ref, at, pixel, None, channel), bias_ref[channel])[2]
  count = plan.pixels * plan.size
  mean = jnp.sum(jnp.where(inside, s, 0)) / count
  inverse = jax.lax.rsqrt(jnp.sum(jnp.where(inside, (s - mean)**2, 0)) / count + plan.eps)
  y = (s - mean) * (inverse * scale_ref[channel]) + shift_ref[channel]
  for target, there in _targets(plan, pixel):
    _store(y_ref, at, target, there, y, channel)
  statistics_ref[image, 0, group] = mean
  statistics_ref[image, 1, group] = inverse


def whole_gradient(plan, at, x_ref, grad_ref, bias_ref, scale_ref, statistics_ref, dx_ref, out_ref):
  image, group = at
  pixel, inside, channel = _group(plan, group)
  mean, inverse = statistics_ref[image, 0, group], statistics_ref[image, 1, group]
  scale = scale_ref[channel]
  z_gate_s = _swish(_load(x_ref, at, pixel, None, channel), bias_ref[channel])
  grad = _folded(plan, grad_ref, at, pixel, None, channel)
  counted = jnp.where(inside, grad, 0)
  sums = jnp.sum(counted, 0), jnp.sum(counted * (z_gate_s[2] - mean) * inverse, 0)
  offset, tilt = (jnp.sum(scale * row) / (plan.pixels * plan.size) for row in sums)
  dx = _through(z_gate_s, grad, scale, mean, inverse, offset, tilt)
  _store(dx_ref, at, pixel, None, dx, channel)
  out_ref[image, 0, channel] = jnp.sum(jnp.where(inside, dx, 0), 0)
  out_ref[image, 1, channel] = sums[1]
  out_ref[image, 2, channel] = sums[0]


def _through(z_gate_s, grad, scale, mean, inverse, offset, tilt):
  """Gradient of x; offset, tilt: means over the group of scale g and scale g x^."""
  z, gate, s = z_gate_s
  return inverse * (grad * scale - offset - (s - mean) * inverse * tilt) * gate * (1 + z * (1 - gate))


def _tiles(plan, at, pixels, body, carry):
  """carry after body(pixel [tile], inside [tile], carry) of every tile of this program's part."""
  tiles = plan.tiles(pixels)

  def one(i, carry):
    pixel = (at[1] * tiles + i) * plan.tile + jnp.arange(plan.tile)
    return body(pixel, pixel < pixels, carry)
  return jax.lax.fori_loop(0, tiles, one, carry)


def _group(plan, group):
  """Of one group: pixels [P] (P a power of two, so the last several times), which count [P,1], channels."""
  channel = group * plan.size + jnp.arange(plan.size)
  pixel = jnp.arange(pl.next_power_of_2(plan.pixels))
  return jnp.minimum(pixel, plan.pixels - 1), pixel[:, None] < plan.pixels, channel


def _at(ref, at, pixel, channel):
  channel = jnp.arange(ref.shape[2]) if channel is None else channel
  return ref.at[at[0], pixel[:, None], channel[None, :]]


def _load(ref, at, pixel, inside, channel=None):
  """[P,C] float32 of this program's image, 0 where it is outside."""
  if inside is None:
    return triton.load(_at(ref, at, pixel, channel)).astype(jnp.float32)
  return triton.load(_at(ref, at, pixel, channel), mask=inside[:, None], other=0).astype(jnp.float32)


def _store(ref, at, pixel, inside, value, channel=None):
  mask = None if inside is None else inside[:, None]
  triton.store(_at(ref, at, pixel, channel), value.astype(ref.dtype), mask=mask)


def _swish(x, bias):
  """z = x + bias, its sigmoid, their product."""
  z = x + bias
  gate = jax.nn.sigmoid(z)
  return z, gate, z * gate


def _grouped(plan, s):
  return s.reshape(-1, plan.groups, plan.size)


def _over(s):
  """[P,G,size] -> [G]."""
  return jnp.sum(jnp.sum(s, 0), 1)


def _count(inside):
  return jnp.sum(inside.astype(jnp.float32))


def _spread(plan, value):
  """[G] -> [C]."""
  return jnp.broadcast_to(value[:, None], (plan.groups, plan.size)).reshape(plan.channels)


def _mean_and_inverse(plan, ref, at):
  """Mean and 1 / standard deviation [C] of this program's image, of what `statistics` or `whole` wrote."""
  image = at[0]
  if len(ref.shape) == 3:
    return _spread(plan, ref[image, 0]), _spread(plan, ref[image, 1])
  means, squares = ref[image, :, 0], ref[image, :, 1]  # [parts,G]
  each = plan.tiles(plan.pixels) * plan.tile
  count = jnp.clip(plan.pixels - jnp.arange(ref.shape[1]) * each, 0, each).astype(jnp.float32)[:, None]
  mean = jnp.sum(means * count, 0) / plan.pixels
  square = jnp.sum(squares, 0) + jnp.sum((means - mean)**2 * count, 0) * plan.size
  return _spread(plan, mean), _spread(plan, jax.lax.rsqrt(square / (plan.pixels * plan.size) + plan.eps))


def _source(plan, pixel):
  """The pixel of the image that pixel `pixel` of the output shows."""
  if not plan.pad:
    return pixel
  mirror = lambda i, n: jnp.where(i < 0, -i, jnp.where(i >= n, 2 * n - 2 - i, i))
  row, column = pixel // (plan.width + 2) - 1, pixel % (plan.width + 2) - 1
  return mirror(row, plan.height) * plan.width + mirror(column, plan.width)


def _targets(plan, pixel):
  """(pixels [P] of the output that show pixels `pixel` of the image, where they do [P]): 1, padded 9."""
  if not plan.pad:
    return [(pixel, None)]
  ends = lambda i, n: ((i + 1, None), (0 * i, i == 1), (0 * i + n + 1, i == n - 2))
  rows, columns = ends(pixel // plan.width, plan.height), ends(pixel % plan.width, plan.width)
  place = lambda row, column: row * (plan.width + 2) + column
  first = place(rows[0][0], columns[0][0])  # for what is not stored: there it collides with nothing
  found = [(place(row, column), _both(on, too)) for row, on in rows for column, too in columns]
  return [(place if on is None else jnp.where(on, place, first), on) for place, on in found]


def _both(one, other):
  """Both masks; None: everywhere."""
  return other if one is None else one if other is None else one & other


def _folded(plan, ref, at, pixel, inside, channel=None):
  """Gradient [P,C] of the pixels: of all that shows them."""
  return sum(_load(ref, at, target, _both(inside, there), channel) for target, there in _targets(plan, pixel))
