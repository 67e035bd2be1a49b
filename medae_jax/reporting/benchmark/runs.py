"""Which runs there are: those that sweeps planned, done or not, and every other evaluated workdir."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import os
import pathlib
from typing import Any

from absl import logging

from medae_jax.core import config as config_lib, files, upgrade
from medae_jax.core.errors import UserError
from medae_jax.reporting.benchmark import identity

_REMEDY = "run --mode=evaluate again, or delete it"
_SKIPPED = ("checkpoints", "predictions", "export")


@dataclasses.dataclass(frozen=True)
class Run:
  """One run: what it is, and its evaluation, None where it is missing.

  fold: -1 = the final split. The metrics of a method are those of its final runs; folds belong to a search.
  """
  method: str
  data: str
  cls: str
  run: str
  fold: int
  setting: int
  trunk: str
  folder: pathlib.Path
  result: dict[str, Any] | None

  def score(self, name: str) -> float | None:
    """A number of its evaluation."""
    value = (self.result or {}).get(name)
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if known else None


@dataclasses.dataclass(frozen=True)
class Found:
  """All runs, the launches of the published runner that have no config, reasons of failures, and which
  fields the command line of a sweep changed."""
  runs: list[Run]
  unpublished: list[str]
  failed: dict[str, str]
  changed: list[str]


def find(folders: Sequence[str | os.PathLike], split: str = "test") -> Found:
  """Every run in or below the folders.

  Raises:
    FileNotFoundError: a folder is not there, or none holds a run. UserError: a damaged file.
  """
  runs: dict[pathlib.Path, Run] = {}
  unpublished: list[str] = []
  failed: dict[str, str] = {}
  changed: list[str] = []
  lacking: list[pathlib.Path] = []
  for folder in map(pathlib.Path, folders):
    if not folder.is_dir():
      raise FileNotFoundError(f"no folder {str(folder)!r}: --mode=report reads sweeps and workdirs of runs")
    for place in _places(folder):
      if (place / config_lib.SWEEP).is_file():
        plan = _plan(place / config_lib.SWEEP)
        for entry in _of_sweep(place, plan, split):
          runs[entry.folder.resolve()] = entry
        unpublished += plan.get("unpublished") or []
        failed |= plan.get("failed") or {}
        if fields := plan.get("changes"):
          changed.append(f"{place}: {', '.join(f'{k}={v}' for k, v in fields.items())}")
      elif (place / "config.json").is_file() and place.resolve() not in runs:
        if entry := _alone(place, split):
          runs[place.resolve()] = entry
        else:
          lacking.append(place)
    lacking.append(folder)
  lacking = [p for p in dict.fromkeys(lacking) if not any(r.is_relative_to(p.resolve()) for r in runs)]
  if runs and lacking:
    logging.warning("No evaluation of %s in %s: left out", split, ", ".join(map(str, lacking)))
  if not runs:
    raise FileNotFoundError(f"no evaluated run in {', '.join(map(str, folders))}: train and evaluate first")
  return Found(list(runs.values()), list(dict.fromkeys(unpublished)), failed, changed)


def _plan(path: pathlib.Path) -> dict[str, Any]:
  """A sweep.json whose entries have the right types."""
  remedy = "call the sweep again, it writes it anew"
  plan = files.read_json(path, remedy)
  for key, kind in (("runs", list), ("unpublished", list), ("failed", dict), ("changes", dict)):
    value = plan.get(key) or kind()
    if not isinstance(value, kind) or (key == "runs" and not all(isinstance(e, dict) for e in value)):
      raise UserError(f"{path} is damaged (its entry {key!r}): {remedy}")
  return plan


def _places(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """The folder and all below it that may be a run or a sweep, in the order of their names."""
  for path, below, _ in os.walk(folder):
    below[:] = sorted(b for b in below if b not in _SKIPPED and not b.startswith("."))
    yield pathlib.Path(path)
    if (pathlib.Path(path) / "config.json").is_file():
      below[:] = [b for b in below if b.startswith("seed_")]


def _of_sweep(place, plan, split) -> Iterator[Run]:
  entries = plan.get("runs") or []
  compared = any(e.get("setting") and e.get("fold", -1) < 0 for e in entries) and not plan.get("chosen")
  for e in entries:
    try:
      folder = place / "runs" / e["name"]
      yield Run(e["method"] + (f", setting {e['setting']}" if compared else ""), e["data"], e["class"],
                e["run"], e["fold"], e["setting"], e["trunk"], folder, _result(folder, split))
    except (KeyError, TypeError) as error:
      raise UserError(f"{place / config_lib.SWEEP} is damaged ({error!r} of a run): call the sweep again, it "
                      "writes it anew") from error


def _alone(folder, split) -> Run | None:
  result = _result(folder, split)
  if result is None:
    return None
  config = upgrade.config(files.read_json(folder / "config.json", "restore it from a copy"))
  try:
    data, cls = identity.data_of(config)
    return Run(identity.method_of(config, {}, {}), data, cls, f"seed {config.get('seed', '?')}",
               (config["data"].get("fold", -1) if "folds" in config["data"] else -1), 0,
               identity.trunk_of(config), folder, result)
  except (KeyError, TypeError, AttributeError) as e:
    raise UserError(f"{folder / 'config.json'} is damaged ({e!r}): restore it from a copy") from e


def _result(folder, split):
  path = folder / "evaluation" / f"{split}.json"
  if not path.is_file():
    return None
  result = files.read_json(path, _REMEDY)
  pair = lambda v: v is None or (isinstance(v, list) and len(v) == 2 and all(
      isinstance(x, (int, float)) for x in v))
  forms = {"ci95": pair, "baseline": lambda v: True, "checkpoint": lambda v: True}
  for key, form in forms.items():
    value = result.get(key) or {}
    if not isinstance(value, dict) or not all(map(form, value.values())):
      raise UserError(f"{path} is damaged (its entry {key!r}): {_REMEDY}")
  return result
