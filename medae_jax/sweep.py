"""A grid of runs: resumable, failures reported, one table at the end.

A sweep is a config with the group `config.sweep` (configs/sweep_*.py):
  config     config file of the runs, e.g. "configs/piad_cifar10.py"
  arg        argument that all runs share ("small,root=DATA")
  grid       {argument: values}: the product of these makes the cells of the table
  average    arguments of the grid that are averaged over ("run",)
  settings   ({field: value}, ...) to choose from; () = the config as it is
  folds      > 0: every setting is trained on that many folds (argument `fold`) of every cell, the
             best mean of the folds is taken per cell, and trained on the final split; 0 = no search
  final_steps  "mean_best": the final run is as long as the folds' best states were on average, as
             published; "" = the config's own length
  split, metric   what is compared: metric of evaluation/<split>.json
  together   runs trained at once under vmap where shapes agree (one accelerator); 1 = one by one
  shard      (i, n): this process does every n-th run only; a last call with (0, 1) makes the table

Fields changed on the command line hold for every run. Every run has a workdir of its own under
<workdir>/runs; what is complete is not repeated, what was interrupted goes on. The table (table.md,
table.csv, sweep.json) has a row for each cell: mean, standard deviation and number of runs, beside
the trivial scores that evaluation reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import importlib.util
import itertools
import json
import pathlib
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from medae_jax import evaluate as evaluate_lib
from medae_jax import train as train_lib
from medae_jax.core import config as config_lib
from medae_jax.core import durations, places
from medae_jax.core.errors import UserError
from medae_jax.reporting import tables
from medae_jax.training import together

_FAILURES = (ValueError, OSError, FloatingPointError, RuntimeError)


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


def sweep(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Runs what is missing and writes the table.

  Returns:
    What <workdir>/sweep.json holds: {"rows", "mean", "chosen", "failed", "missing"}.

  Raises:
    ValueError: no `config.sweep`, a wrong grid; or runs failed: their number and the first reason,
      after the table is written.
  """
  plan = Plan(config, workdir)
  failed = plan.run(plan.trials())
  chosen = plan.choose() if plan.s.folds else {}
  if plan.s.folds:
    failed |= plan.run(plan.final_trials(chosen))
  final = plan.final_trials(chosen)
  result = tables.write(plan.workdir, plan.s, final, plan.read, failed,
                             {name: plan.describe(c) for name, c in chosen.items()})
  logging.info("Table of %d cells: %s", len(result["rows"]), plan.workdir / "table.md")
  print(tables.text(result))
  if failed:
    name, why = next(iter(failed.items()))
    raise UserError(f"{len(failed)} runs failed or were interrupted, e.g. {name}: {why} The same "
                     "command repeats only these.")
  return result


class Plan:
  """The runs of a sweep, their configs and what is done already."""

  def __init__(self, config, workdir):
    if "sweep" not in config:
      raise UserError("--mode=sweep needs a config with a group `sweep`: see configs/sweep_*.py")
    self.s = config.sweep
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
      fields.update({"train.steps": trial.steps, "train.epochs": 0.0, "train.examples": 0})
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

  def folder(self, trial: Trial) -> pathlib.Path:
    return self.workdir / "runs" / trial.name

  def read(self, trial: Trial) -> dict[str, Any] | None:
    """The evaluation of a complete run of this very config, or None."""
    result = self.folder(trial) / "evaluation" / f"{self.s.split}.json"
    if not result.is_file() or self.foreign(trial):
      return None
    return json.loads(result.read_text())

  def foreign(self, trial: Trial) -> bool:
    """True where the run's folder holds a run of another config (new fields do not count)."""
    path = self.folder(trial) / "config.json"
    if not path.is_file():
      return False
    plain = lambda config: json.loads(json.dumps(config_lib.flat(config)))
    old = plain(ml_collections.ConfigDict(json.loads(path.read_text())))
    new = plain(self.config(trial))
    differ = set(old) & set(new) - {"train.random_streams"}
    return any(old[k] != new[k] for k in differ - durations.left_to_data(self.config(trial)))

  # ----------------------------------------------------------------------------------- running
  def run(self, trials: Sequence[Trial]) -> dict[str, str]:
    """Trains and evaluates what is missing; returns {name: why it failed}."""
    i, n = self.s.shard
    mine = [t for k, t in enumerate(trials) if k % n == i]
    missing = [t for t in mine if self.read(t) is None]
    logging.info("%d of %d runs to do", len(missing), len(mine))
    failed = {t.name: "its folder holds a run with other settings; choose a new --workdir, or "
                      "delete it." for t in missing if self.foreign(t)}
    for group in self.groups([t for t in missing if t.name not in failed]):
      failed |= self.run_group(group)
      jax.clear_caches()  # compiled steps of other shapes
      if "interrupted" in failed.values():
        break
    return failed

  def groups(self, trials: Sequence[Trial]) -> list[list[Trial]]:
    """Runs that are trained together: the same signature, at most `together`."""
    if self.s.together < 2:
      return [[t] for t in trials]
    found: dict[Any, list[Trial]] = {}
    for t in trials:
      try:
        key = together.signature(self.config(t)) or t.name
      except ValueError:
        key = t.name  # its own run says what is wrong
      found.setdefault(key, []).append(t)
    return [g[k:k + self.s.together] for g in found.values()
            for k in range(0, len(g), self.s.together)]

  def run_group(self, group: Sequence[Trial]) -> dict[str, str]:
    """One group; a vectorised one that cannot start goes on one by one."""
    configs = [self.config(t) for t in group]
    folders = [str(self.folder(t)) for t in group]
    errors = None
    if len(group) > 1:
      try:
        results = train_lib.train_runs(configs, folders)
        errors = [r["error"] or (None if r["finished"] else "interrupted") for r in results]
      except _FAILURES as e:
        logging.warning("Not together: %s", e)
    failed = {}
    for k, (trial, config, folder) in enumerate(zip(group, configs, folders)):
      why = errors[k] if errors else None
      if not why:
        logging.info("Run %s", trial.name)
        why = _one(config, folder)
      if why:
        failed[trial.name] = why
      if why == "interrupted":
        break
    return failed

  # ----------------------------------------------------------------------------------- choosing
  def choose(self) -> dict[str, tuple[int, int]]:
    """{cell: (setting, steps)} by the best mean over folds; incomplete cells are left out."""
    chosen = {}
    for cell in sorted({self.without_average(c) for c in self.cells}, key=self.order):
      best = None
      for i in range(len(self.settings)):
        results = [self.read(Trial(cell, i, f)) for f in range(self.s.folds)]
        if any(r is None or r.get(self.s.metric) is None for r in results):
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


def _one(config, folder) -> str | None:
  """Trains and evaluates one run; the reason where that failed."""
  try:
    if not train_lib.train(config, folder)["finished"]:
      return "interrupted"
    evaluate_lib.evaluate(folder)
  except _FAILURES as e:
    logging.warning("%s failed: %s", folder, e)
    return str(e).strip().splitlines()[0]
  return None


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
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
