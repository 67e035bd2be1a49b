"""Many runs: a grid with one table at the end, or one config with several seeds; resumable.

A sweep is a config with the group `config.sweep` (configs/sweep_*.py):
  config     config file of the runs, e.g. "configs/piad_cifar10.py"
  arg        argument that all runs share ("small,root=DATA")
  grid       {argument: values}: the product of these makes the cells of the table
  average    arguments of the grid that are averaged over ("run",)
  settings   ({field: value}, ...) to choose from; () = the config as it is
  labels     {"model": ..., "data": ..., "exp": ...}: what the runs are, for --mode=report
  parts      ({name, labels, config, arg, grid, settings}, ...) for several config files in one sweep,
             in place of those above; unpublished: names of runs that have no config, listed in the table
  folds      > 0: every setting is trained on that many folds (argument `fold`) of every cell, the
             best mean of the folds is taken per cell, and trained on the final split; 0 = no search
  final_steps  "mean_best": the final run is as long as the folds' best states were on average, as
             published; "" = the config's own length
  split, metric   what is compared: metric of evaluation/<split>.json
  rounds     True: the first value of the averaged arguments for every cell, then the second, ...: what is
             stopped early leaves whole tables of fewer runs
  ensemble   True: also the mean of the runs of a round that val chooses (reporting/ensemble.py)
  together   runs trained at once under vmap where shapes agree (one accelerator); 1 = one by one
  retries    how often a failed run is tried again before the sweep ends
  study      "brain_scores": when the runs (arguments run and fold) are done, many scores of each trained
             network are compared in scores.md (tasks/anomaly/study); "" = nothing
  shard      (i, n): this process does every n-th run only; a last call with (0, 1) makes the table
  slurm      n > 0: trains nothing, writes <workdir>/slurm.sh for an array of n tasks

Fields changed on the command line hold for every run. Every run has a workdir of its own under
<workdir>/runs; what is complete is not repeated, what was interrupted goes on. Several processes and
machines may work in one <workdir>, with shards or without: a run that another one holds is left to it
(`.sweep.lock`). The table (table.md, table.csv, sweep.json) has a row for each cell: mean, standard
deviation and number of runs, beside the trivial scores that evaluation reports. It is written whenever a run
has ended; failures.jsonl has a line for every failure, also of those that were made good later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import functools
import pathlib
import time
from typing import Any

from absl import logging
import jax
import ml_collections

from medae_jax import evaluate as evaluate_lib, report as report_lib, train as train_lib
from medae_jax.core import config as config_lib
from medae_jax.core.errors import UserError
from medae_jax.reporting import ensemble, seeds_table, tables
from medae_jax.tasks.anomaly.study import table as score_table
from medae_jax.training import cost, interrupt, job as job_lib, lock, slurm, together
from medae_jax.training.job import ELSEWHERE, FOREIGN, INTERRUPTED, Job, failures
from medae_jax.training.plan import Plan

_FAILURES = (ValueError, OSError, FloatingPointError, RuntimeError)


def sweep(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Runs what is missing and writes the table.

  Returns:
    What <workdir>/sweep.json holds: {"rows", "mean", "chosen", "failed", "missing", "runs",
    "unpublished"}; {} where only the launcher file was written.

  Raises:
    ValueError: no `config.sweep`, a wrong grid; or runs failed: their number and the first reason,
      after the table is written.
  """
  plan = Plan(config, workdir)
  made = not plan.workdir.exists()
  at_once, split, retries = plan.s.together, (plan.s.split,), plan.s.get("retries", 0)
  if tasks := plan.s.get("slurm", 0):
    _write(plan, {}, {})
    path = slurm.write(workdir, tasks, searches=bool(plan.s.folds))
    print(f"{len(plan.trials())} runs{' of the search' if plan.s.folds else ''} for {tasks} tasks: "
          f"bash {path}")
    return {}
  chosen_now = lambda: plan.choose(job_lib.failed_ever(plan.workdir)) if plan.s.folds else {}
  now = lambda said: _write(plan, said, chosen_now(), ensembles=False)  # long sweeps are looked at
  _write(plan, {}, chosen_now())
  said = run(plan.mine(plan.trials()), split, at_once, retries, plan.workdir, now)
  chosen = chosen_now()
  if plan.s.folds and INTERRUPTED not in said.values():
    said |= run(plan.mine(plan.final_trials(chosen)), split, at_once, retries, plan.workdir,
                functools.partial(_beside, said, now))
  result = _write(plan, said, chosen)
  if made and said and len(failures(said)) == len(said) and _none_left(plan.workdir):
    _raise(said)
  logging.info("Table of %d cells: %s", len(result["rows"]), plan.workdir / "table.md")
  print(tables.text(result))
  _raise(said)
  if plan.s.get("study", "") and not result["missing"]:
    _study(plan, "SYNTHETIC DATA. " if result["synthetic"] else "")
  return result


