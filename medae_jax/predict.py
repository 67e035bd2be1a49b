"""Prediction: checkpoint + files -> maps, masks, overlays on the inputs' own grid, and a CSV.

Inputs are never touched. Each input's files appear together or not at all; an input that fails is
named with its reason, the others go on, and the run ends with an error when any failed.
"""

from __future__ import annotations

from collections.abc import Mapping
import pathlib
import shutil
import tempfile
from typing import Any

from absl import logging

from medae_jax.core import config as config_lib, files as outputs, scoring, trained
from medae_jax.core.errors import UserError
from medae_jax.tasks import base

# What is wrong with one input and does not concern the others. Readers turn what their libraries
# raise into UserError; too large an array is a MemoryError wherever it is made.
_OF_AN_INPUT = (UserError, OSError, EOFError, MemoryError)


def predict(workdir, config_overrides: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
  """Applies the checkpoint of `workdir` to config.predict.input.

  Args:
    workdir: folder of a training run or of `convert`.
    config_overrides: {"predict.input": ..., "predict.output": ...}, on top of config.json.

  Returns:
    One row an input, as in <output>/predictions.csv; column "error" is empty where it went well.

  Raises:
    FileNotFoundError: no checkpoint or no input. ValueError: some inputs failed (after all others
    were written); the message counts them and names the first.
  """
  workdir, changed = pathlib.Path(workdir), dict(config_overrides or {})
  asked = config_lib.override(config_lib.read_config(workdir), changed)
  source = pathlib.Path(asked.predict.input)
  if not asked.predict.input:  # said before a checkpoint is read
    raise UserError("nothing to predict: give --input=FILE_OR_FOLDER")
  if not source.exists():
    raise FileNotFoundError(f"--input={source} does not exist")
  run = trained.load(workdir, changed)
  base.check(run.config, run.image_shape)
  output = pathlib.Path(run.config.predict.output or workdir / "predictions")
  module = base.plugin(run.config.eval.kind, "predictor")
  predictor = module.Predictor(run.config, run.calibration, run.score_fn)
  predictor.image_shape = run.image_shape
  items = predictor.find_inputs(source)
  logging.info("Predicting %d inputs with step %d (%s checkpoint) into %s.", len(items),
               run.info["step"], run.info["which"], output)
  rows: list[dict[str, Any]] = []
  try:
    _all(predictor, items, output, rows)
  finally:  # also after Ctrl-C or a fault of this package: what is finished is in the table
    outputs.write_csv(output / "predictions.csv", rows)
  failed = [r for r in rows if r["error"]]
  if failed:
    raise UserError(f"{len(failed)} of {len(rows)} inputs failed, the first: "
                     f"{failed[0]['input']}: {failed[0]['error']} (all are listed in "
                     f"{output / 'predictions.csv'})")
  logging.info("Done: %s", output / "predictions.csv")
  return rows


def _all(predictor, items, output: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Predicts every input, and adds its row to `rows`."""
  output.mkdir(parents=True, exist_ok=True)
  inputs = {pathlib.Path(p).resolve() for item in items for p in predictor.files_of(item)}
  with scoring.progress("predict", len(items), "inputs") as bar:
    for item in items:
      name = predictor.name_of(item)
      try:
        row = {**_one(predictor, item, output, inputs), "error": ""}
      except _OF_AN_INPUT as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        logging.error("%s: %s", name, reason)
        row = {"error": reason}
      rows.append({"input": name, **row})
      bar.update()


def _one(predictor, item, output: pathlib.Path, inputs) -> dict[str, Any]:
  """Predicts one input; its files appear together or not at all, and never over an input."""
  scratch = pathlib.Path(tempfile.mkdtemp(prefix=".partial_", dir=output))
  try:
    row = predictor.predict_one(item, scratch)
    files = [f for f in sorted(scratch.rglob("*")) if f.is_file()]
    moves = [(f, output / f.relative_to(scratch)) for f in files]
    clash = [target for _, target in moves if target.resolve() in inputs]
    if clash:
      raise UserError(f"would overwrite the input {clash[0]}; choose another --output")
    for path, target in moves:
      target.parent.mkdir(parents=True, exist_ok=True)
      path.replace(target)
    return row
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
