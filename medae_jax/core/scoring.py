"""One compiled score function for evaluate, predict and validation, and the progress bar of long scoring."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import pathlib
import sys
import traceback

import flax.errors
import jax
import numpy as np
import tqdm

from medae_jax.core import config as config_lib, method as method_lib, parallel
from medae_jax.core.errors import UserError

_MISFITS = (flax.errors.ScopeParamShapeError, flax.errors.ScopeParamNotFoundError)
_MISFIT = ("the parameters of the checkpoint do not fit the network that config.model says: it was edited, "
           "or the checkpoint is of another run")
_SMALLER = "make config.eval.batch_size (or predict.batch_size) smaller"


def score_fn(config, state, trained_on=None):
  """numpy batch -> outputs of method.score, on all local devices; the batch may have any size.

  Only the inputs that the method asks for (`score_needs`, and `score_optional` where the batch has
  them) are passed on: no label or mask can leak into a score, and one shape is compiled once.

  Args:
    trained_on: (H, W, C) of the training images where known: an image of another shape that the
      network cannot take is then the user's, said in one line.
  """
  method = method_lib.load(config)
  compiled = parallel.per_example_fn(method.score)
  call = lambda s, batch: compiled(s, method.prepare(s, batch))
  return explained(config, method, call, state, method.score_needs, trained_on)


def check_fields(run, workdir) -> None:
  """Traces the score of a trained run once, without compiling: see `trace`.

  Raises:
    UserError: which field. What else is wrong is said where the score is needed.
  """
  if run.image_shape is None or tuple(run.method.score_needs) != ("image",):
    return
  if not hasattr(run.method, "score"):  # an export has its program, traced when it was made
    return
  batch = {"image": jax.ShapeDtypeStruct((1, *run.image_shape), np.float32)}
  trace(run.config, run.method, run.state, batch, f"{pathlib.Path(workdir) / 'config.json'}: ")


def trace(config, method, state, batch, where: str = "", fitted: bool = True) -> None:
  """Traces `method.score` on shapes, so that a wrong option of the score is found before anything is done.

  Args:
    where: begins the line about a field that the config lacks.
    fitted: False = the state lacks what `finalize` adds: all that can be said is which field is missing.

  Raises:
    UserError: a field that the config lacks; what the score refuses; parameters of another network; whatever
      a method outside this package raises, with the place in its file. Faults of the package's own are said
      where the score is needed.
  """
  try:
    jax.eval_shape(method.score, state, batch)
  except Exception as error:
    if line := config_lib.missing_field(error):
      raise UserError(f"{where}{line}") from error
    if isinstance(error, UserError) and fitted:
      raise
    if isinstance(error, _MISFITS) and fitted:
      raise UserError(f"{where}{_MISFIT}") from error
    # Asked of the instance, as everything else: a method may be any object with the members of the protocol.
    own = getattr(method.prepare, "__func__", method.prepare)  # adds to the batch what score reads
    prepared = own is not method_lib.BaseMethod.prepare
    if ":" in config.method.name and fitted and not prepared:
      place = next((f for f in reversed(traceback.extract_tb(error.__traceback__))
                    if f.filename == inspect.getfile(type(method))), None)
      raise UserError(f"the score of config.method.name={config.method.name} fails with these fields of "
                      f"config.method.score: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
                      + (f" ({place.filename} line {place.lineno})" if place else "")) from error


def pictures_fn(config, state):
  """numpy batch -> what `method.pictures` shows of the training task, {name: [B,H,W,C] in [0,1]}."""
  method = method_lib.load(config)
  compiled = parallel.per_example_fn(lambda s, b: method.pictures(s, b, jax.random.key(0)), seldom=True)
  return explained(config, method, compiled, state, (*method.score_needs, "index"))


def explained(config, method, compiled, state, needs, trained_on=None):
  """`compiled` on the keys that it may see; missing keys, shapes that do not fit and exhausted
  memory in one line."""
  name = config.method.name

  def call(batch):
    missing = [k for k in needs if k not in batch]
    if missing:
      raise UserError(f"the data has no {missing[0]!r}, which {name} needs to score")
    optional = [k for k in method.score_optional if k in batch]
    try:
      with memory_explained(f"scoring a batch of shape {np.shape(batch[needs[0]])}", _SMALLER):
        return compiled(state, {k: batch[k] for k in (*needs, *optional)})
    except (TypeError, ValueError, flax.errors.FlaxError) as error:
      shape = np.shape(batch.get("image", ()))[1:]
      if isinstance(error, _MISFITS) and (trained_on is None or shape == tuple(trained_on)):
        raise UserError(f"{_MISFIT}, or images of shape {shape} are none as those of the training") from error
      if isinstance(error, UserError) or trained_on is None or shape == tuple(trained_on):
        raise
      raise UserError(f"images of shape {shape} do not fit this run of {name}, which was trained on "
                      f"{tuple(trained_on)}: see config.data") from error
  return call


@contextlib.contextmanager
def memory_explained(what: str, remedy: str):
  """Exhausted device memory inside the block becomes one line.

  Raises:
    UserError: "out of device memory while {what}: {remedy}".
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise UserError(f"out of device memory while {what}: {remedy}") from error


def progress(label: str, total: int | None, unit: str, done: int = 0, active: bool = True):
  """A progress bar with rate and ETA: on stderr, in a notebook as a widget where ipywidgets is installed;
  a line every 30 s where nobody watches.

  Args:
    total: None where it is not known. done: how many are finished already. active: False = show nothing.
  """
  notebook = "ipykernel" in sys.modules
  watched = notebook or sys.stderr.isatty()
  interval = 0.3 if watched else 30  # carriage returns would fill a log file
  bar = tqdm.tqdm
  if notebook and importlib.util.find_spec("ipywidgets"):
    bar = importlib.import_module("tqdm.notebook").tqdm
  return bar(total=total, desc=label, unit=f" {unit}", initial=done, mininterval=interval,
             maxinterval=2 * interval, disable=not active or bool(jax.process_index()))
