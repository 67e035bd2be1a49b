"""What feeds the steps: the data set of a stage, its stream, and data that live on the device."""

from __future__ import annotations

import jax
import ml_collections
import numpy as np

from data_pipelines import dataset as datasets, stream
from medae_jax.core import parallel, streams


def stack(batches, k: int):
  """k batches as one with leaves [k, B, ...]."""
  group = [next(batches) for _ in range(k)]
  return jax.tree.map(lambda *x: np.stack(x), *group)


def stage_dataset(config, stage, dataset):
  """The data set with the stage's overrides of config.data; the given one where there are none."""
  overrides = {k: v for k, v in stage.data.items() if k != "batch_size"}
  if not overrides:
    return dataset
  data = ml_collections.ConfigDict(config.data.to_dict())
  with data.unlocked():
    data.update(overrides)
  return datasets.open_dataset(data, config.seed)


def batches_of(dataset, config, stage, number: int, first_step: int, views: int = 1):
  """The training stream of a stage from its step `first_step` on.

  Args:
    stage: None where a method has no stages. number: its place among the stages.
    first_step: counted from the begin of the stage. views: of the method (Method.views).
  """
  size = stage.data.get("batch_size", config.train.batch_size) if stage else config.train.batch_size
  parallel.check_batch_size(size)
  for name, n in (config.data.get("batch_sizes", None) or {}).items():
    if n:  # 0 = config.train.batch_size
      parallel.check_batch_size(n, f"config.data.batch_sizes.{name}")
  return stream.train_stream(
      dataset, config.data, batch_size=size, first_step=first_step,
      seed=streams.data_seed(config, stage, number), process_index=jax.process_index(),
      process_count=jax.process_count(), views=views)


def resident_data(dataset, config, batch_size=None, stage=None, views: int = 1):
  """(arrays, sample function) of the device-resident mode, or (None, None).

  The epoch's permutation is drawn on the device from (seed, stage, epoch), so that the host sends
  nothing but the place in the batch. With `views` > 1 it is one of all pairs (image, view).
  """
  if not config.data.get("resident", False):
    return None, None
  arrays = dict(dataset.resident_arrays())
  n, size = views * len(next(iter(arrays.values()))), batch_size or config.train.batch_size
  key = streams.resident_key(config, stage)

  def sample(data, index, step):
    place = step * size + index
    first = (step * size) // n
    order = [jax.random.permutation(jax.random.fold_in(key, first + e), n)
             for e in range(2 if size <= n else size // n + 2)]
    rows = jax.numpy.stack(order)[place // n - first, place % n]
    found = {k: v[rows // views] for k, v in data.items()}
    return {**found, "view": rows % views} if views > 1 else found
  return jax.device_put(arrays), sample