def _none_left(workdir: pathlib.Path) -> bool:
  """Takes the tables away where no run has left anything (a wrong root, say); whether all is gone."""
  with contextlib.suppress(OSError):  # a run has left something, or another process works here
    if (workdir / "runs").exists():
      (workdir / "runs").rmdir()
    for name in (config_lib.SWEEP, *tables.FILES, job_lib.FAILURES):
      (workdir / name).unlink(missing_ok=True)
    workdir.rmdir()
  return not workdir.exists()


def _study(plan, said: str) -> None:
  """The table of scores, of all runs; `said` of them below it."""
  runs = [(dict(t.cell).get("run", 0), plan.job(t).folder) for t in plan.final_trials({})]
  score_table.write(plan.workdir, runs, f"{said}`{interrupt.command()}`")
  print((plan.workdir / "scores.md").read_text(encoding="utf-8"))


def _write(plan, said: dict[str, str], chosen, ensembles: bool = True) -> dict[str, Any]:
  """Writes the table as it stands now; returns what sweep.json holds.

  Args:
    ensembles: False leaves out what many resamples and refusals of its own belong to.
  """
  final = plan.final_trials(chosen)
  runs = plan.listing([*plan.trials(), *final] if plan.s.folds else final)
  return tables.write(plan.workdir, plan.s, final, plan.read,
                      {k: v for k, v in said.items() if v != ELSEWHERE}, plan.describe(chosen), runs,
                      [k for k, v in said.items() if v == ELSEWHERE], plan.changes,
                      _ensembles(plan, final) if ensembles else [])


def _ensembles(plan, trials) -> list[dict[str, Any]]:
  """The mean of the runs that val chooses (reporting/ensemble.py), for each complete round."""
  rounds: dict[tuple[int, ...], list] = {}
  for trial in trials if plan.s.get("ensemble", False) else ():
    rounds.setdefault(plan.round_of(trial.part, trial.cell), []).append(trial)
  whole = [found for found in rounds.values() if all(plan.read(t) is not None for t in found)]
  found = [ensemble.measure({t.name: plan.job(t).folder for t in members}, plan.s.split) for members in whole]
  return [e for e in found if e is not None]


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


def _raise(said: dict[str, str]) -> None:
  """Refuses where runs failed; one that a signal ended is none: as after a single run, all is saved."""
  wrong = failures(said)
  if INTERRUPTED in said.values():
    logging.warning("Interrupted: what was trained is saved. To go on: %s", interrupt.command())
  if ELSEWHERE in said.values():
    logging.warning("%d runs are in work in other processes; call again for the whole table.",
                    list(said.values()).count(ELSEWHERE))
  if wrong:
    name, why = next(iter(wrong.items()))
    raise UserError(f"{len(wrong)} runs failed, e.g. {name}: {why} The same command repeats only these.")


