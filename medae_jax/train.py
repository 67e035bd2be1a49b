"""The one training loop: stages x steps. Read `train` top to bottom.

The order inside a step never changes: evaluate (the state before the step) -> save -> step -> log.
A resumed run therefore repeats nothing and skips nothing: data and randomness are functions of the
step, and the state is all that a checkpoint holds.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from data_pipelines import dataset as datasets
from data_pipelines import stream
from medae_jax.core import checkpoint, checks, parallel, trained
from medae_jax.core import config as config_lib
from medae_jax.core import method as method_lib
from medae_jax.core.errors import UserError
from medae_jax.tasks import base as tasks
from medae_jax.training import early_stop, feed, stage_pictures
from medae_jax.training.interrupt import GracefulStop
from medae_jax.training.progress import Progress
from medae_jax.training.validate import Validator
from medae_jax.training.writer import Writer


def train(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains, or goes on where the newest checkpoint of `workdir` stands.

  Args:
    config: resolved and locked; written to <workdir>/config.json.
    workdir: folder of the run, made where it is missing.

  Returns:
    {"step", "finished" (False after a signal), "best", "state"}.

  Raises:
    ValueError: config, data and method do not fit each other, before anything is compiled.
    FloatingPointError: a loss is not finite; checkpoints of earlier steps are kept.
    OSError: a checkpoint could not be saved.
  """
  # ------------------------------------------------------------------------------ data and method
  checks.check(config)
  tasks.check(config)
  parallel.check_batch_size(config.train.batch_size)
  method = method_lib.load(config)
  stages = method_lib.stages_of(method)
  dataset = datasets.open_dataset(config.data, config.seed)
  announce(dataset, config)
  first_batch = next(feed.batches_of(dataset, config, stages[0] if stages else None, 0, 0))
  method_lib.check_batch(method, first_batch)
  # What evaluation needs is asked for now, not after the whole training.
  tasks.check(config, method_lib.image_shape(first_batch), dataset.splits)
  config_lib.write_config(config, workdir)

  # ------------------------------------------------------------------- the state, new or restored
  checkpoints = checkpoint.Checkpoints(workdir, config.train.keep)
  opt_of = lambda meta: abstract_state(method, stages, meta).opt
  restored = checkpoints.restore("last", opt_of)
  if restored is not None:
    state, meta = restored
    logging.info("Resuming at step %d (stage %s).", int(state.step), meta["stage"])
  else:
    state = init_state(method, config, first_batch)
    meta = {"stage": stages[0].name if stages else "", "best": None, "stale": 0, "evaluated": -1,
            "batches": {}, "done": False}
  parameter_overview(state)
  run = Run(config, method, dataset, checkpoints, meta, first_step=int(state.step), workdir=workdir)

  # ------------------------------------------------------------------------------------- the loop
  try:
    with GracefulStop() as stop:
      for i in range(method_lib.stage_at(stages, int(state.step)), len(stages)):
        state = run.stage(state, stages, i, stop)
        if run.stopped:
          break
      if not run.stopped and not run.meta["done"]:
        state = run.finish(state)
  except FloatingPointError as e:
    checkpoints.wait()
    kept = checkpoints.steps("last")
    raise FloatingPointError(f"{e} The checkpoint of step {kept[0]} is kept." if kept else
                             f"{e} There is no checkpoint yet.") from None
  finally:
    run.close()
  return {"step": int(state.step), "finished": run.meta["done"], "best": run.meta["best"],
          "state": state}


