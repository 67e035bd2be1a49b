"""Tables for a terminal: columns aligned by spaces, numbers to the right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def aligned(rows: Sequence[Sequence[str]], left: Iterable[int] = (0,)) -> list[str]:
  """Lines of cells in columns, two spaces apart.

  Args:
    rows: of equal length, the first one the heads. left: columns that are words.
  """
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  words = set(left)
  return ["  ".join(cell.ljust(w) if i in words else cell.rjust(w)
                    for i, (cell, w) in enumerate(zip(row, widths))).rstrip() for row in rows]


def words(found: Mapping[str, Any]) -> str:
  """{name: number, list or dict of such} in a line for a log: three digits, names without underscores."""
  def shown(value) -> str:
    if isinstance(value, Mapping):
      return f"({words(value)})"
    if isinstance(value, (list, tuple)):
      return "[" + ", ".join(map(shown, value)) + "]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
  return ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in found.items())


def counts(described: Mapping[str, Any]) -> list[str]:
  """Lines of a data set's counts, a row a split (or list), and its notes: what `DataSet.describe` returns.

  Preparation, checksums and what was left out stay in the description.
  """
  what = "splits" if "splits" in described else "lists"
  splits = {name: {k: v for k, v in found.items() if isinstance(v, int) and not isinstance(v, bool)}
            for name, found in described.get(what, {}).items()}
  heads = list(dict.fromkeys(k for found in splits.values() for k in found))
  if not heads:
    return []
  rows = [[what[:-1], *(h.replace("_", " ") for h in heads)]]
  rows += [[name, *(f"{found[h]:,}" if h in found else "-" for h in heads)] for name, found in splits.items()]
  notes = [f"{k.replace('_', ' ')}: {v}" for k, v in described.items()
           if isinstance(v, str) and k not in ("name", "source")]
  return aligned(rows) + notes
