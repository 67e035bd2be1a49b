"""Durations in steps, epochs or examples, turned into steps once the data are open.

A config gives each duration in one unit; the fields of the other units are 0:
  config.train.steps | epochs | examples     length of training (of the last stage, where there are
                                             several)
  config.train.eval_every | eval_every_epochs    between validations
  config.train.save_every | save_every_epochs    between checkpoints
  config.optim.epoch_steps    steps of what a schedule calls an epoch; 0 = a pass over the data
An epoch is a pass over the training data (over the first of several streams): ceil(n / batch_size)
steps; with a method of V views n counts every pair of image and view. config.json holds the steps that
were found, so evaluating, predicting and exporting need no data, and a config.json from before these
fields is what it was.
"""

from __future__ import annotations

from collections.abc import Callable
import math

from medae_jax.core.errors import UserError

_PAIRS = (("eval_every", "eval_every_epochs"), ("save_every", "save_every_epochs"))
_LENGTH = ("steps", "epochs", "examples")


def resolve(config, examples: Callable[[], int]):
  """The config with every duration in steps.

  Args:
    examples: () -> n, the number of training examples (times the method's views); only called where the
      data decide.

  Returns:
    The given config where nothing is to be done, else a locked copy.

  Raises:
    UserError: a duration is given twice, in two units; or a length that comes to no step; an early
      stop without validations.
  """
  t, fields = config.train, {}
  for group in (_LENGTH, *_PAIRS):
    given = [f"config.train.{name}={t[name]}" for name in group if t.get(name, 0)]
    if len(given) > 1:
      raise UserError(f"{' and '.join(given)} give one duration twice; set all but one to 0, e.g. "
                      f"--{given[0].partition('=')[0]}=0")
  if t.get("early_stop", 0) and not t.eval_every and not t.get("eval_every_epochs", 0):
    raise UserError(f"config.train.early_stop={t.early_stop} counts validations, eval_every=0 makes none: "
                    "set config.train.eval_every, or early_stop=0")
  epoch = lambda: math.ceil(examples() / t.batch_size)
  for steps, epochs in (("steps", "epochs"), *_PAIRS):
    if t.get(epochs, 0):
      fields[steps] = max(1, round(t[epochs] * epoch()))
      fields[epochs] = type(t[epochs])(0)
  if t.get("examples", 0):
    fields.update(steps=math.ceil(t.examples / t.batch_size), examples=0)
  pass_decides = "optim" in config and config.optim.get("epoch_steps", None) == 0
  if not fields and not pass_decides:
    return config
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.train.update(fields)
    if pass_decides:
      config.optim.epoch_steps = epoch()
  return config.lock()


def without_data(config):
  """As `resolve` where there is no data to ask, for its shapes alone: an epoch counts as one step."""
  return resolve(config, lambda: config.train.batch_size)


def left_to_data(config) -> set[str]:
  """Names ("train.steps") of the fields that `resolve` replaces in this config."""
  before, after = config, without_data(config)
  return {f"{group}.{name}" for group in ("train", "optim") if group in config
          for name, value in after[group].items() if before[group][name] != value}


def training_examples(dataset) -> int:
  """Examples of the training split; of the first stream where there are several."""
  source = dataset.train()
  return len(next(iter(source.values())) if hasattr(source, "values") else source)
