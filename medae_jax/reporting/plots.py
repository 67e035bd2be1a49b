"""Curves of the report as inline SVG, and how it writes numbers and text into HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import html
import math
from typing import Any


def chart(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], width=400, height=230
          ) -> str:
  """Inline SVG of named lines [(x, y), ...].

  The axis is logarithmic where positive values span a factor of 30. Long lines are thinned to 600
  points.
  """
  lines = {k: v[:: max(1, len(v) // 600)] for k, v in lines.items() if v}
  xs = [x for v in lines.values() for x, _ in v]
  ys = [y for v in lines.values() for _, y in v]
  log = min(ys) > 0 and max(ys) > 30 * min(ys)
  scale = math.log10 if log else float
  low, high = scale(min(ys)), scale(max(ys))
  high = high if high > low else low + max(1, abs(low))  # low + 1 is low where values are huge
  left, top, right, bottom = 62, 26, width - 12, height - 34
  span = max(max(xs) - min(xs), 1)
  px = lambda x: left + (x - min(xs)) / span * (right - left)
  py = lambda y: bottom - (scale(y) - low) / (high - low) * (bottom - top)
  parts = [f"<svg width='{width}' height='{height}' viewBox='0 0 {width} {height}' "
           "role='img' aria-label='{text(title)}' "
           "font-family='sans-serif' font-size='11'>",
           f"<text x='{left}' y='15' font-size='13'>{text(title)}"
           f"{' (log scale)' if log else ''}</text>",
           f"<path d='M{left} {top}V{bottom}H{right}' fill='none' stroke='#999'/>"]
  for part in (0, 0.5, 1):
    value = low + part * (high - low)
    y = bottom - part * (bottom - top)
    label = number(10 ** value if log else value)
    parts.append(f"<text x='{left - 6}' y='{y + 4:.1f}' text-anchor='end'>{label}</text>"
                 f"<path d='M{left} {y:.1f}H{right}' stroke='#999' stroke-opacity='.3'/>")
  parts.append(f"<text x='{left}' y='{bottom + 14}'>{min(xs):g}</text><text x='{right}' "
               f"y='{bottom + 14}' text-anchor='end'>step {max(xs):g}</text>")
  for i, (name, points) in enumerate(lines.items()):
    colour = ("#1f6fb4", "#d1541d", "#2e8b57", "#8a4fbf")[i % 4]
    path = "M" + "L".join(f"{px(x):.1f} {py(y):.1f}" for x, y in points)
    parts.append(f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.5'/>"
                 f"<path d='M{left + 120 * i} {height - 9}h12' stroke='{colour}' stroke-width='3'/>"
                 f"<text x='{left + 120 * i + 16}' y='{height - 5}'>{text(name)}"
                 "</text>")
  return "".join(parts) + "</svg>"


def number(value, missing: str = "&ndash;") -> str:
  """A number for people: three digits, thousands apart; `missing` (HTML) where there is none."""
  if value is None or (isinstance(value, float) and not math.isfinite(value)):
    return missing
  if isinstance(value, int):
    return f"{value:,}"
  if not isinstance(value, float):
    return text(value)
  return f"{value:.3f}" if 0.001 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


def text(value: Any) -> str:
  """Any value, escaped for HTML."""
  return html.escape(str(value))
