"""The catalogue of burnt-in marks: what scanners and readers draw on frames, at random places.

`draw(rng, frame, options)` returns a list of marks; one generator per (seed, place in the stream)
makes it a pure function. Sizes are relative to the frame: one unit is 1/256 of its shorter side.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from data_pipelines.marks.layers import Mark, Stroke, paint, peak, texture
from data_pipelines.marks.parts import COLOURS, TextStyle, arrow_head, caliper_sign, dashed, ellipse

_SIDES = ("RT", "LT", "R", "L", "Rt.", "Lt.", "RIGHT", "LEFT", "rt", "lt")
_SITES = ("BREAST", "AXILLA", "UOQ", "UIQ", "LOQ", "LIQ", "RETRO", "Ovary", "Ov", "KIDNEY", "LOBE",
          "C", "SAG", "TRV", "LONG", "10:00", "12", "3-4", "9")
_NAMES = ("DOE JANE", "ROE R", "PATIENT A", "ANON 0042", "SMITH J", "ID 118273")


@dataclasses.dataclass
class Pen:
  """What the marks of one frame share: the frame, the unit of length, text style, colours."""
  rng: np.random.Generator
  size: tuple[int, int]  # height, width
  inside: np.ndarray  # int [n,2] (x, y) of pixels with tissue
  unit: float
  text: TextStyle
  colour: tuple
  opacity: float
  antialias: bool

  def point(self) -> np.ndarray:
    """A random (x, y) on tissue."""
    return self.inside[self.rng.integers(len(self.inside))].astype(float)

  def pair(self, low=0.05, high=0.6) -> tuple[np.ndarray, np.ndarray]:
    """Two points on tissue, between `low` and `high` of the diagonal apart."""
    diagonal = np.hypot(*self.size)
    first = self.point()
    for _ in range(20):
      second = self.point()
      if low * diagonal <= np.hypot(*(second - first)) <= high * diagonal:
        return first, second
    angle = self.rng.uniform(0, 2 * np.pi)
    return first, first + 0.15 * diagonal * np.array([np.cos(angle), np.sin(angle)])

  def layer(self, shapes, colour=None, opacity=None) -> list:
    """The shapes in the frame's style, [] when they fall outside."""
    layer = paint(shapes, self.size, self.colour if colour is None else colour,
                  self.opacity if opacity is None else opacity, self.antialias)
    return [] if layer is None else [layer]

  def write(self, lines, at, **kw) -> list:
    """Text moved to lie fully inside the frame."""
    wide, pitch = max(self.text.width_of(line) for line in lines), 1.6 * self.text.size
    x = np.clip(at[0], 2, max(2, self.size[1] - wide - 3))
    y = np.clip(at[1], 1.2 * self.text.size + 1,
                max(1.2 * self.text.size + 1, self.size[0] - pitch * (len(lines) - 1) - 4))
    return self.text.layers(lines, (x, y), self.size, self.colour, self.opacity, **kw)


def calipers(pen: Pen) -> Mark:
  """One to four measured pairs, often a right-angled cross; lines and numbers optional."""
  rng = pen.rng
  kind = rng.choice(["plus", "plus", "plus", "cross", "dot", "square", "arrow"])
  style = rng.choice(["dotted", "dotted", "dotted", "dashed", "solid", "none"])
  size, width = rng.uniform(5, 12) * pen.unit, rng.uniform(1, 2.5) * pen.unit
  thin, spacing = rng.uniform(0.8, 1.4), rng.uniform(1.8, 5) * max(1.0, pen.unit)
  numbered, names = rng.random() < 0.6, rng.choice(["1234", "ABCD"])
  pairs = [pen.pair() for _ in range(rng.choice([1, 2, 2, 2, 3, 4]))]
  if len(pairs) >= 2 and rng.random() < 0.7:  # two diameters of one lesion
    p, q = pairs[0]
    across = np.array([q[1] - p[1], p[0] - q[0]]) * rng.uniform(0.3, 0.5)
    centre = p + (q - p) * rng.uniform(0.4, 0.6)
    pairs[1] = centre + across, centre - across
  layers = []
  for i, (p, q) in enumerate(pairs):
    layers += pen.layer(dashed(np.stack([p, q]), style, thin, spacing),
                        opacity=pen.opacity * rng.uniform(0.5, 1.0))
    angle = np.arctan2(*(q - p)[::-1])
    layers += pen.layer(caliper_sign(p, kind, size, width, angle + np.pi)
                        + caliper_sign(q, kind, size, width, angle))
    if numbered:
      layers += pen.write([names[i]], p + rng.uniform(-9, 5, 2) * pen.unit)
  return Mark("calipers", layers)


