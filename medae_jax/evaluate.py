"""Evaluation: checkpoint + split -> evaluation/<split>.json, <split>.csv, <split>_*.png, report.html.

The validation split is scored first: it fixes thresholds and colour scales (calibration.json), which
the test split and predict and export then use. What is measured is the evaluator's choice
(`config.eval.kind`, a file in medae_jax/evaluators); this file holds what all kinds share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
import datetime
import importlib
import io
import pathlib
import sys
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from data_pipelines import stream
from medae_jax import calibrate
from medae_jax import report
from medae_jax.core import checkpoint
from medae_jax.core import method as method_lib
from medae_jax.core import parallel
from medae_jax.core import writer


def evaluate(workdir, config_overrides: Mapping[str, Any] | None = None,
             splits: Sequence[str] | None = None) -> dict[str, Any]:
  """Evaluates the checkpoint of `workdir` on whole splits.

  Args:
    workdir: folder of a training run or of `convert`.
    config_overrides: {"eval.batch_size": 32, "data.path": ...}, on top of <workdir>/config.json.
    splits: which splits; default config.eval.splits, else all that the data set has. "val", where
      it exists, is always scored first, since it sets the thresholds of the others.

  Returns:
    {split: what evaluation/<split>.json holds}.

  Raises:
    FileNotFoundError: no checkpoint, or no data.
    ValueError: unknown override, split or kind; damaged checkpoints; out of memory.
  """
  if jax.process_index():  # one host scores the split on its own devices
    return {}
  workdir = pathlib.Path(workdir)
  which = (config_overrides or {}).get("eval.checkpoint", None)
  config = calibrate.override(checkpoint.read_config(workdir), config_overrides)
  _, _, state, info = checkpoint.restore_for_scoring(
      workdir, which or config.eval.get("checkpoint", "best"))
  module = plugin("evaluators", config.eval.get("kind", "anomaly"))
  dataset = open_dataset(config)
  logging.info("Evaluating step %d (%s checkpoint) on %s.", info["step"], info["which"], dataset.name)

  results, calibration = {}, None
  for split in split_order(dataset, splits or config.eval.get("splits", ())):
    if split == "val":
      fitted = _fit_score(module, config, state, dataset)
      config = calibrate.override(config, {f"method.score.{k}": v for k, v in fitted.items()})
    results[split], found = _one_split(module, config, state, dataset, split, calibration, workdir,
                                       info)
    if found is not None:
      calibration = {**found, "kind": config.eval.get("kind", "anomaly"), "split": split,
                     "checkpoint": {"which": info["which"], "step": info["step"]},
                     "dataset": dataset.name, "synthetic": bool(dataset.synthetic),
                     "score": fitted}
      writer.write_json(workdir / calibrate.FILE, calibration)
      logging.info("Calibration on val: %s", calibrate.explain(calibration))
  logging.info("Report: %s", report.write(workdir))
  return results


def plugin(group: str, kind: str):
  """The module medae_jax/<group>/<kind>.py.

  Raises:
    ValueError: no such file, with the names that exist.
  """
  folder = pathlib.Path(__file__).parent / group
  kinds = sorted(f.stem for f in folder.glob("*.py") if not f.stem.startswith("_"))
  if kind not in kinds:
    raise ValueError(f"config.eval.kind={kind!r} is not in medae_jax/{group}: "
                     f"it has {', '.join(kinds) or 'nothing yet'}")
  return importlib.import_module(f"medae_jax.{group}.{kind}")


def open_dataset(config):
  """The data set that config.data.name names, data_pipelines/<name>.py or a dotted module.

  Raises:
    ValueError: there is no such module; FileNotFoundError: its files are missing.
  """
  name = config.data.name
  module = name if "." in name else f"data_pipelines.{name}"
  try:
    found = importlib.import_module(module)
  except ModuleNotFoundError as error:
    if error.name != module:  # a package that the module needs is missing: say that instead
      raise
    raise ValueError(f"config.data.name={name!r}: there is no data_pipelines/{name}.py") from error
  return found.open(config.data, config.get("seed", 0))


def split_order(dataset, wanted: Sequence[str]) -> list[str]:
  """The wanted splits (all when empty) with "val" first, added where the data set has it."""
  known = list(dataset.splits)
  unknown = [s for s in wanted if s not in known]
  if unknown or not known:
    raise ValueError(f"{dataset.name} has no split {', '.join(unknown) or 'to evaluate'}; "
                     f"config.eval.splits can be {', '.join(known) or '(nothing)'}")
  order = [s for s in known if not wanted or s in wanted]
  return (["val"] if "val" in known else []) + [s for s in order if s != "val"]


def score_fn(config, state):
  """numpy batch -> outputs of method.score, on all local devices; the batch may have any size.

  Only the inputs that the method asks for (`score_needs`, default "image") are passed on: no label
  or mask can leak into a score, and one shape is compiled once.
  """
  method = method_lib.load(config)
  needs = tuple(getattr(method, "score_needs", ("image",)))
  compiled = parallel.per_example_fn(method.score)

  def score(batch):
    missing = [k for k in needs if k not in batch]
    if missing:
      raise ValueError(f"the data has no {missing[0]!r}, which {config.method.name} needs to score")
    try:
      return compiled(state, {k: batch[k] for k in needs})
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      raise ValueError("out of device memory while scoring a batch of shape "
                       f"{np.shape(batch[needs[0]])}: make config.eval.batch_size smaller") from error
  return score


def run(score, source, evaluator_update, *, batch_size: int, on_device: bool, label: str) -> None:
  """Streams a source through `score`; the device works on the next batch while the host digests."""
  progress = Progress(label, len(source))
  waiting = None

  def digest(batch, outputs):
    evaluator_update(batch, outputs if on_device else jax.tree.map(np.asarray, outputs))
    progress.add(int(np.sum(batch["valid"])))

  for batch in stream.eval_batches(source, batch_size=batch_size):
    outputs = score(batch)
    if waiting is not None:
      digest(*waiting)
    waiting = (batch, outputs)
  if waiting is not None:
    digest(*waiting)
  progress.close()


def _fit_score(module, config, state, dataset) -> dict[str, Any]:
  """Options of config.method.score fitted on val; {} unless the kind and the config ask for it."""
  fitter = getattr(module, "fitter", lambda *_: None)(config, dataset)
  if fitter is None:
    return {}
  run(score_fn(config, state), dataset.split("val"), fitter.update, on_device=False,
      batch_size=config.eval.batch_size, label="val, fitting the score")
  return fitter.result()


def _one_split(module, config, state, dataset, split, calibration, workdir, info):
  """Scores one split and writes its files. Returns (result, calibration found or None)."""
  score, size = score_fn(config, state), config.eval.batch_size
  evaluator = module.Evaluator(config, dataset, split, calibration)
  try:
    source, device = dataset.split(split), evaluator.on_device
    if not len(source):
      raise ValueError(f"split {split!r} of {dataset.name} is empty: nothing to evaluate")
    begin = time.monotonic()
    run(score, source, evaluator.update, batch_size=size, on_device=device, label=split)
    found = None
    if split == "val":
      found = evaluator.calibrate()
      evaluator.calibration = found
    chosen = np.asarray(evaluator.choose(), np.int64)
    if chosen.size:
      run(score, Chosen(source, chosen), evaluator.show, batch_size=min(size, chosen.size),
          on_device=device, label=f"{split}, pictures")
    result = {"dataset": dataset.name, "synthetic": bool(dataset.synthetic), "split": split,
              "n_images": len(source), **evaluator.result(),
              "seconds": round(time.monotonic() - begin, 3), **about(info)}
    folder = workdir / "evaluation"
    writer.write_json(folder / f"{split}.json", result)
    write_csv(folder / f"{split}.csv", evaluator.rows())
    for name, picture in evaluator.panels().items():
      write_png(folder / f"{split}_{name}.png", picture)
  finally:
    evaluator.close()
  return result, found


class Chosen:
  """Some examples of a source, as a source; `position` in batches stays that of the full source."""

  def __init__(self, source, positions):
    self._source, self._positions = source, positions
    self.example_ops, self.batch_ops = source.example_ops, source.batch_ops
    self.ragged = getattr(source, "ragged", False)

  def __len__(self):
    return len(self._positions)

  def read(self, indices):
    return self._source.read(self._positions[np.asarray(indices)])

  def read_one(self, i):
    return self._source.read_one(int(self._positions[i]))

  def meta(self, i):
    return self._source.meta(int(self._positions[i]))


def about(info: Mapping[str, Any]) -> dict[str, Any]:
  """Which checkpoint, which versions, when."""
  versions = {name: getattr(importlib.import_module(name), "__version__", "?")
              for name in ("jax", "flax", "numpy")}
  return {"checkpoint": {"which": info["which"], "step": info["step"]},
          "versions": {"python": sys.version.split()[0], **versions},
          "device": jax.devices()[0].device_kind,
          "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


class Progress:
  """One line on stderr: share done, images/s, ETA; every few seconds where stderr is no terminal."""

  def __init__(self, label: str, total: int, out=None):
    self._label, self._total, self._done = label, total, 0
    self._out = out or sys.stderr
    self._tty = self._out.isatty()
    self._begin = self._last = time.monotonic()

  def add(self, n: int) -> None:
    """Counts n more images."""
    self._done += n
    now = time.monotonic()
    if now - self._last > (0.2 if self._tty else 10):
      self._print(now)

  def close(self) -> None:
    """Prints the last state."""
    self._print(time.monotonic())
    if self._tty:
      self._out.write("\n")

  def _print(self, now):
    self._last = now
    rate = self._done / max(now - self._begin, 1e-9)
    eta = (self._total - self._done) / max(rate, 1e-9)
    text = (f"{self._label}: {self._done}/{self._total} ({100 * self._done / max(self._total, 1):.0f} %)"
            f" {rate:.1f} images/s, ETA {int(eta) // 60}:{int(eta) % 60:02d}")
    self._out.write(f"\r{text}  " if self._tty else text + "\n")
    self._out.flush()


# ------------------------------------------------------------------------------------ atomic files
def write_bytes(path, data: bytes) -> pathlib.Path:
  """Writes a file whole or not at all: temporary name, then rename."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + ".tmp")
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)
  return path


def write_csv(path, rows: Sequence[Mapping[str, Any]]) -> pathlib.Path | None:
  """Rows as CSV; the columns are the union of all keys in order of first appearance."""
  if not rows:
    return None
  columns = list(dict.fromkeys(k for row in rows for k in row))
  text = io.StringIO()
  out = csv.DictWriter(text, columns, restval="", lineterminator="\n")
  out.writeheader()
  blank = lambda v: "" if v is None or (isinstance(v, float) and not np.isfinite(v)) else v
  out.writerows({k: blank(v) for k, v in row.items()} for row in rows)
  return write_bytes(path, text.getvalue().encode())


def write_png(path, picture: np.ndarray) -> pathlib.Path:
  """uint8 [H,W,3] or [H,W] as PNG."""
  from PIL import Image  # pylint: disable=import-outside-toplevel
  data = io.BytesIO()
  Image.fromarray(picture).save(data, "PNG")
  return write_bytes(path, data.getvalue())
