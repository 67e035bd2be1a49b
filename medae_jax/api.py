"""The Python API: train, open, score, predict and evaluate, by the same modes as launch.py.

  import medae_jax as mx

  run = mx.train(mx.config("own_folder:dae", **{"data.dir": "mine"}), "runs/mine")
  run = mx.load("runs/mine")                # later
  found = run.score("scan.nii.gz")          # found.map, found.mask on the file's grid; .score, .p_value
  run.predict("new_scans", "results")       # files as --mode=predict writes them
  run.evaluate("test").table()              # a pandas DataFrame

docs/api.md is the reference; examples/ has two notebooks.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import os
import pathlib
from typing import TYPE_CHECKING, Any

from absl import logging
import ml_collections

from medae_jax.core import config as config_lib, files, places, scratch
from medae_jax.core.device import environment
from medae_jax.core.errors import UserError, allow_outside_code
from medae_jax.reporting import display
from medae_jax.reporting.results import Evaluation, Predictions, Score

if TYPE_CHECKING:
  from medae_jax.core import trained

environment.prepare()
# The modes, and with them JAX and TensorFlow, are imported where they are called.
_AGAIN = "run.evaluate() writes it"


def config(name: str, overrides: Mapping[str, Any] | None = None, /, **changed) -> ml_collections.ConfigDict:
  """A config file as --config reads it, with fields changed.

  Args:
    name: "FILE[:ARGUMENT]": a path, or a config of this package with or without ".py", "dae_brats:demo".
    overrides: {"group.field": value}, the same as keywords: `**{"train.steps": 10}`.

  Returns:
    A locked ConfigDict; print it to see every field.

  Raises:
    FileNotFoundError: no such file. UserError: no such argument or field, or a value of another type.
  """
  file, colon, argument = os.fspath(places.given(name, "a config")).partition(":")
  module = places.config_module(file)
  found = module.get_config(argument) if colon else module.get_config()
  return config_lib.override(config_lib.override(found, overrides, typed=True), changed, typed=True)


def train(config: ml_collections.ConfigDict | str, workdir: str | os.PathLike, *, evaluate: bool = True,
          full_size: bool = False, allow_code: bool = False) -> Run:
  """Trains, goes on with or finishes the run in `workdir`, then evaluates it.

  An interrupt (the stop button of a notebook, Ctrl-C) ends it after the step in flight with a
  checkpoint; the same call goes on from there.

  Args:
    config: of `mx.config`, or its name. workdir: folder of the run, made where it is missing.
    evaluate: False = train only: the run then has no thresholds yet.
    full_size: True = also at full size on synthetic data without an accelerator, which takes days.
    allow_code: True = the config may name methods and data sets outside this package.

  Returns:
    The run, with what the best checkpoint holds.

  Raises:
    UserError: config, data and method do not fit each other: said before anything is compiled.
  """
  import jax

  from medae_jax import evaluate as evaluate_mode, train as train_mode
  from medae_jax.training import full_size as sizes
  asked = globals()["config"](config) if isinstance(config, str) else config
  if not isinstance(asked, ml_collections.ConfigDict):
    raise UserError(f"mx.train takes what mx.config returns, or its name, not {type(asked).__name__}")
  workdir = places.given(workdir, "workdir")
  if allow_code:
    allow_outside_code()
  if asked.get("seeds", ()):
    raise UserError("config.seeds trains several runs: launch.py or medae_jax.sweep.seeds(config, workdir)")
  if not full_size and sizes.is_accident(asked, jax.default_backend()):
    raise UserError(f"this would train {asked.train.steps} steps of full size on synthetic data without an "
                    "accelerator: give data.dir, take the :demo argument of the config, or full_size=True")
  places.check_workdir(workdir)
  stopped = train_mode.train(asked, os.fspath(workdir))["stopped"]
  if evaluate and not stopped:
    evaluate_mode.evaluate(workdir)
  return load(workdir)


def load(workdir: str | os.PathLike, overrides: Mapping[str, Any] | None = None, *,
         allow_code: bool = False) -> Run:
  """Opens a trained run: its config, its best checkpoint, its thresholds; no data set is read.

  Args:
    workdir: folder of a training run, of `convert`, or of an export (which scores and predicts only).
    overrides: {"eval.checkpoint": "last", "method.score.median": 0, ...} on top of config.json.
    allow_code: True = config.json may name methods and data sets outside this package.

  Raises:
    FileNotFoundError: no config.json or no checkpoint there.
    UserError: an unknown field, a damaged file, or no checkpoint that can be read.
  """
  from medae_jax.core.exported import opened
  workdir = places.given(workdir, "the folder of a run")
  return Run(workdir, opened.load(workdir, overrides, allow_code=allow_code), dict(overrides or {}))


class Run:
  """A trained run; `load` and `train` return it.

  Attributes:
    workdir: pathlib.Path. trained: core.trained.Trained.
    config, method, state, calibration, info: of `trained`.
  """

  def __init__(self, workdir, opened: trained.Trained, overrides: dict[str, Any]):
    self.workdir, self.trained, self._overrides = pathlib.Path(workdir), opened, overrides

  config = property(lambda self: self.trained.config)
  method = property(lambda self: self.trained.method)
  state = property(lambda self: self.trained.state)
  calibration = property(lambda self: self.trained.calibration)
  info = property(lambda self: self.trained.info)

  @functools.cached_property
  def _trained_on(self):
    from medae_jax.core.trained_on import record
    return record.read(self.workdir)

  # ------------------------------------------------------------------------------------ scoring
  def score(self, image, **changed) -> Score:
    """Map, mask, score, p-value and verdict of one image or scan.

    Args:
      image: a file (NIfTI, PNG, TIFF, JPEG, DICOM), or the folder of one scan: prepared as training
        prepared its own, and checked against what the run was trained on. Or an array that is
        prepared already as config.data says: float32 [H,W], [H,W,C], or a batch [B,H,W,C]; also a
        dict {"image": batch, ...}.
      **changed: {"predict.threshold": 0.3, ...}.

    Returns:
      A `Score` on the grid of the file or array.

    Raises:
      UserError: the file does not fit the model, is damaged, or the folder holds several scans; the array
        is not prepared (integers, 0 ... 255, NaN, other axes).
    """
    if isinstance(image, (str, os.PathLike)):
      return self._score_file(places.given(image, "what is to be scored"), changed)
    from medae_jax.tasks import admit, base, given, score_of
    batch, single = given.batch(image, self.method.needs)
    said = given.warning(batch["image"], self._trained_on, self.config.eval.kind == "restoration")
    if said:
      logging.warning("this array: %s", said)
    run = self.trained.override(changed)
    base.check(run.config, run.image_shape)  # as predict does
    outputs = run.score(batch)
    admit.check_finite(*outputs.values())
    found = score_of.arrays(run.config, self.calibration, outputs, single=single)
    return dataclasses.replace(found, row={"warning": said} if said else {})

  def _score_file(self, path, changed) -> Score:
    from medae_jax.tasks import score_of
    with scratch.folder(None, "medae_score_") as folder:
      (row,) = self._predict(path, folder / "out", changed, at_most=1)
      return score_of.files(folder / "out", row)

  def predict(self, input, output=None, **changed) -> Predictions:
    """Maps, masks and overlays of every scan below `input` as files, and predictions.csv.

    Args:
      input: file or folder. output: folder; default <workdir>/predictions.
      **changed: fields, `**{"predict.threshold": 0.3}`.

    Returns:
      The rows of predictions.csv: a list of dicts with `.table()` and `.folder`.

    Raises:
      UserError: some inputs failed, after all others were written; the message names the first.
    """
    output = self.workdir / "predictions" if output is None else places.given(output, "output")
    return Predictions(self._predict(places.given(input, "input"), output, changed), output)

  def _predict(self, source, output, changed, at_most=None):
    from medae_jax import predict as predict_mode
    place = {"predict.input": os.fspath(source), "predict.output": os.fspath(output)}
    self.trained.score_fn  # noqa: B018 - made here, one compiled program serves all calls
    return predict_mode.predict(self.workdir, {**changed, **place}, run=self.trained, at_most=at_most)

  # ------------------------------------------------------------------------------------ numbers
  def evaluate(self, split: str = "test", **changed) -> Evaluation:
    """Scores a whole split (and val before it, which sets the thresholds anew), and writes report.html.

    Args:
      **changed: fields, `**{"eval.bootstrap": 200}`; `**{"data.dir": FOLDER}` is an external test set.

    Raises:
      UserError: no such split. FileNotFoundError: the data are gone.
    """
    from medae_jax import evaluate as evaluate_mode
    from medae_jax.core import trained
    from medae_jax.tasks import external
    if not isinstance(split, str):
      raise UserError(f"a split is a name, as 'test', not {type(split).__name__}")
    found = evaluate_mode.evaluate(self.workdir, {**self._overrides, **changed}, [split])
    try:
      self.trained = trained.load(self.workdir, self._overrides)  # the thresholds are new
    except UserError as e:  # made with a preparation that predict.force insisted on: not this run's
      logging.warning("%s. This run keeps the thresholds it was opened with.", e)
    return Evaluation(found[split], external.folder(self.workdir, changed) or self.workdir)

  def evaluation(self, split: str = "test") -> Evaluation:
    """What the last evaluation found, without scoring again.

    Raises:
      FileNotFoundError: the split was not evaluated yet.
    """
    path = self.workdir / "evaluation" / f"{split}.json"
    if not path.is_file():
      raise FileNotFoundError(f"{path} does not exist: {_AGAIN}")
    return Evaluation(files.read_json(path, _AGAIN), self.workdir)

  def export(self, output=None, **changed) -> pathlib.Path:
    """A self-contained artefact of the run, as --mode=export writes it; returns its folder."""
    from medae_jax import export as export_mode
    output = None if output is None else os.fspath(places.given(output, "output"))
    return pathlib.Path(export_mode.export(self.workdir, output, overrides={**self._overrides, **changed}))

  def __repr__(self):
    return f"Run({os.fspath(self.workdir)!r}, {self.config.method.name}, step {self.info['step']})"

  def _repr_html_(self):
    return display.run(self.workdir, self.config, self.info, self.calibration)
