"""Validation during training: the method's validation loss over all examples, with fixed noise."""

from __future__ import annotations

from collections.abc import Callable
import functools

import jax
import numpy as np

from data_pipelines import stream
from medae_jax.core import parallel
from medae_jax.core.device import hosts
from medae_jax.core.errors import UserError

ONE_KIND = ("config.train.best_metric=val/image_auroc needs normal and anomalous images in the val split; it "
            "has one kind only")
_VAL_SEED = 20220707  # of the validation noise: the same in every run, so that runs compare


class Validator:
  """Callable (state, step, between) -> {"val/loss": ..., ...}; falsy without validation data.

  Sums and counts are exact over the whole set (never a mean of batch means); with several
  processes each takes its rows and the sums are added. "val/image_auroc" is computed where
  config.train.best_metric asks for it: from `score` on the split "val", which needs labels.
  """

  def __init__(self, method, dataset, config, writer):
    self._config, self._writer, self._dataset = config, writer, dataset
    self._source = dataset.validation()
    self._auroc = config.train.best_metric == "val/image_auroc"
    self._step, self._score, self._pictures = _programs(method)

  def __bool__(self):
    return self._source is not None or self._auroc

  def __call__(self, state, step: int, between: Callable[[], None]) -> dict[str, float]:
    """Numbers of `state`; `between` is called after each batch, and may raise to end it."""
    model = state.replace(opt={})
    if jax.process_count() > 1:
      model = parallel.to_host(model)
    values = {}
    if self._source is not None:
      values.update({f"val/{k}": v for k, v in self._losses(model, step, between).items()})
    if self._auroc:
      values["val/image_auroc"] = self._image_auroc(model, between)
    return values

  @functools.cached_property
  def _batches(self):
    return batches_of(self._source, self._config.train.eval_batch_size)

  def _losses(self, model, step, between):
    sums, count = {}, 0.0
    t = self._config.train
    for number, batch in enumerate(side_by_side(self._batches)):
      if t.eval_batches and number >= t.eval_batches:
        break
      valid = np.asarray(_first(batch, "valid"), np.float64)
      batch = numbered(batch, number)
      if number == 0:
        self._panel(model, batch, step)
      for name, value in self._step(model, batch).items():
        sums[name] = sums.get(name, 0.0) + float(np.sum(np.asarray(value, np.float64) * valid))
      count += valid.sum()
      between()
    names = sorted(sums)
    total = np.array([*(sums[n] for n in names), count])
    if jax.process_count() > 1:
      total = np.sum(hosts.exchange(total), 0)
    return {n: float(total[i] / total[-1]) for i, n in enumerate(names)}

  def _image_auroc(self, model, between):
    from sklearn.metrics import roc_auc_score
    scores, labels = [], []
    for batch in stream.eval_batches(self._dataset.split("val"),
                                     batch_size=self._config.train.eval_batch_size):
      value = np.asarray(self._score(model, batch))
      scores.append(value[batch["valid"]])
      labels.append(batch["label"][batch["valid"]])
      between()
    labels, values = np.concatenate(labels), np.concatenate(scores)
    known = labels >= 0  # -1: nobody knows, as of slices of an abnormal scan that nobody marked
    if len(set(labels[known])) < 2:
      raise UserError(ONE_KIND)
    return float(roc_auc_score(labels[known], values[known]))

  def _panel(self, model, batch, step):
    """First validation images with what `pictures` returns, side by side, to TensorBoard."""
    found = self._pictures(model, batch)
    if not found:
      return
    shown = {"image": batch["image"], **found}
    rows = []
    for i in range(min(4, len(batch["image"]))):
      rows.append(np.concatenate([np.asarray(v[i, ..., 0], np.float32) for v in shown.values()], 1))
    grey = np.clip(np.concatenate(rows), 0, 1)
    picture = np.repeat((255 * grey[..., None]).astype(np.uint8), 3, -1)
    self._writer.image(step, "val/" + "_".join(shown), picture)


@functools.lru_cache(maxsize=1)
def _programs(method):
  """Compiled (eval_step, score, pictures): one set for all stages, and for all runs side by side."""
  key = jax.random.key(_VAL_SEED)
  rng = lambda batch: jax.random.fold_in(key, _first(batch, "number"))
  return (parallel.per_example_fn(lambda s, batch: method.eval_step(s, batch, rng(batch))),
          parallel.per_example_fn(lambda s, batch: method.score(s, batch)["score"]),
          parallel.per_example_fn(lambda s, batch: method.pictures(s, batch, rng(batch)), seldom=True))


def batches_of(source, batch_size: int):
  """Evaluation batches of one source, or {name: those of a stream}; gone through as often as one likes."""
  options = dict(batch_size=batch_size, process_index=jax.process_index(),
                 process_count=jax.process_count(), seed=_VAL_SEED, with_batch_ops=True)
  if not isinstance(source, dict):
    return stream.evaluation(source, **options)
  return {name: stream.evaluation(s, **options) for name, s in source.items()}


def side_by_side(batches):
  """Iterator of batches, several streams nested (the shortest ends it)."""
  if not isinstance(batches, dict):
    return iter(batches)
  return (dict(zip(batches, group)) for group in zip(*batches.values()))


def numbered(batch, number: int):
  """Adds "number" int32 [B], the batch's own number, to a (nested) batch."""
  if any(hasattr(v, "items") for v in batch.values()):
    return {k: numbered(v, number) for k, v in batch.items()}
  return {**batch, "number": np.full(len(batch["index"]), number, np.int32)}


def _first(batch, key):
  """batch[key], or that of the first stream; a scalar for "number"."""
  value = batch if key in batch else next(iter(batch.values()))
  return value[key][0] if key == "number" else value[key]
