"""Where marks are: evidence above a threshold, grown; the same on the device and on the host.

The method marks pixels inside the jitted `score`, the predictor marks blended tiles in NumPy, and
the evaluator counts grown evidence to choose the threshold: all three call this file.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np


def grow(values, radius: int):
  """Maximum over squares of 2 radius + 1 pixels; the outside of the image counts as 0.

  Args:
    values: [B,H,W,C] bool, or numbers >= 0: NumPy or jax.

  Returns:
    The same kind of array; the input itself at radius 0.
  """
  if not radius:
    return values
  numpy = jnp if isinstance(values, jax.Array) else np
  larger = numpy.logical_or if values.dtype == bool else numpy.maximum  # ONNX has no maximum of truths
  for axis in (1, 2):  # separable: a square's maximum is that of its columns' maxima
    padding = [(radius, radius) if a == axis else (0, 0) for a in range(values.ndim)]
    padded, size = numpy.pad(values, padding), values.shape[axis]
    part = lambda i: padded[(slice(None),) * axis + (slice(i, i + size),)]  # noqa: B023
    values = functools.reduce(larger, map(part, range(2 * radius + 1)))
  return values


def find(evidence, threshold: float, radius: int):
  """Marked pixels, bool [B,H,W,C]: evidence >= threshold, grown in all eight directions.

  Equal to `grow(evidence, radius) >= threshold`: a threshold can be chosen on grown evidence.
  """
  return grow(evidence >= threshold, radius)
