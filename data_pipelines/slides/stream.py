"""Tiles of a slide in full batches: read by threads a few batches ahead, never more of them in memory."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
import os

import numpy as np

_AHEAD = 2  # batches that are read while one is scored


def batches(example: Callable[[int], np.ndarray], n: int, size: int, first: int = 0,
            threads: int = 0) -> Iterator[tuple[int, np.ndarray]]:
  """(number, float32 [size,h,w,C]) of every batch from `first` on; the last one is padded.

  Batch b holds examples b*size + [0, size) whatever `first` is: a resumed run scores the same batches.

  Args:
    example: makes example i; called in threads, so that reading and decoding go on beside scoring.
    n: examples. threads: 0 = one a core, 8 at most.

  Raises:
    What `example` raises, at its batch.
  """
  threads = threads or min(8, os.cpu_count() or 1)
  waiting: collections.deque[Future] = collections.deque()
  following = first * size
  with ThreadPoolExecutor(threads) as pool:
    try:
      for number in range(first, -(-n // size)):
        while following < min(n, (number + 1 + _AHEAD) * size):
          waiting.append(pool.submit(example, following))
          following += 1
        found = [waiting.popleft().result() for _ in range(min(size, n - number * size))]
        yield number, np.stack(found + [found[-1]] * (size - len(found)))
    finally:
      for future in waiting:
        future.cancel()
