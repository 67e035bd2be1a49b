"""Fields that every config has, and the parser of the part after the colon in --config=file.py:arg."""

import ml_collections

from data_pipelines.errors import UserError


def base() -> ml_collections.ConfigDict:
  """The groups common to all methods, with defaults. A config file adds method, model, data."""
  c = ml_collections.ConfigDict()
  c.seed = 0                       # initial weights, order of the data, noise

  c.train = t = ml_collections.ConfigDict()
  t.steps = 1000                   # optimiser steps
  t.batch_size = 16                # global: over all devices of all hosts
  t.accum = 1                      # slices a device's batch is cut into, to save memory
  t.steps_per_call = 1             # steps in one dispatch (lax.scan); > 1 pays on GPUs and TPUs
  t.log_every = 50                 # steps between lines of metrics.jsonl
  t.eval_every = 500               # steps between validations; 0 = never
  t.save_every = 500               # steps between checkpoints; the last step is always saved
  t.eval_batch_size = 64           # of the validation
  t.eval_batches = 0               # validation batches; 0 = all
  t.keep = 2                       # checkpoints kept, besides the best one
  t.best_metric = "val/loss"       # which validation number decides about the best checkpoint
  t.best_mode = "min"              # min or max
  t.early_stop = 0                 # validations without improvement before training ends; 0 = off
  t.early_delta = 0.0              # gains up to this do not count as improvement
  t.init_from = ""                 # workdir whose parameters start this run

  c.eval = e = ml_collections.ConfigDict()
  e.kind = "anomaly"               # task: medae_jax/tasks/<kind>
  e.splits = ("val", "test")       # in this order: thresholds are chosen on val
  e.batch_size = 64
  e.checkpoint = "best"            # best or last
  e.baseline_channel = 0           # the intensity threshold shown beside the model: FLAIR, say
  e.components = 20                # 3-D components of at most so many voxels are deleted; 0 = none
  e.dice_thresholds = "1000"       # "1000": k/1000 as the DAE reference; "all": every float16
  e.quantile = 0.99                # of normal val scores: the threshold where val has no lesions
  e.fit_residual = False           # fit sign and weight of each modality's residual on val
  e.bootstrap = 1000               # resamples of patients for the 95 % intervals; 0 = none
  e.panel_images = 8               # rows of the picture; 0 = none

  c.predict = r = ml_collections.ConfigDict()
  r.input = ""                     # file or folder; launch.py fills in --input
  r.output = ""                    # folder; default <workdir>/predictions
  r.batch_size = 16                # slices or images scored at a time
  r.threshold = 0.0                # of the map, for masks; 0 = the one of calibration.json
  r.orientation = ""               # turn volumes to these axes (LPS, RAS ...) first; "" = as stored
  r.overlay_slices = 6             # slices in the overlay picture of a volume; 0 = no pictures

  c.parallel = p = ml_collections.ConfigDict()
  p.mode = "pmap"                  # pmap or shard_map: same numbers
  return c


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
        values[name] = text.lower() in ("", "1", "true", "yes")
      else:
        values[name] = kind(text) if equals else kind(True)
    except (TypeError, ValueError):
      raise UserError(f"config argument {part!r}: {text!r} is not a {kind.__name__}") from None
  return ml_collections.ConfigDict(values)
