"""How a run starts: data, method, and the state, new or from the newest checkpoint."""

from __future__ import annotations

import functools
import json
import pathlib
import sys
from typing import Any

from absl import logging
import jax
import numpy as np

from data_pipelines import dataset as datasets
from data_pipelines.brains import drawn_lesions
from data_pipelines.intake import copies
from medae_jax.core import (
  checkpoint,
  checks,
  config as config_lib,
  method as method_lib,
  needs,
  parallel,
  streams,
  trained,
)
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import changed, record
from medae_jax.reporting import text_table
from medae_jax.tasks import base as tasks
from medae_jax.training import durations, feed, foresee, measure
from medae_jax.training.bookkeeping import Run


def open_run(config, workdir: str, method=None, alone: bool = True, at_most: int | None = None) -> Run:
  """Everything that can be wrong is found here, before a step is compiled.

  Args:
    config: resolved; written to <workdir>/config.json once the network has been built.
    method: of a run that this one is trained beside (their compiled programs are shared); None =
      this one's own.
    alone: False: a failure of this run is noted in `run.error` and leaves the others alone.
    at_most: goes on from a checkpoint of this step or an earlier one; None = from the newest.

  Raises:
    UserError: config, data, method and workdir do not fit each other.
  """
  checks.check(config)
  tasks.check(config)
  config = streams.of_workdir(config, workdir)
  parallel.check_batch_size(config.train.batch_size)
  foresee.check_sizes(config)
  config = config_lib.with_split(config, workdir)
  dataset = datasets.open_dataset(config.data, config.seed)
  config = _decided(config, dataset)
  shared = method is not None
  views = (method or method_lib.load(durations.without_data(config))).views
  config = durations.resolve(config, lambda: views * durations.training_examples(dataset))
  method = method or method_lib.load(config)
  stages = method_lib.stages_of(method)
  announce(dataset, config)
  first = next(feed.batches_of(dataset, config, stages[0] if stages else None, 0, 0, views))
  needs.check_batch(method, first)
  # What evaluation needs is asked for now, not after the whole training.
  tasks.check(config, needs.image_shape(first), dataset.splits)
  lacking = [s for s in config.eval.splits if s not in dataset.splits]
  if lacking:
    logging.warning("%s has no split %s: %s.", dataset.name, ", ".join(lacking), "nothing fixes thresholds"
                    if "val" in lacking else "it will not be evaluated")
  config_lib.check_workdir(config, workdir)
  if not shared:
    foresee.check(method, stages, config, dataset, first, abstract_state)

  checkpoints = checkpoint.Checkpoints(workdir, config.train.keep)
  opt_of = lambda meta: abstract_state(method, stages, meta).opt
  checkpoints.put_back()
  restored = _restore(checkpoints, opt_of, at_most)
  if restored is not None:
    if (pathlib.Path(workdir) / "config.json").is_file():
      changed.check_resumed(config_lib.with_split(config_lib.read_config(workdir), workdir), config)
    state, meta = restored
    if meta["best"] is not None and not checkpoints.sound("best"):
      logging.warning("The best checkpoint is damaged: the next validation writes a new one, until then "
                      "the last one is scored.")
      meta.update(best=None, stale=0)
    logging.info("Resuming at step %d (stage %s).", int(state.step), meta["stage"])
  else:
    state = init_state(method, config, first)
    meta = {"stage": stages[0].name if stages else "", "best": None, "stale": 0, "evaluated": -1,
            "batches": {}, "done": False}
  later = None
  if restored is None and not jax.process_index():
    copies.say(dataset)
    foresee.look(config, dataset)
    later = functools.partial(_note_trained_on, config, dataset, first, workdir)
    if not dataset.synthetic:  # a file that cannot be read is found now; drawing can wait
      later = later()
  # Only now: a run whose network cannot be built must not stand in the way of the corrected one.
  config_lib.write_config(config, workdir)
  config_lib.write_split(dataset.listing, workdir)
  parameter_overview(state)
  return Run(config=config, workdir=workdir, method=method, dataset=dataset,
             checkpoints=checkpoints, meta=meta, state=state, first_batch=first, alone=alone,
             before_checkpoints=later)


def _note_trained_on(config, dataset, first, workdir) -> None:
  """Writes trained_on.json: no checkpoint is without it."""
  found = measure.measure(config, dataset, first)
  if found is not None:
    record.write(workdir, found)


def _restore(checkpoints, opt_of, at_most):
  """The newest state to go on from: of the last checkpoints, or, where all are damaged, the best."""
  try:
    return checkpoints.restore("last", opt_of, at_most)
  except UserError as e:
    try:
      found = checkpoints.restore("best", opt_of)
    except UserError:
      found = None
    if found is None:
      raise
    logging.warning("%s Going on from the best checkpoint instead, of step %d.", e, int(found[0].step))
    return found[0], {**found[1], "done": False}


def _decided(config, dataset):
  """The config with what opening the data has found out."""
  fields = {f"data.{k}": v for k, v in dataset.decided.items()}
  marked = "val" in dataset.splits and dataset.has_lesions("val")
  modalities = fields.get("data.modalities", config.data.get("modalities", ()))
  if config.eval.get("fit_residual", False) and config.eval.fit_lesions != "drawn":
    if not marked:
      fields.update(_unmarked(dataset, modalities))
    elif config.eval.fit_lesions == "both" and not _drawable(dataset, modalities):
      fields["eval.fit_lesions"] = "marked"  # nothing can be drawn there
  return config_lib.override(config, fields) if fields else config


def _drawable(dataset, modalities) -> bool:
  """Whether SYNTHETIC lesions can be drawn on healthy slices of val."""
  return drawn_lesions.known(modalities) and dataset.validation() is not None


def _unmarked(dataset, modalities) -> dict[str, Any]:
  """How the score is fitted where no lesion is marked in val."""
  if _drawable(dataset, modalities):
    logging.info("No lesion is marked in the val split of %s: sign and weight of the residual are fitted "
                 "to SYNTHETIC lesions drawn on its healthy slices (config.eval.fit_lesions=drawn).",
                 dataset.name)
    return {"eval.fit_lesions": "drawn"}
  logging.warning("No lesion is marked in the val split of %s: sign and weight of the residual cannot be "
                  "fitted there, the published score is used (config.eval.fit_residual=False).", dataset.name)
  return {"eval.fit_residual": False}


def init_state(method, config, batch):
  """Fresh parameters: drawn from the seed, then those that files give, then config.train.init_from.

  Raises:
    UserError: parameters of a file or of another run do not fit the network.
  """
  state = method_lib.fresh_state(method, streams.init_key(config), batch)
  if config.train.init_from:
    try:
      other = trained.load(config.train.init_from, {"eval.checkpoint": "best"}, calibrated=False).state
    except (UserError, OSError) as e:
      raise UserError(f"config.train.init_from={config.train.init_from}: {e}") from e
    if method_lib.shapes(other.params) != method_lib.shapes(state.params):
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
  """Counts per split as a table, loud words on synthetic data, and a hint where no accelerator is found.

  The whole description (preparation, checksums, what was left out) is logged with --verbosity=1.
  """
  described = dataset.describe()
  logging.info("Data: %s\n%s", dataset.name, "\n".join(f"  {line}" for line in text_table.counts(described)))
  logging.debug("Data in full: %s", json.dumps(described, default=str))
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
