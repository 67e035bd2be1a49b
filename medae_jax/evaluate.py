"""Evaluation: checkpoint + split -> evaluation/<split>.json, .csv, _*.png, curves, pictures, report.html.

The validation split is scored first: it fixes thresholds and colour scales (calibration.json),
which the test split and predict and export then use. What is measured is the evaluator's choice
(`config.eval.kind`, a folder in medae_jax/tasks); this file holds what all kinds share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import datetime
import functools
import importlib
import pathlib
import sys
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from data_pipelines import dataset as datasets, scored_alone, stream
from medae_jax import report
from medae_jax.core import calibration as calibrate, config as config_lib, files, scoring, trained
from medae_jax.core.device import hosts
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import changed
from medae_jax.reporting import gallery, provenance as made_by, text_table
from medae_jax.reporting.benchmark import identity
from medae_jax.tasks import base, external
from medae_jax.training import lock
from medae_jax.training.tracking import events


def evaluate(workdir, config_overrides: Mapping[str, Any] | None = None,
             splits: Sequence[str] | None = None) -> dict[str, Any]:
  """Evaluates the checkpoint of `workdir` on whole splits.

  With several processes each of them reads and scores its share of the batches on its own devices, all count
  all of them, and the first one writes: the files of one process, bit for bit.

  Args:
    workdir: folder of a training run or of `convert`.
    config_overrides: {"eval.batch_size": 32, "data.path": ...}, on top of <workdir>/config.json.
    splits: which splits; default config.eval.splits. "val", where the data set has it, is always
      scored first, since it sets the thresholds of the others.

  Returns:
    {split: what evaluation/<split>.json holds}.

  Raises:
    FileNotFoundError: no checkpoint, or no data.
    ValueError: unknown override, split or kind; damaged checkpoints; out of memory.
  """
  with contextlib.ExitStack() as locks:
    if not jax.process_index():
      locks.enter_context(lock.held(workdir, "evaluation", wait=True))
    return _evaluate(pathlib.Path(workdir), dict(config_overrides or {}), splits)


def _evaluate(workdir, asked, splits) -> dict[str, Any]:
  elsewhere = external.folder(workdir, asked)
  # On its own data the calibration is made here; on others' the run's holds.
  run = trained.load(workdir, asked, calibrated=elsewhere is not None, splits=True)
  if elsewhere is not None:
    run = external.opened_as(run, asked, datasets.module(run.config.data.name).defaults())
  config, info = run.config, run.info
  base.check(config, run.image_shape)
  scoring.check_fields(run, workdir)
  module = base.plugin(config.eval.kind, "evaluator")
  if elsewhere is None:
    config = config_lib.with_split(config, workdir)
  with scored_alone.opened() if elsewhere is not None else contextlib.nullcontext():
    dataset = datasets.open_dataset(config.data, config.seed)
  logging.info("Evaluating step %d (%s checkpoint) on %s.", info["step"], info["which"],
               dataset.name)

  wanted = splits or asked.get("eval.splits", ())
  if elsewhere is not None:
    return external.evaluate(module, run, dataset, workdir, elsewhere, wanted, _one_split,
                             report.write)
  results, calibration, fitted, fit, given = {}, None, {}, {}, None
  for split in base.split_order(dataset.splits, config.eval.splits, wanted):
    if split == "val":
      fitted, fit = _fit_score(module, run, dataset)
      given = run if fitted and config.eval.get("choose_score", ()) else None
      run = run.override({f"method.score.{k}": v for k, v in fitted.items()})
    about = {"kind": config.eval.kind, "split": split, "score": fitted, **fit, **changed.record(run.config),
             "dataset": dataset.name, "synthetic": bool(dataset.synthetic), **provenance(info)}
    results[split], found = _one_split(module, run, dataset, split, calibration, workdir, about, given)
    calibration = found or calibration
  with hosts.heard():
    if not jax.process_index():
      events.evaluated(workdir, config, info["step"], results)
      logging.info("Report: %s", report.write(workdir))
  return results


def stream_through(score, source, digest, *, batch_size: int, on_device: bool, label: str) -> None:
  """Streams a source through `score`; the device works on the next batch while the host digests.

  With several processes each reads and scores its share of the batches, and all digest all of them.

  Args:
    digest: (batch, outputs) -> None, called in the order of the source.
  """
  with scoring.progress(label, len(source), "images") as bar:
    for batch, found in _scored(score, source, batch_size):
      digest(batch, found if on_device else jax.tree.map(np.asarray, found))
      bar.update(int(np.sum(batch["valid"])))


def _scored(score, source, batch_size):
  """(batch, outputs) of every batch in order, of which one more is always under way."""
  batches = functools.partial(stream.eval_batches, source, batch_size=batch_size)
  if jax.process_count() > 1:
    pieces = -(-len(source) // batch_size)
    own = batches(numbers=hosts.own_pieces(pieces))
    for batch, found in hosts.shared(pieces, ((batch, score(batch)) for batch in own)):
      yield batch, jax.tree.map(jax.device_put, found)
    return
  waiting = None
  for batch in batches():
    waiting, ready = (batch, score(batch)), waiting
    if ready is not None:
      yield ready
  if waiting is not None:
    yield waiting


def _fit_score(module, run, dataset) -> tuple[dict[str, Any], dict[str, Any]]:
  """Options of config.method.score fitted on val, and {"score_fit": how well they do there}.

  Both are {} unless the evaluator and the config ask for a fit.
  """
  found = getattr(module, "fitter", lambda *_: None)(run.config, dataset)
  if found is None:
    return {}, {}
  fitter, source = found
  score = run.override(getattr(fitter, "asks", {})).score_fn
  stream_through(score, source, fitter.update, on_device=False,
                 batch_size=run.config.eval.batch_size, label="val, fitting the score")
  fitted = fitter.result()
  logging.info("Fitted on val: %s; %s", text_table.words(fitted), text_table.words(fitter.summary()))
  return fitted, {"score_fit": fitter.summary()}


def _one_split(module, run, dataset, split, calibration, workdir, about=None, given=None):
  """Scores one split and writes its files.

  <split>.json says that the split is done (sweeps look for it): it goes before the first of the
  others is written and comes after the last, so that a kill in between leaves nothing that looks whole.

  Args:
    about: what calibration.json says beside what val gives; None = nothing is calibrated.
    given: the run with the score that its config names, where val has chosen another: measured beside it.

  Returns:
    (result, calibration found or {}).
  """
  source, size, found = dataset.split(split), run.config.eval.batch_size, {}
  files.check_writable((workdir / "evaluation").glob(f"{split}*.*"))
  if not len(source):
    raise UserError(f"split {split!r} of {dataset.name} is empty: nothing to evaluate")
  begin = time.monotonic()
  evaluator = module.Evaluator(run.config, dataset, split, calibration)
  try:
    stream_through(run.score_fn, source, evaluator.update, batch_size=size, label=split,
                   on_device=evaluator.on_device)
    if split == "val" and about is not None and (values := evaluator.calibrate()):
      evaluator.calibration, found = values, {**values, **about}
    about_run = {"variant": run.config.get("variant", ""), "trunk": identity.trunk_of(run.config)}
    result = {**{k: v for k, v in about_run.items() if v}, "dataset": dataset.name,
              "synthetic": bool(dataset.synthetic), "split": split, "n_images": len(source),
              "seed": int(run.config.seed), **made_by.about(),
              **evaluator.result()}
    if given is not None and hasattr(module, "before_choice"):
      found_before = np.full(len(source), np.nan)
      stream_through(given.score_fn, source, lambda b, out: found_before.__setitem__(
          b["position"][b["valid"]], np.asarray(out["score"])[b["valid"]]), batch_size=size, on_device=False,
                     label=f"{split}, the score before val's choice")
      result["score_chosen"] = ", ".join(
          f"{k}={run.config.method.score[k]}" for k in given.config.eval.choose_score)
      result["before_choice"] = module.before_choice(evaluator, found_before, given.config)
    chosen = np.asarray(evaluator.choose(), np.int64)
    if chosen.size:
      stream_through(lambda b: (run.score_fn(b), run.pictures_fn(b)), datasets.Subset(source, chosen),
                     lambda b, found: evaluator.show(b, *found), on_device=False,
                     batch_size=min(size, -(-chosen.size // 8) * 8), label=f"{split}, pictures")
    result.update(seconds=round(time.monotonic() - begin, 3), **provenance(run.info))
    with hosts.heard():
      if not jax.process_index():
        _write(workdir, split, evaluator, result, found)
  finally:
    evaluator.close()
  return result, found


def _write(workdir, split, evaluator, result, found) -> None:
  """The files of one split; see `_one_split` on their order."""
  folder = workdir / "evaluation"
  (folder / f"{split}.json").unlink(missing_ok=True)
  if found:
    files.write_json(workdir / calibrate.FILE, found)
    logging.info("Calibration on val: %s.", calibrate.explain(found))
  files.write_csv(folder / f"{split}.csv", evaluator.rows())
  for name, rows in evaluator.tables().items():
    files.write_csv(folder / f"{split}_{name}.csv", rows)
  files.write_json(folder / "curves" / f"{split}.json", evaluator.curves())
  gallery.write(folder, split, evaluator.gallery())
  for name, picture in evaluator.panels().items():
    path = files.write_png(folder / f"{split}_{name}.png", picture)
    logging.info("Picture: %s", path)
  files.write_json(folder / f"{split}.json", result)


def provenance(info: Mapping[str, Any]) -> dict[str, Any]:
  """Which checkpoint, which versions, when."""
  versions = {name: getattr(importlib.import_module(name), "__version__", "?")
              for name in ("jax", "flax", "numpy", "medae_jax")}
  checkpoint = {k: info[k] for k in ("which", "step", "checksum") if k in info}
  return {"checkpoint": checkpoint,
          "versions": {"python": sys.version.split()[0], **versions},
          "device": jax.devices()[0].device_kind,
          "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
