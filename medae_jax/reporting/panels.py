"""Pictures for people: grey images, heat maps on one common scale, outlines, legends, text.

All pictures of a run share one intensity window and one heat scale (calibration.json): a colour
means the same number in every picture. Nothing is stretched per image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, PAPER, WARNING = (20, 20, 20), (255, 255, 255), (176, 0, 32)
HIT, FALSE_ALARM, MISS, TRUTH = (60, 200, 90), (235, 70, 60), (70, 140, 255), (70, 230, 255)
LEGEND = (("found", HIT), ("false alarm", FALSE_ALARM), ("missed", MISS))
# Dark to bright with steadily growing lightness, so that it also reads in grey print.
_HEAT = np.array([[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66],
                  [245, 125, 21], [250, 193, 39], [252, 255, 164]], np.float64)


def grey(image: np.ndarray, window: Sequence[float] = (0.0, 1.0)) -> np.ndarray:
  """[H,W] float -> uint8 [H,W,3]: window[0] black, window[1] white."""
  low, high = window
  level = np.clip((np.asarray(image, np.float64) - low) / max(high - low, 1e-12), 0, 1)
  return np.repeat(np.round(255 * level).astype(np.uint8)[..., None], 3, -1)


def colour(image: np.ndarray) -> np.ndarray:
  """float [H,W,1 or 3] in [0,1] -> uint8 [H,W,3]."""
  pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
  return np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels


def heat(anomaly: np.ndarray, top: float) -> np.ndarray:
  """[H,W] float -> uint8 [H,W,3]: 0 black, `top` and above pale yellow."""
  level = np.clip(np.asarray(anomaly, np.float64) / max(top, 1e-12), 0, 1) * (len(_HEAT) - 1)
  low = np.minimum(level.astype(int), len(_HEAT) - 2)
  part = (level - low)[..., None]
  return np.round(_HEAT[low] * (1 - part) + _HEAT[low + 1] * part).astype(np.uint8)


def heat_stops() -> str:
  """The colours of the heat scale as stops of a CSS gradient."""
  return ",".join("#" + "".join(f"{int(v):02x}" for v in stop) for stop in _HEAT)


def blend(under: np.ndarray, over: np.ndarray, strength: np.ndarray) -> np.ndarray:
  """`over` on top of `under` (uint8 [H,W,3]) where strength [H,W] in 0..1 is high."""
  strength = np.asarray(strength, np.float64)[..., None]
  return np.round(under * (1 - strength) + over * strength).astype(np.uint8)


def heat_overlay(image: np.ndarray, anomaly: np.ndarray, window, top: float) -> np.ndarray:
  """Heat on the grey image: opacity grows with the score up to half of the scale's top."""
  strength = 0.85 * np.clip(np.asarray(anomaly, np.float64) / max(top / 2, 1e-12), 0, 1)
  return blend(grey(image, window), heat(anomaly, top), strength)


def verdict_overlay(image: np.ndarray, found: np.ndarray, mask: np.ndarray | None, window
                    ) -> np.ndarray:
  """Prediction against truth in the colours of LEGEND; without truth: the prediction alone."""
  picture = grey(image, window)
  found = np.asarray(found, bool)
  if mask is None:
    return _tint(picture, found, FALSE_ALARM)
  mask = np.asarray(mask, bool)
  for where, colour in ((found & mask, HIT), (found & ~mask, FALSE_ALARM), (~found & mask, MISS)):
    picture = _tint(picture, where, colour)
  return picture


def outline(picture: np.ndarray, mask: np.ndarray, colour=TRUTH) -> np.ndarray:
  """Draws the inner border of a mask (same size as the picture)."""
  mask = np.asarray(mask, bool)
  padded = np.pad(mask, 1)
  inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
  picture = picture.copy()
  picture[mask & ~inside] = colour
  return picture


def enlarge(array: np.ndarray, factor: int, smooth: bool = True) -> np.ndarray:
  """[H,W] float or bool times an integer factor; smooth = bilinear, else repeated pixels."""
  array = np.asarray(array)
  if not smooth and factor > 1:
    return array.repeat(factor, 0).repeat(factor, 1)
  return resize(array, (array.shape[0] * factor, array.shape[1] * factor))


