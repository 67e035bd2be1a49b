"""One run of a sweep: its config, the folder it has for itself, and whether it is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import difflib
import functools
import json
import pathlib
from typing import Any

import ml_collections

from medae_jax.core import config as config_lib, upgrade
from medae_jax.core.errors import UserError
from medae_jax.core.files import read_json
from medae_jax.training import durations

# What is said of a run that is not complete and has not failed either.
INTERRUPTED = "interrupted"
ELSEWHERE = "another process works on it"
FOREIGN = "its folder holds a run with other settings; choose a new --workdir, or delete it."


def check_names(sweep: Mapping[str, Any], known: Collection[str]) -> None:
  """Raises UserError where config.sweep has a field that nothing reads; `known`: "sweep.grid", ..."""
  for name in sweep:
    if f"sweep.{name}" not in known:
      near = difflib.get_close_matches(name, [k.partition(".")[2] for k in known], 1)
      said = f"; did you mean {near[0]}?" if near else ", and nothing would read it"
      raise UserError(f"config.sweep.{name}: there is no {name!r}{said}")


def grid_of(given: Mapping[str, Any]) -> dict[str, tuple]:
  """{argument: its values} of a grid.

  Raises:
    UserError: values that are none in parentheses, no value, or one twice: its run would count twice.
  """
  for name, values in given.items():
    if not isinstance(values, (tuple, list)):
      raise UserError(f"config.sweep.grid.{name}={values!r}: give its values in parentheses, ({values!r},)")
    if not values:
      raise UserError(f"config.sweep.grid has an argument without values: {name}")
    if twice := [v for i, v in enumerate(values) if str(v) in map(str, values[:i])]:
      raise UserError(f"config.sweep.grid.{name} has {twice[0]!r} twice: one run would count as two")
  return {name: tuple(values) for name, values in given.items()}


@dataclasses.dataclass(frozen=True)
class Job:
  """One run to train and evaluate: its name, its locked config, and the folder it has for itself."""
  name: str
  config: Any
  folder: pathlib.Path

  def read(self, split: str) -> dict[str, Any] | None:
    """The evaluation of a complete run of this very config, or None."""
    result = self.folder / "evaluation" / f"{split}.json"
    if not result.is_file() or self.foreign():
      return None
    return read_json(result, "delete it, and the same command evaluates the run again")

  def complete(self, splits: Sequence[str]) -> bool:
    """Whether the evaluations of all `splits` are there."""
    return all(self.read(split) is not None for split in splits)

  def foreign(self) -> bool:
    """True where the folder holds a run of another config.

    Neither new fields count, nor durations that the data decided, nor the schemes of the random
    streams and of the split, which stay those of the run.
    """
    path = self.folder / "config.json"
    if not path.is_file():
      return False
    old = _plain(ml_collections.ConfigDict(upgrade.config(read_json(
        path, "restore it from a copy, or delete the folder to train the run afresh"))))
    kept = {"train.random_streams"}
    if old.get("data.grouping") == "legacy":
      kept |= {f"data.{field}" for field in upgrade.OF_SPLIT}
    known = (set(old) & set(self._new)) - kept - durations.left_to_data(self.config)
    return any(old[k] != self._new[k] for k in known)

  @functools.cached_property
  def _new(self) -> dict[str, Any]:
    return _plain(self.config)


def failures(said: dict[str, str]) -> dict[str, str]:
  """Those of {run: why it is not complete} that failed."""
  return {name: why for name, why in said.items() if why not in (INTERRUPTED, ELSEWHERE)}


def _plain(config) -> dict[str, Any]:
  return json.loads(json.dumps(config_lib.flat(config)))
