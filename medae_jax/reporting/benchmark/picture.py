"""The critical-difference picture of Demsar 2006 as SVG, for pages and papers."""

from __future__ import annotations

from collections.abc import Sequence

from medae_jax.metrics import ranks
from medae_jax.reporting.plots import text

_AXIS, _LINE, _LETTER = 420, 20, 7.4  # width of the axis, distance of labels, room for a letter


def critical_difference(names: Sequence[str], found: ranks.Comparison) -> str:
  """Average ranks on an axis, best at the left; a bar joins methods that Nemenyi's test does not tell apart.

  Args:
    names: of the methods, in the order of found.average.
  """
  order = sorted(range(len(names)), key=lambda i: (found.average[i], names[i]))
  k, half = len(names), (len(names) + 1) // 2
  bars = ranks.cliques(found.average, found.difference)
  labels = [f"{names[i]} ({found.average[i]:.2f})" for i in order]
  margin = int(24 + _LETTER * max(map(len, labels)))
  width = _AXIS + 2 * margin
  x = lambda rank: margin + (rank - 1) / max(k - 1, 1) * _AXIS
  axis = 62
  below = axis + 16 + 9 * len(bars)
  height = below + _LINE * max(half, k - half) + 14
  parts = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
           f"viewBox='0 0 {width} {height}' font-family='sans-serif' font-size='13'>",
           f"<rect width='{width}' height='{height}' fill='#fff'/>",
           *_scale(x, k, axis), *_difference(x, found, k)]
  for number, place in enumerate(order):
    left = number < half
    row = number if left else k - 1 - number
    y, at = below + _LINE * row + 8, x(found.average[place])
    end = margin - 14 if left else width - margin + 14
    anchor, shift = ("end", -5) if left else ("start", 5)
    parts.append(f"<path d='M{at:.1f} {axis}V{y}H{end}' fill='none' stroke='#444'/>"
                 f"<text x='{end + shift}' y='{y + 4}' text-anchor='{anchor}'>{text(labels[number])}"
                 "</text>")
  low = sorted(found.average)
  for number, (first, last) in enumerate(bars):
    y = axis + 10 + 9 * number
    parts.append(f"<path d='M{x(low[first]) - 4:.1f} {y}H{x(low[last]) + 4:.1f}' stroke='#b00020' "
                 "stroke-width='4'/>")
  return "".join(parts) + "</svg>"


def _scale(x, k, axis):
  """The axis of ranks 1 to k."""
  yield f"<path d='M{x(1):.1f} {axis}H{x(k):.1f}' stroke='#000' stroke-width='1.5'/>"
  for rank in range(1, k + 1):
    yield (f"<path d='M{x(rank):.1f} {axis - 6}V{axis}' stroke='#000'/>"
           f"<text x='{x(rank):.1f}' y='{axis - 10}' text-anchor='middle'>{rank}</text>")


def _difference(x, found, k):
  """The length of the critical difference, above the axis."""
  shown = min(found.difference, k - 1)
  longer = " (longer than the axis)" if found.difference > k - 1 else ""
  start, end = x(1), x(1 + shown)
  yield (f"<path d='M{start:.1f} 22H{end:.1f}M{start:.1f} 18V26M{end:.1f} 18V26' fill='none' stroke='#000'/>"
         f"<text x='{start:.1f}' y='13'>critical difference {found.difference:.2f}{longer}, "
         f"{found.blocks} blocks, level {found.alpha:g}</text>")
