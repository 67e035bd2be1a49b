"""The runs of a sweep: which there are, their configs, and what is done already."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
import dataclasses
import functools
import itertools
import pathlib
from typing import Any

from absl import logging
import numpy as np

from medae_jax.core import checks, config as config_lib, places
from medae_jax.core.errors import UserError
from medae_jax.reporting import tables
from medae_jax.reporting.benchmark import identity
from medae_jax.training.job import Job, check_names, grid_of

Cell = tuple[tuple[str, Any], ...]
Choice = tuple[int, int, float]  # setting, steps, epochs


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
_YOUNGER = {  # fields that a sweep config may lack
    "sweep.labels": checks.group, "sweep.parts": checks.several(checks.group),
    "sweep.unpublished": checks.several(checks.text), "sweep.retries": checks.whole(0, 100),
    "sweep.slurm": checks.whole(0, 100000), "sweep.rounds": checks.flag,
    "sweep.ensemble": checks.flag, "sweep.study": checks.choice("", "brain_scores")}


@dataclasses.dataclass(frozen=True)
class Trial:
  """One run: its cell, its setting, and the fold (-1 = final split)."""
  cell: Cell
  setting: int = 0
  fold: int = -1
  steps: int = 0     # 0 = as the config says; where that counts epochs
  epochs: float = 0  # ... these
  part: int = 0      # of Plan.parts
  labels: Cell = ()  # of that part: stand before the cell in tables
  prefix: str = ""   # ... and before the name

  @property
  def name(self) -> str:
    """Folder under runs/."""
    parts = [self.prefix] if self.prefix else []
    parts += [f"{k}{v}" for k, v in self.cell] or ([] if self.prefix else ["run"])
    parts += [f"setting{self.setting}"] if self.setting or self.fold >= 0 else []
    parts += [f"fold{self.fold}"] if self.fold >= 0 else []
    parts += [f"steps{self.steps}"] if self.steps else []
    parts += [f"epochs{self.epochs:g}"] if self.epochs else []
    return "_".join(parts).replace("/", "-").replace(" ", "")


@dataclasses.dataclass(frozen=True)
class Part:
  """One config file of a sweep with the grid of its arguments.

  A sweep of one file is one part without name and labels; a benchmark has one for each method, data
  set and experiment.
  """
  config: str
  arg: str
  grid: Mapping[str, tuple]
  settings: Sequence[Mapping[str, Any]]
  labels: Cell = ()
  prefix: str = ""

  def cells(self) -> list[Cell]:
    """The product of the grid."""
    return [tuple(zip(self.grid, values)) for values in itertools.product(*self.grid.values())]

  @functools.cached_property
  def module(self):
    return places.config_module(self.config, "config.sweep.config=")


class Plan:
  """The runs of a sweep, their configs and what is done already."""

  def __init__(self, config, workdir):
    if "sweep" not in config:
      raise UserError("--mode=sweep needs a config with a group `sweep`: see configs/sweep_*.py")
    self.s = config.sweep
    checks.apply(config, _RULES)
    checks.apply(config, _YOUNGER, optional=tuple(_YOUNGER))
    check_names(self.s, (*_RULES, *_YOUNGER))
    self.workdir = pathlib.Path(workdir)
    if (self.workdir / "config.json").is_file():  # a report would no longer see it
      raise UserError(f"--workdir={workdir} holds a run, and a sweep has a folder of its own: choose another")
    there = [n for n in (config_lib.SWEEP, *tables.FILES) if (self.workdir / n).exists()]
    if there and there[0] != config_lib.SWEEP:
      raise UserError(f"{self.workdir / there[0]} is there, and no sweep has written it: choose another "
                      "--workdir")
    self.parts = _parts(self.s)
    self.cells = [(i, cell) for i, part in enumerate(self.parts) for cell in part.cells()]
    if self.s.get("rounds", False):  # stable: within a round the order of the parts
      self.cells.sort(key=lambda found: self.round_of(*found))
    self._jobs: dict[Trial, Job] = {}
    self._without: set[tuple[int, str]] = set()  # (part, changed field it does not have), said once
    self.changes = self._asked(config)

  def _asked(self, config) -> dict[str, Any]:
    """The command line's changes: fields that differ from the first run's, but for what the config file gives
    without a run's arguments: a sweep may be built on that, and a run's own fold or seed would be lost."""
    first = self.trial(*self.cells[0])
    apart, part = config_lib.differences(self._fresh(first), config), self.parts[first.part]
    if not apart:
      return apart
    try:
      plain = config_lib.flat(part.module.get_config(part.arg or None))
    except UserError:  # an argument that the grid alone gives
      return apart
    return {k: v for k, v in apart.items() if k not in plain or plain[k] != v}

  def round_of(self, part: int, cell: Cell) -> tuple[int, ...]:
    """Places of the values of the averaged arguments in their grid."""
    return tuple(self.parts[part].grid[k].index(v) for k, v in cell if k in self.s.average)

  def trial(self, part: int, cell: Cell, **more) -> Trial:
    """A run of a part of the sweep."""
    return Trial(cell, part=part, labels=self.parts[part].labels, prefix=self.parts[part].prefix, **more)

  def arg(self, trial: Trial) -> str:
    """The part after the colon for one run."""
    fold = [("fold", trial.fold)] if trial.fold >= 0 else []
    pairs = [f"{k}={v}" for k, v in (*trial.cell, *fold)]
    return ",".join([*filter(None, [self.parts[trial.part].arg]), *pairs])

  def _fresh(self, trial: Trial):
    return self.parts[trial.part].module.get_config(self.arg(trial))

  def config(self, trial: Trial):
    """The locked config of one run."""
    config = self._fresh(trial)
    fields = {**self._changes(trial.part, config), **self.parts[trial.part].settings[trial.setting]}
    if trial.steps or trial.epochs:
      length = {"steps": trial.steps, "epochs": float(trial.epochs), "examples": 0}
      fields.update({f"train.{k}": v for k, v in length.items() if k in config.train})
    return config_lib.override(config, fields)

  def _changes(self, part: int, config) -> dict[str, Any]:
    """The command line's changes; those that a part of several does not know are said and left out."""
    if len(self.parts) == 1:
      return self.changes
    there = config_lib.flat(config)
    for name in set(self.changes) - set(there):
      if (part, name) not in self._without:
        self._without.add((part, name))
        logging.warning("%s has no config.%s: unchanged there", self.parts[part].config, name)
    return {k: v for k, v in self.changes.items() if k in there}

  def trials(self) -> list[Trial]:
    """All runs, or those of the search."""
    if not self.s.folds:
      return self.final_trials({})
    return [self.trial(p, c, setting=i, fold=f) for p, c in self._searched()
            for i in range(len(self.parts[p].settings)) for f in range(self.s.folds)]

  def final_trials(self, chosen: Mapping[str, Choice]) -> list[Trial]:
    """The runs of the table; `chosen`: {cell: (setting, steps, epochs)} after a search."""
    if not self.s.folds:
      return [self.trial(p, c, setting=i) for p, c in self.cells
              for i in range(len(self.parts[p].settings))]
    found = [(p, c, chosen.get(self._label(p, self._without_average(p, c)))) for p, c in self.cells]
    return [self.trial(p, c, setting=choice[0], steps=choice[1], epochs=choice[2])
            for p, c, choice in found if choice]

  def _searched(self) -> list[tuple[int, Cell]]:
    """The cells with the first value of the averaged arguments: a search does not repeat them."""
    return list(dict.fromkeys((p, self._without_average(p, c)) for p, c in self.cells))

  def _without_average(self, part: int, cell: Cell) -> Cell:
    first = {k: v[0] for k, v in self.parts[part].grid.items() if k in self.s.average}
    return tuple((k, first.get(k, v)) for k, v in cell)

  def _label(self, part: int, cell: Cell) -> str:
    return label((*self.parts[part].labels, *cell))

  def job(self, trial: Trial) -> Job:
    if trial not in self._jobs:
      self._jobs[trial] = Job(trial.name, self.config(trial), self.workdir / "runs" / trial.name)
    return self._jobs[trial]

  def mine(self, trials: Sequence[Trial]) -> list[Job]:
    """The runs of this process, by config.sweep.shard."""
    i, n = self.s.shard
    return [self.job(t) for t in trials[i::n]]

  def read(self, trial: Trial) -> dict[str, Any] | None:
    """The evaluation of a complete run of this very config, or None."""
    return self.job(trial).read(self.s.split)

  def listing(self, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """What each run is, for sweep.json and the benchmark report, with "done"."""
    found, chosen = [], ", chosen by folds" if self.s.folds else ""
    for t in trials:
      config, cell = self.job(t).config, dict(t.cell)
      data, cls = identity.data_of(config)
      labels = dict(t.labels or self.s.get("labels", {}).items())
      found.append({"name": t.name, "method": identity.method_of(config, labels, cell) + chosen, "data": data,
                    "class": cls, "run": str(cell.get("run", f"seed {config.seed}")), "fold": t.fold,
                    "setting": t.setting, "trunk": identity.trunk_of(config),
                    "done": self.read(t) is not None})
    return found

  # ----------------------------------------------------------------------------------- choosing
  def choose(self, failed: Collection[str] = ()) -> dict[str, Choice]:
    """{cell: (setting, steps, epochs)} by the best mean over folds.

    The length is the mean of the folds' scored states, in epochs where the config counts in them (the
    final split has more images); 0 = the config's own.

    Args:
      failed: names of runs that failed: their setting is not chosen. A cell with a run that is merely
        missing is left out: every process must choose the same.
    """
    chosen = {}
    for part, cell in self._searched():
      best = None
      for i in range(len(self.parts[part].settings)):
        trials = [self.trial(part, cell, setting=i, fold=f) for f in range(self.s.folds)]
        read = {t.name: self.read(t) for t in trials}
        if any(r is None and name not in failed for name, r in read.items()):
          best = None
          break
        results = [r for r in read.values() if r is not None and r.get(self.s.metric) is not None]
        if len(results) < len(read):
          continue
        score = float(np.mean([r[self.s.metric] for r in results]))
        if best is None or score > best[0]:
          best = score, i, *(self._length(trials, results) if self.s.final_steps else (0, 0))
      if best:
        chosen[self._label(part, cell)] = best[1:]
        logging.info("%s: setting %d, mean of folds %.4f", self._label(part, cell), best[1], best[0])
    return chosen

  def _length(self, trials: Sequence[Trial], results: Sequence[Mapping]) -> tuple[int, float]:
    """(steps, epochs) of a final run; one of them is 0."""
    steps = [r["checkpoint"]["step"] for r in results]
    epochs = self.job(trials[0]).config.train.get("epochs", 0)
    if not epochs:
      return int(np.mean(steps)), 0
    # config.json of a run holds the steps that its epochs came to.
    whole = [config_lib.read_config(self.job(t).folder).train.steps for t in trials]
    return 0, round(float(np.mean([epochs * step / n for step, n in zip(steps, whole)])), 2)

  def describe(self, chosen: Mapping[str, Choice]) -> dict[str, dict[str, Any]]:
    """{cell: {"setting", "fields", "steps" or "epochs"}} of what the search chose."""
    part_of = {self._label(p, c): p for p, c in self._searched()}
    return {cell: {"setting": setting, "fields": dict(self.parts[part_of[cell]].settings[setting]),
                   **({"epochs": epochs} if epochs else {"steps": steps or None})}
            for cell, (setting, steps, epochs) in chosen.items()}


# ------------------------------------------------------------------------------------------ configs
def _parts(s) -> list[Part]:
  """The parts of config.sweep: its own fields, or those of config.sweep.parts."""
  found = []
  for given in s.get("parts", ()) or (s,):
    alone = given is s
    missing = [] if alone else [k for k in ("config", "arg", "grid", "name") if k not in given]
    if missing:
      raise UserError(f"config.sweep.parts: a part lacks {', '.join(missing)}")
    found.append(Part(
        given["config"], given["arg"], grid_of(given["grid"]),
        [dict(x) for x in given.get("settings", ())] or [{}],
        () if alone else _pairs(given.get("labels", {}).items()), "" if alone else given["name"]))
  names = [p.prefix for p in found]
  if len(set(names)) < len(names):
    raise UserError("config.sweep.parts: two parts have the same name")
  return found


def _pairs(items: Iterable) -> Cell:
  return tuple((k, v) for k, v in items)


def label(cell) -> str:
  """"cls=0, run=1"."""
  return ", ".join(f"{k}={v}" for k, v in cell) or "all"
