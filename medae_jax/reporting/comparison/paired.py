"""Measures of several runs on the cases that all of them have scored, and differences of every pair.

One set of bootstrap weights over patients serves all runs, so that a difference is a paired one. Verdicts
hold for all pairs of a measure together: their intervals have the level 1 - 0.05 / pairs (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import itertools
import pathlib
from typing import Any

import numpy as np

from medae_jax.core.errors import UserError
from medae_jax.metrics import bootstrap, detection, dictionary
from medae_jax.reporting.run import results

RESAMPLES = 2000
# Columns of <split>.csv that are means over cases, by their key in the dictionary of measures.
_MEANS = {"dice_patients_mean": "dice_val_threshold", "dice": "dice", "jaccard": "jaccard", "psnr": "psnr",
          "ssim": "ssim"}


@dataclasses.dataclass(frozen=True)
class Cases:
  """The tables of one run's split.

  Attributes:
    name: of the run. dataset: its name. synthetic: computer-generated. images: {id: (patient, label, score)}.
    rows: {id: (patient, {measure: value})} of <split>.csv.
  """

  name: str
  dataset: str
  synthetic: bool
  images: Mapping[str, tuple[str, int, float]]
  rows: Mapping[str, tuple[str, Mapping[str, float]]]


@dataclasses.dataclass(frozen=True)
class Pair:
  """First minus second: difference, its 95 % interval, the interval for all pairs, and the words."""

  first: str
  second: str
  difference: float
  interval: list[float] | None
  wide: list[float] | None
  said: str


@dataclasses.dataclass(frozen=True)
class Measure:
  """One measure on the common cases; `values`: {run: (value, 95 % interval)}."""

  key: str
  cases: int
  patients: int
  values: Mapping[str, tuple[float, list[float] | None]]
  pairs: Sequence[Pair]


def read(workdir: pathlib.Path, name: str, split: str = "test") -> Cases:
  """The cases of a run.

  Raises:
    UserError: a table is damaged.
  """
  folder = workdir / "evaluation"
  images = {}
  try:
    for r in results.table(folder / f"{split}_images.csv"):
      if r.get("label") in ("0", "1"):
        images[r["id"]] = (r["patient"], int(r["label"]), float(r["score"]))
    rows = {}
    for r in results.table(folder / f"{split}.csv"):
      case = r.get("id") or r["patient"]
      known = {key: float(r[column]) for key, column in _MEANS.items() if r.get(column)
               and not (key == "dice_patients_mean" and r.get("lesion_pixels", "1") == "0")}
      if "dice" in known:  # of segmentation: one column, one name
        known.pop("dice_patients_mean", None)
      rows[case] = (r.get("group") or r.get("patient") or case, known)
  except (KeyError, ValueError) as e:
    raise UserError(f"the tables of {folder} are damaged ({e!r}): {results._REMEDY}") from e
  result = results.result(folder / f"{split}.json") if (folder / f"{split}.json").is_file() else {}
  return Cases(name, str(result.get("dataset", "")), bool(result.get("synthetic")), images, rows)


def compare(runs: Sequence[Cases], resamples: int = RESAMPLES, seed: int = 0) -> list[Measure]:
  """All measures that at least two patients of at least two runs have in common."""
  found = []
  common = set.intersection(*(set(r.images) for r in runs))
  # An id with another label or patient in one of the runs is another case.
  common = sorted(i for i in common if len({r.images[i][:2] for r in runs}) == 1)
  labels = [runs[0].images[i][1] for i in common]
  if {0, 1} == set(labels):
    groups = [runs[0].images[i][0] for i in common]
    for key, of in (("image_auroc", detection.auroc), ("image_ap", detection.average_precision)):
      value = _of_scores([[r.images[i][2] for i in common] for r in runs], labels, of)
      found.append(_measure(key, runs, groups, value, resamples, seed))
  for key in _MEANS:
    cases = [i for i in runs[0].rows if all(key in r.rows.get(i, ("", {}))[1] for r in runs)]
    if cases:
      value = _of_means(np.array([[r.rows[i][1][key] for i in cases] for r in runs]))
      found.append(_measure(key, runs, [runs[0].rows[i][0] for i in cases], value, resamples, seed))
  return [m for m in found if m is not None]


def _of_scores(scores, labels, of) -> Callable:
  """Case weights [n] or None -> values of all runs."""
  labels = np.array(labels)
  return lambda weight: np.array([float(of(detection.sorted_counts(s, labels, weight))) for s in scores])


def _of_means(values) -> Callable:
  return lambda weight: values.mean(1) if weight is None else values @ weight / weight.sum()


def _measure(key, runs, groups, value, resamples, seed) -> Measure | None:
  names, member = np.unique(groups, return_inverse=True)
  if len(names) < 2:
    return None
  own = value(None)
  with np.errstate(invalid="ignore", divide="ignore"):
    drawn = np.array([value(w[member].astype(float))
                      for w in bootstrap.resample_weights(len(names), resamples, seed)])
  better = dictionary.metric(key).better
  couples = list(itertools.combinations(range(len(runs)), 2))
  pairs = []
  for a, b in couples:
    apart = drawn[:, a] - drawn[:, b]
    wide = bootstrap.interval(apart, 1 - 0.05 / len(couples))
    pairs.append(Pair(runs[a].name, runs[b].name, float(own[a] - own[b]), bootstrap.interval(apart), wide,
                      dictionary.said(float(own[a] - own[b]), wide, better)))
  values = {r.name: (float(own[k]), bootstrap.interval(drawn[:, k])) for k, r in enumerate(runs)}
  return Measure(key, len(groups), len(names), values, pairs)


def rows(measures: Sequence[Measure]) -> list[dict[str, Any]]:
  """comparison.csv: a line a measure and pair."""
  none = [None, None]
  ends = lambda name, pair: {f"low{name}": (pair or none)[0], f"high{name}": (pair or none)[1]}
  return [{"measure": m.key, "first": p.first, "second": p.second, "difference": p.difference,
           **ends("", p.interval), **ends("_all_pairs", p.wide), "first_is": p.said, "cases": m.cases,
           "patients": m.patients}
          for m in measures for p in m.pairs]
