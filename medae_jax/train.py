"""The one training loop: stages x steps, for one run or for several side by side. Read `train_runs`.

The order inside a step never changes: validate (the state before the step) -> save -> step -> log.
A resumed run therefore repeats nothing and skips nothing: data and randomness are functions of the
step (core/streams.py), and the state is all that a checkpoint holds.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import functools
import importlib
import sys
import types
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from medae_jax.core import method as method_lib, scoring
from medae_jax.core.errors import UserError
from medae_jax.training import cost, lock, start, together
from medae_jax.training.interrupt import GracefulStop
from medae_jax.training.progress import Progress


def train(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains one run, or goes on where the newest checkpoint of `workdir` stands.

  Args:
    config: resolved and locked; written to <workdir>/config.json.
    workdir: folder of the run, made where it is missing.

  Returns:
    {"step", "finished" (False after a signal), "stopped" (True after a signal, also one that came when
    all was done), "best", "state"}.

  Raises:
    UserError: config, data and method do not fit each other, before anything is compiled; or the
      device's memory does not suffice.
    FloatingPointError: a loss is not finite; checkpoints of earlier steps are kept.
    OSError: a checkpoint could not be saved.
  """
  if config.get("seeds", ()):
    raise UserError(f"config.seeds={tuple(config.seeds)}: medae_jax.sweep.seeds trains several seeds")
  return train_runs([config], [workdir])[0]


def train_runs(configs: Sequence[Any], workdirs: Sequence[str]) -> list[dict[str, Any]]:
  """As `train`, for several runs whose step is one compiled program (training/together.py).

  Args:
    configs: of one `together.signature`. workdirs: one a run.

  Returns:
    For each run what `train` returns, and "error": None, or why it failed. With several runs a
    failed one leaves the others alone; a single one raises.

  Raises:
    UserError: also where several runs do not fit together; they can go on one by one.
  """
  with contextlib.ExitStack() as locks:
    for workdir in workdirs if not jax.process_index() else ():
      locks.enter_context(lock.held(workdir, "training"))
    return _train_runs(configs, workdirs)


def _train_runs(configs, workdirs) -> list[dict[str, Any]]:
  runs: list[Any] = []
  try:
    # ---------------------------------------------- data, method and state, new or from a checkpoint
    at_most = together.common_step(configs, workdirs)
    for config, workdir in zip(configs, workdirs, strict=True):
      runs.append(start.open_run(config, workdir, method=runs[0].method if runs else None,
                                 alone=len(configs) == 1, at_most=at_most))
    together.check_alike(runs)
    stages = method_lib.stages_of(runs[0].method)
    progress = Progress(sum(s.steps for s in stages), runs[0].first_step,
                        configs[0].train.log_every, active=jax.process_index() == 0)

    # ---------------------------------------------------------------------------------- the stages
    # A signal ends the loop after the step in flight, with a checkpoint; the launcher then exits
    # with 0, and the same command goes on.
    with GracefulStop() as stop, progress:
      stopped = False
      for run in runs:
        run.between = stop.check
      for number in range(method_lib.stage_at(stages, runs[0].first_step), len(stages)):
        with scoring.memory_explained(f"training with a batch of {configs[0].train.batch_size}",
                                       cost.remedies(configs[0])):
          stopped = _stage(runs, stages, number, progress, stop)
        if stopped:
          break
      for run in runs if not stopped else ():
        run.guard(run.finish)
      stopped = stopped or stop.came
      for run in runs if stopped else ():
        run.guard(run.checkpoints.wait)  # "saved" is said when it is so, and not broken off by a signal
        if run.error is None:
          logging.warning("Interrupted: %s holds the checkpoint of step %d of %d. The same command "
                          "goes on from there.", run.workdir, int(run.state.step), progress.total)
  finally:
    for run in runs:
      run.close()
  return [{**run.result(), "stopped": stopped} for run in runs]


def _stage(runs, stages, number: int, progress: Progress, stop: GracefulStop) -> bool:
  """Trains one stage, from where the states stand; True where a signal ended it.

  A stage has one set of shapes: data are opened, the state grows and the step is compiled here.
  """
  stage, t, last = stages[number], runs[0].config.train, number == len(stages) - 1
  for run in runs:
    run.guard(run.enter, stage, number)
  runs = [run for run in runs if run.error is None]
  if not runs:
    return False
  lanes = together.lanes(runs, stage)
  progress.receive = functools.partial(_log, runs)
  step, end, stopped = int(runs[0].state.step), stage.begin + stage.steps, False

  while step < end:
    # Validation and saving come before the step, so that both see the state that "step" numbers.
    # `paused` waits for what is in flight: no state is saved whose losses have not been checked.
    if due(step, t.eval_every) and step > 0:
      with progress.paused():
        lanes.each(functools.partial(_validate, last=last))
    if not any(run.going for run in runs):  # failed, or ended early
      break
    if due(step, t.save_every) and step > runs[0].first_step:
      with progress.paused():
        lanes.each(lambda run, state: run.save(state))

    if stop.came:
      stopped = True
      break

    # One dispatch never runs over a step at which something else is due.
    k = min(t.steps_per_call, next_boundary(step, end, t) - step)
    metrics = lanes.advance(k)
    if metrics is None:  # the data of every run failed
      break
    step += k
    progress.add(step, metrics, k * stage.data.get("batch_size", t.batch_size))
    if stop.requested(step):
      stopped = True
      break

  with progress.paused():
    shown = not stopped and len(stages) > 1
    lanes.each(lambda run, state: run.leave(
        state, validate=last and not stopped,
        picture=functools.partial(run.picture, stage, number) if shown else None))
  return stopped or stop.came


def _validate(run, state, *, last: bool):
  """Validates one run; in the last stage the numbers choose the best state, and may end the run.

  Earlier stages have other losses and image sizes: their numbers do not compare.
  """
  if run.ended:
    return state
  state = run.evaluate(state, choose=last)
  run.ended = last and run.stale()
  return state


def _log(runs, fetched, images_per_second) -> dict[str, float]:
  """Hands each run its numbers, of all that `progress` fetched; returns those of the first."""
  shown = {}
  for r, run in enumerate(runs):
    if run.going:
      # [k] of a single run, [k, runs] of several
      own = [(step, {name: np.reshape(v, (len(v), -1))[:, r] for name, v in metrics.items()})
             for step, metrics in fetched]
      mean = run.guard(run.log, own, images_per_second) or {}
      shown = shown or mean
  return shown


def due(step: int, every: int) -> bool:
  """True at multiples of `every`; never when it is 0."""
  return every > 0 and step % every == 0


def next_boundary(step: int, end: int, t) -> int:
  """The next step at which something besides training happens."""
  marks = [(step // every + 1) * every for every in (t.eval_every, t.save_every) if every]
  return min([end, *marks])


class _Callable(types.ModuleType):
  """`medae_jax.train(config, workdir)` of the API has the name of this file: the module can be called."""

  def __call__(self, config, workdir, **options):
    """Trains and evaluates; returns an open run. See `medae_jax.api.train`."""
    return importlib.import_module(f"{__package__}.api").train(config, workdir, **options)


sys.modules[__name__].__class__ = _Callable
