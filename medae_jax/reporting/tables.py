"""The table of a sweep: cells, means over runs, trivial scores beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from medae_jax.core import config as config_lib, files

FILES = ("table.csv", "table.md")


def write(workdir: pathlib.Path, s, trials: Sequence[Any], read: Callable,
          failed: Mapping[str, str], chosen: Mapping[str, Any],
          runs: Sequence[Mapping[str, Any]] = (), elsewhere: Sequence[str] = (),
          changes: Mapping[str, Any] | None = None,
          ensembles: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
  """Writes sweep.json, table.csv and table.md; returns what sweep.json holds.

  Args:
    s: config.sweep. trials: the runs of the table. read: trial -> evaluation or None.
    failed: {name: reason}. chosen: {cell: what the search chose}.
    runs: what every run is (Plan.listing), those of a search included.
    elsewhere: names of runs that other processes work on. changes: {field: value} of the command line.
    ensembles: one a round (ensemble.measure).
  """
  cells: dict[tuple, list] = {}
  compared = not s.folds and any(t.setting for t in trials)
  for trial in trials:
    key = (*getattr(trial, "labels", ()), *((k, v) for k, v in trial.cell if k not in s.average))
    key += (("setting", trial.setting),) if compared else ()
    cells.setdefault(key, []).append(trial)
  rows = [_row(key, members, s, read) for key, members in cells.items()]
  done = [r for r in rows if r["mean"] is not None]
  mean = float(np.mean([r["mean"] for r in done])) if done else None
  result = {"config": s.config, "arg": s.arg, "metric": s.metric, "split": s.split, "rows": rows,
            "mean": mean, "cells_in_mean": len(done),
            "synthetic": any(r["synthetic"] for r in rows),
            "chosen": dict(chosen), "failed": dict(failed), "elsewhere": list(elsewhere),
            "missing": [t.name for t in trials if read(t) is None],
            "labels": dict(s.get("labels", {})), "unpublished": list(s.get("unpublished", ())),
            "runs": list(runs), "changes": dict(changes or {}),
            "ensemble": {**_over_runs(ensembles, s.metric), "rounds": list(ensembles)} if ensembles else None}
  files.write_json(workdir / config_lib.SWEEP, result)
  flat = [_flat(r) for r in rows]
  files.write_csv(workdir / FILES[0], flat)
  files.write_bytes(workdir / FILES[1], (text(result) + "\n").encode())
  return result


def _row(key, trials, s, read):
  """One cell: its runs' metric, also before val chose the score, and the trivial scores of the split."""
  results = [r for r in map(read, trials) if r is not None]
  before = [r["before_choice"] for r in results if r.get("before_choice")]
  found = {"cell": dict(key), **_over_runs(results, s.metric), "of": len(trials),
           "synthetic": any(r["synthetic"] for r in results),
           "images": results[0]["n_images"] if results else None, "trivial": _trivial(results, s.metric)}
  if before:
    found["before_choice"] = _over_runs(before, s.metric)
    found["chosen"] = [r.get("score_chosen", "") for r in results]
  return found


def _over_runs(results, metric):
  """mean, sample deviation, and the 95 % interval over patients of one run: its ends' means over the runs."""
  values = [r[metric] for r in results if r.get(metric) is not None]
  ends = [pair for r in results if (pair := (r.get("ci95") or {}).get(metric))]
  return {"mean": float(np.mean(values)) if values else None,
          "std": float(np.std(values, ddof=1)) if len(values) > 1 else None, "runs": len(values),
          "values": values, "ci95": np.mean(ends, 0).tolist() if ends else None}


def _trivial(results, metric):
  """{name: mean over runs} of the intensity threshold and of the measure `trivial`."""
  found: dict[str, list[float]] = {}
  for r in results:
    for name, value in (r.get("baseline") or {}).items():
      if name.startswith(metric) and value is not None:
        found.setdefault(f"trivial {name}", []).append(value)
    for name, numbers in (r.get("trivial_scores") or {}).items():
      if numbers.get(metric) is not None:
        found.setdefault(f"trivial {name}", []).append(numbers[metric])
  return {k: float(np.mean(v)) for k, v in sorted(found.items())}


