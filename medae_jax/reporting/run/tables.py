"""Tables of the page of a run as plain fields: results, what could not be measured, calls, other fillings."""

from __future__ import annotations

from typing import Any

from medae_jax.metrics import dictionary
from medae_jax.reporting.plots import number
from medae_jax.reporting.run.results import Split

_FILLINGS = {"network": "the network's image as it comes", "nothing": "the frame as it is",
             "fill_network": "marks filled by the network", "fill_harmonic": "marks filled from their border",
             "inpaint_harmonic": "told the true marks: harmonic filling",
             "inpaint_telea": "told the true marks: Telea (OpenCV)",
             "inpaint_ns": "told the true marks: Navier-Stokes (OpenCV)"}


def results(splits: list[Split]) -> dict[str, Any]:
  """Rows of measures (no counts, no settings), a column a split and a column its baseline.

  "further" of a row: a further form of another measure of the table.
  """
  further = {k for s in splits for k in dictionary.further(s.result)}
  keys = [k for k in dictionary.in_order(k for s in splits for k in s.measures())
          if dictionary.metric(k).kind == "result" and any(known(s.result.get(k)) for s in splits)]
  based = [s for s in splits if any(_base(s, k) for k in keys)]
  rows = [{"metric": dictionary.metric(k),
           "cells": [{"value": s.result.get(k), "interval": (s.result.get("ci95") or {}).get(k)}
                     for s in splits],
           "base": [_base(s, k) for s in based], "further": k in further} for k in keys]
  return {"heads": [s.title for s in splits], "rows": rows,
          "base_heads": [f"{s.result.get('baseline_name', 'intensity threshold')}, {s.title}" for s in based]}


def _base(split: Split, key: str) -> dict[str, Any] | None:
  base = split.result.get("baseline") or {}
  if not known(base.get(key)):
    return None
  forms = dictionary.of_baseline(base, key).items()
  return {"value": base[key],
          "others": [(value, dictionary.BASELINES[end]) for end, value in forms if end and known(value)]}


def counts(splits: list[Split]) -> list[tuple[str, str]]:
  """("test", "8 images, 2 patients, ..."): a line a split."""
  lines = []
  for s in splits:
    keys = [k for k in s.measures() if dictionary.metric(k).kind == "count"
            and known(s.result.get(k)) and not (k == "n_patients" and s.unit == "images")]
    lines.append((s.title, ", ".join(f"{number(s.result[k])} {dictionary.metric(k).name.lower()}"
                                     for k in keys)))
  return [(title, line) for title, line in lines if line]


def settings(splits: list[Split]) -> list[tuple[str, str, str]]:
  """(split, name, value with its rule) of thresholds that stand among the results."""
  found = []
  for s in splits:
    for k in dictionary.in_order(s.result):
      line = dictionary.metric(k)
      if line.kind == "setting" and known(s.result.get(k)):
        found.append((s.title, line.name, f"{number(s.result[k])} ({line.threshold})"))
  return found


def missing(splits: list[Split]) -> list[str]:
  """What could not be measured: a line for each reason, with the splits that it holds for.

  Further forms of a measure that is not known either are not named.
  """
  reasons: dict[tuple[str, tuple[str, ...]], list[str]] = {}
  for s in splits:
    notes = s.result.get("notes") or {}
    further, names = dictionary.further(notes), {}
    for key, why in notes.items():
      if key not in further:
        names.setdefault(why, []).append("intervals" if key == "ci95" else dictionary.metric(key).name)
    for why, those in names.items():
      reasons.setdefault((why, tuple(those)), []).append(s.title)
  return [f"{', '.join(titles)}: {why}; not measured: {'; '.join(names)}"
          for (why, names), titles in reasons.items()]


def calls(split: Split) -> dict[str, int] | None:
  """Images by label and verdict at the image threshold; None where one of them is not known."""
  rows = [(r.get("label"), r.get("called_abnormal")) for r in split.images]
  if not any(a in ("0", "1") and b in ("0", "1") for a, b in rows):
    return None
  count = lambda label, called: sum(r == (label, called) for r in rows)
  return {"found": count("1", "1"), "missed": count("1", "0"), "alarms": count("0", "1"),
          "right": count("0", "0")}


def findings(split: Split) -> list[dict[str, Any]]:
  """A row a finding: name, images, AUROC and AP with intervals, false-positive rate at 95 % sensitivity."""
  found, rows = split.result.get("findings"), []
  for name, v in found.items() if isinstance(found, dict) else ():
    if isinstance(v, dict) and known(v.get("auroc")):
      ci = v.get("ci95") if isinstance(v.get("ci95"), dict) else {}
      both = {k: (v.get(k), _pair(ci.get(k))) for k in ("auroc", "ap")}
      rows.append({"name": name, "n": v.get("n"), **both, "delong": _pair(v.get("ci95_delong")),
                   "fpr95": v.get("fpr95")})
  return rows


def _pair(value):
  return value if isinstance(value, list) and len(value) == 2 and all(map(known, value)) else None


def fillings(split: Split) -> dict[str, Any] | None:
  """Restoration: every way to restore in a column, None for other tasks."""
  if split.kind != "restoration":
    return None
  chosen = split.result.get("fill")
  ways = {k: split.result.get(k) for k in ("fill_network", "fill_harmonic", "network")}
  ways |= split.result.get("baselines") or {"nothing": split.result.get("baseline")}
  ways = {k: v for k, v in ways.items() if isinstance(v, dict)}
  keys = [k for k in dictionary.METRICS if any(known(v.get(k)) for v in ways.values())]
  own = lambda k: " (what predict writes)" if k == f"fill_{chosen}" else ""
  rows = [{"metric": dictionary.metric(k), "cells": [v.get(k) for v in ways.values()]} for k in keys]
  return {"heads": [_FILLINGS.get(k, k.replace("_", " ")) + own(k) for k in ways], "rows": rows}


def quality(split: Split) -> list[tuple[str, Any]]:
  """Segmentation: how well what training learnt of the noisy annotations ranks them."""
  found = split.result.get("annotation_quality")
  if not isinstance(found, dict):
    return []
  names = {"n_with_learnt_weight": "Annotations with a learnt weight", "ranked_by": "Ranked by",
           "mean_dice_label_expert": "Mean Dice of annotation and expert mask",
           "spearman_mean_weight": "Rank correlation of the learnt weight with that Dice",
           "spearman_agreement": "Rank correlation of the agreement of gradients with it",
           "spearman_dice_label_prediction": "Rank correlation of annotation against prediction with it"}
  return [(names.get(k, k.replace("_", " ")), v.replace("_", " ") if isinstance(v, str) else v)
          for k, v in found.items() if v is not None]


def known(value) -> bool:
  """Whether there is a number that can be shown."""
  return isinstance(value, (int, float)) and not isinstance(value, bool) and number(value) != number(None)
