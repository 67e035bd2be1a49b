"""Many runs: a grid with one table at the end, or one config with several seeds; resumable.

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

from collections.abc import Sequence
import pathlib
from typing import Any

from absl import logging
import jax
import ml_collections

from medae_jax import evaluate as evaluate_lib, train as train_lib
from medae_jax.core import config as config_lib
from medae_jax.core.errors import UserError
from medae_jax.reporting import seeds_table, tables
from medae_jax.training import interrupt, together
from medae_jax.training.plan import Job, Plan

_FAILURES = (ValueError, OSError, FloatingPointError, RuntimeError)


def sweep(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Runs what is missing and writes the table.

  Returns:
    What <workdir>/sweep.json holds: {"rows", "mean", "chosen", "failed", "missing"}.

  Raises:
    ValueError: no `config.sweep`, a wrong grid; or runs failed: their number and the first reason,
      after the table is written.
  """
  plan = Plan(config, workdir)
  at_once, split = plan.s.together, (plan.s.split,)
  failed = run(plan.mine(plan.trials()), split, at_once)
  chosen = plan.choose() if plan.s.folds else {}
  if plan.s.folds and "interrupted" not in failed.values():
    failed |= run(plan.mine(plan.final_trials(chosen)), split, at_once)
  final = plan.final_trials(chosen)
  result = tables.write(plan.workdir, plan.s, final, plan.read, failed,
                        {name: plan.describe(c) for name, c in chosen.items()})
  logging.info("Table of %d cells: %s", len(result["rows"]), plan.workdir / "table.md")
  print(tables.text(result))
  _raise(failed)
  return result


def seeds(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains and evaluates `config` once for each of config.seeds, in <workdir>/seed_<s>.

  On one device they train together where shapes agree (training/together.py), otherwise one after
  the other. What is complete is not repeated, what was interrupted goes on.

  Returns:
    What <workdir>/seeds.json holds: {"seeds", "splits": {split: {metric: {"mean", "std",
    "values"}}}, "failed", "missing"}; seeds.md is the same as a table.

  Raises:
    UserError: config.seeds is not a tuple of different seeds; or runs failed, after the table is
      written.
  """
  found = tuple(config.seeds)
  if len(set(found)) < len(found) or not all(type(s) is int for s in found):
    raise UserError(f"config.seeds={found}: give different whole numbers, e.g. (0,1,2)")
  folder = pathlib.Path(workdir)
  jobs = [Job(f"seed_{s}", config_lib.override(config, {"seed": s, "seeds": ()}),
              folder / f"seed_{s}") for s in found]
  splits = tuple(config.eval.splits)
  failed = run(jobs, splits, len(jobs) if jax.device_count() == 1 else 1)
  result = seeds_table.write(folder, found, splits, lambda s, split: jobs[found.index(s)].read(split),
                             failed)
  logging.info("Table of %d seeds: %s", len(found), folder / "seeds.md")
  print(seeds_table.text(result))
  _raise(failed)
  return result


def _raise(failed: dict[str, str]) -> None:
  """Refuses where runs failed; one that a signal ended is none: as after a single run, all is saved."""
  wrong = {name: why for name, why in failed.items() if why != "interrupted"}
  if len(wrong) < len(failed):
    logging.warning("Interrupted: what was trained is saved. To go on: %s", interrupt.command())
  if wrong:
    name, why = next(iter(wrong.items()))
    raise UserError(f"{len(wrong)} runs failed, e.g. {name}: {why} The same command repeats only these.")


# ------------------------------------------------------------------------------------------ running
def run(jobs: Sequence[Job], splits: Sequence[str], at_once: int) -> dict[str, str]:
  """Trains and evaluates what is missing; returns {name: why it failed}.

  Args:
    splits: a run with the evaluations of these is complete.
    at_once: largest number of runs that are trained together.
  """
  missing = [j for j in jobs if any(j.read(split) is None for split in splits)]
  logging.info("%d of %d runs to do", len(missing), len(jobs))
  failed = {j.name: "its folder holds a run with other settings; choose a new --workdir, or "
                    "delete it." for j in missing if j.foreign()}
  for group in _groups([j for j in missing if j.name not in failed], at_once):
    failed |= _run_group(group)
    jax.clear_caches()  # compiled steps of other shapes
    if "interrupted" in failed.values():
      break
  return failed


def _groups(jobs: Sequence[Job], at_once: int) -> list[list[Job]]:
  """Runs that are trained together: the same signature, at most `at_once`."""
  if at_once < 2:
    return [[j] for j in jobs]
  found: dict[Any, list[Job]] = {}
  for job in jobs:
    try:
      key = together.signature(job.config) or job.name
    except ValueError:
      key = job.name  # its own run says what is wrong
    found.setdefault(key, []).append(job)
  return [g[k:k + at_once] for g in found.values() for k in range(0, len(g), at_once)]


def _run_group(group: Sequence[Job]) -> dict[str, str]:
  """One group; where they cannot start together they go on one by one."""
  errors: list[str | None] = [None] * len(group)
  if len(group) > 1:
    try:
      results = train_lib.train_runs([j.config for j in group], [str(j.folder) for j in group])
      errors = [r["error"] or ("interrupted" if r["stopped"] else None) for r in results]
    except _FAILURES as e:
      logging.warning("Not together: %s", e)
  failed = {}
  for job, error in zip(group, errors, strict=True):
    why = error
    if not why:
      logging.info("Run %s", job.name)
      why = _one(job.config, str(job.folder))
    if why:
      failed[job.name] = why
    if why == "interrupted":
      break
  return failed


def _one(config, folder) -> str | None:
  """Trains (where it is not done) and evaluates one run; the reason where that failed."""
  try:
    if train_lib.train(config, folder)["stopped"]:
      return "interrupted"
    evaluate_lib.evaluate(folder)
  except _FAILURES as e:
    logging.warning("%s failed: %s", folder, e)
    return str(e).strip().splitlines()[0]
  return None