def trace(pen: Pen) -> Mark:
  """An ellipse or a freehand outline, dotted, dashed or solid."""
  rng = pen.rng
  p, q = pen.pair(0.08, 0.4)
  radius = np.hypot(*(q - p)) / 2
  wobble = None
  if rng.random() < 0.5:
    t = np.linspace(0, 2 * np.pi, 73)
    wobble = 1 + sum(rng.uniform(-0.12, 0.12) * np.cos(k * t + rng.uniform(0, 6)) for k in (2, 3, 5))
  outline = ellipse((p + q) / 2, (radius, radius * rng.uniform(0.4, 1)), rng.uniform(0, np.pi),
                    wobble=wobble)
  style = rng.choice(["dotted", "dashed", "solid"])
  return Mark("trace", pen.layer(
      dashed(outline, style, rng.uniform(1, 1.8) * pen.unit, rng.uniform(2, 6) * pen.unit)))


def box(pen: Pen) -> Mark:
  """A rectangle or the slanted window of colour Doppler."""
  rng = pen.rng
  p, q = pen.pair(0.1, 0.7)
  slant = rng.uniform(-0.3, 0.3) * abs(q[1] - p[1]) if rng.random() < 0.3 else 0.0
  corners = np.array([p, [q[0], p[1]], [q[0] + slant, q[1]], [p[0] + slant, q[1]], p])
  return Mark("box", pen.layer(dashed(corners, rng.choice(["solid", "solid", "dashed", "dotted"]),
                                      rng.uniform(0.8, 2) * pen.unit, rng.uniform(3, 7) * pen.unit)))


def arrow(pen: Pen) -> Mark:
  """An arrow or a bare head that points at something."""
  rng = pen.rng
  tip, angle = pen.point(), rng.uniform(0, 2 * np.pi)
  size = rng.uniform(6, 14) * pen.unit
  shapes = arrow_head(tip, angle, size, rng.random() < 0.7, rng.uniform(1, 2.5) * pen.unit)
  if rng.random() < 0.7:
    back = tip - rng.uniform(1.5, 4) * size * np.array([np.cos(angle), np.sin(angle)])
    end = tip - 0.8 * size * np.array([np.cos(angle), np.sin(angle)])
    shapes.append(Stroke(np.stack([back, end]), rng.uniform(1, 3) * pen.unit))
  return Mark("arrow", pen.layer(shapes))


def label(pen: Pen) -> Mark:
  """One to three words on or beside the tissue."""
  rng = pen.rng
  words = [f"{rng.choice(_SIDES)} {rng.choice(_SITES)}" if rng.random() < 0.75 else
           rng.choice(_SITES) for _ in range(rng.choice([1, 1, 1, 2]))]
  at = rng.uniform((0, 0), (pen.size[1], pen.size[0]))
  return Mark("label", pen.write(words, at, backing=0.9 if rng.random() < 0.1 else 0.0))


def table(pen: Pen) -> Mark:
  """A measurement table in a corner."""
  rng = pen.rng
  unit = rng.choice(["cm", "mm", "cm2"])
  name = rng.choice(["D", "L", "Dist ", "+ ", "x "])
  lines = [f"{name}{i + 1} {rng.uniform(0.2, 9):.2f} {unit}" for i in range(rng.integers(1, 5))]
  at = ((0, pen.size[1])[rng.integers(2)], (0, pen.size[0])[rng.integers(2)])
  return Mark("table", pen.write(lines, at, backing=rng.choice([0.0, 0.6, 0.95])))


