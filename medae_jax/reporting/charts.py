"""Figures of a page as inline SVG: curves with bands, histograms, dots, p-values.

Colours are classes of templates/style.css, so that a figure follows the page's light, dark and print; every
figure carries what it shows in words for readers who do not see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import math
from typing import Any

from medae_jax.reporting.plots import number, text

_WIDTH, _HEIGHT = 380, 270
_LEFT, _TOP, _RIGHT, _BOTTOM = 58, 12, _WIDTH - 14, _HEIGHT - 46
_DOTS = 800


class Frame:
  """Axes with ticks; `x` and `y` turn values into places."""

  def __init__(self, x_range, y_range, x_label: str, y_label: str):
    self._x, self._y = _wide(x_range), _wide(y_range)
    self._parts = [f"<path class='axis' d='M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}'/>"]
    for value in _ticks(*self._x):
      self._write(_tick(value), self.x(value), _BOTTOM + 16, "middle")
    for value in _ticks(*self._y):
      self._parts.append(f"<path class='grid' d='M{_LEFT} {self.y(value):.1f}H{_RIGHT}'/>")
      self._write(_tick(value), _LEFT - 6, self.y(value) + 4, "end")
    self._write(x_label, (_LEFT + _RIGHT) / 2, _BOTTOM + 36, "middle")
    self._parts.append(f"<text transform='translate(11 {(_TOP + _BOTTOM) / 2}) rotate(-90)' "
                       f"text-anchor='middle'>{text(y_label)}</text>")

  def _write(self, said: str, x: float, y: float, anchor: str, style: str = "") -> None:
    of = f" class='{style}'" if style else ""
    self._parts.append(f"<text{of} x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{text(said)}</text>")

  def x(self, value) -> float:
    return _LEFT + (value - self._x[0]) / (self._x[1] - self._x[0]) * (_RIGHT - _LEFT)

  def y(self, value) -> float:
    return _BOTTOM - (value - self._y[0]) / (self._y[1] - self._y[0]) * (_BOTTOM - _TOP)

  def path(self, points: Iterable[tuple[float, float]], style: str, closed: bool = False) -> None:
    """A line through points; those that are not finite are left out."""
    places = [f"{self.x(a):.1f} {self.y(b):.1f}" for a, b in points if _finite(a) and _finite(b)]
    if places:
      self._parts.append(f"<path class='{style}' d='M{'L'.join(places)}{'Z' if closed else ''}'/>")

  def dot(self, a, b, said: str, style: str = "dot", radius: float = 3.5) -> None:
    self._parts.append(f"<circle class='{style}' cx='{self.x(a):.1f}' cy='{self.y(b):.1f}' r='{radius}'>"
                       f"<title>{text(said)}</title></circle>")

  def note(self, a, b, said: str, anchor: str = "start", style: str = "") -> None:
    self._write(said, self.x(a), self.y(b), anchor, style)

  def cut(self, value: float | None) -> None:
    """A dashed vertical line at the threshold, where there is one inside the axes."""
    if value is None or not self._x[0] <= value <= self._x[1]:
      return
    self.path([(value, self._y[0]), (value, self._y[1])], "cut")
    left = self.x(value) > (_LEFT + _RIGHT) / 2
    self._write(f"threshold {_tick(value)}", self.x(value) + (-5 if left else 5), _TOP + 10,
                "end" if left else "start", "cut-text")

  def svg(self, said: str) -> str:
    return (f"<svg class='figure' role='img' aria-label='{text(said)}' viewBox='0 0 {_WIDTH} {_HEIGHT}'>"
            + "".join(self._parts) + "</svg>")


def curve(entry: Mapping[str, Sequence[float]], x_label: str, y_label: str, chance: Sequence[tuple] = (),
          point: tuple[float, float] | None = None, said: str = "") -> str:
  """A curve over [0,1] with its band.

  Args:
    entry: {"x", "y"} and, where there is a band, {"low", "high"}.
    chance: points of the line of a score that knows nothing. point: the chosen threshold.
  """
  frame = Frame((0, 1), (0, 1), x_label, y_label)
  if entry.get("low"):
    back = reversed(list(zip(entry["x"], entry["high"])))
    frame.path([*zip(entry["x"], entry["low"]), *back], "band", True)
  frame.path(chance, "chance")
  frame.path(zip(entry["x"], entry["y"]), "line-1")
  if point is not None and all(map(_finite, point)):
    frame.dot(*point, "at the threshold chosen on validation", "mark", 5)
  return frame.svg(said)


def histogram(entry: Mapping[str, Any], x_label: str, said: str = "") -> str:
  """Shares of each class by score: normal filled, abnormal as an outline, unknown as a dashed outline."""
  edges = entry["edges"]
  shares = {k: [n / sum(entry[k]) for n in entry[k]] for k in ("normal", "abnormal", "unknown")
            if sum(entry.get(k) or [0])}
  top = max((max(v) for v in shares.values()), default=1)
  frame = Frame((edges[0], edges[-1]), (0, top), x_label, "share of the class")
  for name, values in shares.items():
    steps = [(edges[0], 0)]
    for k, value in enumerate(values):
      steps += [(edges[k], value), (edges[k + 1], value)]
    frame.path([*steps, (edges[-1], 0)], f"bars-{name}", name == "normal")
  frame.cut(entry.get("threshold"))
  return frame.svg(said)


def dots(points: Sequence[Mapping[str, Any]], y_label: str, zero: str = "", said: str = "",
         x_label: str = "") -> str:
  """One dot a case, from the lowest to the highest value; `zero` names a line at 0."""
  known = sorted((p for p in points if _finite(p.get("value"))), key=lambda p: p["value"])
  known = [known[i * len(known) // _DOTS] for i in range(_DOTS)] if len(known) > _DOTS else known
  values = [p["value"] for p in known] or [0.0]
  low, high = (min(0, *values), max(0, *values)) if zero else (0.0, max(1.0, *values))
  frame = Frame((0, len(known) + 1), (low, high), x_label or f"{len(known)} cases, worst to best", y_label)
  if zero:
    frame.path([(0, 0), (len(known) + 1, 0)], "cut")
    frame.note(len(known) + 1, (high - low) * 0.02, zero, "end", "cut-text")
  for k, p in enumerate(known):
    frame.dot(k + 1, p["value"], f"{p['name']}: {_tick(p['value'])}", "dot", 3.5 if len(known) < 150 else 2)
  return frame.svg(said)


def p_values(entry: Mapping[str, Any], said: str = "") -> str:
  """Share of scans with a p-value of at most p, against p: normal ones should not rise above the diagonal."""
  frame = Frame((0, 1), (0, 1), "p", "share with a p-value of at most p")
  frame.path([(0, 0), (1, 1)], "chance")
  for name, style in (("normal", "line-1"), ("abnormal", "line-2")):
    values = sorted(v for v in entry.get(name) or () if _finite(v))
    steps, n = [(0.0, 0.0)], len(values)
    for k, v in enumerate(values):
      steps += [(v, k / n), (v, (k + 1) / n)]
    if n:
      frame.path([*steps, (1, 1)], style)
  return frame.svg(said)


def _wide(values):
  low, high = map(float, values)
  return (low, high) if high > low else (low, low + max(1e-9, abs(low) * 0.1, 1.0))


def _ticks(low: float, high: float) -> list[float]:
  """Three to seven round values inside the range."""
  raw = (high - low) / 6
  unit = 10.0 ** math.floor(math.log10(raw))
  step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * (1 - 1e-9))
  first = math.ceil(low / step - 1e-9)
  return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _finite(value) -> bool:
  return isinstance(value, (int, float)) and math.isfinite(value)


def _tick(value: float) -> str:
  return "0" if abs(value) < 1e-12 else f"{value:.3g}" if abs(value) < 1e4 else number(float(value))
