"""The table of one config trained with several seeds: mean and standard deviation of every metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from medae_jax.core import files
from medae_jax.metrics import dictionary
from medae_jax.reporting import result_table


def write(workdir: pathlib.Path, seeds: Sequence[int], splits: Sequence[str], read: Callable,
          failed: Mapping[str, str]) -> dict[str, Any]:
  """Writes seeds.json and seeds.md; returns what seeds.json holds.

  Args:
    read: (seed, split) -> evaluation, or None where the run is not complete.
    failed: {run: reason}.
  """
  result: dict[str, Any] = {"seeds": list(seeds), "splits": {}, "baselines": {}, "synthetic": False,
                            "failed": dict(failed), "missing": []}
  for split in splits:
    found = {s: read(s, split) for s in seeds}
    result["missing"] += [f"seed_{s}: {split}" for s, v in found.items() if v is None]
    rows: list[Mapping[str, Any]] = [v or {} for v in found.values()]  # a value stands at its seed's place
    result["synthetic"] |= any(bool(r.get("synthetic")) for r in rows)
    names = dict.fromkeys(k for r in rows for k, v in r.items()
                          if isinstance(v, float) and k not in dictionary.ABOUT)
    result["splits"][split] = {name: _spread([r.get(name) for r in rows]) for name in names}
    bases = [{b["key"]: b["baseline"] for b in result_table.rows(r)} for r in rows]
    result["baselines"][split] = {name: _spread([b.get(name) for b in bases]) for name in names
                                  if any(b.get(name) is not None for b in bases)}
  files.write_json(workdir / "seeds.json", result)
  files.write_bytes(workdir / "seeds.md", (text(result) + "\n").encode())
  return result


def _spread(values) -> dict[str, Any]:
  """Mean and sample standard deviation (n - 1) of the seeds that have this number; None is of the others."""
  known = [float(v) for v in values if v is not None]
  return {"mean": float(np.mean(known)) if known else None,
          "std": float(np.std(known, ddof=1)) if len(known) > 1 else None, "values": values}


def text(result: Mapping[str, Any]) -> str:
  """The table in Markdown."""
  number = lambda v: "-" if v is None else f"{v:.4f}"
  lines = ["| split | metric | mean | std | seeds |", "|---|---|---|---|---|"]
  for split, metrics in result["splits"].items():
    beside = {f"{name}, baseline": row for name, row in result["baselines"][split].items()}
    for name, row in {**metrics, **beside}.items():
      values = " ".join(number(v) for v in row["values"])
      lines.append(f"| {split} | {name} | {number(row['mean'])} | {number(row['std'])} | {values} |")
  lines += ["", f"Seeds {', '.join(map(str, result['seeds']))}; std: sample standard deviation;"
            " baseline: the best of the simple ones (no network, no seed)."
            + (" SYNTHETIC DATA." if result["synthetic"] else "")]
  lines += [f"FAILED {name}: {why}" for name, why in result["failed"].items()]
  return "\n".join(lines)
