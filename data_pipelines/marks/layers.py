"""Burnt-in marks as layers: vector shapes -> coverage, colour and opacity -> annotated image, mask.

Coordinates are (x, y) in pixels, y down, pixel centres at integers. Every shape is rasterised on a
canvas of its own bounding box, so that the cost of a mark does not depend on the size of the frame.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_SUPERSAMPLE = 4


@dataclasses.dataclass(frozen=True)
class Stroke:
  """A polyline [n,2] with round ends; one point is a disc."""
  points: np.ndarray
  width: float = 1.0


@dataclasses.dataclass(frozen=True)
class Fill:
  """A filled polygon [n,2]."""
  points: np.ndarray


@dataclasses.dataclass(frozen=True)
class Lettering:
  """Text in the outlines of a font; `xy` is the left end of the baseline, `bold` thickens by px."""
  xy: tuple[float, float]
  text: str
  font: ImageFont.FreeTypeFont
  bold: float = 0.0


@dataclasses.dataclass(frozen=True)
class Layer:
  """Paint on a rectangle of the image.

  Attributes:
    top, left: of the rectangle.
    alpha: float32 [h,w], coverage times opacity.
    colour: float32 [3] or [h,w,3], RGB in [0,1].
  """
  top: int
  left: int
  alpha: np.ndarray
  colour: np.ndarray


@dataclasses.dataclass(frozen=True)
class Mark:
  """A named mark: what export lists, and its layers in the order of painting."""
  kind: str
  layers: list[Layer]


def paint(shapes: Sequence, size: tuple[int, int], colour, opacity: float = 1.0,
          antialias: bool = True) -> Layer | None:
  """Rasterises shapes of one colour.

  Args:
    size: (height, width) of the image; what lies outside is cut.
    colour: RGB in [0,1].
    antialias: coverage by supersampling, else 0 or 1 a pixel.

  Returns:
    The layer, or None when nothing lies inside the image.
  """
  box = _bounds(shapes, size)
  if box is None:
    return None
  left, top, right, bottom = box
  scale = _SUPERSAMPLE if antialias else 1
  canvas = Image.new("L", ((right - left) * scale, (bottom - top) * scale))
  draw = ImageDraw.Draw(canvas)
  # a pixel centre at integer i lies at (i + 0.5) * scale - 0.5 of the finer grid
  place = lambda points: (np.asarray(points, float) - (left, top) + 0.5) * scale - 0.5
  for shape in shapes:
    if isinstance(shape, Stroke):
      _stroke(draw, place(shape.points), shape.width * scale)
    elif isinstance(shape, Fill):
      draw.polygon([tuple(p) for p in place(shape.points)], fill=255)
    else:
      font = shape.font.font_variant(size=shape.font.size * scale)
      if not antialias:
        draw.fontmode = "1"
      draw.text(tuple(place(shape.xy)), shape.text, fill=255, font=font, anchor="ls",
                stroke_width=shape.bold * scale)
  if scale > 1:
    canvas = canvas.resize((right - left, bottom - top), Image.Resampling.BOX)
  alpha = np.asarray(canvas, np.float32) / 255 * np.float32(opacity)
  return Layer(top, left, alpha, np.asarray(colour, np.float32))


def texture(pixels, top: int, left: int, size: tuple[int, int], opacity: float = 1.0
            ) -> Layer | None:
  """A painted rectangle, float [h,w,3] in [0,1], cut to the image; None when it is outside."""
  h, w = pixels.shape[:2]
  y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + h, size[0]), min(left + w, size[1])
  if y0 >= y1 or x0 >= x1:
    return None
  part = np.asarray(pixels[y0 - top:y1 - top, x0 - left:x1 - left], np.float32)
  return Layer(y0, x0, np.full(part.shape[:2], opacity, np.float32), part)


def compose(clean: np.ndarray, marks: Sequence[Mark], blur: float = 0.0, levels: int = 255
            ) -> tuple[np.ndarray, np.ndarray]:
  """Paints marks on a clean image.

  Args:
    clean: float32 [H,W,1 or 3] in [0,1]; grey images take the luminance of the colours.
    blur: standard deviation in pixels of a blur of the marks' coverage, as resampling leaves it.
    levels: the annotated image is rounded to multiples of 1/levels, as stored files are.

  Returns:
    (annotated float32 [H,W,C], mask float32 [H,W,1]: 1 where paint changed the image by a grey
    level or more).
  """
  out = clean.copy()
  covered = np.zeros(clean.shape[:2], bool)
  mask = np.zeros((*clean.shape[:2], 1), np.float32)
  boxes = []
  for layer in (layer for mark in marks for layer in mark.layers):
    if blur > 0:
      layer = _blurred(layer, blur, clean.shape[:2])
    h, w = layer.alpha.shape
    boxes.append((layer.top, layer.left, layer.top + h, layer.left + w))
    where = np.s_[layer.top:layer.top + h, layer.left:layer.left + w]
    colour = layer.colour
    if clean.shape[-1] == 1:
      colour = colour @ np.array([[0.299], [0.587], [0.114]], np.float32)
    alpha = layer.alpha[..., None]
    out[where] = out[where] * (1 - alpha) + colour * alpha
    covered[where] |= layer.alpha > 0
  if not boxes:
    return out, mask
  # the rest works on the smallest rectangle that holds all marks
  (top, left), (bottom, right) = np.min(boxes, 0)[:2], np.max(boxes, 0)[2:]
  where = np.s_[top:bottom, left:right]
  painted, before, on = out[where], clean[where], covered[where]
  painted = np.where(on[..., None], np.round(painted * levels) / np.float32(levels), before)
  out[where] = painted
  mask[where] = (on & (peak(np.abs(painted - before)) > 0.99 / levels))[..., None]
  return out, mask


def peak(image: np.ndarray) -> np.ndarray:
  """Largest channel, [H,W,C] -> [H,W]; many times faster than max(-1) for a few channels."""
  return functools.reduce(np.maximum, [image[..., c] for c in range(image.shape[-1])])


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
  """float32 [H,W,1 or 3] in [0,1] after one JPEG encoding."""
  pixels = np.round(image * 255).astype(np.uint8)
  data = io.BytesIO()
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
      data, "JPEG", quality=int(quality))
  pixels = np.asarray(Image.open(data)).reshape(image.shape)
  return pixels.astype(np.float32) / 255


def _stroke(draw, points, width):
  radius = width / 2
  if len(points) > 1:
    draw.line([tuple(p) for p in points], fill=255, width=max(1, int(round(width))), joint="curve")
  if radius > 1:  # round ends; thinner lines have none to see
    for x, y in (points[0], points[-1]):
      draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
  elif len(points) == 1:
    draw.point([tuple(np.round(points[0]))], fill=255)


def _bounds(shapes, size):
  """(left, top, right, bottom) of all shapes, cut to the image; None when empty."""
  boxes = []
  for shape in shapes:
    if isinstance(shape, Lettering):
      x, y = shape.xy
      margin, height = shape.bold + 2, shape.font.size
      boxes.append((x - margin, y - height - margin, x + shape.font.getlength(shape.text) + margin,
                    y + 0.5 * height + margin))
    else:
      margin = getattr(shape, "width", 0) / 2 + 1.5
      low, high = np.min(shape.points, 0) - margin, np.max(shape.points, 0) + margin
      boxes.append((*low, *high))
  if not boxes:
    return None
  boxes = np.array(boxes)
  left, top = np.maximum(np.floor(boxes[:, :2].min(0)), 0).astype(int)
  right = min(int(np.ceil(boxes[:, 2].max())) + 1, size[1])
  bottom = min(int(np.ceil(boxes[:, 3].max())) + 1, size[0])
  return (left, top, right, bottom) if left < right and top < bottom else None


def _blurred(layer, sigma, size):
  """The layer with its coverage blurred, on a rectangle widened by the blur's reach."""
  reach = int(np.ceil(3 * sigma))
  pad = [(min(reach, layer.top), min(reach, size[0] - layer.top - layer.alpha.shape[0])),
         (min(reach, layer.left), min(reach, size[1] - layer.left - layer.alpha.shape[1]))]
  colour = layer.colour
  if colour.ndim == 3:
    colour = np.pad(colour, [*pad, (0, 0)], mode="edge")
  wide = np.pad(layer.alpha, pad)
  soft = Image.fromarray(np.round(wide * 255).astype(np.uint8)).filter(
      ImageFilter.GaussianBlur(sigma))
  alpha = np.asarray(soft, np.float32) / 255
  # the faintest skirt of the blur would fall below one grey level: leave it out of the mask
  return Layer(layer.top - pad[0][0], layer.left - pad[1][0], np.where(alpha < 0.02, 0, alpha), colour)
