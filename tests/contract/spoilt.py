"""Batches with one array that a method has to refuse."""

import numpy as np


def spoilt(batch, key, change):
  """The batch with one array, "stream/name" or "name", changed (None takes it out)."""
  stream, _, name = key.rpartition("/")
  part = dict(batch[stream] if stream else batch)
  value = change(np.array(part.pop(name)))
  part.update({} if value is None else {name: value})
  return {**batch, stream: part} if stream else part


def with_pixel(number):
  """A change for `spoilt`: the first value of the array."""
  def change(value):
    value[(0,) * value.ndim] = number
    return value
  return change
