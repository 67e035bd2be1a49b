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
import gc
import weakref

import numpy as np
import tensorflow as tf

from data_pipelines.dataset import DataSet, Source
from data_pipelines.errors import UserError

# Before the first use of TensorFlow, or it takes the accelerator's memory. RuntimeError: TensorFlow
# already runs, whoever started it has chosen.
with contextlib.suppress(RuntimeError):
  tf.config.set_visible_devices([], "GPU")

_ENDLESS = np.iinfo(np.int64).max // 2
_PAD = 498247692  # what tf.random.experimental.index_shuffle puts before a seed of two numbers


def train_stream(dataset: DataSet, data_cfg, *, batch_size: int, first_step: int, seed: int,
                 process_index: int = 0, process_count: int = 1, workers: int | None = None
                 ) -> Iterator[dict]:
  """Endless batches from step `first_step` on.

  Args:
    dataset: its `train()` gives one source, or a dict of sources for several streams.
    data_cfg: `batch_sizes` {stream: n} overrides `batch_size` for single streams; 0 does not.
    batch_size: B, of the global batch of the first or only stream.
    first_step: step the stream starts at: the same batches as an unbroken stream has there.
    seed: of the permutations and of the ops.
    process_index, process_count: p and P; this process gets B/P rows.
    workers: parallel calls; None = as many as pay. Changes nothing but speed.

  Returns:
    Iterator of dicts of numpy arrays [B/P, ...]: the source's keys, what its ops add, and "index"
    int32 [B/P], the place in the global batch. Several streams: {"name": dict, ...}.

  Raises:
    ValueError: an empty source, or a batch that P does not divide.
  """
  sources = dataset.train()
  sizes = data_cfg.get("batch_sizes", None) or {}
  if isinstance(sources, Source):
    stream = _train(sources, batch_size, first_step, seed, 0, process_index, process_count, workers)
    return _Batches(stream)
  streams = {}
  for i, (name, source) in enumerate(sources.items()):
    size = int(sizes.get(name, 0) or batch_size)
    streams[name] = _train(source, size, first_step, seed, i, process_index, process_count, workers)
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
    ValueError: a batch that P does not divide.
  """
  lo, hi = _rows(batch_size, process_index, process_count)
  batches = -(-len(source) // batch_size)
  spec = _spec(source) if batches else {}

  def place(number):
    position = number * batch_size + tf.range(lo, hi, dtype=tf.int64)
    return tf.minimum(position, len(source) - 1), position

  def extras(number):
    picked, position = place(number)
    return {"valid": position < len(source), "position": picked,
            "index": tf.range(lo, hi, dtype=tf.int32)}

  ops = source.batch_ops if with_batch_ops else ()
  numbers = tf.data.Dataset.range(batches)
  return _Batches(
      _batches(source, spec, numbers, place, extras, ops, seed, lo, hi, batch_size, None))


def _rows(batch_size, process_index, process_count):
  if batch_size < 1 or batch_size % process_count:
    raise UserError(f"batch size {batch_size} must be a positive multiple of the {process_count} "
                     "processes; change config.train.batch_size")
  share = batch_size // process_count
  return process_index * share, (process_index + 1) * share


def _train(source, batch_size, first_step, seed, stream, process_index, process_count, workers):
  """tf.data stream of one source; `stream` numbers the streams so that they draw differently."""
  if not len(source):  # pylint: disable=use-implicit-booleaness-not-len
    raise UserError("the training split has no example; see config.data and the preparation "
                     "report")
  lo, hi = _rows(batch_size, process_index, process_count)
  n = len(source)
  seed = int(seed) + 7919 * stream

  def place(step):
    position = step * batch_size + tf.range(lo, hi, dtype=tf.int64)
    epoch = position // n
    # The public index_shuffle takes only one seed for all indices (its padding of [n, 2] seeds is
    # wrong in TF 2.21), and a batch can straddle epochs: the raw op, padded in the same way.
    seeds = tf.stack([tf.fill([hi - lo], tf.constant(v, tf.int64)) for v in (_PAD, seed)]
                     + [epoch], axis=-1)
    picked = tf.raw_ops.RandomIndexShuffle(
        index=position % n, seed=tf.cast(seeds, tf.int32),
        max_index=tf.fill([hi - lo], tf.constant(n - 1, tf.int64)), rounds=4)
    return picked, position

  extras = lambda step: {"index": tf.range(lo, hi, dtype=tf.int32)}
  steps = tf.data.Dataset.range(int(first_step), _ENDLESS)
  return _batches(source, _spec(source), steps, place, extras, source.batch_ops, seed, lo, hi,
                  batch_size, workers)


def _spec(source) -> dict[str, tf.TensorSpec]:
  """Dtype and shape of one example, with unknown sizes where they differ between examples."""
  example = source.read_one(0)
  def one(value):
    value = np.asarray(value)
    shape = [None] * (value.ndim - 1) + [value.shape[-1]] if source.ragged and value.ndim else (
        value.shape)
    return tf.TensorSpec(shape, tf.as_dtype(value.dtype))
  return {key: one(value) for key, value in example.items()}


def _read(source, spec, indices, single):
  """Calls the source's Python reader inside the graph and restores the shapes it loses."""
  keys = list(spec)
  def call(indices):
    values = source.read_one(int(indices)) if single else source.read(indices)
    return [np.asarray(values[key], dtype=spec[key].dtype.as_numpy_dtype) for key in keys]
  values = tf.numpy_function(call, [indices], [spec[key].dtype for key in keys], stateful=False)
  for key, value in zip(keys, values):
    value.set_shape(spec[key].shape if single else [indices.shape[0], *spec[key].shape])
  return dict(zip(keys, values))


def _batches(source, spec, numbers, place, extras, batch_ops, seed, lo, hi, size, workers):
  """range of batch numbers -> read -> example_ops -> batch -> batch_ops -> prefetch."""
  parallel = workers or tf.data.AUTOTUNE
  if source.ragged or source.example_ops:
    def example(index, position):
      # Folded into 31 bits: a seed is int32, and a stream may be longer than that.
      op_seed = tf.stack([tf.constant(seed, tf.int32),
                          tf.cast(position % (2**31 - 1), tf.int32)])
      value = _read(source, spec, index, single=True)
      for op in source.example_ops:
        value = op(value, op_seed)
      return value
    places = numbers.map(place).unbatch()
    examples = places.map(example, num_parallel_calls=parallel, deterministic=True)
    read = examples.batch(hi - lo, drop_remainder=True)
  else:
    read = numbers.map(lambda number: _read(source, spec, place(number)[0], single=False),
                       num_parallel_calls=parallel, deterministic=True)

  def finish(number, batch):
    batch = {**batch, **extras(number)}
    op_seed = tf.stack([tf.constant(seed, tf.int32), tf.cast(number, tf.int32)])
    for op in batch_ops:
      batch = op(batch, op_seed, lo, hi, size)
    return batch
  both = tf.data.Dataset.zip((numbers, read))
  stream = both.map(finish, num_parallel_calls=parallel, deterministic=True).prefetch(
      tf.data.AUTOTUNE)
  options = tf.data.Options()
  options.experimental_optimization.map_and_batch_fusion = False  # keeps the order of ops readable
  return stream.with_options(options)


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
