"""Batches out of sources. The training stream is a pure function of the step.

Step s of a stream reads places s*B + [0, B) of an endless sequence: epoch e is the permutation that
tf.random.experimental.index_shuffle gives for (seed, e). There is no shuffle buffer and no iterator
state to save: `first_step` starts anywhere in O(1) and exactly. Process p of P reads rows
[p*B/P, (p+1)*B/P) of every global batch. All ops are stateless and maps keep their order, so the
number of workers and of hosts changes nothing.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import os

import numpy as np

from data_pipelines.dataset import DataSet, Source, Views
from data_pipelines.errors import UserError

_NEXT_STREAM = 7919  # between the seeds of a data set's streams; checkpoints rely on it


def train_stream(dataset: DataSet, data_cfg, *, batch_size: int, first_step: int, seed: int,
                 process_index: int = 0, process_count: int = 1, workers: int | None = None,
                 views: int = 1) -> Iterator[dict]:
  """Endless batches from step `first_step` on.

  Args:
    dataset: its `train()` gives one source, or a dict of sources for several streams.
    data_cfg: `batch_sizes` {stream: n} overrides `batch_size` for single streams; 0 does not.
    batch_size: B, of the global batch of the first or only stream.
    first_step: step the stream starts at: the same batches as an unbroken stream has there.
    seed: of the permutations and of the ops.
    process_index, process_count: p and P; this process gets B/P rows.
    workers: parallel calls; None = as many as pay. Changes nothing but speed.
    views: > 1: an epoch holds every pair (example, view), and batches hold "view" (dataset.Views).

  Returns:
    Iterator of dicts of numpy arrays [B/P, ...]: the source's keys, what its ops add, and "index"
    int32 [B/P], the place in the global batch. Several streams: {"name": dict, ...}.

  Raises:
    UserError: an empty source, or a batch that P does not divide.
  """
  sources = dataset.train()
  if isinstance(sources, Source):
    sources = Views(sources, views) if views > 1 and len(sources) else sources
    share = _share(batch_size, process_index, process_count)
    return _training((_filled(sources), share, int(seed)), first_step, workers)
  if views > 1:
    raise UserError("this method trains on views of one stream of images; config.data has several streams")
  sizes, streams = data_cfg.get("batch_sizes", None) or {}, {}
  for number, (name, source) in enumerate(sources.items()):
    size = int(sizes.get(name, 0) or batch_size)
    # Streams of one data set must not draw the same numbers: each has a seed of its own.
    streams[name] = (_filled(source), _share(size, process_index, process_count),
                     int(seed) + _NEXT_STREAM * number)
  return _training(streams, first_step, workers)


def eval_batches(source: Source, **options) -> Iterator[dict]:
  """The batches of `evaluation`, once."""
  return iter(evaluation(source, **options))


def evaluation(source: Source, *, batch_size: int, process_index: int = 0, process_count: int = 1,
               seed: int = 0, with_batch_ops: bool = False,
               numbers: Sequence[int] | None = None) -> Iterable[dict]:
  """Every example once and in order, each time it is gone through; the last batch is padded with copies of
  the last example.

  Batches hold, on top of the source's keys: "valid" bool [b] (False = padding), "position" int64
  [b] (index into the source, for `meta`) and "index" int32 [b] (place in the global batch).

  Args:
    batch_size: B, of the global batch; process p of P gets rows [p*B/P, (p+1)*B/P) of each.
    seed: of the ops; batch number n gets [seed, n].
    with_batch_ops: applies the source's batch_ops (the noise of a validation loss).
    numbers: these batches alone, in this order; None = all.

  Raises:
    UserError: a batch that P does not divide.
  """
  share = _share(batch_size, process_index, process_count)
  if numbers is None:
    numbers = range(-(-len(source) // batch_size))  # rounded up: the last one is padded, never dropped
  ops = source.batch_ops if with_batch_ops else ()
  if ops or source.example_ops or source.ragged:
    from data_pipelines import tf_stream
    return tf_stream.Evaluation(source, share, numbers, seed, ops)
  return _Plain(source, share, numbers)


@dataclasses.dataclass(frozen=True)
class _Plain:
  """The batches of a source without ops."""
  source: Source
  share: _Share
  numbers: Sequence[int]

  def __iter__(self):
    return _read_ahead(lambda number: _eval_batch(self.source, self.share, number), self.numbers)


def _eval_batch(source, share, number) -> dict[str, np.ndarray]:
  """Batch `number` of a source without ops."""
  position = number * share.size + np.arange(share.low, share.high, dtype=np.int64)
  # Padding repeats the last example: real numbers, so that nothing a method computes on it can
  # become NaN. "valid" keeps it out of every result.
  picked = np.minimum(position, len(source) - 1)
  batch = {key: np.asarray(value) for key, value in source.read(picked).items()}
  return {**batch, "valid": position < len(source), "position": picked,
          "index": np.arange(share.low, share.high, dtype=np.int32)}


def _read_ahead(read, numbers: Sequence[int]) -> Iterator[dict]:
  """read(number) of each in order, a few of them read by threads before they are asked for."""
  threads = min(4, os.cpu_count() or 1)
  with ThreadPoolExecutor(threads) as pool:
    waiting: collections.deque = collections.deque()
    try:
      for number in numbers:
        waiting.append(pool.submit(read, number))
        if len(waiting) > threads:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:  # dropped before its end: what nobody will see is not read
      for future in waiting:
        future.cancel()


def _training(shares, first_step, workers) -> Iterator[dict]:
  from data_pipelines import tf_stream  # seconds of import that evaluation does without
  return tf_stream.training(shares, first_step, workers)


def _filled(source):
  if not len(source):
    raise UserError("the training split has no example; see config.data and the preparation "
                     "report")
  return source


@dataclasses.dataclass(frozen=True)
class _Share:
  """Rows low:high of every global batch of `size`: what this process reads of it."""
  low: int
  high: int
  size: int

  def __len__(self):
    return self.high - self.low


def _share(batch_size, process_index, process_count) -> _Share:
  if batch_size < 1 or batch_size % process_count:
    raise UserError(f"batch size {batch_size} must be a positive multiple of the {process_count} "
                     "processes; change config.train.batch_size")
  rows = batch_size // process_count
  return _Share(process_index * rows, (process_index + 1) * rows, batch_size)