@dataclasses.dataclass
class Run:
  """What the loop carries besides the state: writers, checkpoints and their meta data."""
  config: Any
  method: Any
  dataset: Any
  checkpoints: checkpoint.Checkpoints
  meta: dict[str, Any]
  first_step: int
  workdir: str
  stopped: bool = False
  stage_batch: Any = None

  def __post_init__(self):
    main = jax.process_index() == 0
    self.writer = Writer(self.workdir, self.first_step, active=main)
    total = sum(s.steps for s in method_lib.stages_of(self.method))
    self.progress = Progress(total, self.first_step, self.writer, self.config.train, active=main)

  def stage(self, state, stages, i, stop):
    """Trains one stage; returns the state at its end, or where a signal or early stop ended it."""
    stage, t = stages[i], self.config.train
    end, step = stage.begin + stage.steps, int(state.step)
    dataset = feed.stage_dataset(self.config, stage, self.dataset)
    batches = feed.batches_of(dataset, self.config, stage, i, step - stage.begin)
    first = next(batches)
    if self.meta["stage"] != stage.name:  # also when training stopped exactly between two stages
      state = self.method.grow(state, stage, jax.random.fold_in(jax.random.key(self.config.seed), i),
                               first)
    self.meta.update(stage=stage.name)
    self.meta["batches"][stage.name] = checkpoint.batch_spec(first)
    self.stage_batch = first
    batch_size = stage.data.get("batch_size", t.batch_size)
    resident, sample = feed.resident_data(dataset, self.config, batch_size)
    if resident is not None:  # what depends on the image alone
      resident = self.method.cache(state, resident, stage)
    step_fn = parallel.train_step_fn(
        lambda s, b, r, axis: self.method.train_step(s, b, r, stage=stage, axis_name=axis),
        self.config.seed, mode=self.config.parallel.mode, resident=resident, sample=sample)
    if resident is not None:
      batches = ({"index": first["index"]} for _ in itertools.count())
      first = next(batches)
    batches = itertools.chain([first], batches)
    validator = Validator(self.method, dataset, self.config, self.writer)
    last = i == len(stages) - 1  # numbers of stages before it (other losses, sizes) do not compare

    while step < end:
      if due(step, t.eval_every) and step > 0:
        self.evaluate(state, step, validator, choose=last)
        if last and self.early():
          break
      if due(step, t.save_every) and step > self.first_step:
        self.save(state)
      k = min(t.steps_per_call, next_boundary(step, end, t) - step)
      state, metrics = step_fn(state, feed.stack(batches, k))
      step += k
      self.progress.add(step, metrics, k * batch_size)
      if stop.requested(step):
        self.stopped = True
        break
    self.progress.flush()
    if not self.stopped and last:
      self.evaluate(state, step, validator, delta=0.0)
    self.save(state)
    if not self.stopped and len(stages) > 1:
      with self.progress.paused():
        stage_pictures.write(self.workdir, i, stage, self.method, state, dataset)
    return state

  def evaluate(self, state, step, validator, choose=True, delta=None):
    """Validation numbers of the state, and (`choose`) the best checkpoint if they are the best.

    Args:
      delta: gain that counts as one; None = config.train.early_delta.
    """
    self.progress.flush()
    if self.meta["evaluated"] == step or not validator:
      return
    with self.progress.paused():
      values = validator(state, step)
      self.writer.scalars(step, values)
      self.meta["evaluated"] = step
      value, t = values.get(self.config.train.best_metric), self.config.train
      if value is None:
        raise UserError(f"config.train.best_metric={t.best_metric!r} is not among the validation "
                         f"numbers: {sorted(values)}")
      if not choose:
        return
      delta = t.get("early_delta", 0.0) if delta is None else delta
      if early_stop.improves(value, self.meta["best"], t.best_mode, delta):
        self.meta.update(best=value, stale=0)
        self.checkpoints.save("best", state, self.full_meta(state))
      else:
        self.meta["stale"] += 1

  def early(self) -> bool:
    """True when the validation has not improved for config.train.early_stop validations."""
    limit = self.config.train.early_stop
    if early_stop.exhausted(self.meta["stale"], limit):
      logging.info("No better %s for %d validations: training ends early.",
                   self.config.train.best_metric, limit)
      return True
    return False

  def save(self, state):
    """Asynchronous save of the last state; never of one whose losses are not checked."""
    self.progress.flush()
    with self.progress.paused():
      self.checkpoints.save("last", state, self.full_meta(state))

  def finish(self, state):
    """`finalize` on normal data, then the closing checkpoint."""
    if self.method.fits:
      source = self.dataset.train()
      batches = stream.eval_batches(source, batch_size=self.config.train.eval_batch_size)
      state = self.method.finalize(state, batches)
      if self.stage_batch is None:  # nothing was trained: the batch of init gives the shapes
        self.meta["batches"][""] = checkpoint.batch_spec(
            next(stream.eval_batches(source, batch_size=1)))
      best = self.checkpoints.restore_model("best")
      self.meta["done"] = True
      self.checkpoints.replace("last", state, self.full_meta(state))
      if best is not None:  # what scoring restores must be finalised as well
        self.checkpoints.replace("best", self.method.finalize(best[0], stream.eval_batches(
            source, batch_size=self.config.train.eval_batch_size)), {**best[1], "done": True})
    else:
      self.meta["done"] = True
    return state

  def full_meta(self, state):
    return {**self.meta, "checksum": checkpoint.checksum(state.params)}

  def close(self):
    self.progress.close()
    self.writer.close()
    self.checkpoints.close()


