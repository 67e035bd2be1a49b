"""Prediction: checkpoint + files -> maps, masks, overlays on the inputs' own grid, a CSV and a page.

Inputs are never touched. Each input's files appear together or not at all; an input that fails is
named with its reason, the others go on, and the run ends with an error when any failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
import time
import traceback
from typing import Any

from absl import logging

from data_pipelines.intake import counts
from data_pipelines.intake.find import RESULTS, Found
from data_pipelines.slides import plan
from medae_jax.core import (
  calibration as calibrate,
  config as config_lib,
  files as outputs,
  places,
  scoring,
  scratch,
  trained,
)
from medae_jax.core.errors import UserError
from medae_jax.core.exported import opened
from medae_jax.core.trained_on import record
from medae_jax.reporting import predictions as pages
from medae_jax.tasks import admit, base, readers_said
from medae_jax.tasks.results import LEFT_OUT, Results, check as check_output
from medae_jax.tasks.slides import whole

_EVERY = 10  # seconds between two states of the table


def predict(workdir, config_overrides: Mapping[str, Any] | None = None, *,
            run: trained.Trained | None = None, at_most: int | None = None) -> list[dict[str, Any]]:
  """Applies the checkpoint of `workdir` to config.predict.input.

  Args:
    workdir: folder of a training run, of `convert`, or of an export.
    config_overrides: {"predict.input": ..., "predict.output": ...}, on top of config.json.
    run: the run, where it is open already: its checkpoint is not read again.
    at_most: refuse more inputs than this.

  Returns:
    One row an input, as in <output>/predictions.csv; column "error" is empty where it went well,
    "warning" where nothing about the input is unusual (there is none where no input has any).

  Raises:
    FileNotFoundError: no checkpoint or no input. UserError: some inputs failed (after all others
    were written); the message counts them and names the first.
  """
  workdir, changed = pathlib.Path(workdir), dict(config_overrides or {})
  asked = config_lib.override(config_lib.read_config(workdir), changed)
  source = pathlib.Path(places.home(asked.predict.input))
  if not asked.predict.input:  # said before a checkpoint is read
    raise UserError("nothing to predict: give --input=FILE_OR_FOLDER")
  if not source.exists():
    raise FileNotFoundError(f"--input={source} does not exist")
  if places.is_run(source):
    raise UserError(f"--input={source} is the folder of a run: its pictures are no inputs")
  told = record.read(workdir)
  run = opened.load(workdir, changed) if run is None else run.override(changed)
  base.check(run.config, run.image_shape)
  scoring.check_fields(run, workdir)
  output = pathlib.Path(places.home(run.config.predict.output) or workdir / "predictions")
  module = base.plugin(run.config.eval.kind, "predictor")
  predictor = module.Predictor(run.config, run.calibration, run.score_fn)
  if plan.find(source).files:
    predictor = whole.Predictor(predictor, run.info["step"], output)
  predictor.image_shape = run.image_shape
  predictor.gate = admit.Gate(told, bool(run.config.predict.get("force", False)))
  if output.resolve() == source.resolve() and not getattr(predictor, "modalities", ()):
    raise UserError(f"--output={output} is --input: the results would be taken for images by the next "
                    "run; choose another --output")
  check_output(output)
  with readers_said.said() as early:  # of one input it is in its row
    items = _items(predictor, source, output, named=at_most is None)
  if at_most is not None and len(items) > at_most:
    raise UserError(f"{source} holds {len(items)} inputs where {at_most} was asked for: give one file or the "
                    "folder of one scan; run.predict(folder, output) takes many")
  logging.info("Predicting %d inputs with step %d (%s checkpoint) into %s.", len(items),
               run.info["step"], run.info["which"], output)
  output.mkdir(parents=True, exist_ok=True)
  with scratch.alone(output, "--output"):
    written = Written(output, told.mark if told else "")
    about = {"method": run.config.method.name, "run": workdir.name, "trained_on": written.mark,
             "checkpoint": run.checkpoint,
             "calibration": calibrate.explain(run.calibration) if run.calibration else "",
             "own_threshold": float(run.config.predict.get("threshold") or 0)}
    page = _into(written, predictor, items, about, source, early if len(items) == 1 else (), at_most != 1)
  rows = written.rows
  failed = [r for r in rows if r["error"]]
  unusual = sum(bool(r.get("warning")) for r in rows if not r["error"])
  logging.info("%d inputs: %d done%s, %d failed.", len(rows), len(rows) - len(failed),
               f" ({unusual} with a warning, see {output / RESULTS})" if unusual else "", len(failed))
  if written.results.replaced:
    logging.info("%d results replaced those of an earlier run of the same inputs.", written.results.replaced)
  if failed and at_most == 1:  # of the API: its folder is gone when this is read
    raise UserError(f"{failed[0]['input']}: {failed[0]['error']}")
  if failed:
    raise UserError(f"{len(failed)} of {len(rows)} inputs failed, the first: "
                     f"{failed[0]['input']}: {failed[0]['error']} (all are listed in "
                     f"{output / RESULTS})")
  logging.info("Done: %s and %s", output / RESULTS, page)
  return rows


class Written:
  """What a run has written into `output` so far.

  Attributes:
    mark: "synthetic, demo" and the like, of the training; stands in every row.
    rows: of the table. made: the files of each input.
  """

  def __init__(self, output: pathlib.Path, mark: str):
    self.output, self.mark, self.results = output, mark, Results(output)
    self.rows: list[dict[str, Any]] = []
    self.made: dict[str, list[pathlib.Path]] = {}

  def unfinished(self) -> None:
    """The table as it stands: of a run that is killed, what is finished is told from what is not."""
    outputs.write_csv(self.output / RESULTS, [*self.rows, {"input": "", "error": "not finished"}])


def _into(written: Written, predictor, items, about: Mapping[str, Any], source: pathlib.Path,
          early: Sequence[str], watched: bool) -> pathlib.Path:
  """Predicts the inputs, writes table and page, and returns the page.

  Args:
    about: for the page's head. source: what was asked for.
    early: what readers have said of the one input when it was found. watched: shows a progress bar.
  """
  output, rows = written.output, written.rows
  found = getattr(predictor, "found", None)
  scratch.remove_litter(output, ".partial_")
  try:
    # Before the first result: a folder with this table holds results, no search looks into it.
    written.unfinished()
    _say_left_out(found, output)
    try:
      predictor.begin(output, {**about, "input": str(source)})
      _all(predictor, items, written, source, early, watched)
    except BaseException as error:
      why = "not predicted: " + (" ".join(str(error).split()) or "interrupted")
      rows += [{"input": predictor.name_of(item), "error": why} for item in items[len(rows):]]
      raise
    finally:
      rows += [{"input": counts.shown(i.path, found.root), "error": i.reason}
               for i in (found.broken if found else ())]
    # Before the table: where that is whole, all is there.
    return pages.write(output, rows, written.made, about)
  finally:  # also after Ctrl-C or a full disk: what is finished is in the table
    outputs.write_csv(output / RESULTS, rows)


def _items(predictor, source: pathlib.Path, output: pathlib.Path, named: bool = True) -> list[Any]:
  """The inputs, without what lies in --output.

  Args:
    named: whether the line of an error names the table there.

  Raises:
    UserError: there is none; the line names the first files left out, and the table of all.
  """
  try:
    items = predictor.find_inputs(source)
    found = getattr(predictor, "found", None)
    results = [i for i in items if _among_results(predictor.files_of(i), output, source)]
    if results and found is not None:
      items = [i for i in items if i not in results]
      found.leave_out({pathlib.Path(f): "lies in --output" for i in results for f in predictor.files_of(i)})
      if not items and not found.broken:
        raise counts.Nothing(source, found, ("nifti", "image", "dicom"))
    return items
  except counts.Nothing as nothing:
    _say_left_out(nothing.found, output)
    named = named and bool(nothing.found.left_out)
    table = f"; every file left out is listed in {output / LEFT_OUT}" if named else ""
    raise UserError(f"{nothing}{table}") from nothing


def _among_results(files, output: pathlib.Path, source: pathlib.Path) -> bool:
  """Whether an input lies in --output, where that is a folder inside --input."""
  where, root = output.resolve(), source.resolve()
  inside = where != root and where.is_relative_to(root)
  return inside and any(pathlib.Path(f).absolute().resolve().is_relative_to(where) for f in files)


def _say_left_out(found: Found | None, output: pathlib.Path) -> None:
  """Says what became of every file; left_out.csv names those that are no inputs."""
  (output / LEFT_OUT).unlink(missing_ok=True)  # of an earlier run
  if found is not None:
    counts.say(found, always=True)
    outputs.write_csv(output / LEFT_OUT, counts.rows(found))


def _all(predictor, items, written: Written, source: pathlib.Path, early: Sequence[str], watched: bool):
  """Predicts every input, and adds its row."""
  if written.mark:
    logging.warning("This run was trained on %s data: its results say nothing about patients.", written.mark)
  inputs = {pathlib.Path(p).resolve() for item in items for p in predictor.files_of(item)}
  said = time.monotonic()
  with scoring.progress("predict", len(items), "inputs", active=watched) as bar:
    for item in items:
      name = predictor.name_of(item)
      try:
        with readers_said.said() as lines:
          row, written.made[name] = _one(predictor, item, written, inputs)
        row = {**row, "error": ""}
      except Exception as error:  # whatever one input raises, the others go on
        if line := config_lib.missing_field(error):  # but for what each of them would raise
          raise UserError(line) from error
        row = {"error": _reason(error, written.output)}
        logging.error("%s: %s", name, row["error"])
      doubts = [readers_said.without_place(line, source) for line in dict.fromkeys((*early, *lines))]
      said_of = {"warning": "; ".join(filter(None, (predictor.gate.taken(), *doubts))),
                 "trained_on": written.mark}
      early = ()
      written.rows.append({"input": name, **row, **{k: v for k, v in said_of.items() if v}})
      if time.monotonic() - said > _EVERY:
        written.unfinished()
        said = time.monotonic()
      bar.update()


def _reason(error: Exception, output: pathlib.Path) -> str:
  """One line; the traceback of what is no fault of the input goes into errors.log."""
  reason = " ".join(str(error).split()) or type(error).__name__
  if isinstance(error, (UserError, OSError, EOFError, MemoryError)):
    return reason
  with open(output / "errors.log", "a", encoding="utf-8", errors="backslashreplace") as log:
    log.write("".join(traceback.format_exception(error)) + "\n")
  return f"{type(error).__name__}: {reason[:200]} (a fault of the program; see errors.log)"


def _one(predictor, item, written: Written, inputs) -> tuple[dict[str, Any], list[pathlib.Path]]:
  """Predicts one input; its files appear together or not at all, and never over an input.

  Returns:
    (its row, its files: those written, or those that an earlier run has finished).
  """
  output = written.output
  with scratch.folder(output, ".partial_") as folder:
    row = predictor.predict_one(item, folder)
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    moves = [(f, output / f.relative_to(folder)) for f in files]
    for _, target in moves:
      if target.resolve() in inputs:
        raise UserError(f"would overwrite the input {target}; choose another --output")
    made_of = next(iter(predictor.files_of(item)), None)
    source = str(pathlib.Path(made_of).resolve()) if made_of else predictor.name_of(item)
    written.results.claim([target for _, target in moves], source, predictor.name_of(item))
    for path, target in moves:
      target.parent.mkdir(parents=True, exist_ok=True)
      path.replace(target)
    finished = predictor.after(item)
    return row, [target for _, target in moves] or finished
