"""Charts of the page of a run out of evaluation/curves/<split>.json and <split>.csv."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from medae_jax.core.errors import UserError
from medae_jax.reporting import charts, gallery
from medae_jax.reporting.plots import chart, number
from medae_jax.reporting.run import tables
from medae_jax.reporting.run.results import Split

Figure = dict[str, Any]  # {"svg": Markup, "caption": str}


def of_split(split: Split) -> list[Figure]:
  """Everything that there is to draw of a split.

  Raises:
    UserError: the file of the curves is damaged.
  """
  try:
    return [figure for make in (_ranking, _pixels, _scores, _dice, _p_values, _dots, _thresholds)
            for figure in make(split)]
  except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as e:
    raise UserError(f"curves/{split.name}.json is damaged ({e!r}): {gallery.REMEDY}") from e


def _figure(svg: str, caption: str) -> Figure:
  return {"svg": Markup(svg), "caption": caption}


def _band(split: Split, entry) -> str:
  over = f"; band: 95 % over {split.groups} {split.unit}" if entry.get("low") else ""
  return over + ("" if not entry.get("low") or (split.groups or 0) >= 10 else ", too few for a reliable band")


def _both(split: Split, part: str, what: str, auc: str, ap: str, point=None) -> list[Figure]:
  entry, found = split.curves.get(part) or {}, []
  for kind, key, x, y in (("roc", auc, "false-positive rate", "sensitivity"),
                          ("pr", ap, "recall", "precision")):
    if kind not in entry:
      continue
    share = float(entry["prevalence"])
    area = number(split.result.get(key), "not known")
    drawn = "ROC curve, area" if kind == "roc" else "precision and recall, average precision"
    name = f"{what}: {drawn} {area}"
    chance = [(0, 0), (1, 1)] if kind == "roc" else [(0, share), (1, share)]
    dot = point if kind == "roc" else None
    found.append(_figure(
        charts.curve(entry[kind], x, y, chance, dot, f"{name}."),
        f"{name}{_band(split, entry[kind])}; dotted: chance"
        + (f" ({number(share)} are positive)" if kind == "pr" else "")
        + ("; dot: the threshold of validation" if dot else "") + "."))
  return found


def _ranking(split: Split) -> list[Figure]:
  hit, right = (split.result.get(k) for k in ("image_sensitivity", "image_specificity"))
  point = (1 - right, hit) if tables.known(hit) and tables.known(right) else None
  return _both(split, "image", "Images", "image_auroc", "image_ap", point)


def _pixels(split: Split) -> list[Figure]:
  return _both(split, "pixel", "Pixels", "pixel_auroc", "pixel_ap")


def _scores(split: Split) -> list[Figure]:
  found = []
  for what, entry in (split.curves.get("scores") or {}).items():
    counted = {k: sum(entry[k]) for k in ("normal", "abnormal", "unknown") if sum(entry[k])}
    told = ", ".join(f"{n} {k}" for k, n in counted.items())
    cut = entry.get("threshold")
    rule = f"; dashed: the threshold of validation, {number(float(cut))}" if cut is not None else ""
    caption = f"Scores of {what}s: {told}{rule}."
    keys = "".join(f" {k}: {style}." for k, style in (("Normal", "filled"), ("Abnormal", "outline"),
                                                      ("Unknown", "dotted outline")) if k.lower() in counted)
    found.append(_figure(charts.histogram(entry, f"{what} score", caption), caption + keys))
  return found


def _dice(split: Split) -> list[Figure]:
  points = [{"name": r.get("patient", ""), "value": float(r["dice_val_threshold"])} for r in split.rows
            if r.get("dice_val_threshold") and r.get("lesion_pixels", "0") not in ("", "0")]
  if split.kind != "anomaly" or not points:
    return []
  what = f"Dice of {len(points)} {split.unit} with lesions at the threshold of validation, worst to best"
  return [_figure(charts.dots(points, "Dice", said=what), f"{what}; a dot a case.")]


def _p_values(split: Split) -> list[Figure]:
  entry = split.curves.get("p_values")
  if not entry or not (entry["normal"] or entry["abnormal"]):
    return []
  normal, n = entry["normal"], int(entry["calibrated_on"])
  told = f"p-values of {len(normal)} normal and {len(entry['abnormal'])} abnormal {entry['unit']}s"
  caption = (f"{told}, from {n} normal ones of validation. Solid: normal; they promise no more than the "
             "dotted diagonal. Dashed: abnormal; the further above it, the better.")
  if normal:
    low = sum(p <= 0.05 for p in normal)
    slack = 1.36 / math.sqrt(len(normal))
    caption += (f" p at most 0.05: {low} of {len(normal)} normal ones ({number(low / len(normal))}); chance "
                f"alone moves the curve by up to {number(slack)} (95 %, Kolmogorov).")
  return [_figure(charts.p_values(entry, told), caption)]


def _dots(split: Split) -> list[Figure]:
  entry = split.curves.get("dots")
  if not entry or not entry["points"]:
    return []
  return [_figure(charts.dots(entry["points"], entry["unit"], entry.get("zero", ""), entry["title"]),
                  f"{entry['title']}, worst to best.")]


def _thresholds(split: Split) -> list[Figure]:
  entry = split.curves.get("thresholds")
  if not entry:
    return []
  frame = charts.Frame((0, 1), (0, 1), "probability threshold", "mean Dice")
  frame.path(zip(entry["x"], entry["y"]), "line-1")
  frame.cut(entry.get("threshold"))
  name = "Mean Dice at every probability threshold"
  return [_figure(frame.svg(name), f"{name}; dashed: the threshold of validation.")]


def training(events) -> list[Markup]:
  """Charts of metrics.jsonl: train/loss and val/loss share one."""
  series: dict[str, list[tuple[float, float]]] = {}
  for event in events:
    for key, value in event.items():
      if key != "step" and isinstance(value, (int, float)) and math.isfinite(value):
        series.setdefault(key, []).append((event["step"], value))
  groups: dict[str, dict[str, list]] = {}
  for key, points in series.items():
    group = key.partition("/")[2] or key
    groups.setdefault(group, {})[key] = points
  return [Markup(chart(group, lines)) for group, lines in groups.items()]