# ------------------------------------------------------------------------------- pieces of the loop
def due(step: int, every: int) -> bool:
  """True at multiples of `every`; never when it is 0."""
  return every > 0 and step % every == 0


def next_boundary(step: int, end: int, t) -> int:
  """The next step at which something besides training happens."""
  marks = [(step // every + 1) * every for every in (t.eval_every, t.save_every) if every]
  return min([end, *marks])


def init_state(method, config, batch):
  """Fresh parameters, from the seed or from the run that config.train.init_from names."""
  state = method_lib.fresh_state(method, jax.random.key(config.seed), batch)
  if config.train.init_from:
    try:
      other = trained.load(config.train.init_from, {"eval.checkpoint": "best"}).state
    except (UserError, OSError) as e:
      raise UserError(f"config.train.init_from={config.train.init_from}: {e}") from e
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    if shapes(other.params) != shapes(state.params):
      raise UserError(f"config.train.init_from={config.train.init_from}: its parameters do not fit "
                       "config.model")
    state = state.replace(params=parallel.to_host(other.params))
  return state


def abstract_state(method, stages, meta):
  """Shapes of the state of the stage that a checkpoint's meta names, without computing anything."""
  rng = jax.random.key(0)
  batches = {name: checkpoint.zeros_of(spec) for name, spec in meta["batches"].items()}
  state = jax.eval_shape(lambda: method.init(rng, batches[stages[0].name if stages else ""]))
  names = [s.name for s in stages]
  for stage in stages[1:names.index(meta["stage"]) + 1] if stages else ():
    state = jax.eval_shape(lambda s, stage=stage: method.grow(s, stage, rng, batches[stage.name]),
                           state)
  return state


def announce(dataset, config) -> None:
  """Counts per split, loud words on synthetic data, and a hint where no accelerator is found."""
  logging.info("Data: %s", json.dumps(dataset.describe(), default=str)[:2000])
  if dataset.synthetic:
    logging.warning("SYNTHETIC DATA (%s): results say nothing about patients. Give your own with "
                    "--config.data.dir=FOLDER.", dataset.name)
  logging.info("%d device(s): %s", jax.device_count(), jax.devices()[0].device_kind)
  if jax.default_backend() == "cpu" and config.train.steps > 5000:
    logging.warning("No accelerator found: this full-size run will take very long on a CPU. "
                    "The argument :demo of the config (--config=FILE.py:demo) trains in minutes.")


def parameter_overview(state) -> None:
  """One log line a network with its number of parameters."""
  for net, params in state.params.items():
    leaves = jax.tree.leaves(params)
    logging.info("Network %s: %s parameters in %d arrays", net,
                 f"{sum(int(np.prod(np.shape(x))) for x in leaves):,}", len(leaves))
  sys.stdout.flush()
