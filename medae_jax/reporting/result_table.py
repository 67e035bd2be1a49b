"""The numbers of an evaluation as a table: what the terminal prints, and `Evaluation.table()` holds."""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

from medae_jax.metrics import dictionary
from medae_jax.reporting.text_table import aligned


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
  """A dict a number of evaluation/<split>.json, in the order of the dictionary of measures.

  Returns:
    [{"key", "metric" (its name), "value", "low", "high" (95 % interval, None without), "baseline"
    (None without), "better" ("higher", "lower" or ""), "unit", "threshold" (the rule of the threshold
    behind it), "meaning", "kind" ("result", "count" or "setting"), "further" (whether it is a further form
    of another one of them)}].
  """
  ci95, base = result.get("ci95") or {}, result.get("baseline") or {}
  found, further, repeated = [], dictionary.further(result), dictionary.repeated(result)
  for key in dictionary.in_order(k for k, v in result.items() if k not in dictionary.ABOUT):
    if not _number(result[key]) or key in repeated:
      continue
    what = dictionary.metric(key)
    low, high = ci95.get(key) or (None, None)
    beside = filter(_number, dictionary.of_baseline(base, key).values())
    best = (min if what.better == dictionary.LOWER else max)(beside, default=None)
    found.append({"key": key, "metric": what.name, "value": result[key], "low": low, "high": high,
                  "baseline": best, "better": what.better, "unit": what.unit, "threshold": what.threshold,
                  "meaning": what.meaning, "kind": what.kind, "further": key in further})
  return found


def text(results: Mapping[str, Mapping[str, Any]]) -> str:
  """{split: evaluation/<split>.json} for a terminal: a table a split, and the comparison in words.

  Further forms of a measure are counted, not shown.
  """
  found = ["\n".join(_split(split, result)) for split, result in results.items()]
  if any(result.get("synthetic") for result in results.values()):
    found.append("SYNTHETIC DATA: these numbers say nothing about patients.")
  return "\n\n".join(found)


def sentence(result: Mapping[str, Any]) -> str:
  """What the comparison with the baseline shows, in words; "" where there is none."""
  by = result.get("model_better_by") or {}
  if "model_better" not in result:
    return ""
  name = baseline_name(result)
  if by.get("metric") and not _number(by.get("difference")):
    return f"Nothing here to compare with {name}: {dictionary.metric(by['metric']).name} is not known."
  interval = (result.get("ci95") or {}).get(f"{by.get('metric')}_minus_baseline")
  why = "no interval was computed" if by.get("metric") and not interval else "the interval holds 0"
  verdict = {True: f"better than {name}", False: f"WORSE than {name}"}.get(
      result["model_better"], f"not shown to be better than {name} ({why})")
  if not by.get("metric"):
    return f"The model is {verdict}."
  shown = f", 95 % interval {_shown(interval[0])} to {_shown(interval[1])}" if interval else ""
  difference = f" by {_shown(by['difference'])}" if _number(by.get("difference")) else ""
  return f"The model is {verdict}: {dictionary.metric(by['metric']).name} differs{difference}{shown}."


def baseline_name(result: Mapping[str, Any]) -> str:
  """What the baseline is, in words."""
  return result.get("baseline_name") or "a plain intensity threshold"


def _split(split, result):
  known = rows(result)
  lines = [r for r in known if not r["further"]]
  counts = ", ".join(f"{r['value']:,} {_lower(r['metric'])}" for r in lines if r["kind"] == "count")
  title = f"{ {'val': 'validation'}.get(split, split).capitalize()}: {result.get('dataset', '')}"
  title += f" ({counts})" if counts else ""
  shown = [r for r in lines if r["kind"] == "result"]
  based = any(r["baseline"] is not None for r in shown)
  table = [["metric", "value", "95 % interval", *(["baseline"] if based else []), "threshold"]]
  for r in shown:
    interval = "" if r["low"] is None else f"{_shown(r['low'])} to {_shown(r['high'])}"
    unit = r["unit"] if len(r["unit"]) <= 4 else ""  # dB; shares speak for themselves
    arrow = dictionary.metric(r["key"]).arrow
    table.append([f"{r['metric']} {arrow}".rstrip(), f"{_shown(r['value'])} {unit}".rstrip(),
                  interval, *([_shown(r["baseline"])] if based else []), r["threshold"]])
  found = [title, *(f"  {line}" for line in aligned(table, left=(0, len(table[0]) - 1)))]
  found.append("  ↑ higher is better, ↓ lower is better" + (
      f"; baseline: {baseline_name(result)}" if based else ""))
  found += [f"  {part}" for part in (_settings(lines), sentence(result)) if part]
  if more := sum(r["kind"] == "result" for r in known) - len(shown):
    found.append(f"  {more} further forms of Dice: {split}.json, report.html")
  return found


def _settings(lines):
  return "; ".join(f"{_lower(r['metric'])} {_shown(r['value'])}" for r in lines if r["kind"] == "setting")


def _lower(name: str) -> str:
  """Within a sentence: "threshold of the best Dice"."""
  return name[:1].lower() + name[1:]


def _shown(value) -> str:
  if value is None:
    return ""
  return f"{value:,}" if isinstance(value, int) else (
      f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 1000 else f"{value:.3g}")


def _number(value) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
