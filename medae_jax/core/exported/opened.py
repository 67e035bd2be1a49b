"""A run or an export, opened for scoring: what `predict`, `serve` and `medae_jax.load` take.

An export has its parameters and its score as one program: nothing of it changes but fields of predict.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import os
import pathlib
import types
from typing import Any

from medae_jax.core import artefact, calibration, config as config_lib, files, scoring, trained
from medae_jax.core.errors import UserError, allow_outside_code
from medae_jax.core.method import State
from medae_jax.core.needs import Need
from medae_jax.core.trained_on import changed

_FIXED = "an export scores as it was exported: config.{} changes in the workdir of the run, then export again"


@dataclasses.dataclass(frozen=True)
class Exported(trained.Trained):
  """A `Trained` of an exported folder: no checkpoint, no parameters in `state`."""

  folder: pathlib.Path = pathlib.Path()

  @functools.cached_property
  def score_fn(self):
    """numpy batch -> outputs of score.stablehlo."""
    program = artefact.load(self.folder)
    return scoring.explained(self.config, self.method, lambda state, batch: program(batch), self.state,
                             self.method.score_needs, self.image_shape)

  def override(self, values: Mapping[str, Any]) -> trained.Trained:
    """The same program under a config with fields of predict replaced.

    Raises:
      UserError: another field; an orientation or a scale of slides that the run was not trained with.
    """
    if not values:
      return self
    if other := [name for name in values if not name.startswith("predict.")]:
      raise UserError(_FIXED.format(other[0]))
    found = dataclasses.replace(self, config=config_lib.override(self.config, values))
    changed.check(self.config, found.config, splits=False)
    found.__dict__["score_fn"] = self.score_fn  # compiled once
    return found


def load(folder: str | os.PathLike, overrides: Mapping[str, Any] | None = None, *,
         allow_code: bool = False) -> trained.Trained:
  """Opens the workdir of a run, or the folder that --mode=export made of one.

  Args:
    overrides: as of `trained.load`; for an export, fields of predict. allow_code: likewise.

  Raises:
    FileNotFoundError: neither is there.
    UserError: as of `trained.load`; an export without score.stablehlo, or with a damaged file.
  """
  folder = pathlib.Path(folder)
  if not artefact.is_export(folder):
    return trained.load(folder, overrides, allow_code=allow_code)
  if allow_code:
    allow_outside_code()
  manifest = files.read_json(folder / "manifest.json", "export again")
  if manifest["format"] != artefact.FORMAT:
    raise UserError(f"{folder} is a {manifest['format']!r}, and this version reads {artefact.FORMAT!r}: open "
                    "it with the medae_jax that wrote it, or export the run again")
  try:
    _check(folder, manifest)
    batch = {name: [[0, *(int(d) for d in one["shape"][1:])], str(one["dtype"])]
             for name, one in manifest["inputs"].items()}
    needs = tuple(batch)
    made_of = manifest["checkpoint"]
    # Exports of older versions say no range: arrays are compared with the training alone.
    needs_of = {k: Need(low=low, high=high) for k, (low, high) in manifest.get("range", {}).items()}
    info = {**made_of, "which": str(made_of["which"]), "step": int(made_of["step"]), "stage": "main",
            "batches": {"main": batch}}
    if not needs:
      raise ValueError("no inputs")
  except UserError:
    raise
  except (KeyError, IndexError, TypeError, ValueError, AttributeError) as e:
    raise UserError(f"{folder / 'manifest.json'} is damaged ({type(e).__name__}: {e}): export again") from e
  method = types.SimpleNamespace(score_needs=needs, score_optional=(), needs=needs_of)
  found = Exported(config_lib.read_config(folder), method, State.create({}), calibration.read(folder), info,
                   folder)
  found = found.override(dict(overrides or {}))
  if found.calibration:
    changed.check_calibration(found.config, found.calibration, found.config)
  return found


def _check(folder: pathlib.Path, manifest) -> None:
  """Raises UserError where a file that decides results is missing or not the one that was exported.

  Without trained_on.json results of SYNTHETIC training would not say so, and with another calibration.json
  calls by other thresholds would pass for this run's. Of config.json the group predict may be edited: it has
  predict.threshold; another window or orientation would prepare inputs otherwise than in training.
  """
  for name in ("score.stablehlo", "weights.npz", "calibration.json", "trained_on.json"):
    path = folder / name
    if name not in manifest["files"]:
      if path.suffix == ".json":
        continue  # validation was not evaluated, or nothing was noted of the training data
      raise UserError(f"{folder} holds no {name}: export with the format stablehlo (--formats=stablehlo,...)")
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != manifest["files"][name]:
      raise UserError(f"{path} is missing, or not the file that was exported: export again")
  path, noted = folder / "config.json", manifest.get("config")  # exports of older versions have none
  if noted and artefact.fixed_fields(files.read_json(path, "export again")) != noted:
    raise UserError(f"{path} is not the one that was exported: of it only the group predict may be edited; "
                    "undo the change, or make it in the workdir of the run and export again")
