"""What would stop a run only at its first validation or after its training, found before its first step."""

from __future__ import annotations

from collections.abc import Callable
import concurrent.futures
import math
import time

from absl import logging
import jax
import numpy as np

from data_pipelines import dataset as datasets, stream
from data_pipelines.dataset import Source, Subset
from data_pipelines.formats import doubts
from medae_jax.core import checkpoint, scoring
from medae_jax.core.device import memory
from medae_jax.core.errors import UserError
from medae_jax.training import validate

AUROC, LOSS = "val/image_auroc", "val/loss"  # any method with a validation loss has the second
SECONDS = 5.0  # that the files which evaluation scores are read for, before the first step
_THREADS = 8
_FLAT = 1e-9  # spread of means of one grey: rounding
_LOOKED_AT: set[tuple[str, str]] = set()  # (split, config.data): the runs of a sweep share their files


def check_sizes(config) -> None:
  """Refuses batches whose images alone fill the memory: the system would end the process without a word.

  Raises:
    UserError: with the field.
  """
  shape = datasets.module(config.data.name).spec(config.data).shape
  installed = memory.installed()
  image = 4 * math.prod(n or 1 for n in shape)
  for group, field in (("train", "batch_size"), ("train", "eval_batch_size"), ("eval", "batch_size")):
    size = config[group].get(field, 1)
    if size * image > installed:
      raise UserError(f"config.{group}.{field}={size}: its images alone take {size * image / 1e9:.3g} GB, "
                      f"this machine has {installed / 1e9:.3g} GB")


def check(method, stages, config, dataset, batch, abstract_state: Callable) -> None:
  """Traces validation and score, computing nothing, at the shapes of one example each.

  Of a method that is fitted when training ends only fields that are missing are foreseen; nothing of stages
  with data of their own.

  Args:
    batch: of the first stage; gives shapes only. abstract_state: start.abstract_state.

  Raises:
    UserError: config.train.best_metric is not among the validation numbers; what `eval_step` and `score`
      refuse, such as a filter that is wider than the images.
  """
  if any(set(s.data) - {"batch_size"} for s in stages):
    return
  spec = checkpoint.batch_spec(batch)
  meta = {"stage": stages[-1].name if stages else "", "batches": {s.name: spec for s in stages} or {"": spec}}
  state = abstract_state(method, stages, meta)
  if stages:
    check_metric(config, dataset, lambda example: jax.eval_shape(
        method.eval_step, state, example, jax.random.key(0)))
  split = next((s for s in config.eval.splits if s in dataset.splits and len(dataset.split(s))), None)
  if split is None:
    return
  shown = _first(dataset.split(split))
  wanted = {k: shown[k] for k in (*method.score_needs, *method.score_optional) if k in shown}
  if set(method.score_needs) <= wanted.keys():
    scoring.trace(config, method, state, wanted, fitted=not method.fits)


def check_metric(config, dataset, trace) -> None:
  """Refuses a config.train.best_metric that no validation of this run has.

  Args:
    trace: validation batch of one example -> what `eval_step` returns.
  """
  source, wanted = dataset.validation(), config.train.best_metric
  if wanted == AUROC:
    if "val" not in dataset.splits:
      raise UserError(f"config.train.best_metric={wanted} needs a split val, which {dataset.name} does not "
                      "have")
    return
  if source is None or wanted == LOSS:  # without validation nothing is chosen
    return
  one = {k: _one(s) for k, s in source.items()} if isinstance(source, dict) else _one(source)
  example = validate.numbered(next(validate.side_by_side(validate.batches_of(one, jax.process_count()))), 0)
  there = sorted([*(f"val/{name}" for name in trace(example)), AUROC])
  if wanted not in there:
    raise UserError(f"config.train.best_metric={wanted!r} is not among the validation numbers: "
                    f"{', '.join(there)}")


def look(config, dataset, seconds: float = SECONDS) -> None:
  """Reads the files that evaluation scores, for so many seconds at most, evenly spread; the rest is said.

  Of prepared volumes a slice of each: their preparation has read the rest, and the first that is read of a
  volume compares its checksum. Synthetic ones are no files.

  Raises:
    UserError, OSError: a file that cannot be read, as the evaluation would say it after the training.
      UserError: config.train.best_metric=val/image_auroc, and val has images of one kind.
  """
  for split in dict.fromkeys(s for s in config.eval.splits if s in dataset.splits):
    source, asked = dataset.split(split), (split, str(config.data))
    n = len(source)
    if not n or not source.meta(0).get("path") or dataset.synthetic or asked in _LOOKED_AT:
      continue
    order, what = np.random.default_rng(0).permutation(n), "files"
    if "slice" in source.meta(0):
      order, what = _one_of_each(source, order), "volumes"
    small = _read(source, order, time.monotonic() + seconds)
    _LOOKED_AT.add(asked)
    if len(small) < len(order):
      logging.info("%d of the %d %s of %s were read in %g s, and are sound; the others are read when they "
                   "are scored.", len(small), len(order), what, split, seconds)
    if what == "files":
      paths = [str(source.meta(i)["path"]) for i in small]
      doubts.say_negatives(paths, list(small.values()))
      flat = [p for p, image in zip(paths, small.values()) if np.ptp(image) < _FLAT]
      doubts.say_flat(flat, len(small), split)
  if config.train.best_metric == AUROC and "val" in dataset.splits:
    _check_two_kinds(dataset.split("val"), seconds)


def _one_of_each(source: Source, order) -> np.ndarray:
  """Of every patient the example that comes first in `order`."""
  first: dict[str, int] = {}
  for i in order:
    meta = source.meta(int(i))
    first.setdefault(f"{meta.get('path')} {meta.get('patient')}", int(i))
  return np.array(list(first.values()))


def _check_two_kinds(source: Source, seconds: float) -> None:
  """Refuses a val split of one kind, as far as its images can be read in so many seconds."""
  end, seen = time.monotonic() + seconds, set[int]()
  for i in np.random.default_rng(0).permutation(len(source)):
    if time.monotonic() > end:
      return
    seen |= {int(source.read_one(int(i)).get("label", -1))} - {-1}  # -1: not known
    if len(seen) > 1:
      return
  raise UserError(validate.ONE_KIND)


def _one(source: Source) -> Source:
  return Subset(source, np.array([0]))


def _first(source: Source):
  """The batch of a source's first example, as evaluation makes it."""
  return next(stream.eval_batches(_one(source), batch_size=1))


def _read(source: Source, order, end: float) -> dict[int, np.ndarray]:
  """{example: its image in small} of those that were read; the error of the first, in `order`, that fails."""
  def one(i):
    if time.monotonic() > end:
      return None
    image = source.read_one(int(i)).get("image")
    return np.zeros(1) if image is None else doubts.small(image)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    futures = [pool.submit(one, i) for i in order]
    try:
      return {int(i): found for i, f in zip(order, futures) if (found := f.result()) is not None}
    finally:
      for f in futures:
        f.cancel()
