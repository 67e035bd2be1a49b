"""Arrays that are made when they are first read: scans that are drawn, in the order of reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import concurrent.futures
import os
import threading

import numpy as np


class Parts:
  """Makes arrays that belong together, once, whoever asks first; later ones wait for it.

  Args:
    make: () -> tuple of arrays.
  """

  def __init__(self, make: Callable[[], tuple[np.ndarray, ...]]):
    self._make, self._lock = make, threading.Lock()
    self._made: tuple[np.ndarray, ...] | None = None

  @property
  def made(self) -> bool:
    """Whether the arrays are there."""
    return self._made is not None

  def __call__(self) -> tuple[np.ndarray, ...]:
    with self._lock:
      if self._made is None:
        self._made = self._make()
      return self._made


class WhenRead:
  """Stands for array `number` of `parts`: its shape and type are known, its values are made when indexed."""

  def __init__(self, parts: Parts, number: int, shape: Sequence[int], dtype):
    self.parts, self._number = parts, number
    self.shape, self.dtype = tuple(shape), np.dtype(dtype)

  def __len__(self):
    return self.shape[0]

  def __getitem__(self, key):
    return self.parts()[self._number][key]

  def __array__(self, dtype=None, copy=None):
    return np.array(self.parts()[self._number], dtype, copy=copy)


def make_all(arrays: Iterable) -> None:
  """Makes those that are not there yet, several at a time; arrays of any other kind are there."""
  parts = {id(a.parts): a.parts for a in arrays if isinstance(a, WhenRead) and not a.parts.made}
  if len(parts) < 2:
    return  # reading it makes it
  with concurrent.futures.ThreadPoolExecutor(min(len(parts), 8, os.cpu_count() or 1)) as pool:
    list(pool.map(lambda p: p(), parts.values()))
