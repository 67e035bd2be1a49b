"""Pieces that marks are made of: dashed lines, caliper signs, arrows, lines of text with halo."""

from __future__ import annotations

import functools

import numpy as np
from PIL import ImageFont

from data_pipelines.marks.font import text_polylines
from data_pipelines.marks.layers import Fill, Lettering, Stroke, paint

COLOURS = {
    "white": (1, 1, 1), "yellow": (1, 1, 0), "cyan": (0, 1, 1), "green": (0.1, 1, 0.2),
    "red": (1, 0.15, 0.1), "orange": (1, 0.6, 0.1), "light_grey": (0.85, 0.85, 0.85),
    "grey": (0.6, 0.6, 0.6),
}


def dashed(points: np.ndarray, style: str, width: float, spacing: float) -> list[Stroke]:
  """A polyline [n,2] as strokes.

  Args:
    style: solid, dashed, dotted or none.
    spacing: pixels between dots, or the period of the dashes.
  """
  if style == "none":
    return []
  if style == "solid":
    return [Stroke(points, width)]
  steps = np.hypot(*np.diff(points, axis=0).T)
  at = np.concatenate([[0], np.cumsum(steps)])
  if at[-1] < 1e-6:
    return [Stroke(points[:1], width)]
  sample = lambda t: np.stack([np.interp(t, at, points[:, k]) for k in (0, 1)], -1)
  starts = np.arange(0, at[-1], spacing)
  if style == "dotted":
    return [Stroke(p[None], width) for p in sample(starts)]
  return [Stroke(sample(np.linspace(t, min(t + 0.55 * spacing, at[-1]), 4)), width) for t in starts]


def caliper_sign(centre, kind: str, size: float, width: float, along: float) -> list:
  """The sign at the end of a measurement: plus, cross, dot, square or arrow (angle `along`)."""
  c, r = np.asarray(centre, float), size / 2
  if kind == "plus":
    return [Stroke(c + np.array([[-r, 0], [r, 0]]), width), Stroke(c + np.array([[0, -r], [0, r]]), width)]
  if kind == "cross":
    r *= 0.75
    return [Stroke(c + np.array([[-r, -r], [r, r]]), width), Stroke(c + np.array([[-r, r], [r, -r]]), width)]
  if kind == "dot":
    return [Stroke(c[None], max(2.0, size / 2))]
  if kind == "square":
    r *= 0.7
    corners = np.array([[-r, -r], [r, -r], [r, r], [-r, r], [-r, -r]])
    return [Stroke(c + corners, width)]
  return arrow_head(c, along, size, filled=False, width=width)


def arrow_head(tip, angle: float, size: float, filled: bool, width: float) -> list:
  """A head that points along `angle` (radians, y down) with its tip at `tip`."""
  tip = np.asarray(tip, float)
  wings = [tip - size * np.array([np.cos(angle + a), np.sin(angle + a)]) for a in (0.45, -0.45)]
  if filled:
    return [Fill(np.stack([tip, *wings]))]
  return [Stroke(np.stack([wings[0], tip, wings[1]]), width)]


def ellipse(centre, radii, angle: float, count: int = 72, wobble=None) -> np.ndarray:
  """A closed outline [count+1,2]; `wobble` [count+1] scales the radius (a freehand trace)."""
  t = np.linspace(0, 2 * np.pi, count + 1)
  scale = 1.0 if wobble is None else wobble
  x, y = radii[0] * np.cos(t) * scale, radii[1] * np.sin(t) * scale
  c, s = np.cos(angle), np.sin(angle)
  return np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], 1)


class TextStyle:
  """A font, a size and how text is set on the image; one style a frame, as scanners do.

  Args:
    rng: numpy Generator.
    size: height of capitals in pixels.
    fonts: paths of TrueType files; () = Pillow's own outlines and the stroke font.
  """

  def __init__(self, rng, size: float, fonts=()):
    self.size = size
    choices = ["stroke", "outline", "outline", *fonts]
    self.font = choices[rng.integers(len(choices))]
    self.slant = 0.2 if rng.random() < 0.1 else 0.0
    self.squeeze = rng.uniform(0.75, 1.1)
    self.width = max(1.0, size * rng.uniform(0.1, 0.2))
    self.bold = rng.choice([0.0, 0.0, 0.25, 0.5]) * size / 8
    self.halo = rng.random() < 0.35  # a dark rim that keeps letters readable
    self.antialias = rng.random() < 0.8

  def width_of(self, text: str) -> float:
    """Width of a line in pixels."""
    if self.font == "stroke":
      return text_polylines(text, self.size)[1] * self.squeeze
    return self._face().getlength(text)

  def line(self, text: str, xy, extra: float = 0.0) -> list:
    """Shapes of one line with its baseline at xy; `extra` pixels thicker on each side."""
    if self.font == "stroke":
      lines, _ = text_polylines(text, self.size, self.slant)
      return [Stroke(np.asarray(xy) + p * [self.squeeze, 1.0], self.width + 2 * extra) for p in lines]
    return [Lettering(tuple(xy), text, self._face(), self.bold + extra)]

  def layers(self, lines, at, image_size, colour, opacity, backing: float = 0.0) -> list:
    """Layers of several lines: optional dark backing box of that opacity, halo, letters.

    Args:
      lines: strings. at: (x, y), left end of the first baseline.
    """
    x, y = at
    pitch = 1.6 * self.size
    spots = [(x, y + i * pitch) for i in range(len(lines))]
    layers = []
    if backing:
      wide = max(self.width_of(line) for line in lines)
      low, high = y - 1.4 * self.size, y + pitch * (len(lines) - 1) + 0.5 * self.size
      box = np.array([[x - 3, low], [x + wide + 3, low], [x + wide + 3, high], [x - 3, high]])
      layers.append(paint([Fill(box)], image_size, (0.02, 0.02, 0.02), backing, False))
    for extra, paint_colour in (((1.0, (0, 0, 0)),) if self.halo and not backing else ()) + (
        (0.0, colour),):
      shapes = [s for line, spot in zip(lines, spots) for s in self.line(line, spot, extra)]
      layers.append(paint(shapes, image_size, paint_colour, opacity, self.antialias))
    return [layer for layer in layers if layer is not None]

  def _face(self):
    # capitals are about 0.72 of the nominal size of common faces
    return face("" if self.font == "outline" else self.font, max(6.0, round(self.size / 0.72, 1)))


@functools.lru_cache(maxsize=256)
def face(path: str, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  """A font at a size; "" = the outlines that Pillow brings along.

  Raises:
    FileNotFoundError: no such font file.
  """
  if not path:
    return ImageFont.load_default(size)
  try:
    return ImageFont.truetype(path, size)
  except OSError:
    raise FileNotFoundError(f"config.data.marks.fonts: {path} is not a readable font file") from None
