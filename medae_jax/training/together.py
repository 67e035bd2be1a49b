"""Several runs trained together on one accelerator: the training step under `vmap`.

For sweeps of small networks (three seeds, ten classes, folds), whose single steps leave an
accelerator idle. The runs must agree in everything that is compiled: config.method, model, optim,
train and the shapes of a batch; seeds and data may differ. Each run draws what it would draw alone
(its own stream, its own key), so the results are those of single runs up to float order, and each
keeps a workdir of its own: checkpoints, metrics.jsonl and resume work as for a single run.

Frozen networks (`Method.frozen`, VGG19) are shared, not copied: only what is trained has the
leading axis of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
from typing import Any

from absl import logging
import jax
import numpy as np

from data_pipelines import dataset as datasets
from medae_jax.core import config as config_lib
from medae_jax import train
from medae_jax.training import feed
from medae_jax.core import checkpoint, loops
from medae_jax.core import method as method_lib
from medae_jax.core.errors import UserError
from medae_jax.training.interrupt import GracefulStop
from medae_jax.training.progress import Progress
from medae_jax.training.validate import Validator


def signature(config) -> str | None:
  """Runs with the same text can be trained together; None: this one only alone.

  Stages of several shapes, early stopping and device-resident data are left to single runs.
  """
  method = method_lib.load(config)
  if len(method.stages()) != 1 or config.train.early_stop or config.data.get("resident", False):
    return None
  data = {k: v for k, v in config.data.items() if k in ("name", "dataset", "crop_size", "resize")}
  groups = {k: config[k].to_dict() for k in ("method", "model", "optim", "train") if k in config}
  return json.dumps({**groups, "data": data}, sort_keys=True, default=str)


def train_together(configs: Sequence[Any], workdirs: Sequence[str]) -> list[str | None]:
  """Trains the runs to their end, or goes on where their checkpoints stand.

  Args:
    configs: of one `signature`. workdirs: one a run.

  Returns:
    For each run None, or why it failed; a failed run leaves the others alone. After a signal every
    run is saved and has the reason "interrupted".

  Raises:
    ValueError: more than one device, batches of different shapes, checkpoints at different steps.
  """
  if jax.device_count() > 1:
    raise UserError("runs are vectorised on one device; with several set config.sweep.together=1")
  method = method_lib.load(configs[0])
  stage = method_lib.stages_of(method)[0]
  members = [_Member(c, w, method, stage) for c, w in zip(configs, workdirs)]
  if len({m.step for m in members}) > 1:
    raise UserError("checkpoints stand at different steps: "
                     f"{[m.step for m in members]}; these runs go on one by one")
  specs = {json.dumps(checkpoint.batch_spec(m.first), default=str, sort_keys=True) for m in members}
  if len(specs) > 1:
    raise UserError("batches differ in shape; these runs go on one by one")
  try:
    with GracefulStop() as stop:
      _loop(members, method, stage, configs[0].train, stop)
  finally:
    for member in members:
      member.run.close()
  return [m.error for m in members]


class _Run(train.Run):
  """The bookkeeping of train.Run without a progress bar of its own."""

  def __post_init__(self):
    super().__post_init__()
    self.progress.close()
    total = sum(s.steps for s in method_lib.stages_of(self.method))
    self.progress = Progress(total, self.first_step, self.writer, self.config.train, active=False)


class _Member:
  """One run: data, first state, bookkeeping, and why it failed."""

  def __init__(self, config, workdir, method, stage):
    self.config, self.error = config, None
    dataset = feed.stage_dataset(
        config, stage, datasets.open_dataset(config.data, config.seed))
    self.dataset = dataset
    first = next(feed.batches_of(dataset, config, stage, 0, 0))
    method_lib.check_batch(method, first)
    config_lib.write_config(config, workdir)
    checkpoints = checkpoint.Checkpoints(workdir, config.train.keep)
    restored = checkpoints.restore(
        "last", lambda meta: train.abstract_state(method, (stage,), meta).opt)
    if restored is not None:
      self.state, meta = restored
    else:
      self.state = train.init_state(method, config, first)
      meta = {"stage": stage.name, "best": None, "stale": 0, "evaluated": -1, "batches": {},
              "done": False}
    meta["batches"][stage.name] = checkpoint.batch_spec(first)
    self.step, self.first = int(self.state.step), first
    self.batches = feed.batches_of(dataset, config, stage, 0, self.step)
    self.run = _Run(config, method, dataset, checkpoints, meta, first_step=self.step,
                    workdir=workdir)
    self.run.stage_batch = first
    self.validator = Validator(method, dataset, config, self.run.writer)

  def guard(self, action):
    """Runs `action`; a failure of this run is noted and ends this run only."""
    if self.error is None:
      try:
        action()
      except (FloatingPointError, OSError, ValueError) as e:
        logging.warning("%s failed: %s", self.run.workdir, e)
        self.error = str(e)


def _loop(members, method, stage, t, stop):
  """Evaluate (the state before the step) -> save -> step -> log, for all members at once."""
  step, end = members[0].step, stage.begin + stage.steps
  if step >= end and all(m.run.meta["done"] for m in members):
    return
  states, axes = _stacked([m.state for m in members], method.frozen)
  step_fn = _step_fn(method, stage, axes, [m.config.seed for m in members])
  one = lambda r: jax.tree.map(lambda x, a: x if a is None else x[r], states, axes,
                               is_leaf=lambda x: x is None)
  size = stage.data.get("batch_size", t.batch_size)
  pending = []

  def flush():
    for after, metrics in jax.device_get(pending):
      for r, member in enumerate(members):
        member.guard(lambda m=member, r=r: m.run.progress.add(
            after, {k: v[:, r] for k, v in metrics.items()}, size * len(metrics["loss"])))
    pending.clear()
    for member in members:
      member.guard(member.run.progress.flush)

  def each(action):
    flush()
    for r, member in enumerate(members):
      member.guard(lambda m=member, r=r: action(m, one(r)))

  while step < end and any(m.error is None for m in members):
    if train.due(step, t.eval_every) and step > 0:
      each(lambda m, s: m.run.evaluate(s, step, m.validator))
    if train.due(step, t.save_every) and step > members[0].step:
      each(lambda m, s: m.run.save(s))
    k = min(t.steps_per_call, train.next_boundary(step, end, t) - step)
    batches = [feed.stack(m.batches, k) for m in members]
    states, metrics = step_fn(states, jax.tree.map(lambda *x: np.stack(x, 1), *batches))
    pending.append((step + k, metrics))
    step += k
    if step // t.log_every > (step - k) // t.log_every:
      flush()
      logging.info("step %d of %d, %d runs together", step, end, len(members))
    if stop.requested(step):
      each(lambda m, s: m.run.save(s))
      for member in members:
        member.error = member.error or "interrupted"
      return
  each(lambda m, s: m.run.evaluate(s, step, m.validator, delta=0.0))
  each(lambda m, s: m.run.save(s))
  each(lambda m, s: m.run.finish(s))


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


def _step_fn(method, stage, axes, seeds):
  """Compiled (states, batches [K, N, B, ...]) -> (states, metrics [K, N])."""
  keys = jax.vmap(jax.random.key)(np.array(seeds))

  def one(state, batch, key):
    rng = jax.random.fold_in(key, state.step)
    return method.train_step(state, batch, rng, stage=stage, axis_name=None)
  together = jax.vmap(one, in_axes=(axes, 0, 0), out_axes=(axes, 0))

  def many(states, batches):
    return loops.scan(lambda s, b: together(s, b, keys), states, batches)
  return loops.dispatch(jax.jit(many, donate_argnums=(0,)))
