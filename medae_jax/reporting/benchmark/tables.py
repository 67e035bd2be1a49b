"""The benchmark as CSV (runs, classes, cells) and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from medae_jax.reporting.benchmark import published, summary, words
from medae_jax.reporting.benchmark.runs import Found, Run
from medae_jax.reporting.benchmark.summary import SCORES, Cell


def row_of_run(run: Run, scores) -> dict:
  """A line of runs.csv."""
  result = run.result or {}
  return {"method": run.method, "trunk": run.trunk, "data": run.data, "class": run.cls, "run": run.run,
          "fold": run.fold, "setting": run.setting, **{s: run.score(s) for s in scores},
          "images": result.get("n_images"), "synthetic": result.get("synthetic"),
          "checkpoint": (result.get("checkpoint") or {}).get("step"), "device": result.get("device"),
          "folder": str(run.folder)}


def rows_of_classes(tables) -> list[dict]:
  """Lines of cells.csv: a score, a method, a class."""
  rows = []
  for score, cells in tables.items():
    for ((method, trunk), data), cell in cells.items():
      rows += [{"score": score, "method": method, "trunk": trunk, "data": data, "class": cls,
                "mean": sum(values) / len(values), "runs": len(values),
                "values": " ".join(f"{v:.6g}" for v in values)} for cls, values in cell.by_class.items()]
  return rows


def rows_of_cells(tables) -> list[dict]:
  """Lines of table.csv: a score, a method, a data set."""
  rows = []
  for score, cells in tables.items():
    for ((method, trunk), data), c in cells.items():
      low, high = c.interval or (None, None)
      quoted = published.figures(method, data) if score == "image_auroc" else []
      rows.append({"score": score, "method": method, "trunk": trunk, "data": data, "mean": c.mean,
                   "std_runs": c.std_runs, "std_classes": c.std_classes, "low": low, "high": high,
                   "interval_over": c.over, "runs": c.runs, "of": c.of, "classes": c.classes,
                   "of_classes": c.of_classes, "synthetic": c.synthetic,
                   "published": quoted[0].mean if quoted else None,
                   "source": published.SOURCES[quoted[0].source] if quoted else None})
  return rows


def markdown(found: Found, tables: Mapping[str, Mapping], ranking: summary.Ranking) -> str:
  """The tables as Markdown."""
  lines = ["# Benchmark", ""]
  for score, cells in tables.items():
    data, rank = words.columns(cells), words.ranks(ranking) if score == next(iter(tables)) else {}
    lines += [f"## {SCORES[score]}", "", "| method | trunk | " + " | ".join([*data, "rank"]) + " |",
              "|" + "---|" * (len(data) + 3)]
    for method in words.rows(cells):
      shown = [_plain(cells.get((method, d)), method, d, score) for d in data]
      lines.append(" | ".join([f"| {method[0]}", method[1] or "-", *shown, rank.get(method, "-")]) + " |")
    base = summary.trivial(found.runs, score)
    if base:
      shown = [f"{base[d]:.3f}" if d in base else "-" for d in data]
      lines.append(" | ".join(["| plain intensity", "-", *shown, "- |"]))
    lines.append("")
  lines += [words.ranking_sentence(ranking), "", words.HOW, ""]
  if any(c.synthetic for c in next(iter(tables.values())).values()):
    lines += ["**SYNTHETIC DATA** among the runs.", ""]
  lines += _markdown_lists(found)
  return "\n".join(lines) + "\n"


def _plain(cell: Cell | None, method, data, score) -> str:
  if cell is None:
    return "not planned"
  if cell.mean is None:
    return f"missing (0/{cell.of} runs)"
  quoted = published.figures(method[0], data) if score == "image_auroc" else []
  other = published.differences(method[0], data, method[1], cell.images)
  parts = [f"{cell.mean:.3f}" + (f" ± {cell.std_runs:.3f}" if cell.std_runs is not None else "")]
  parts += [f"[{cell.interval[0]:.3f}, {cell.interval[1]:.3f}]"] if cell.interval else []
  parts += [words.count(cell)] + [f"published {words.figure(f)}{other}" for f in quoted]
  return "; ".join(parts)


def _markdown_lists(found: Found) -> list[str]:
  lines = []
  rows = summary.folds(found.runs, "image_auroc")
  if rows:
    lines += ["## Folds of the search", "", "| method | data | class | setting | mean | std | folds |",
              "|---|---|---|---|---|---|---|"]
    show = lambda v: "-" if v is None else f"{v:.3f}"
    lines += [f"| {r['method']} | {r['data']} | {r['class']} | {r['setting']} | {show(r['mean'])} | "
              f"{show(r['std'])} | {r['folds']}/{r['of']} |" for r in rows] + [""]
  for title, names in words.lists(found):
    lines += [f"## {title}", "", *(f"- {n}" for n in names), ""]
  return lines
