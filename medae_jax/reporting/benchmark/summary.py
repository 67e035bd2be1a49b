"""Numbers of the benchmark: means over runs and classes, deviations, intervals, folds, ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses

import numpy as np

from medae_jax.metrics import bootstrap, ranks
from medae_jax.reporting.benchmark.runs import Run

# Scores in the order in which they are shown; what no run has is left out.
SCORES = {"image_auroc": "Image AUROC", "image_ap": "Image average precision", "scan_auroc": "Scan AUROC",
          "pixel_ap": "Pixel average precision", "pixel_auroc": "Pixel AUROC"}
RESAMPLES = 2000
Method = tuple[str, str]  # label and trunk: a row


@dataclasses.dataclass(frozen=True)
class Cell:
  """One method on one data set.

  mean: over classes of the means over runs. std_runs: root of the mean variance over runs of a class (n - 1);
  std_classes: of the class means. interval: 95 %, `over` says of what. runs, of: found and planned.
  """
  mean: float | None
  std_runs: float | None
  std_classes: float | None
  interval: list[float] | None
  over: str
  runs: int
  of: int
  classes: int
  of_classes: int
  synthetic: bool
  images: int | None  # of the test split; None where classes differ
  by_class: Mapping[str, list[float]]


def scores_of(runs: Sequence[Run]) -> list[str]:
  """Names of SCORES that the final runs have; scan scores only where they are not those of the images."""
  def differs(name):
    other = name.replace("scan_", "image_")
    return name == other or any(r.score(name) != r.score(other) for r in runs)
  return [s for s in SCORES if any(r.score(s) is not None for r in runs) and differs(s)]


def table(runs: Sequence[Run], score: str) -> dict[tuple[Method, str], Cell]:
  """{(method, data set): Cell} of the final runs, in order of appearance."""
  groups: dict[tuple[Method, str], list[Run]] = {}
  for run in runs:
    if run.fold < 0:
      groups.setdefault(((run.method, run.trunk), run.data), []).append(run)
  return {key: _cell(members, score) for key, members in groups.items()}


def _cell(members: Sequence[Run], score: str) -> Cell:
  by_class: dict[str, list[float]] = {}
  for run in members:
    value = run.score(score)
    if value is not None:
      by_class.setdefault(run.cls, []).append(value)
  means = [float(np.mean(v)) for v in by_class.values()]
  variances = [float(np.var(v, ddof=1)) for v in by_class.values() if len(v) > 1]
  interval, over = _interval(members, by_class, score)
  sizes = {r.result.get("n_images") for r in members if r.result}
  return Cell(float(np.mean(means)) if means else None,
              float(np.sqrt(np.mean(variances))) if variances else None,
              float(np.std(means, ddof=1)) if len(means) > 1 else None, interval, over,
              sum(map(len, by_class.values())), len(members), len(by_class), len({r.cls for r in members}),
              any(bool((r.result or {}).get("synthetic")) for r in members),
              sizes.pop() if len(sizes) == 1 else None, by_class)


def _interval(members, by_class, score):
  """(95 % interval of the mean, what was resampled)."""
  sizes = [len(v) for v in by_class.values()]
  if len(sizes) > 1:
    over = "classes and runs" if max(sizes) > 1 else "classes"
    return bootstrap.interval(resampled_means(list(by_class.values()))), over
  if sizes and sizes[0] > 1:
    return bootstrap.interval(resampled_means(list(by_class.values()))), "runs"
  own = [(r.result.get("ci95") or {}).get(score) for r in members if r.score(score) is not None]
  return (own[0], "images or patients") if own and own[0] else (None, "")


def resampled_means(classes: Sequence[Sequence[float]], seed: int = 0) -> np.ndarray:
  """[RESAMPLES] means over classes of means over runs: classes drawn with replacement, and runs in each.

  Where there is one class its runs alone are drawn.
  """
  rng = np.random.default_rng(seed)
  own = np.stack([np.mean(np.asarray(v)[rng.integers(len(v), size=(RESAMPLES, len(classes), len(v)))], -1)
                  for v in classes], -1)  # [resamples, places, classes]: each place draws runs of its own
  drawn = rng.integers(len(classes), size=(RESAMPLES, len(classes)))
  return np.take_along_axis(own, drawn[..., None], -1)[..., 0].mean(-1)


def trivial(runs: Iterable[Run], score: str) -> dict[str, float]:
  """{data set: the better of the plain intensity scores}, mean over classes; no network is needed for it."""
  found: dict[str, dict[str, dict[str, float]]] = {}
  for run in runs:
    for name, value in ((run.result or {}).get("baseline") or {}).items():
      if run.fold < 0 and name.startswith(score) and isinstance(value, (int, float)):
        found.setdefault(run.data, {}).setdefault(name, {})[run.cls] = float(value)
  return {data: max(float(np.mean(list(v.values()))) for v in names.values())
          for data, names in found.items()}


# ------------------------------------------------------------------------------------------- ranks
@dataclasses.dataclass(frozen=True)
class Ranking:
  """Comparison of the methods that have every block; `left_out`: {method: blocks it lacks}."""
  methods: list[Method]
  blocks: list[tuple[str, str]]
  found: ranks.Comparison | None
  left_out: dict[Method, int]
  why: str


def ranking(cells: Mapping[tuple[Method, str], Cell]) -> Ranking:
  """Methods by rank; a block is a class of a data set (its mean over runs).

  Methods without any value do not count. A block has to be there for all methods that are compared: of all
  sets of the form "methods that have at least the blocks of X", the one with the most comparisons is taken.
  """
  values = {m: {(data, cls): float(np.mean(v)) for (other, data), cell in cells.items() if other == m
                for cls, v in cell.by_class.items()} for m in dict.fromkeys(k[0] for k in cells)}
  values = {m: v for m, v in values.items() if v}
  best: tuple[list, list] = ([], [])
  for blocks in map(set, values.values()):
    methods = [m for m, v in values.items() if blocks <= set(v)]
    if len(methods) > 1 and (len(methods) - 1) * len(blocks) > (len(best[0]) - 1) * len(best[1]):
      best = methods, sorted(blocks)
  methods, blocks = best
  every = set().union(*values.values()) if values else set()
  left_out = {m: len(every - set(v)) for m, v in values.items() if m not in methods}
  if len(methods) < 2 or len(blocks) < 2:
    return Ranking(list(values), blocks, None, left_out,
                   "ranks need two methods with two classes or data sets in common")
  found = ranks.compare(np.array([[values[m][b] for m in methods] for b in blocks]))
  return Ranking(methods, blocks, found, left_out, "")


def folds(runs: Sequence[Run], score: str) -> list[dict]:
  """Rows of a search: method, data set, class, setting: mean and deviation over folds."""
  groups: dict[tuple, list[Run]] = {}
  for run in runs:
    if run.fold >= 0:
      groups.setdefault((run.method, run.trunk, run.data, run.cls, run.setting), []).append(run)
  rows = []
  for (method, trunk, data, cls, setting), members in groups.items():
    values = [v for v in (r.score(score) for r in members) if v is not None]
    rows.append({"method": method, "trunk": trunk, "data": data, "class": cls, "setting": setting,
                 "mean": float(np.mean(values)) if values else None,
                 "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                 "folds": len(values), "of": len(members)})
  return rows