def _flat(row):
  """A row of table.csv."""
  nested = ("cell", "values", "trivial", "before_choice", "chosen", "ci95")
  plain, before = {k: v for k, v in row.items() if k not in nested}, row.get("before_choice") or {}
  pairs = (("ci95_", row["ci95"]), ("before_ci95_", before.get("ci95")))
  ends = {f"{name}{end}": pair[i] for name, pair in pairs if pair for i, end in enumerate(("low", "high"))}
  more = {f"before_{k}": before[k] for k in ("mean", "std") if k in before}
  return {**row["cell"], **plain, **ends, **more, **row["trivial"]}


def text(result: Mapping[str, Any]) -> str:
  """The table in Markdown."""
  rows = result["rows"]
  cells = list(dict.fromkeys(k for r in rows for k in r["cell"]))
  trivial = list(dict.fromkeys(k for r in rows for k in r["trivial"]))
  metric = f"{result['metric']} ({result['split']})"
  two, ends = any(r.get("before_choice") for r in rows), any(r["ci95"] for r in rows)
  spread = ["std", *["95 %"] * ends]
  head = [*cells, *(["as configured", *spread] if two else []), metric, *spread, "runs", *trivial]
  number = lambda v: "-" if v is None else f"{v:.4f}"
  pair = lambda v: "-" if v is None else f"{v[0]:.3f} to {v[1]:.3f}"
  three = lambda v: [number(v.get("mean")), number(v.get("std")), *[pair(v.get("ci95"))] * ends]
  lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
  for r in rows:
    lines.append("| " + " | ".join(
        [*(str(r["cell"].get(k, "")) for k in cells), *(three(r.get("before_choice") or {}) if two else []),
         *three(r), f"{r['runs']}/{r['of']}", *(number(r["trivial"].get(k)) for k in trivial)]) + " |")
  lines.append("")
  lines.append(f"Mean over {result['cells_in_mean']} cells: {number(result['mean'])}. std: sample "
               "standard deviation over runs."
               + (" 95 %: bootstrap over patients of one run, its ends' means." if ends else "")
               + (" SYNTHETIC DATA." if result["synthetic"] else ""))
  if two:
    lines.append("as configured: the score that the config names; then the one that val's image AUROC chose.")
    lines += [f"Chosen on val for {' '.join(map(str, r['cell'].values()))}: {'; '.join(r['chosen'])}"
              for r in rows if r.get("chosen")]
  if ensemble := result.get("ensemble"):
    lines.append(f"Mean of the runs that val chooses, standardised by its normal images: {metric} "
                 f"{number(ensemble['mean'])}, std {number(ensemble['std'])} over {ensemble['runs']} rounds, "
                 f"95 % {pair(ensemble['ci95'])}.")
    lines += [f"  {' + '.join(r['members'])}: val {r['val_auroc']:.4f}, {metric} {r[result['metric']]:.4f}"
              for r in ensemble["rounds"]]
  for name, choice in result["chosen"].items():
    lines.append(f"Chosen by folds for {name}: {choice}")
  if trunks := sorted({r["trunk"] for r in result["runs"] if r.get("trunk")}):
    lines.append(f"Pretrained networks: {'; '.join(trunks)}.")
  if changes := ", ".join(f"{k}={v}" for k, v in result["changes"].items()):
    lines.append(f"Changed for all runs: {changes}.")
  lines += [f"FAILED {name}: {why}" for name, why in result["failed"].items()]
  lines += [f"IN WORK ELSEWHERE {name}" for name in result["elsewhere"]]
  if none := result["unpublished"]:
    lines += ["", f"{len(none)} runs of the published runner have no published config and are not run:"]
    lines += [f"  {name}" for name in none]
  return "\n".join(lines)
