"""The runs of a sweep: which there are, their configs, and what is done already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import importlib.util
import itertools
import json
import pathlib
from typing import Any

from absl import logging
import ml_collections
import numpy as np

from medae_jax.core import checks, config as config_lib, places, upgrade
from medae_jax.core.errors import UserError
from medae_jax.core.files import read_json
from medae_jax.training import durations


def _shard(value) -> str:
  fits = isinstance(value, (tuple, list)) and len(value) == 2 and not checks.whole(1)(value[1]) and (
      not checks.whole(0, value[1] - 1)(value[0]))
  return "" if fits else "(i, n) with i from 0 to n - 1"


_RULES = {
    "sweep.config": checks.text, "sweep.arg": checks.text, "sweep.grid": checks.group,
    "sweep.average": checks.several(checks.text), "sweep.settings": checks.several(checks.group),
    "sweep.folds": checks.whole(0, 1000), "sweep.final_steps": checks.choice("", "mean_best"),
    "sweep.split": checks.text, "sweep.metric": checks.text, "sweep.together": checks.whole(0, 10000),
    "sweep.shard": _shard}


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run: its cell, its setting, and the fold (-1 = final split)."""
  cell: tuple[tuple[str, Any], ...]
  setting: int = 0
  fold: int = -1
  steps: int = 0  # 0 = as the config says

  @property
  def name(self) -> str:
    """Folder under runs/."""
    parts = [f"{k}{v}" for k, v in self.cell] or ["run"]
    parts += [f"setting{self.setting}"] if self.setting or self.fold >= 0 else []
    parts += [f"fold{self.fold}"] if self.fold >= 0 else []
    parts += [f"steps{self.steps}"] if self.steps else []
    return "_".join(parts).replace("/", "-").replace(" ", "")


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

  def foreign(self) -> bool:
    """True where the folder holds a run of another config.

    Neither new fields count, nor durations that the data decided, nor the schemes of the random
    streams and of the split, which stay those of the run.
    """
    path = self.folder / "config.json"
    if not path.is_file():
      return False
    plain = lambda config: json.loads(json.dumps(config_lib.flat(config)))
    old = plain(ml_collections.ConfigDict(upgrade.config(read_json(
        path, "restore it from a copy, or delete the folder to train the run afresh"))))
    new = plain(self.config)
    kept = {"train.random_streams"}
    if old.get("data.grouping") == "legacy":
      kept |= {f"data.{field}" for field in upgrade.OF_SPLIT}
    known = (set(old) & set(new)) - kept - durations.left_to_data(self.config)
    return any(old[k] != new[k] for k in known)