def header(pen: Pen) -> Mark:
  """Name, date and technical values at the rim."""
  rng = pen.rng
  technical = [f"MI {rng.uniform(0.4, 1.6):.1f}", f"TIS {rng.uniform(0.1, 1.2):.1f}",
               f"Gn {rng.integers(30, 90)}", f"{rng.uniform(5, 14):.1f}MHz", f"{rng.integers(3, 15)}cm",
               f"FR {rng.integers(12, 60)}"]
  date = f"{rng.integers(1, 29):02d}/{rng.integers(1, 13):02d}/{rng.integers(2005, 2026)}"
  lines = [rng.choice(_NAMES), date] if rng.random() < 0.5 else list(
      rng.choice(technical, rng.integers(1, 5), replace=False))
  at = ((0, pen.size[1])[rng.integers(2)], 0)
  return Mark("header", pen.write(lines, at, backing=0.95 if rng.random() < 0.2 else 0.0))


def ruler(pen: Pen) -> Mark:
  """Depth ticks along a side, some longer, some numbered."""
  rng, (h, w) = pen.rng, pen.size
  x, sign = ((2.0, 1), (w - 3.0, -1))[rng.integers(2)]
  step, short = rng.uniform(8, 24) * pen.unit, rng.uniform(2, 4) * pen.unit
  width, layers, shapes = rng.uniform(0.8, 1.6), [], []
  for i, y in enumerate(np.arange(rng.uniform(2, 10), h - 2, step)):
    length = short * (2 if i % 5 == 0 else 1)
    shapes.append(Stroke(np.array([[x, y], [x + sign * length, y]]), width))
    if i % 5 == 0 and i and rng.random() < 0.5:
      layers += pen.write([str(i // 5)], (x + sign * (length + 2 * pen.unit), y + 0.5 * pen.text.size))
  return Mark("ruler", pen.layer(shapes) + layers)


def bar(pen: Pen) -> Mark:
  """The grey bar, or a colour scale of Doppler or elastography; partly transparent now and then."""
  rng, (h, w) = pen.rng, pen.size
  high, wide = int(h * rng.uniform(0.2, 0.6)), max(3, int(w * rng.uniform(0.015, 0.05)))
  ramp = np.linspace(1, 0, high)[:, None, None]
  kind = rng.choice(["grey", "grey", "doppler", "rainbow"])
  if kind == "grey":
    pixels = np.repeat(ramp, 3, -1)
  elif kind == "doppler":  # red towards the probe, blue away, black between
    pixels = np.concatenate([np.clip(2 * ramp - 1, 0, 1), 0.6 * np.clip(4 * np.abs(ramp - 0.5) - 1, 0, 1),
                             np.clip(1 - 2 * ramp, 0, 1)], -1)
  else:
    pixels = np.clip(1.5 - np.abs(4 * ramp - np.array([3.0, 2.0, 1.0])), 0, 1)
  left = int(rng.choice([rng.uniform(0, 0.06), rng.uniform(0.9, 0.97)]) * w)
  layer = texture(np.repeat(pixels, wide, 1), int(rng.uniform(0, h - high)), left, pen.size,
                  rng.choice([1.0, 1.0, rng.uniform(0.6, 1)]))
  layers = [] if layer is None else [layer]
  if layers and rng.random() < 0.4:
    y = layer.top
    frame = np.array([[left - 1, y - 1], [left + wide, y - 1], [left + wide, y + high],
                      [left - 1, y + high], [left - 1, y - 1]], float)
    layers += pen.layer([Stroke(frame, 1.0)])
  return Mark("bar", layers)


def body_mark(pen: Pen) -> Mark:
  """A pictogram of the body part with the probe's place, in a corner."""
  rng, (h, w) = pen.rng, pen.size
  r = rng.uniform(9, 18) * pen.unit
  centre = np.array([rng.choice([r + 4, w - r - 5]), rng.choice([r + 4, h - r - 5])])
  width = rng.uniform(0.9, 1.8) * pen.unit
  kind = rng.choice(["breast", "pair", "torso"])
  if kind == "torso":
    half = np.array([[0.3, -1], [0.45, -0.6], [0.8, -0.5], [0.6, 0.2], [0.7, 1]]) * r
    shapes = [Stroke(centre + half, width), Stroke(centre + half * [-1, 1], width)]
  else:
    shapes = [Stroke(ellipse(centre, (r, r), 0, 36), width),
              Stroke(ellipse(centre, (0.2 * r, 0.2 * r), 0, 12), width)]
    if kind == "pair":
      shapes.append(Stroke(ellipse(centre + [2.1 * r, 0], (r, r), 0, 36), width))
  angle = rng.uniform(0, np.pi)
  probe = 0.4 * r * np.array([np.cos(angle), np.sin(angle)])
  spot = centre + rng.uniform(-0.6, 0.6, 2) * r
  return Mark("body_mark", pen.layer(shapes) + pen.layer(
      [Stroke(np.stack([spot - probe, spot + probe]), 2 * width)]))


def sign(pen: Pen) -> Mark:
  """Focus triangles at the rim, or a small logo in a corner."""
  rng, (h, w) = pen.rng, pen.size
  if rng.random() < 0.5:
    size, left = rng.uniform(4, 8) * pen.unit, rng.random() < 0.5
    x, angle = (3 + size, 0.0) if left else (w - 4 - size, np.pi)  # they point at the tissue
    return Mark("sign", pen.layer([
        shape for y in rng.uniform(0.1, 0.9, rng.integers(1, 4)) * h
        for shape in arrow_head((x, y), angle, size, True, 1.0)]))
  r = rng.uniform(4, 7) * pen.unit
  centre = np.array([rng.choice([r + 2, w - r - 3]), r + 2])
  return Mark("sign", pen.layer([Stroke(ellipse(centre, (r, r), 0, 24), 1.0)])
              + pen.write([rng.choice(["V", "S", "P", "GX"])], centre + [-0.5 * r, 0.5 * r]))


KINDS = {"calipers": calipers, "trace": trace, "box": box, "arrow": arrow, "label": label,
         "table": table, "header": header, "ruler": ruler, "bar": bar, "body_mark": body_mark,
         "sign": sign}


def draw(rng: np.random.Generator, frame: np.ndarray, options: Mapping[str, Any]) -> list[Mark]:
  """Random marks for a frame.

  Args:
    rng: consumed; the result is a function of its state, the frame and the options.
    frame: float32 [H,W,C] in [0,1].
    options: config.data.marks: `unmarked` (share of frames left alone), `count` (low, high), `kinds`
      ("label" or "label:3" with a weight), `colours` (same form), `opacity` (low, high), `size`
      (factor on all lengths), `fonts`.

  Returns:
    Marks; empty for the share `unmarked`.
  """
  if rng.random() < options["unmarked"]:
    return []
  height, width = frame.shape[:2]
  unit = min(height, width) / 256 * options["size"]
  rows, cols = np.nonzero(peak(frame) > 8 / 255)
  inside = np.stack([cols, rows], 1) if len(rows) > 16 else np.array([[width // 2, height // 2]])
  marks = []
  for _ in range(rng.integers(options["count"][0], options["count"][1] + 1)):
    style = TextStyle(rng, rng.uniform(5, 10) * unit, tuple(options["fonts"]))
    pen = Pen(rng, (height, width), inside, unit, style, COLOURS[_pick(rng, options["colours"])],
              rng.uniform(*options["opacity"]), rng.random() < 0.7)
    mark = KINDS[_pick(rng, options["kinds"])](pen)
    if mark.layers:
      marks.append(mark)
  return marks


def _pick(rng, weighted) -> str:
  """One of ("name", "name:weight", ...)."""
  names, _, weights = zip(*(entry.partition(":") for entry in weighted))
  weights = np.array([float(w or 1) for w in weights])
  return names[rng.choice(len(names), p=weights / weights.sum())]
