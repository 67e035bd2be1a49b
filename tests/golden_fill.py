"""The closed-form parameter fill of the golden vectors: no weights are stored with them.

Every tensor is a function of its reference name, its shape and `fill_seed`, so that a test can
rebuild the parameters of the reference network. The hash is 32-bit FNV-1a, the mixer a 32-bit
integer finaliser; both run in uint64 with masks, because floats would lose the low bits.
"""

from __future__ import annotations

import math

import numpy as np

MASK = 0xFFFFFFFF


def fnv1a(name: str) -> int:
  """32-bit FNV-1a hash of the name's UTF-8 bytes."""
  h = 0x811C9DC5
  for byte in name.encode("utf-8"):
    h = ((h ^ byte) * 0x01000193) & MASK
  return h


def uniform(name: str, count: int, fill_seed: int) -> np.ndarray:
  """float64 [count] in (-1, 1): element i depends on (name, fill_seed, i) alone."""
  mask = np.uint64(MASK)
  start = (fnv1a(name) + fill_seed * 0x85EBCA77) & MASK
  x = (np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B1) + np.uint64(start)) & mask
  x ^= x >> np.uint64(16)
  x = (x * np.uint64(0x7FEB352D)) & mask
  x ^= x >> np.uint64(15)
  x = (x * np.uint64(0x846CA68B)) & mask
  x ^= x >> np.uint64(16)
  return 2.0 * ((x.astype(np.float64) + 0.5) / 2.0**32) - 1.0


def fill(name: str, shape, kind: str, fill_seed: int, conv_gain: float = 1.0) -> np.ndarray:
  """One tensor in the reference's layout.

  Args:
    name: state-dictionary name of the reference implementation.
    shape: its shape there: conv [O,I,kh,kw], transposed conv [I,O,kh,kw], linear [out,in].
    kind: conv, convT, linear, bias, bn_weight, bn_bias, bn_mean or bn_var.
    fill_seed: stated by the golden case, as is `conv_gain` (factor on conv kernels only).

  Returns:
    float32 array of that shape.

  Raises:
    ValueError: unknown `kind`.
  """
  shape = tuple(int(n) for n in shape)
  r = uniform(name, math.prod(shape), fill_seed)
  if kind == "conv":
    value = r * math.sqrt(6.0 / math.prod(shape[1:])) * conv_gain
  elif kind == "convT":
    value = r * math.sqrt(6.0 / shape[0])
  elif kind == "linear":
    value = r * math.sqrt(6.0 / shape[1])
  elif kind in ("bias", "bn_bias", "bn_mean"):
    value = 0.1 * r
  elif kind == "bn_weight":
    value = 1.0 + 0.2 * r
  elif kind == "bn_var":
    value = 1.25 + 0.25 * r
  else:
    raise ValueError(f"tensor {name!r}: unknown fill kind {kind!r}")
  return value.astype(np.float32).reshape(shape)
