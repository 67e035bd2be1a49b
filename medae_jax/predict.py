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

from medae_jax import calibrate, outputs
from medae_jax import evaluate as evaluate_lib
from medae_jax.core import checkpoint


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
  workdir = pathlib.Path(workdir)
  config, _, state, info = checkpoint.restore_for_scoring(
      workdir, (config_overrides or {}).get("eval.checkpoint", "best"))
  config = calibrate.override(config, config_overrides)
  calibration = calibrate.read(workdir)
  source = config.predict.get("input", "")
  if not source:
    raise ValueError("nothing to predict: give --config.predict.input=FILE_OR_FOLDER")
  source = pathlib.Path(source)
  if not source.exists():
    raise FileNotFoundError(f"config.predict.input={source} does not exist")
  output = pathlib.Path(config.predict.get("output", "") or workdir / "predictions")
  module = evaluate_lib.plugin("predictors", config.eval.get("kind", "anomaly"))
  predictor = module.Predictor(config, calibration, evaluate_lib.score_fn(config, state))
  items = predictor.find_inputs(source)
  logging.info("Predicting %d inputs with step %d (%s checkpoint) into %s.", len(items),
               info["step"], info["which"], output)
  rows = _all(predictor, items, output)
  failed = [r for r in rows if r["error"]]
  outputs.write_csv(output / "predictions.csv", rows)
  if failed:
    raise ValueError(f"{len(failed)} of {len(rows)} inputs failed, the first: {failed[0]['input']}: "
                     f"{failed[0]['error']} (all are listed in {output / 'predictions.csv'})")
  return rows


def _all(predictor, items, output: pathlib.Path) -> list[dict[str, Any]]:
  output.mkdir(parents=True, exist_ok=True)
  bar = evaluate_lib.progress("predict", len(items), "inputs")
  rows = []
  for item in items:
    name = predictor.name_of(item)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=".partial_", dir=output))
    try:
      row = predictor.predict_one(item, scratch)
      for path in sorted(scratch.rglob("*")):
        if path.is_file():
          target = output / path.relative_to(scratch)
          target.parent.mkdir(parents=True, exist_ok=True)
          path.replace(target)
      rows.append({"input": name, **row, "error": ""})
    except (ValueError, OSError, EOFError) as error:
      reason = " ".join(str(error).split()) or type(error).__name__
      logging.error("%s: %s", name, reason)
      rows.append({"input": name, "error": reason})
    finally:
      shutil.rmtree(scratch, ignore_errors=True)
    bar.update()
  bar.close()
  return rows