# ------------------------------------------------------------------------------------------ running
def run(jobs: Sequence[Job], splits: Sequence[str], at_once: int, retries: int = 0,
        workdir: pathlib.Path | None = None, after: Callable[[dict[str, str]], Any] = dict) -> dict[str, str]:
  """Trains and evaluates what is missing; returns {name: why it is not complete}.

  Args:
    splits: a run with the evaluations of these is complete.
    at_once: largest number of runs that are trained together.
    retries: how often failed runs are tried again; those that others hold are asked for once more.
    workdir: folder whose failures.jsonl gets a line for each failure.
    after: called with what would be returned so far whenever runs have ended and others follow.
  """
  missing = [j for j in jobs if not (j.complete(splits) and (j.folder / "report.html").is_file())]
  logging.info("%d of %d runs to do", len(missing), len(jobs))
  said = {j.name: FOREIGN for j in missing if j.foreign()}
  to_do, attempt = [j for j in missing if j.name not in said], 0
  while to_do:
    now = _pass(to_do, splits, at_once, functools.partial(_beside, said, after))
    job_lib.note_failures(workdir, failures(now), attempt)
    said = {**{k: v for k, v in said.items() if k not in {j.name for j in to_do}}, **now}
    again = set(failures(now)) if attempt < retries else set()
    again |= {name for name, why in now.items() if why == ELSEWHERE and not attempt}
    to_do = [j for j in to_do if j.name in again] if INTERRUPTED not in now.values() else []
    attempt += 1
  return said


def _pass(jobs: Sequence[Job], splits: Sequence[str], at_once: int, after) -> dict[str, str]:
  """Every run once; says how many are left, and how long they take."""
  said: dict[str, str] = {}
  done, begin, groups = 0, time.monotonic(), _groups(jobs, at_once)
  for group in groups:
    said |= _run_group(group, splits)
    jax.clear_caches()  # compiled steps of other shapes
    if INTERRUPTED in said.values():
      break
    done += len(group)
    if group is not groups[-1]:
      after(said)
      logging.info("%s", cost.left(len(jobs), done, time.monotonic() - begin))
  return said


def _beside(said: dict[str, str], after, more: dict[str, str]) -> None:
  after({**said, **more})


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


def _run_group(group: Sequence[Job], splits: Sequence[str]) -> dict[str, str]:
  """One group, less what other processes hold or have just completed."""
  with contextlib.ExitStack() as locks:
    mine, said = [], {}
    for job in group:
      try:
        if jax.process_count() == 1:  # the processes of one program go through the same runs
          locks.enter_context(lock.held(job.folder, "sweep"))
      except lock.Held as e:
        logging.info("%s", e)
        said[job.name] = ELSEWHERE
        continue
      if job.foreign():  # of a sweep with other settings that came here after this one had looked
        said[job.name] = FOREIGN
      elif not job.complete(splits):
        mine.append(job)
      elif not (job.folder / "report.html").is_file():  # killed after the numbers, before the page
        report_lib.write(job.folder)
    return said | _train_group(mine)


def _train_group(group: Sequence[Job]) -> dict[str, str]:
  """Trains and evaluates; runs that cannot start together go on one by one."""
  errors: list[str | None] = [None] * len(group)
  if len(group) > 1:
    try:
      results = train_lib.train_runs([j.config for j in group], [str(j.folder) for j in group])
      errors = [r["error"] or (INTERRUPTED if r["stopped"] else None) for r in results]
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
    if why == INTERRUPTED:
      break
  return failed


def _one(config, folder) -> str | None:
  """Trains (where it is not done) and evaluates one run; the reason where that failed."""
  try:
    if train_lib.train(config, folder)["stopped"]:
      return INTERRUPTED
    evaluate_lib.evaluate(folder)
  except _FAILURES as e:
    logging.warning("%s failed: %s", folder, e)
    return str(e).strip().splitlines()[0]
  return None
