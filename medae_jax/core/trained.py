"""A trained run, opened once: one config, one checkpoint, one calibration for all that score with it.

evaluate, predict, export, convert's check, train.init_from and `medae_jax.load` (api.py) start here.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import os
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np

from medae_jax.core import (
  artefact,
  calibration as calibration_lib,
  checkpoint,
  checks,
  config as config_lib,
  method as method_lib,
  parallel,
  scoring,
)
from medae_jax.core.errors import UserError, allow_outside_code
from medae_jax.core.method import State
from medae_jax.core.trained_on import changed


@dataclasses.dataclass(frozen=True)
class Trained:
  """What `load` returns.

  Attributes:
    config: locked ConfigDict: config.json, the options of the score fitted on the validation split
      (calibration.json, entry "score"), then the overrides.
    method: the method of that config.
    state: parameters and what finalize fitted; no optimisers.
    calibration: what calibration.json holds; None where validation was not evaluated yet.
    info: the checkpoint's meta data, with "which" ("best" or "last") and "step".
  """

  config: Any
  method: Any
  state: State
  calibration: dict[str, Any] | None
  info: dict[str, Any]

  @functools.cached_property
  def score_fn(self):
    """numpy batch -> outputs of method.score on all local devices; see core.scoring.score_fn."""
    return scoring.score_fn(self.config, self.state, self.image_shape)

  @functools.cached_property
  def pictures_fn(self):
    """numpy batch -> what the method shows of its training task; see core.scoring.pictures_fn."""
    return scoring.pictures_fn(self.config, self.state)

  def score(self, images) -> dict[str, np.ndarray]:
    """Scores float32 [B,H,W,C] (or a batch {"image": ...}), prepared as config.data says."""
    batch = images if isinstance(images, Mapping) else {"image": np.asarray(images, np.float32)}
    return jax.tree.map(np.asarray, self.score_fn(batch))

  @property
  def image_shape(self) -> tuple[int, int, int] | None:
    """(H, W, C) of "image" in the batches of the checkpoint's stage; None where it is not noted."""
    batches = self.info.get("batches") or {}
    spec = batches.get(self.info.get("stage")) or next(iter(batches.values()), {})
    shape = (spec.get("image") or [None])[0]
    return tuple(shape[1:]) if shape and len(shape) == 4 else None

  @property
  def checkpoint(self) -> str:
    """"best checkpoint, step 400"."""
    return f"{self.info['which']} checkpoint, step {self.info['step']}"

  def override(self, values: Mapping[str, Any]) -> Trained:
    """The same parameters under a config with {"group.field": value} replaced.

    Raises:
      UserError: as `load`.
    """
    if not values:
      return self
    config = config_lib.override(self.config, values)
    changed.check(self.config, config, converted="converted_from" in self.info, splits=False)
    if self.calibration and not all(name.startswith("predict.") for name in values):
      changed.check_calibration(config, self.calibration, self.config)
    other = dataclasses.replace(self, config=config, method=method_lib.load(config))
    if all(name.startswith("predict.") for name in values):
      other.__dict__["score_fn"] = self.score_fn  # a score reads none of these: compiled once
    return other


def load(workdir: str | os.PathLike, overrides: Mapping[str, Any] | None = None, *,
         calibrated: bool = True, splits: bool = False, allow_code: bool = False) -> Trained:
  """Opens a run: no data set, no optimiser, any number of devices.

  Args:
    workdir: folder of a training run or of `convert`.
    overrides: {"eval.checkpoint": "last", "method.score.median": 0, ...} on top of config.json.
      eval.checkpoint chooses the parameters; "best" falls back to the last ones where no best was
      kept, and "last" to the best ones (a converted run has no other).
    splits: True = the run's data set is opened with this config: other splits of it are refused.
    calibrated: False = without calibration.json: for evaluate, which makes it.
    allow_code: True = config.json may name methods and data sets outside this package, and they are
      imported, from here on in this process.

  Raises:
    FileNotFoundError: no config.json or no checkpoint there.
    UserError: an unknown field, a damaged file, no checkpoint that can be read, or a field that a run may
      not be scored with another value of (core/trained_on/changed.py; predict.force=True insists).
  """
  if allow_code:
    allow_outside_code()
  config = config_lib.read_config(workdir)
  if artefact.is_export(pathlib.Path(workdir)):
    raise UserError(f"{workdir} is an export: predict and serve take it, all else takes the run's workdir")
  calibration = calibration_lib.read(workdir) if calibrated else None
  fitted = (calibration or {}).get("score") or {}
  try:
    config = config_lib.override(config, {f"method.score.{k}": v for k, v in fitted.items()})
  except UserError as e:
    raise UserError(f"{pathlib.Path(workdir) / calibration_lib.FILE} does not fit this run: {e}") from e
  as_trained, config = config, config_lib.override(config, overrides)
  checks.check(config)
  state, info = _restore(workdir, config.eval.checkpoint)
  changed.check(as_trained, config, converted="converted_from" in info, splits=splits)
  if calibration:
    changed.check_calibration(config, calibration, as_trained)
  noted = (calibration or {}).get("checkpoint") or {}
  made_with = noted.get("step", info["step"])
  if made_with == info["step"] and noted.get("checksum", info["checksum"]) != info["checksum"]:
    logging.warning("%s was made with another network than this one, which has its step: is it of another "
                    "run? --mode=evaluate makes it afresh.", calibration_lib.FILE)
  if made_with != info["step"]:
    logging.warning("%s was made with the checkpoint of step %d, this one is of step %d: thresholds "
                    "may not fit. --mode=evaluate with the same --config.eval.checkpoint makes it "
                    "afresh.", calibration_lib.FILE, made_with, info["step"])
  return Trained(config, method_lib.load(config), state, calibration, info)


def _restore(workdir, which):
  checkpoints, damaged = checkpoint.Checkpoints(workdir), None
  try:
    for name in dict.fromkeys((which, "best", "last")):
      try:
        found = checkpoints.restore_model(name)
      except UserError as e:  # all of this kind are damaged
        found, damaged = None, damaged or e
      if found is not None:
        if damaged:
          logging.warning("The %s checkpoint is damaged: using the %s one, of step %d.", which, name,
                          int(found[0].step))
        state, meta = found
        if jax.process_count() > 1:  # each process scores on its own devices
          state = parallel.to_host(state)
        return state, {**meta, "which": name, "step": int(state.step)}
  finally:
    checkpoints.close()
  if damaged:
    raise damaged
  raise FileNotFoundError(f"no checkpoint in {workdir}/checkpoints: train first "
                          f"(launch.py --mode=train --workdir={workdir}), or, where it is trained, bring "
                          "back its folder checkpoints (renamed, or left out of a copy).")