class Plan:
  """The runs of a sweep, their configs and what is done already."""

  def __init__(self, config, workdir):
    if "sweep" not in config:
      raise UserError("--mode=sweep needs a config with a group `sweep`: see configs/sweep_*.py")
    self.s = config.sweep
    checks.apply(config, _RULES)
    self.workdir = pathlib.Path(workdir)
    self.grid = {k: tuple(v) for k, v in self.s.grid.items()}
    if any(not v for v in self.grid.values()):
      raise UserError(f"config.sweep.grid has an argument without values: {self.grid}")
    self.cells = [tuple(zip(self.grid, values)) for values in itertools.product(
        *self.grid.values())]
    self.settings = [dict(x) for x in self.s.settings] or [{}]
    self.module = load_module(self.s.config)
    base = self.module.get_config(self.arg(Trial(self.cells[0])))
    self.changes = config_lib.differences(base, config)

  def arg(self, trial: Trial) -> str:
    """The part after the colon for one run."""
    fold = [("fold", trial.fold)] if trial.fold >= 0 else []
    pairs = [f"{k}={v}" for k, v in (*trial.cell, *fold)]
    return ",".join([*filter(None, [self.s.arg]), *pairs])

  def config(self, trial: Trial):
    """The locked config of one run."""
    config = self.module.get_config(self.arg(trial))
    fields = {**self.changes, **self.settings[trial.setting]}
    if trial.steps:
      other = {f"train.{k}": 0 for k in ("epochs", "examples") if k in config.train}
      fields.update({"train.steps": trial.steps, **other})
    return config_lib.override(config, fields)

  def trials(self) -> list[Trial]:
    """All runs, or those of the search."""
    if not self.s.folds:
      return self.final_trials({})
    searched = sorted({self.without_average(c) for c in self.cells}, key=self.order)
    return [Trial(c, i, f) for c in searched for i in range(len(self.settings))
            for f in range(self.s.folds)]

  def final_trials(self, chosen: Mapping[str, tuple[int, int]]) -> list[Trial]:
    """The runs of the table; `chosen`: {cell: (setting, steps)} after a search."""
    if not self.s.folds:
      return [Trial(c, i) for c in self.cells for i in range(len(self.settings))]
    found = [(c, chosen.get(label(self.without_average(c)))) for c in self.cells]
    return [Trial(c, choice[0], steps=choice[1]) for c, choice in found if choice]

  def without_average(self, cell):
    """The cell with the first value of the averaged arguments: a search does not repeat them."""
    return tuple((k, self.grid[k][0] if k in self.s.average else v) for k, v in cell)

  def order(self, cell):
    return [self.grid[k].index(v) for k, v in cell]

  def job(self, trial: Trial) -> Job:
    return Job(trial.name, self.config(trial), self.workdir / "runs" / trial.name)

  def mine(self, trials: Sequence[Trial]) -> list[Job]:
    """The runs of this process, by config.sweep.shard."""
    i, n = self.s.shard
    return [self.job(t) for t in trials[i::n]]

  def read(self, trial: Trial) -> dict[str, Any] | None:
    """The evaluation of a complete run of this very config, or None."""
    return self.job(trial).read(self.s.split)

  # ----------------------------------------------------------------------------------- choosing
  def choose(self) -> dict[str, tuple[int, int]]:
    """{cell: (setting, steps)} by the best mean over folds; incomplete cells are left out."""
    chosen = {}
    for cell in sorted({self.without_average(c) for c in self.cells}, key=self.order):
      best = None
      for i in range(len(self.settings)):
        read = [self.read(Trial(cell, i, f)) for f in range(self.s.folds)]
        results = [r for r in read if r is not None and r.get(self.s.metric) is not None]
        if len(results) < len(read):
          continue
        score = float(np.mean([r[self.s.metric] for r in results]))
        steps = int(np.mean([r["checkpoint"]["step"] for r in results]))
        if best is None or score > best[0]:
          best = score, i, steps if self.s.final_steps == "mean_best" else 0
      if best:
        chosen[label(cell)] = best[1:]
        logging.info("%s: setting %d, mean of folds %.4f", label(cell), best[1], best[0])
    return chosen

  def describe(self, choice):
    setting, steps = choice
    return {"setting": setting, "fields": self.settings[setting], "steps": steps or None}


# ------------------------------------------------------------------------------------------ configs
def label(cell) -> str:
  """"cls=0, run=1"."""
  return ", ".join(f"{k}={v}" for k, v in cell) or "all"


def load_module(path: str):
  """The module of a config file, found as --config finds it.

  Raises:
    FileNotFoundError: no such file.
  """
  try:
    file = places.config_file(path)
  except FileNotFoundError as e:
    raise FileNotFoundError(f"config.sweep.config: {e}") from e
  spec = importlib.util.spec_from_file_location(f"sweep_{file.stem}", file)
  if spec is None or spec.loader is None:
    raise UserError(f"config.sweep.config={path}: it must be a config file, which ends in .py")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as e:  # whatever the user's file raises
    raise UserError(f"config.sweep.config={path}: {type(e).__name__}: {e}") from e
  if not callable(getattr(module, "get_config", None)):
    raise UserError(f"config.sweep.config={path}: it has no function get_config(arg)")
  return module
