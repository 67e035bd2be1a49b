"""Batches out of sources. The training stream is a pure function of the step.

Step s of a stream reads places s*B + [0, B) of an endless sequence: epoch e is the permutation that
tf.random.experimental.index_shuffle gives for (seed, e). There is no shuffle buffer and no iterator
state to save: `first_step` starts anywhere in O(1) and exactly. Process p of P reads rows
[p*B/P, (p+1)*B/P) of every global batch. All ops are stateless and maps keep their order, so the
number of workers and of hosts changes nothing.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import gc
import weakref

import numpy as np
import tensorflow as tf

from data_pipelines.dataset import DataSet, Source, Views
from data_pipelines.errors import UserError

# Before the first use of TensorFlow, or it takes the accelerator's memory. RuntimeError: TensorFlow
# already runs, whoever started it has chosen.
with contextlib.suppress(RuntimeError):
  tf.config.set_visible_devices([], "GPU")

_ENDLESS = np.iinfo(np.int64).max // 2
_NEXT_STREAM = 7919  # between the seeds of a data set's streams; checkpoints rely on it
_PAD = 498247692  # what tf.random.experimental.index_shuffle puts before a seed of two numbers


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
    return _Batches(_endless(sources, share, first_step, int(seed), workers))
  if views > 1:
    raise UserError("this method trains on views of one stream of images; config.data has several streams")
  sizes, streams = data_cfg.get("batch_sizes", None) or {}, {}
  for number, (name, source) in enumerate(sources.items()):
    size = int(sizes.get(name, 0) or batch_size)
    # Streams of one data set must not draw the same numbers: each has a seed of its own.
    streams[name] = _endless(source, _share(size, process_index, process_count), first_step,
                             int(seed) + _NEXT_STREAM * number, workers)
  return _Batches(tf.data.Dataset.zip(streams))


def eval_batches(source: Source, *, batch_size: int, process_index: int = 0, process_count: int = 1,
                 seed: int = 0, with_batch_ops: bool = False) -> Iterator[dict]:
  """Every example once and in order; the last batch is padded with copies of the last example.

  Batches hold, on top of the source's keys: "valid" bool [b] (False = padding), "position" int64
  [b] (index into the source, for `meta`) and "index" int32 [b] (place in the global batch).

  Args:
    batch_size: B, of the global batch; process p of P gets rows [p*B/P, (p+1)*B/P) of each.
    seed: of the ops; batch number n gets [seed, n].
    with_batch_ops: applies the source's batch_ops (the noise of a validation loss).

  Raises:
    UserError: a batch that P does not divide.
  """
  share = _share(batch_size, process_index, process_count)
  batches = -(-len(source) // batch_size)  # rounded up: the last one is padded, never dropped

  def place(number):
    position = number * batch_size + tf.range(share.low, share.high, dtype=tf.int64)
    # Padding repeats the last example: real numbers, so that nothing a method computes on it can
    # become NaN. "valid" keeps it out of every result.
    return tf.minimum(position, len(source) - 1), position

  def extras(number):
    picked, position = place(number)
    return {"valid": position < len(source), "position": picked, "index": share.index()}

  ops = source.batch_ops if with_batch_ops else ()
  numbers = tf.data.Dataset.range(batches)
  return _Batches(_pipeline(source, share, numbers, place, extras, ops, seed, None))


@dataclasses.dataclass(frozen=True)
class _Share:
  """Rows low:high of every global batch of `size`: what this process reads of it."""
  low: int
  high: int
  size: int

  def __len__(self):
    return self.high - self.low

  def index(self):
    """int32 [b]: places in the global batch. Methods draw per-example numbers from them."""
    return tf.range(self.low, self.high, dtype=tf.int32)


def _share(batch_size, process_index, process_count) -> _Share:
  if batch_size < 1 or batch_size % process_count:
    raise UserError(f"batch size {batch_size} must be a positive multiple of the {process_count} "
                     "processes; change config.train.batch_size")
  rows = batch_size // process_count
  return _Share(process_index * rows, (process_index + 1) * rows, batch_size)


def _endless(source, share, first_step, seed, workers):
  """The training pipeline of one source, from `first_step` on."""
  n = len(source)
  if not n:
    raise UserError("the training split has no example; see config.data and the preparation "
                     "report")

  def place(step):
    # Where this step's rows lie in the endless sequence of epochs. Nothing is remembered between
    # steps: that is why a resumed run reads what an unbroken one would have read.
    position = step * share.size + tf.range(share.low, share.high, dtype=tf.int64)
    epoch = position // n
    # The public index_shuffle takes only one seed for all indices (its padding of [n, 2] seeds is
    # wrong in TF 2.21), and a batch can straddle epochs: the raw op, padded in the same way.
    seeds = tf.stack([tf.fill([len(share)], tf.constant(v, tf.int64)) for v in (_PAD, seed)]
                     + [epoch], axis=-1)
    picked = tf.raw_ops.RandomIndexShuffle(
        index=position % n, seed=tf.cast(seeds, tf.int32),
        max_index=tf.fill([len(share)], tf.constant(n - 1, tf.int64)), rounds=4)
    return picked, position

  steps = tf.data.Dataset.range(int(first_step), _ENDLESS)
  return _pipeline(source, share, steps, place, lambda step: {"index": share.index()},
                   source.batch_ops, seed, workers)


def _pipeline(source, share, numbers, place, extras, batch_ops, seed, workers):
  """Batch numbers -> examples -> example_ops -> batches -> batch_ops -> prefetched batches.

  Args:
    numbers: data set of the numbers of batches: steps in training, 0, 1, ... in evaluation.
    place: number -> (indices into the source, places in the stream), int64 [b] both.
    extras: number -> further keys of the batch.
  """
  parallel, spec = workers or tf.data.AUTOTUNE, _spec(source)
  if source.ragged or source.example_ops:
    # One example at a time: sizes differ until the ops have brought them to one.
    def example(index, position):
      # The op's seed is the example's place in the stream: the same augmentation whatever the batch
      # size and the number of processes. Folded into 31 bits, for a seed is int32 and a stream may
      # be longer.
      op_seed = tf.stack([tf.constant(seed, tf.int32),
                          tf.cast(position % (2**31 - 1), tf.int32)])
      value = _read(source, spec, index, single=True)
      for op in source.example_ops:
        value = op(value, op_seed)
      return value
    examples = numbers.map(place).unbatch().map(example, num_parallel_calls=parallel,
                                                deterministic=True)
    read = examples.batch(len(share), drop_remainder=True)
  else:
    # A whole batch in one call of Python: the interpreter is entered once a batch.
    read = numbers.map(lambda number: _read(source, spec, place(number)[0], single=False),
                       num_parallel_calls=parallel, deterministic=True)

  def finish(number, batch):
    # Batch ops draw for the global batch with the seed [seed, number] and keep this process's rows:
    # one device or eight, the noise of an example is the same.
    batch = {**batch, **extras(number)}
    op_seed = tf.stack([tf.constant(seed, tf.int32), tf.cast(number, tf.int32)])
    for op in batch_ops:
      batch = op(batch, op_seed, share.low, share.high, share.size)
    return batch
  stream = tf.data.Dataset.zip((numbers, read)).map(
      finish, num_parallel_calls=parallel, deterministic=True).prefetch(tf.data.AUTOTUNE)
  options = tf.data.Options()
  options.experimental_optimization.map_and_batch_fusion = False  # keeps the order of ops readable
  return stream.with_options(options)


def _spec(source) -> dict[str, tf.TensorSpec]:
  """Dtype and shape of one example, with unknown sizes where they differ between examples."""
  if not len(source):
    return {}
  def one(value):
    value = np.asarray(value)
    shape = [None] * (value.ndim - 1) + [value.shape[-1]] if source.ragged and value.ndim else (
        value.shape)
    return tf.TensorSpec(shape, tf.as_dtype(value.dtype))
  return {key: one(value) for key, value in source.read_one(0).items()}


def _read(source, spec, indices, single):
  """Calls the source's Python reader inside the graph and restores the shapes it loses."""
  keys = list(spec)
  def call(indices):
    values = source.read_one(int(indices)) if single else source.read(indices)
    return [np.asarray(values[key], dtype=spec[key].dtype.as_numpy_dtype) for key in keys]
  # stateful=False: reading is pure, and TensorFlow may then call it from several threads at once.
  values = tf.numpy_function(call, [indices], [spec[key].dtype for key in keys], stateful=False)
  for key, value in zip(keys, values):
    value.set_shape(spec[key].shape if single else [indices.shape[0], *spec[key].shape])
  return dict(zip(keys, values))


class _Batches:
  """Iterator of dicts of numpy arrays, several streams nested.

  Prefetching threads call Python readers; were they still at it while the interpreter shuts down,
  the process would hang. `close` (also run at exit) drops the iterator, which waits for them.
  """

  _open = weakref.WeakSet()

  def __init__(self, stream):
    self._stream, self._iterator = stream, iter(stream)
    _Batches._open.add(self)

  def __iter__(self):
    return self

  def __next__(self):
    if self._iterator is None:
      raise StopIteration
    batch = next(self._iterator)
    return {key: {k: v.numpy() for k, v in value.items()} if isinstance(value, Mapping)
            else value.numpy() for key, value in batch.items()}

  def close(self):
    self._iterator = self._stream = None

  @classmethod
  def close_all(cls):
    for batches in list(cls._open):
      batches.close()
    gc.collect()


atexit.register(_Batches.close_all)
