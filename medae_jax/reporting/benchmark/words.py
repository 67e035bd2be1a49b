"""Words and orders that the benchmark's page, Markdown and picture share."""

from __future__ import annotations

from collections.abc import Sequence

from medae_jax.reporting.benchmark import published
from medae_jax.reporting.benchmark.runs import Found
from medae_jax.reporting.benchmark.summary import Cell, Method, Ranking

HOW = (
    "Mean: over classes of the means over runs. ±: deviation over runs, the root of the mean variance of a "
    "class (n - 1). [ ]: 95 % percentile interval of the mean by drawing classes, and runs within them, with "
    "replacement; of one class its runs alone, of one run its images or patients; with few of them it is too "
    "narrow. Ranks: 1 = best; a block is a class of a data set; Friedman's test in the form of Iman and "
    "Davenport, critical difference of Nemenyi (Demsar, JMLR 7, 2006). Classes of one data set share their "
    "images, so blocks are not independent and the test is flattering.")


def rows(cells) -> list[Method]:
  """Methods in order of appearance."""
  return list(dict.fromkeys(m for m, _ in cells))


def columns(cells) -> list[str]:
  """Data sets in order of appearance."""
  return list(dict.fromkeys(d for _, d in cells))


def name(method: Method) -> str:
  """With the trunk."""
  return f"{method[0]} ({method[1]})" if method[1] else method[0]


def names(methods: Sequence[Method]) -> list[str]:
  """Short ones: with the trunk only where the label alone says too little."""
  labels = [m[0] for m in methods]
  return [m[0] if labels.count(m[0]) == 1 else name(m) for m in methods]


def count(cell: Cell) -> str:
  """"6/6 runs, 3/3 classes"."""
  classes = f", {cell.classes}/{cell.of_classes} classes" if cell.of_classes > 1 else ""
  return f"{cell.runs}/{cell.of} runs{classes}"


def figure(f: published.Figure) -> str:
  """"88.2 ± 6.6 %"."""
  return f"{100 * f.mean:.1f}" + (f" ± {100 * f.std:.1f}" if f.std is not None else "") + " %"


def ranks(ranking: Ranking) -> dict[Method, str]:
  """{method: "1.67"} of those that are ranked."""
  if ranking.found is None:
    return {}
  return {m: f"{r:.2f}" for m, r in zip(ranking.methods, ranking.found.average)}


def ranking_sentence(ranking: Ranking) -> str:
  """What the ranks say, in words."""
  c = ranking.found
  left = "; ".join(f"{name(m)} lacks {n} blocks" for m, n in ranking.left_out.items())
  if c is None:
    return f"No ranks: {ranking.why}." + (f" {left}." if left else "")
  test = f"F = {c.f:.3g}" if c.f is not None else "every block has the same order"
  said = (f"{len(ranking.methods)} methods over {c.blocks} blocks: Friedman {test}, p = {c.p:.2g}; methods "
          f"whose average ranks differ by more than {c.difference:.2f} differ at level {c.alpha:g}.")
  if c.blocks < 10:
    said += f" With {c.blocks} blocks the test finds large differences only."
  return said + (f" Not ranked: {left}." if left else "")


def lists(found: Found) -> list[tuple[str, list[str]]]:
  """(title, names) of what is missing, has no config, or is quoted."""
  absent = [r.folder.name for r in found.runs if r.result is None]
  missing = [": ".join(filter(None, [name, found.failed.get(name, "")])) for name in absent]
  quoted = [f"{f.method}, {f.data}: {figure(f)} ({published.SOURCES[f.source]})" for f in published.FIGURES]
  return [(f"{title} ({len(names)})", names) for title, names in (
      ("Missing runs", missing),
      ("Fields that were changed for a whole sweep", found.changed),
      ("Launches of the published runner without a config", found.unpublished),
      ("Figures of the papers", quoted)) if names]
