"""One run of a sweep: its config, the folder it has for itself, and whether it is done."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import contextlib
import dataclasses
import datetime
import difflib
import functools
import json
import pathlib
import socket
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
FAILURES = "failures.jsonl"  # of a sweep: a line for every run that failed


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


def note_failures(workdir: pathlib.Path | None, failed: Mapping[str, str], attempt: int) -> None:
  """A line of failures.jsonl for each {name: why}: one write each, so that those of machines do not mix."""
  if workdir is None:
    return
  for name, why in failed.items():
    line = {"run": name, "why": why, "attempt": attempt, "host": socket.gethostname(),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / FAILURES, "a", encoding="utf-8") as file:
      file.write(json.dumps(line) + "\n")


def failed_ever(workdir: pathlib.Path) -> set[str]:
  """Names in failures.jsonl: of this process and of others, also those that were made good later."""
  path, found = workdir / FAILURES, set()
  for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
    with contextlib.suppress(ValueError, KeyError, TypeError):  # half a line of a killed process
      found.add(json.loads(line)["run"])
  return found


def _plain(config) -> dict[str, Any]:
  return json.loads(json.dumps(config_lib.flat(config)))
