"""What a run carries besides its state: data, checkpoints and their meta data, numbers, its failure."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from absl import logging
import jax
import numpy as np

from data_pipelines import stream
from medae_jax.core import checkpoint, streams
from medae_jax.core.errors import UserError
from medae_jax.training import early_stop, feed, stage_pictures
from medae_jax.training.interrupt import Interrupted
from medae_jax.training.validate import Validator
from medae_jax.training.writer import Writer


@dataclasses.dataclass
class Run:
  """One run. `state` is current between stages; during a stage the lanes hold it (together.py).

  Attributes:
    meta: what a checkpoint holds beside the arrays: stage, best value, shapes of batches ...
    alone: a failure is raised; otherwise it is noted in `error`, and the other runs go on.
    ended: early stopping ended the run; its state is kept and changes no more.
    before_checkpoints: called once, before the first checkpoint.
    between: called between the batches of validation and fit; raises Interrupted to leave them.
  """

  config: Any
  workdir: str
  method: Any
  dataset: Any
  checkpoints: checkpoint.Checkpoints
  meta: dict[str, Any]
  state: Any
  first_batch: Any
  alone: bool = True
  error: str | None = None
  ended: bool = False
  between: Callable[[], None] = lambda: None
  before_checkpoints: Callable[[], None] | None = None

  def __post_init__(self):
    self.first_step = int(self.state.step)
    self.writer = Writer(self.workdir, self.first_step, active=jax.process_index() == 0,
                         validated=self.meta["evaluated"] == self.first_step, config=self.config)
    self.stage_data, self.batches, self.validator = None, None, None

  @property
  def going(self) -> bool:
    """Neither failed nor ended early."""
    return self.error is None and not self.ended

  def guard(self, action: Callable, *args):
    """action(*args); a failure ends this run only, where it is not alone."""
    if self.error is not None:
      return None
    try:
      return action(*args)
    except FloatingPointError as e:
      kept = self._kept()
      error = FloatingPointError(f"{e} The checkpoint of step {kept} is kept." if kept is not None else
                                 f"{e} There is no checkpoint yet.")
    except (OSError, ValueError) as e:
      error = e
    if self.alone:
      raise error
    logging.warning("%s failed: %s", self.workdir, error)
    self.error = str(error)
    return None

  def _kept(self) -> int | None:
    """Step of the newest checkpoint once running saves are done; None without one."""
    self.checkpoints.wait()
    return next(iter(self.checkpoints.steps("last")), None)

  # -------------------------------------------------------------------------------------- stages
  def enter(self, stage, number: int) -> None:
    """Opens the stage's data at the current step, and grows the state where the stage is new."""
    step = int(self.state.step) - stage.begin
    self.stage_data = feed.stage_dataset(self.config, stage, self.dataset)
    self.batches = feed.batches_of(self.stage_data, self.config, stage, number, step, self.method.views)
    self.first_batch = next(self.batches)
    if self.meta["stage"] != stage.name:  # also when training stopped exactly between two stages
      self.state = self.method.grow(self.state, stage,
                                    streams.grow_key(self.config, stage, number), self.first_batch)
    self.meta.update(stage=stage.name)
    self.meta["batches"][stage.name] = checkpoint.batch_spec(self.first_batch)
    self.validator = Validator(self.method, self.stage_data, self.config, self.writer)

  def leave(self, state, *, validate: bool, picture: Callable | None = None) -> Any:
    """The closing validation where `validate`, and the checkpoint of the stage's last state.

    Args:
      picture: state -> None, before the checkpoint: with that the stage is done, and a run that is
        killed then would never come back to it.
    """
    evaluated = self.meta["evaluated"]
    if validate:
      state = self.evaluate(state, delta=0.0)
    if self.meta["evaluated"] != evaluated and int(state.step) in self.checkpoints.steps("last"):
      # A signal had come before this validation: the checkpoint does not know its outcome.
      self.checkpoints.replace("last", state, self.full_meta(state))
    if picture is not None:
      picture(state)
    self.state = self.save(state)
    return self.state

  def picture(self, stage, number: int, state) -> None:
    """The picture of the stage's last state."""
    stage_pictures.write(self.workdir, number, stage, self.method, state, self.stage_data)

  # ---------------------------------------------------------------------------------- validation
  def evaluate(self, state, *, choose: bool = True, delta: float | None = None) -> Any:
    """Validation numbers of the state, and (`choose`) the best checkpoint if they are the best.

    Args:
      delta: gain that counts as one; None = config.train.early_delta.

    Returns:
      The state to go on with: what method.after_validation makes of it. As it was after a signal:
      the validation is left, and comes first when training goes on.

    Raises:
      UserError: config.train.best_metric is not among the validation numbers.
    """
    step = int(state.step)
    if self.meta["evaluated"] == step or not self.validator:
      return state
    try:
      values = self.validator(state, step, self.between)
    except Interrupted:
      return state
    self.writer.scalars(step, values)
    self.meta["evaluated"] = step
    value, t = values.get(self.config.train.best_metric), self.config.train
    if value is None:
      raise UserError(f"config.train.best_metric={t.best_metric!r} is not among the validation "
                      f"numbers: {sorted(values)}")
    if choose:
      if not np.isfinite(value):
        logging.warning("%s of step %d is not finite (%s): this state is not chosen.", t.best_metric, step,
                        value)
      delta = t.get("early_delta", 0.0) if delta is None else delta
      if early_stop.improves(value, self.meta["best"], t.best_mode, delta):
        self.meta.update(best=value, stale=0)
        self.save(state, "best")
      else:
        self.meta["stale"] += 1
    return self.method.after_validation(state, values)

  def stale(self) -> bool:
    """True when the validation has not improved for config.train.early_stop validations."""
    limit = self.config.train.early_stop
    if early_stop.exhausted(self.meta["stale"], limit):
      logging.info("No better %s for %d validations: training ends early.",
                   self.config.train.best_metric, limit)
      return True
    return False

  # ------------------------------------------------------------------------- numbers, checkpoints
  def log(self, fetched, images_per_second: float | None) -> dict[str, float]:
    """Checks every step's numbers and writes their mean.

    Args:
      fetched: [(step after the dispatch, {name: [k]})], as numpy.

    Returns:
      The means.

    Raises:
      FloatingPointError: a number is not finite, with its step.
    """
    for after, metrics in fetched:
      _check_finite(after, metrics)
    mean = {k: float(np.mean(np.concatenate([m[k] for _, m in fetched]))) for k in fetched[0][1]}
    if images_per_second is not None:
      mean["images_per_second"] = images_per_second
    self.writer.scalars(fetched[-1][0], {f"train/{k}": v for k, v in mean.items()})
    return mean

  def save(self, state, which: str = "last") -> Any:
    """Starts an asynchronous save; the caller has checked the losses up to this state."""
    self._begin_checkpoints()
    self.checkpoints.save(which, state, self.full_meta(state))
    return state

  def _begin_checkpoints(self) -> None:
    due, self.before_checkpoints = self.before_checkpoints, None
    if due is not None:
      due()

  def finish(self) -> None:
    """`finalize` on normal data where the method fits something, then the closing checkpoint."""
    if not self.meta["done"] and self.method.fits:
      best = self._best()
      if not self.meta["batches"]:  # nothing was trained: the batch of init gives the shapes
        self.meta["batches"][""] = checkpoint.batch_spec(
            next(stream.eval_batches(self.dataset.fitting(), batch_size=1)))
      try:
        fitted = self.finalize(self.state)
        fitted_best = best and self._fitted_best(best[0], fitted)  # what scoring restores
      except Interrupted:
        return
      self._begin_checkpoints()
      # The best one first: "done" in the last one says that both are.
      if fitted_best is not None:
        self.checkpoints.replace("best", fitted_best, {**best[1], "done": True})
        self.checkpoints.wait()
      self.state, self.meta["done"] = fitted, True
      self.checkpoints.replace("last", self.state, self.full_meta(self.state))
    self.meta["done"] = True

  def _fitted_best(self, best, fitted) -> Any:
    """The best state with what is fitted for it: what `fitted` holds where both are of one step."""
    return best.replace(extra=fitted.extra) if int(best.step) == int(fitted.step) else self.finalize(best)

  def _best(self):
    """The best state as it was saved; None where there is none, or it cannot be read."""
    try:
      return self.checkpoints.restore_model("best")
    except UserError as e:
      logging.warning("%s The last checkpoint is scored instead.", e)
      return None

  def finalize(self, state) -> Any:
    """The state with what the method fits on normal images as scoring sees them."""
    batches = stream.eval_batches(self.dataset.fitting(),
                                  batch_size=self.config.train.eval_batch_size)
    return self.method.finalize(state, self._watched(batches))

  def _watched(self, batches):
    for batch in batches:
      self.between()
      yield batch

  def full_meta(self, state) -> dict[str, Any]:
    """The meta data of a checkpoint of this state."""
    return {**self.meta, "checksum": checkpoint.checksum(state.params)}

  def result(self) -> dict[str, Any]:
    """What `train` returns."""
    return {"step": int(self.state.step), "finished": self.meta["done"], "best": self.meta["best"],
            "state": self.state, "error": self.error}

  def close(self) -> None:
    """Waits for running saves and closes all files."""
    try:
      self.writer.close()
    finally:
      self.checkpoints.close()


def _check_finite(after: int, metrics) -> None:
  k = len(next(iter(metrics.values())))
  for name, value in metrics.items():
    bad = np.flatnonzero(~np.isfinite(np.asarray(value, np.float64)))
    if bad.size:
      raise FloatingPointError(f"train/{name} is not finite at step {after - k + int(bad[0])}: "
                               "training stops. Try a lower config.optim.lr, or check the data.")
