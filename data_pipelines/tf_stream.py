"""The pipeline of a stream in TensorFlow: what needs its ops, its shuffle and its threads."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping, Sequence
import gc
import weakref

import numpy as np

from data_pipelines.tf import tf

_ENDLESS = np.iinfo(np.int64).max // 2
_PAD = 498247692  # what tf.random.experimental.index_shuffle puts before a seed of two numbers


def training(shares, first_step: int, workers: int | None) -> Iterator[dict]:
  """Endless batches of one stream, or of several side by side.

  Args:
    shares: (source, share, seed), or {name: (source, share, seed)} for several streams.
  """
  failures: list[Exception] = []
  if isinstance(shares, dict):
    return _Batches(tf.data.Dataset.zip({
        name: _endless(source, share, first_step, seed, workers, failures)
        for name, (source, share, seed) in shares.items()}), failures)
  source, share, seed = shares
  return _Batches(_endless(source, share, first_step, seed, workers, failures), failures)


class Evaluation:
  """The batches of these numbers of an evaluation whose source has ops; see stream.evaluation.

  The graph is made once: a validation that goes through it again saves tenths of a second.
  """

  def __init__(self, source, share, numbers: Sequence[int], seed: int, ops):
    def place(number):
      position = number * share.size + tf.range(share.low, share.high, dtype=tf.int64)
      return tf.minimum(position, len(source) - 1), position

    def extras(number):
      picked, position = place(number)
      return {"valid": position < len(source), "position": picked, "index": _index(share)}
    self._failures: list[Exception] = []
    chosen = tf.data.Dataset.from_tensor_slices(np.asarray(numbers, np.int64))
    self._stream = _pipeline(source, share, chosen, place, extras, ops, seed, None, self._failures)

  def __iter__(self):
    self._failures.clear()
    return _Batches(self._stream, self._failures)


def _index(share):
  """int32 [b]: places in the global batch. Methods draw per-example numbers from them."""
  return tf.range(share.low, share.high, dtype=tf.int32)


def _endless(source, share, first_step, seed, workers, failures):
  """The training pipeline of one source, from `first_step` on."""
  n = len(source)

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
  return _pipeline(source, share, steps, place, lambda step: {"index": _index(share)},
                   source.batch_ops, seed, workers, failures)


# Its functions are traced as they stand: a rewriting of their Python, which none of them needs, takes most of
# the time until the first batch.
@tf.autograph.experimental.do_not_convert
def _pipeline(source, share, numbers, place, extras, batch_ops, seed, workers, failures):
  """Batch numbers -> examples -> example_ops -> batches -> batch_ops -> prefetched batches.

  Args:
    numbers: data set of the numbers of batches: steps in training, 0, 1, ... in evaluation.
    place: number -> (indices into the source, places in the stream), int64 [b] both.
    extras: number -> further keys of the batch.
    failures: gets what the source raises, of which TensorFlow keeps the text alone.
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
      value = _read(source, spec, index, True, failures)
      for op in source.example_ops:
        value = op(value, op_seed)
      return value
    examples = numbers.map(place).unbatch().map(example, num_parallel_calls=parallel,
                                                deterministic=True)
    read = examples.batch(len(share), drop_remainder=True)
  else:
    # A whole batch in one call of Python: the interpreter is entered once a batch.
    read = numbers.map(lambda number: _read(source, spec, place(number)[0], False, failures),
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


def _read(source, spec, indices, single, failures):
  """Calls the source's Python reader inside the graph and restores the shapes it loses."""
  keys = list(spec)
  def call(indices):
    try:
      values = source.read_one(int(indices)) if single else source.read(indices)
    except Exception as error:
      failures.append(error)
      raise
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

  def __init__(self, stream, failures):
    self._stream, self._iterator, self._failures = stream, iter(stream), failures
    _Batches._open.add(self)

  def __iter__(self):
    return self

  def __next__(self):
    if self._iterator is None:
      raise StopIteration
    try:
      batch = next(self._iterator)
    except tf.errors.OpError:
      if self._failures:  # a damaged file: the reader's own line, not TensorFlow's about it
        raise self._failures[0] from None
      raise
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
