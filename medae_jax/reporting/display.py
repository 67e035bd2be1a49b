"""How results look in a notebook: small HTML without a style sheet, and figures of matplotlib."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
import io
from typing import Any

import numpy as np
from PIL import Image

from medae_jax.core import calibration as calibrate, files
from medae_jax.core.errors import UserError
from medae_jax.metrics import dictionary
from medae_jax.reporting import panels, result_table
from medae_jax.reporting.page import SYNTHETIC
from medae_jax.reporting.plots import number, text

_ROWS = 20  # of a table in a notebook
_INK, _OTHER = "#1f6fb4", "#d1541d"


def run(workdir, config, info: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> str:
  """A trained run in a few lines."""
  found = calibration or {}
  lines = {"run": workdir, "method": config.method.name, "data": found.get("dataset", config.data.name),
           "checkpoint": f"{info['which']}, step {info['step']}",
           "thresholds": calibrate.explain(found) if found else "none yet: run.evaluate() sets them"}
  warning = SYNTHETIC if found.get("synthetic") else ""
  return warning + _table([[f"<b>{k}</b>", text(v)] for k, v in lines.items()])


def evaluation(result: Mapping[str, Any], picture: bytes | None) -> str:
  """The numbers of a split, the comparison in words, and the panel."""
  lines = [r for r in result_table.rows(result) if r["kind"] == "result"]
  based = any(r["baseline"] is not None for r in lines)
  heads = ["", "value", "95 % interval", *(["baseline"] if based else []), "threshold", ""]
  body = []
  for r in lines:
    interval = "" if r["low"] is None else f"{number(r['low'])} to {number(r['high'])}"
    body.append([f"{text(r['metric'])} {dictionary.metric(r['key']).arrow}", number(r["value"]), interval,
                 *([number(r["baseline"], "")] if based else []), text(r["threshold"]), text(r["meaning"])])
  said = f"<p>{text(result_table.sentence(result))}</p>"
  title = f"<p><b>{text(result.get('dataset', ''))}</b>, {text(result.get('split', ''))}</p>"
  return (title + (SYNTHETIC if result.get("synthetic") else "") + _table(body, heads) + said
          + (image(_small(picture), "panel of the split") if picture else ""))


def score(found) -> str:
  """Verdict and heat map of a `Score`."""
  said = [f"score {number(found.score)}" if isinstance(found.score, float) else
          f"{np.size(found.score)} scores"]
  if isinstance(found.verdict, str):
    said.append(f"<b>{text(found.verdict)}</b>")
  if isinstance(found.p_value, float):
    said.append(f"p-value {number(found.p_value)}")
  if found.mask is not None:
    said.append(f"{int(found.mask.sum()):,} of {found.mask.size:,} above the threshold "
                f"{number(found.threshold)}")
  warning = f"<p>{text(found.warning)}</p>" if found.warning else ""
  picture = found.picture
  if picture is None and found.map is not None and found.map.ndim == 2:
    top = float(found.map.max())
    factor = max(1, 256 // max(found.map.shape))
    picture = files.png(panels.heat(panels.enlarge(found.map, factor, smooth=False), top))
  return f"<p>{', '.join(said)}</p>{warning}" + (image(picture, "heat map") if picture else "")


def rows(found: Sequence[Mapping[str, Any]], title: str) -> str:
  """A list of dicts as a table; its first rows where it is long."""
  heads = list(dict.fromkeys(k for row in found for k in row))
  body = [[number(row.get(k), "") for k in heads] for row in found[:_ROWS]]
  more = f"<p>The first {_ROWS} of {len(found)}.</p>" if len(found) > _ROWS else ""
  return f"<p>{text(title)}</p>" + _table(body, [text(h) for h in heads]) + more


def figure(result: Mapping[str, Any], images: Sequence[Mapping[str, str]]):
  """A matplotlib Figure: measures with intervals and baseline; scores of normal and abnormal images.

  Args:
    images: rows with "score" and "label" ("0", "1" or ""), [] where there are none.

  Raises:
    UserError: matplotlib is not installed.
  """
  try:
    from matplotlib.figure import Figure
  except ImportError as e:
    raise UserError("pictures need matplotlib: pip install matplotlib (or the extra: medae-jax[notebook])"
                    ) from e

  class Shown(Figure):
    """A notebook shows it without pyplot."""

    def _repr_png_(self):
      data = io.BytesIO()
      self.savefig(data, format="png", dpi=100)
      return data.getvalue()

  lines = [r for r in result_table.rows(result) if r["kind"] == "result" and r["unit"] == dictionary.SHARE]
  groups = [[float(r["score"]) for r in images if r.get("label") == label] for label in "01"]
  both = any(groups)
  shown = Shown(figsize=(11 if both else 7, 1.2 + 0.34 * len(lines)), layout="constrained")
  axes = shown.subplots(1, 2 if both else 1, squeeze=False, width_ratios=(3, 2) if both else (1,))[0]
  _forest(axes[0], lines, result)
  if both:
    _histogram(axes[1], groups)
  return shown


def _forest(axis, lines, result) -> None:
  places = range(len(lines), 0, -1)
  for y, r in zip(places, lines):
    if r["low"] is not None:
      axis.plot([r["low"], r["high"]], [y, y], color=_INK, linewidth=2)
    axis.plot(r["value"], y, "o", color=_INK)
    if r["baseline"] is not None:
      axis.plot(r["baseline"], y, "|", color=_OTHER, markersize=14, markeredgewidth=2)
  axis.set_yticks(list(places), [r["metric"] for r in lines])
  axis.set_xlim(-0.02, 1.02)
  axis.grid(axis="x", alpha=0.3)
  words = "SYNTHETIC DATA, " if result.get("synthetic") else ""
  axis.set_title(f"{words}{result.get('dataset', '')}, {result.get('split', '')}", fontsize=10)
  axis.set_xlabel("dot: the model, line: its 95 % interval"
                  + (f", bar: {result_table.baseline_name(result)}"
                     if any(r["baseline"] is not None for r in lines) else ""), fontsize=8)


def _histogram(axis, groups) -> None:
  values = np.concatenate([np.asarray(g) for g in groups])
  bins = np.linspace(values.min(), values.max(), 21) if np.ptp(values) else 10
  for name, group, colour in zip(("normal", "abnormal"), groups, (_INK, _OTHER)):
    if group:
      axis.hist(group, bins, color=colour, alpha=0.6, label=f"{name} ({len(group)})")
  axis.set_xlabel("image score", fontsize=8)
  axis.set_ylabel("images", fontsize=8)
  axis.legend(fontsize=8)


def image(data: bytes, what: str) -> str:
  """A PNG or JPEG inside the page."""
  kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
  return (f"<img alt='{text(what)}' style='max-width:100%' "
          f"src='data:image/{kind};base64,{base64.b64encode(data).decode()}'>")


def _small(png: bytes) -> bytes:
  """A panel as JPEG of at most 1000 columns: notebooks keep what they show."""
  small = Image.fromarray(files.read_png(io.BytesIO(png)))
  small.thumbnail((1000, 10_000))
  data = io.BytesIO()
  small.save(data, "JPEG", quality=85)
  return data.getvalue()


def _table(body: Iterable[Sequence[str]], heads: Sequence[str] = ()) -> str:
  """Cells are HTML already."""
  head = "<tr>" + "".join(f"<th>{h}</th>" for h in heads) + "</tr>" if heads else ""
  cells = "".join("<tr>" + "".join(f"<td style='text-align:left'>{c}</td>" for c in row) + "</tr>"
                  for row in body)
  return f"<div style='overflow-x:auto'><table>{head}{cells}</table></div>"
