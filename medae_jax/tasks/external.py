"""External test sets: another hospital's data, scored with everything that the run's own val has fixed.

`--mode=evaluate --config.data.dir=OTHER`: score weights, thresholds and scales are those of
<workdir>/calibration.json, nothing is chosen on the other data, and results go into
<workdir>/external/<name>/ beside the run's own evaluation, which stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np

from data_pipelines.intake import copies
from medae_jax.core import calibration as calibration_lib, config as config_lib, files
from medae_jax.core.device import hosts
from medae_jax.core.errors import UserError
from medae_jax.core.trained_on import changed as changed_lib, fit, record

_LOOKED_AT = 32  # images of a split whose intensities are compared with the training's
# Fields of config.data that say where data come from; of the last two alone predict.force=True tests.
_PLACES = (*changed_lib.PLACES, "lists_root", "manifest")


def folder(workdir, changed: Mapping[str, Any]) -> pathlib.Path | None:
  """Where results on other data than the run's go; None where the data are the run's own."""
  own = config_lib.read_config(workdir).data
  asked = {k.removeprefix("data."): v for k, v in changed.items() if k.startswith("data.")}
  moved = changed_lib.moved(own, asked, [k for k in asked if k in _PLACES])
  # A run on synthetic data has no data of its own to leave; the first folder given is another set too.
  if not moved:
    return None
  text = repr(sorted((f"data.{k}", v) for k, v in moved.items()))
  name = pathlib.Path(next(reversed(moved.values()))).name or "data"
  return pathlib.Path(workdir) / "external" / f"{name}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def opened_as(run, asked: Mapping[str, Any], known: Mapping[str, Any] | None):
  """The run without the fields of its own data set that another one, which is to be opened, does not have.

  Args:
    run: core.trained.Trained. asked: what a command changes, {"data.name": "paired", ...}; what it names
      stays, to be refused.
    known: fields of the data set that is opened; None = not known.
  """
  config = run.config
  if "data.name" not in asked or known is None:
    return run
  foreign = [k for k in config.data if k not in known and not any(
      name == f"data.{k}" or name.startswith(f"data.{k}.") for name in asked)]
  if not foreign:
    return run
  logging.info("config.data.name=%s does not read %s of the run's own data set.", config.data.name,
               ", ".join(foreign))
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for name in foreign:
      del config.data[name]
  return dataclasses.replace(run, config=config.lock())


def say_known(workdir, splits: Mapping[str, Any]) -> None:
  """Warns where images of another set are, byte for byte, some that the run was trained or calibrated on.

  Of runs with a splits.csv, which says which these are.

  Args:
    splits: {name: source} of what is scored.
  """
  own, table = config_lib.read_config(workdir).data, pathlib.Path(workdir) / config_lib.SPLIT
  if not own.get("dir", "") or not table.is_file():
    return
  sides: dict[str, list[str]] = {"train": [], "val": []}
  for row in files.read_csv(table, "take it away"):
    sides.setdefault(row.get("split", ""), []).append(str(pathlib.Path(own.dir) / row.get("file", "")))
  seen = {name: sides[name] for name in ("train", "val")}
  scored = [str(p) for s in splits.values() for p in (s.meta(i).get("path") for i in range(len(s))) if p]
  found = [f for f in copies.find({**seen, "scored": scored}) if f[3] == "scored"]
  if found:
    logging.warning("%d file(s) of this set are, byte for byte, some that the run was trained on or that its "
                    "thresholds are from, the first: %s and %s (%s): results say how well it knows them",
                    len(found), found[0][2], found[0][0], found[0][1])


def say_unusual(trained: record.TrainedOn | None, splits: Mapping[str, Any]) -> None:
  """Warns where most of another set is unusual for the run, as predict does of one input: negatives, say.

  Args:
    trained: None = nothing is known of the training. splits: {name: source} of what is scored.
  """
  for name, source in splits.items() if trained else ():
    places = np.unique(np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).astype(int))
    found = (source.read(np.array([i])).get("image") for i in places)
    images = [np.asarray(i, np.float32) for i in found if i is not None]
    if trained.kind == "volume":  # slices differ, a scan's together do not
      images = [np.concatenate(images)] if images else []
    said = list(filter(None, (fit.warning(trained, fit.Seen(trained.kind, coloured=1.0), i) for i in images)))
    if 2 * len(said) > len(images):
      logging.warning("%s of this set, by %d images that were looked at: %s", name, len(places), said[0])


def evaluate(module, run, dataset, workdir, out: pathlib.Path, wanted: Sequence[str],
             one_split: Callable, write_report: Callable) -> dict[str, Any]:
  """Scores splits of another data set with the run's calibration.

  Args:
    wanted: splits; () = those of config.eval.splits without val, else all.

  Raises:
    UserError: a wanted split does not exist; the run has no calibration.
  """
  if run.calibration is None:
    raise UserError(f"{workdir} has no {calibration_lib.FILE}: run --mode=evaluate on its own data first, "
                    "which sets the thresholds that hold for others'")
  usual = [s for s in run.config.eval.splits if s in dataset.splits and s != "val"]
  order = list(wanted) or usual or list(dataset.splits)
  unknown = [s for s in order if s not in dataset.splits]
  if unknown or not order:
    raise UserError(f"the data set has no split {', '.join(unknown) or 'to score'}; config.eval.splits "
                    f"can be {', '.join(dataset.splits) or '(nothing)'}")
  logging.info("External test set %s: score, thresholds and scales are those of %s (%s); nothing is chosen "
               "on these data. Results: %s", dataset.name, pathlib.Path(workdir) / calibration_lib.FILE,
               calibration_lib.explain(run.calibration), out)
  trained = record.read(workdir)
  if trained or (pathlib.Path(workdir) / config_lib.SPLIT).is_file():
    splits = {split: dataset.split(split) for split in order}
    say_known(workdir, splits)
    say_unusual(trained, splits)
  results = {split: one_split(module, run, dataset, split, run.calibration, out)[0]
             for split in order}
  with hosts.heard():
    if not jax.process_index():
      # What the page of the folder needs to stand alone.
      files.write_json(out / calibration_lib.FILE, run.calibration)
      config_lib.write_config(run.config, out)
      logging.info("Report: %s", write_report(out))
  return results
