"""Fields that every config has, and the parser of the part after the colon in --config=file.py:arg."""

import importlib

import ml_collections

from data_pipelines.errors import UserError
from medae_jax.core import fields


def base(task: str = "anomaly") -> ml_collections.ConfigDict:
  """The groups common to all methods, with defaults. A config file adds method, model, data.

  Args:
    task: what is measured and written, a folder of medae_jax/tasks; its own fields of config.eval
      and config.predict are those of medae_jax/tasks/<task>/fields.py.
  """
  config = ml_collections.ConfigDict()
  config.seed = 0                  # initial weights, order of the data, noise
  config.seeds = ()                # several at once, e.g. (0,1,2): each in <workdir>/seed_<s>, then
                                   # one table with mean and standard deviation

  config.train = train = ml_collections.ConfigDict()
  train.steps = 1000               # length of training in optimiser steps; or, with steps=0, one of
  train.epochs = 0.0               # ... passes over the training data,
  train.examples = 0               # ... training examples
  train.batch_size = 16            # global: over all devices of all hosts
  train.accum = 1                  # slices a device's batch is cut into, to save memory
  train.steps_per_call = 1         # steps in one dispatch (lax.scan); > 1 pays on GPUs and TPUs
  train.log_every = 50             # steps between lines of metrics.jsonl
  train.eval_every = 500           # steps between validations; 0 = never
  train.save_every = 500           # steps between checkpoints; the last step is always saved
  train.eval_every_epochs = 0.0    # the same two in epochs, with 0 above
  train.save_every_epochs = 0.0
  train.eval_batch_size = 64       # of the validation
  train.eval_batches = 0           # validation batches; 0 = all
  train.keep = 2                   # checkpoints kept, besides the best one
  train.best_metric = "val/loss"   # which validation number decides about the best checkpoint
  train.best_mode = "min"          # min or max
  train.early_stop = 0             # validations without improvement before training ends; 0 = off
  train.early_delta = 0.0          # gains up to this do not count as improvement
  train.init_from = ""             # workdir whose parameters start this run
  train.trackers = ()              # besides TensorBoard: mlflow, wandb (docs/tracking.md)
  train.random_streams = "named"   # no seed or stage repeats another's draws; "legacy": as runs
                                   # before this field, which keep to it when they go on

  config.eval = evaluation = ml_collections.ConfigDict()
  evaluation.kind = task           # medae_jax/tasks/<kind>
  evaluation.splits = ("val", "test")  # in this order: thresholds are chosen on val
  evaluation.batch_size = 64
  evaluation.checkpoint = "best"   # best or last: of evaluate, predict and export
  evaluation.bootstrap = 1000      # resamples of patients for 95 % intervals and bands; 0 = none

  config.predict = predict = ml_collections.ConfigDict()
  predict.input = ""               # file or folder; launch.py fills in --input
  predict.output = ""              # folder; default <workdir>/predictions
  predict.force = False            # True: also inputs that do not fit what the run was trained on

  own = importlib.import_module(f"medae_jax.tasks.{task}.fields")
  evaluation.update(own.EVAL)
  predict.update(own.PREDICT)

  config.parallel = ml_collections.ConfigDict()
  config.parallel.mode = "pmap"    # pmap or shard_map: same numbers
  config.parallel.reduce = "float32"  # or bfloat16: gradients travel between devices in half the bytes

  config.export = ml_collections.ConfigDict(fields.EXPORT)
  config.bench = ml_collections.ConfigDict(fields.BENCH)
  return config


BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def parse_arg(arg: str | None, **defaults):
  """Parses "demo,res=64" into a ConfigDict.

  Args:
    arg: words (set to True) and name=value pairs; None = all defaults.
    **defaults: the allowed names; values are cast to the type of the default.

  Raises:
    ValueError: an unknown name, with the allowed ones; a value that cannot be cast.
  """
  values = dict(defaults)
  for part in (arg or "").split(","):
    if not part:
      continue
    name, equals, text = part.partition("=")
    if name not in defaults:
      raise UserError(f"config argument {name!r} is unknown; use: {', '.join(sorted(defaults))}")
    kind = type(defaults[name])
    try:
      if kind is bool:
        values[name] = {"": True, **BOOLEANS}[text.lower()]
      else:
        values[name] = kind(text) if equals else kind(True)
    except (KeyError, TypeError, ValueError):
      raise UserError(f"config argument {part!r}: {text!r} is not a {kind.__name__}") from None
  return ml_collections.ConfigDict(values)


def some_of(args, name: str, known) -> tuple[str, ...]:
  """What an argument "a+b" names, in its order; all of `known` where it is empty.

  Raises:
    UserError: another name than those of `known`.
  """
  if not args[name]:
    return tuple(known)
  chosen = tuple(args[name].split("+"))
  if not set(chosen) <= set(known):
    raise UserError(f"config argument {name}={args[name]}: use some of {'+'.join(known)}")
  return chosen
