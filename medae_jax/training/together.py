"""Lanes: where the states of the runs are while a stage trains.

One run has all devices (`Alone`). Several runs share one device (`Together`): the training step
under `vmap`, for small networks (three seeds, ten classes, folds) whose single steps leave an
accelerator idle. They must agree in everything that is compiled: config.method, model, optim, train
and the shapes of a batch; seeds and data may differ. Each run draws what it would draw alone (its
own stream, its own keys), so the results are those of single runs up to float order, and each keeps
a workdir of its own: checkpoints, metrics.jsonl and resume work as for a single run.

Frozen networks (`Method.frozen`, VGG19) are shared, not copied: only what is trained has the
leading axis of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import itertools
import json

import jax
import numpy as np

from medae_jax.core import checkpoint, method as method_lib, parallel, streams
from medae_jax.core.device import loops
from medae_jax.core.errors import UserError
from medae_jax.training import cost, durations, feed

_GROUPS = ("method", "model", "optim", "train")  # of the config: they decide what is compiled


def lanes(runs, stage) -> Alone | Together:
  """The lanes of `runs`, which have entered `stage`."""
  return Alone(runs[0], stage) if len(runs) == 1 else Together(runs, stage)


class Alone:
  """One run, data-parallel over all devices."""

  def __init__(self, run, stage):
    self._run, self._state, self._announced = run, run.state, False
    config, method = run.config, run.method
    self._size = size = stage.data.get("batch_size", config.train.batch_size)
    resident, sample = feed.resident_data(run.stage_data, config, size, stage, method.views)
    self._batches: Iterator = itertools.chain([run.first_batch], run.batches)
    if resident is not None:  # the host then sends nothing but the place in the batch
      resident = method.cache(self._state, resident, stage)  # what depends on the image alone
      self._batches = itertools.repeat({"index": run.first_batch["index"]})
    self._step = parallel.train_step_fn(
        lambda s, b, r, axis: method.train_step(s, b, r, stage=stage, axis_name=axis),
        streams.step_key(config, stage), mode=config.parallel.mode,
        reduce=config.parallel.reduce, resident=resident, sample=sample)

  def advance(self, k: int):
    """k steps; returns their metrics, {name: [k]} on the device."""
    batches = feed.stack(self._batches, k)
    if not self._announced:
      self._announced = True
      cost.announce(self._step, self._state, batches, self._size, self._run.config)
    self._state, metrics = self._step(self._state, batches)
    return metrics

  def each(self, action: Callable) -> None:
    """action(run, state) -> state to go on with."""
    new = self._run.guard(action, self._run, self._state)
    if new is not self._state:  # computed by the method: back to where the step wants it
      self._state = parallel.to_host(new)


class Together:
  """Several runs on one device, the state stacked along a leading axis of runs."""

  def __init__(self, runs, stage):
    self._runs, self._method = runs, runs[0].method
    self._batches = [itertools.chain([r.first_batch], r.batches) for r in runs]
    keys = jax.numpy.stack([streams.step_key(r.config, stage) for r in runs])
    self._put([r.state for r in runs])
    self._step = _step_fn(self._method, stage, self._axes, keys)

  def _put(self, states) -> None:
    self._states, self._axes = _stacked(states, self._method.frozen)

  def _take(self, r: int):
    return jax.tree.map(lambda x, a: x if a is None else x[r], self._states, self._axes,
                        is_leaf=lambda x: x is None)

  def advance(self, k: int):
    """k steps of every run; returns their metrics, {name: [k, runs]} on the device."""
    # A run that failed or ended keeps its lane, with another run's batch: nobody reads it, and a
    # lane less would be another program to compile.
    found = {r: run.guard(feed.stack, self._batches[r], k) for r, run in enumerate(self._runs)
             if run.going}
    usable = [b for b in found.values() if b is not None]
    if not usable:
      return None
    batches = [usable[0] if found.get(r) is None else found[r] for r in range(len(self._runs))]
    self._states, metrics = self._step(self._states,
                                       jax.tree.map(lambda *x: np.stack(x, 1), *batches))
    return metrics

  def each(self, action: Callable) -> None:
    """action(run, state) -> state to go on with, for every run that has not failed."""
    changed = {}
    for r, run in enumerate(self._runs):
      if run.error is None:
        state = run.state if run.ended else self._take(r)
        ended, new = run.ended, run.guard(action, run, state)
        if run.ended and not ended:  # a copy: the next step donates the frozen networks
          run.state = jax.tree.map(jax.numpy.copy, new)
        elif new is not None and new is not state:
          changed[r] = new
    if changed:
      self._put([changed.get(r, self._take(r)) for r in range(len(self._runs))])


# -------------------------------------------------------------------------- which runs fit together
def signature(config) -> str | None:
  """Runs with the same text can be trained together; None: this one only alone.

  Device-resident data are left to single runs: every run would need a copy.
  """
  config = durations.without_data(config)  # the runs' data may differ; `check_alike` asks again
  if not method_lib.load(config).stages() or config.data.get("resident", False):
    return None
  data = {k: v for k, v in config.data.items() if k in ("name", "dataset", "crop_size", "resize")}
  return json.dumps({**_compiled(config), "data": data}, sort_keys=True, default=str)


def common_step(configs, workdirs) -> int | None:
  """The step that runs go on from together; None = each from its newest checkpoint.

  A kill between their saves leaves some a checkpoint ahead. One by one they would go on with other
  float orders: they go back to the newest step that all have; to the start where some had not saved
  yet and the others had just once.
  """
  if len(workdirs) == 1:
    return None
  found = [checkpoint.finished_steps(w) for w in workdirs]
  if len({max(f, default=0) for f in found}) == 1:
    return None
  first = {configs[0].train.save_every}
  if all(f in (set(), first) for f in found):
    return 0
  return max(set.intersection(*found), default=None)


def check_alike(runs) -> None:
  """Checks runs that have been opened.

  Raises:
    UserError: several devices, other configs, batches of different shapes, checkpoints at
      different steps: these runs go on one by one.
  """
  if len(runs) == 1:
    return
  if jax.device_count() > 1:
    raise UserError("runs are vectorised on one device; with several set config.sweep.together=1")
  steps = [int(r.state.step) for r in runs]
  if len(set(steps)) > 1:
    raise UserError(f"checkpoints stand at different steps: {steps}; these runs go on one by one")
  for what, of in (("config", lambda r: _compiled(r.config)),
                   ("shape of a batch", lambda r: checkpoint.batch_spec(r.first_batch))):
    if len({json.dumps(of(r), sort_keys=True, default=str) for r in runs}) > 1:
      raise UserError(f"the runs differ in {what}; they go on one by one")


def _compiled(config):
  groups = {k: config[k].to_dict() for k in _GROUPS if k in config}
  groups["train"].pop("random_streams", None)  # the keys differ anyway
  return groups


# ------------------------------------------------------------------------------- the axis of runs
def _stacked(states, frozen):
  """(states with a leading axis of runs, in_axes of that tree); frozen networks stay single."""
  frozen = [k for k in frozen if k in states[0].params and all(_same(
      states[0].params[k], s.params[k]) for s in states[1:])]
  stack = lambda *x: jax.numpy.stack(x)
  params = {k: states[0].params[k] if k in frozen else
            jax.tree.map(stack, *[s.params[k] for s in states]) for k in states[0].params}
  rest = jax.tree.map(stack, *[s.replace(params={}) for s in states])
  axes = jax.tree.map(lambda _: 0, rest)
  return rest.replace(params=params), axes.replace(params={
      k: jax.tree.map(lambda _, k=k: None if k in frozen else 0, v) for k, v in params.items()})


def _same(a, b) -> bool:
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def _step_fn(method, stage, axes, keys):
  """Compiled (states, batches [K, N, B, ...]) -> (states, metrics [K, N]); keys [N]."""
  def one(state, batch, key):
    rng = jax.random.fold_in(key, state.step)
    return method.train_step(state, batch, rng, stage=stage, axis_name=None)
  together = jax.vmap(one, in_axes=(axes, 0, 0), out_axes=(axes, 0))

  def many(states, batches):
    return loops.scan(lambda s, b: together(s, b, keys), states, batches)
  return loops.dispatch(jax.jit(many, donate_argnums=(0,)))