def resize(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """[H,W] on `shape` (rows, columns): floats bilinear, bool by the nearest pixel."""
  array = np.asarray(array)
  if array.shape == tuple(shape):
    return array
  if array.dtype == bool:
    at = [(np.arange(n) * m) // n for n, m in zip(shape, array.shape)]
    return array[np.ix_(*at)]
  picture = Image.fromarray(array.astype(np.float32))
  return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def text(picture: np.ndarray, words: str, xy, size: int = 15, colour=INK, rim=None) -> np.ndarray:
  """Writes a line into uint8 [H,W,3], the letters with a rim of a colour; returns the new picture."""
  canvas = Image.fromarray(picture)
  ImageDraw.Draw(canvas).text(xy, words, fill=tuple(colour), font=ImageFont.load_default(size),
                              stroke_width=int(rim is not None), stroke_fill=rim)
  return np.array(canvas)  # a copy: np.asarray would be read-only


def grid(cells: Sequence[Sequence[np.ndarray]], columns: Sequence[str], captions: Sequence[str],
         title: str, warning: str = "", footer: np.ndarray | None = None) -> np.ndarray:
  """A table of pictures with a title, column heads, a caption above every row, and a footer.

  Args:
    cells: rows of uint8 [h,w,3], all of one size.
    columns: head of each column. captions: one line a row.
    title: first line. warning: second line in red ("SYNTHETIC DATA ...").
    footer: picture below, e.g. `scale_bar`.

  Returns:
    uint8 [H,W,3].
  """
  height, width = cells[0][0].shape[:2]
  gap, total_w = 6, max(len(columns) * (width + 6) + 6, 520)
  large = max(18, total_w // 72)  # wide pictures are shown scaled down: larger letters stay legible
  small = min(max(13, large - 4), max(12, width // 9))
  line = small + 10
  head = large + 14 + (large + 10 if warning else 0)
  canvas = np.full((head + line + len(cells) * (height + line + gap), total_w, 3), PAPER, np.uint8)
  canvas = text(canvas, title, (gap, 6), large)
  if warning:
    canvas = text(canvas, warning, (gap, large + 14), large, WARNING)
  for j, name in enumerate(columns):
    canvas = text(canvas, name, (gap + j * (width + gap), head), small)
  for i, row in enumerate(cells):
    y = head + line + i * (height + line + gap)
    canvas = text(canvas, captions[i], (gap, y + 3), small, (90, 90, 90))
    for j, cell in enumerate(row):
      x = gap + j * (width + gap)
      canvas[y + line:y + line + height, x:x + width] = cell
  if footer is not None:
    if total_w > 1.6 * footer.shape[1]:
      footer = np.asarray(Image.fromarray(footer).resize(
          (footer.shape[1] * 3 // 2, footer.shape[0] * 3 // 2), Image.Resampling.LANCZOS))
    wide = max(footer.shape[1], canvas.shape[1])
    canvas = np.concatenate([_widen(canvas, wide), _widen(footer, wide)])
  return canvas


def truth_name(synthetic: bool) -> str:
  """What the outline is: nobody has judged images that are drawn with their lesions."""
  return "generated mask" if synthetic else "expert mask"


def marked_below(what: str) -> str:
  """The verdict on a lesion that is drawn well in a "slice" or an "image" that is not called abnormal."""
  return f"lesion marked, but {what} score below the image threshold"


def scale_bar(top: float, threshold: float | None, with_truth: bool | None, width: int = 420,
              truth: str = "expert mask") -> np.ndarray:
  """The heat scale with its numbers and the threshold's tick, and the legend of the verdicts.

  Args:
    with_truth: True = verdicts against the mask called `truth`, False = predictions alone, None = no legend.
  """
  canvas = np.full((72, width + (40 if with_truth is None else 520), 3), PAPER, np.uint8)
  canvas[24:40, 8:8 + width] = heat(np.linspace(0, top, width)[None].repeat(16, 0), top)
  canvas = text(canvas, "anomaly score, the same scale in all pictures of this run", (8, 3), 14)
  for value, word in ((0.0, "0"), (top / 2, f"{top / 2:.3g}"), (top, f"{top:.3g}")):
    x = 8 + int(value / top * (width - 1)) if top > 0 else 8
    canvas[40:45, x:x + 1] = INK
    canvas = text(canvas, word, (max(x - 12, 4), 48), 14)
  if threshold is not None and 0 < threshold <= top:
    x = 8 + int(threshold / top * (width - 1))
    canvas[20:44, x - 1:x + 1] = FALSE_ALARM
    canvas = text(canvas, f"threshold {threshold:.3g}", (x + 6 if x < width - 120 else x - 110, 22),
                  13, PAPER if threshold < 0.7 * top else INK)
  x = width + 40
  legend = LEGEND if with_truth else (("above the threshold", FALSE_ALARM),)
  for word, colour in legend if with_truth is not None else ():
    canvas[26:40, x:x + 14] = colour
    canvas = text(canvas, word, (x + 20, 24), 14)
    x += 130
  if with_truth:
    canvas[54:57, width + 40:width + 54] = TRUTH
    canvas = text(canvas, f"outline: {truth}", (width + 60, 47), 14)
  return canvas


def _tint(picture, where, colour):
  return blend(picture, np.broadcast_to(np.array(colour, np.float64), picture.shape), 0.6 * where)


def _widen(picture, width):
  pad = width - picture.shape[1]
  return np.pad(picture, ((0, 0), (0, pad), (0, 0)), constant_values=255)
