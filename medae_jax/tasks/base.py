"""What every task has: an evaluator (scored batches -> numbers, tables, pictures), a predictor
(files -> files), and its own fields of the config.

`config.eval.kind` names the folder medae_jax/tasks/<kind>; `Evaluator` lies in its evaluator.py,
`Predictor` in its predictor.py. fields.py, which configs import without JAX, has EVAL and PREDICT
(defaults of its fields of config.eval and config.predict), RULES (their ranges) and `check` (what
depends on several of them). `medae_jax/evaluate.py` restores the checkpoint, streams a split through
`method.score`, hands the batches to the evaluator and writes what it returns: an evaluator never
reads files. `medae_jax/predict.py` walks over the inputs; the predictor reads one and returns what
is to be written, on the grid, orientation, depth and colour of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
import importlib
import pathlib
from typing import Any

import numpy as np

from data_pipelines import dataset as datasets
from data_pipelines.intake.find import Found
from medae_jax.core import checks
from medae_jax.core.errors import UserError, shown
from medae_jax.tasks import admit


def plugin(kind: str, part: str):
  """The module medae_jax/tasks/<kind>/<part>.py; part is "evaluator", "predictor" or "fields".

  Raises:
    UserError: no such task, with the names that exist.
  """
  folder = pathlib.Path(__file__).parent
  kinds = sorted(f.parent.name for f in folder.glob(f"*/{part}.py"))
  if kind not in kinds:
    raise UserError(f"config.eval.kind={shown(kind)} is not in medae_jax/tasks: "
                     f"it has {', '.join(kinds) or 'nothing yet'}")
  return importlib.import_module(f"medae_jax.tasks.{kind}.{part}")


def check(config, image_shape: Sequence[int] | None = None, splits: Sequence[str] = ()) -> None:
  """Refuses a config that its task cannot evaluate: before training, not after it.

  Args:
    image_shape: (..., C) of the images, None where that is not known yet.
    splits: of the data set, () where it is not open yet.

  Raises:
    UserError: no such task; a field that it needs is missing, or out of its range; none of
      config.eval.splits exists.
  """
  kind = config.eval.kind
  module = plugin(kind, "fields")
  missing = [f"config.{group}.{name}" for group, names in (("eval", module.EVAL),
                                                          ("predict", module.PREDICT))
             for name in names if name not in config[group]]
  if missing:
    raise UserError(f"config.eval.kind={kind!r} needs {', '.join(missing)}, which this config does not "
                    "have: it was made for another task")
  checks.apply(config, module.RULES)
  if "data" in config and config.data.name in datasets.dataset_names():
    datasets.module(config.data.name).resolve(config.data)  # predict reads fields without opening data
  module.check(config, image_shape[-1] if image_shape else None)
  if splits:
    split_order(splits, config.eval.splits)


def split_order(known: Sequence[str], usual: Sequence[str], wanted: Sequence[str] = ()) -> list[str]:
  """Splits to score: `wanted`, else those of `usual` that exist; "val" first, added if it exists.

  Args:
    known: splits of the data set.

  Raises:
    UserError: a wanted split does not exist or is named twice, or none of the usual ones exists.
  """
  if twice := next((s for s in wanted if list(wanted).count(s) > 1), ""):
    raise UserError(f"split {twice} is named twice: name each once")
  order = list(wanted) or [s for s in usual if s in known]
  # A config may name val and test for sets that lack one of them; any other word is a mistake.
  unknown = [s for s in (wanted or [s for s in usual if s not in ("val", "test")]) if s not in known]
  if unknown or not order:
    raise UserError(f"the data set has no split {', '.join(unknown or usual)}; config.eval.splits can "
                    f"be {', '.join(known) or '(nothing)'}")
  return (["val"] if "val" in known else []) + [s for s in order if s != "val"]


class BaseEvaluator:
  """What `evaluate.py` asks of an evaluator, with defaults for the optional parts.

  Attributes:
    on_device: True = `update` gets the outputs of `method.score` as jax arrays (nothing is copied
      to the host unless the evaluator does it); False = numpy arrays.
  """

  on_device = False

  def __init__(self, config, dataset, split: str, calibration: dict[str, Any] | None):
    """`dataset`: data_pipelines DataSet; `calibration`: what val gave, None where there is none."""
    self.config, self.dataset, self.split = config, dataset, split
    self.calibration = calibration
    self.source = dataset.split(split)

  def update(self, batch: dict[str, np.ndarray], outputs: dict[str, Any]) -> None:
    """One batch, in the order of the split; rows with batch["valid"] False are padding.

    `batch["position"]` int64 [B] indexes the source (`self.source.meta(position)`).
    """
    raise NotImplementedError

  def result(self) -> dict[str, Any]:
    """The numbers for evaluation/<split>.json; NaN is written as null."""
    raise NotImplementedError

  def rows(self) -> list[dict[str, Any]]:
    """One dict a line of evaluation/<split>.csv (per patient or per image)."""
    return []

  def tables(self) -> dict[str, list[dict[str, Any]]]:
    """More tables: {name: rows} becomes evaluation/<split>_<name>.csv."""
    return {}

  def calibrate(self) -> dict[str, Any]:
    """For split "val" only: thresholds and scales, written to <workdir>/calibration.json.

    An entry "score" is merged into config.method.score by everything that scores afterwards.
    """
    return {}

  def choose(self) -> np.ndarray:
    """Positions of the examples to show; they are scored once more and given to `show`."""
    return np.zeros(0, np.int64)

  def show(self, batch: dict[str, np.ndarray], outputs: dict[str, Any],
           pictures: dict[str, np.ndarray]) -> None:
    """A batch of the chosen examples as numpy arrays, before `panels` is called.

    batch["position"] is the place in what `choose` returned. `pictures`: what `method.pictures`
    shows of the training task, {} for most methods; never part of `outputs`.
    """

  def panels(self) -> dict[str, np.ndarray]:
    """{name: uint8 [H,W,3]}; "panel" becomes evaluation/<split>_panel.png."""
    return {}

  def gallery(self) -> list[dict[str, Any]]:
    """The examples shown, a row each, for the page (`reporting.gallery`); after `show`."""
    return []

  def curves(self) -> dict[str, Any]:
    """What the page draws, as plain lists: evaluation/curves/<split>.json; {} = nothing. After `result`."""
    return {}

  def close(self) -> None:
    """Frees scratch files; called whether or not the evaluation succeeded."""


class BasePredictor:
  """What `predict.py` asks of a predictor.

  Attributes:
    image_shape: (H, W, C) of a training image as the checkpoint notes it; None where it does not.
      `predict.py` sets it before anything is predicted.
    found: what became of every file below the input; `find_inputs` sets it.
    gate: whether inputs fit what the run was trained on; a predictor asks it before it scores one,
      and has it say what is unusual about one. `predict.py` sets it.
  """

  image_shape: tuple[int, int, int] | None = None
  found: Found | None = None

  def __init__(self, config, calibration: dict[str, Any] | None, score_fn):
    """`score_fn`: numpy batch {"image": [B,H,W,C] f32} -> dict of jax arrays [B,...]."""
    self.config, self.calibration, self.score_fn = config, calibration, score_fn
    self.gate = admit.Gate(None, False)

  def begin(self, output: pathlib.Path, about: dict[str, Any]) -> None:
    """Called once before the first input, when `output` exists.

    Args:
      about: what predicts: "input", "method", "run", "checkpoint", "trained_on", "calibration" in words.
    """

  def find_inputs(self, input_path) -> list[Any]:
    """The inputs under a file or folder, in a fixed order.

    Raises:
      FileNotFoundError, ValueError: nothing there that can be read; one clear line.
    """
    raise NotImplementedError

  def name_of(self, item) -> str:
    """Short name of an input for the CSV and for error lines."""
    return str(item)

  def files_of(self, item) -> list[Any]:
    """Files that an input consists of: results never replace one of them."""
    return [item] if not isinstance(item, dict) else []

  def predict_one(self, item, out_dir) -> dict[str, Any]:
    """Reads one input, writes its files into the (temporary) folder out_dir; returns its CSV row.

    `predict.py` moves the files to their place when this returns: nothing partial is left behind.

    Raises:
      ValueError, OSError: one clear line that names the file; the other inputs go on.
    """
    raise NotImplementedError

  def after(self, item) -> list[pathlib.Path]:
    """Called when the files of an input are in their place: what was kept to go on from can go.

    Returns:
      The files of an input that an earlier run has finished, so that none was written.
    """
    return []
