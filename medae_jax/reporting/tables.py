"""The table of a sweep: cells, means over runs, trivial scores beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from medae_jax.core import files


def write(workdir: pathlib.Path, s, trials: Sequence[Any], read: Callable,
          failed: Mapping[str, str], chosen: Mapping[str, Any],
          runs: Sequence[Mapping[str, Any]] = (), elsewhere: Sequence[str] = (),
          changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
  """Writes sweep.json, table.csv and table.md; returns what sweep.json holds.

  Args:
    s: config.sweep. trials: the runs of the table. read: trial -> evaluation or None.
    failed: {name: reason}. chosen: {cell: what the search chose}.
    runs: what every run is (Plan.listing), those of a search included.
    elsewhere: names of runs that other processes work on. changes: {field: value} of the command line.
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
            "runs": list(runs), "changes": dict(changes or {})}
  files.write_json(workdir / "sweep.json", result)
  flat = [{**r["cell"], **{k: v for k, v in r.items() if k not in ("cell", "values", "trivial")},
           **r["trivial"]} for r in rows]
  files.write_csv(workdir / "table.csv", flat)
  files.write_bytes(workdir / "table.md", (text(result) + "\n").encode())
  return result


def _row(key, trials, s, read):
  """One cell: its runs' metric, and the trivial scores of the same split."""
  results = [r for r in map(read, trials) if r is not None]
  values = [r[s.metric] for r in results if r.get(s.metric) is not None]
  trivial: dict[str, list[float]] = {}
  for r in results:
    for name, value in (r.get("baseline") or {}).items():
      if name.startswith(s.metric) and value is not None:
        trivial.setdefault(f"trivial {name}", []).append(value)
  several = len(values) > 1
  return {"cell": dict(key), "mean": float(np.mean(values)) if values else None,
          "std": float(np.std(values, ddof=1)) if several else None, "runs": len(values),
          "of": len(trials), "values": values, "synthetic": any(r["synthetic"] for r in results),
          "images": results[0]["n_images"] if results else None,
          "trivial": {k: float(np.mean(v)) for k, v in sorted(trivial.items())}}


def text(result: Mapping[str, Any]) -> str:
  """The table in Markdown."""
  rows = result["rows"]
  cells = list(dict.fromkeys(k for r in rows for k in r["cell"]))
  trivial = list(dict.fromkeys(k for r in rows for k in r["trivial"]))
  metric = f"{result['metric']} ({result['split']})"
  head = [*cells, metric, "std", "runs", *trivial]
  number = lambda v: "-" if v is None else f"{v:.4f}"
  lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
  for r in rows:
    lines.append("| " + " | ".join(
        [*(str(r["cell"].get(k, "")) for k in cells), number(r["mean"]), number(r["std"]),
         f"{r['runs']}/{r['of']}", *(number(r["trivial"].get(k)) for k in trivial)]) + " |")
  lines.append("")
  lines.append(f"Mean over {result['cells_in_mean']} cells: {number(result['mean'])}. std: sample "
               "standard deviation over runs."
               + (" SYNTHETIC DATA." if result["synthetic"] else ""))
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
