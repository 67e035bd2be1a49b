"""One reader of slides: SVS, NDPI, MRXS, Philips, OME-TIFF, tiled TIFF ... by OpenSlide or tiffslide.

  with open_slide(path) as slide:
    slide.read(level, x, y, width, height)         # x, y: pixels of level 0, as in OpenSlide
    slide.read_scaled(downsample, x, y, width, height)   # of any downsample, from the nearest finer level
    slide.downsample_of(mpp=1.0)                   # or magnification=10

Pixels are uint8 RGB. What is transparent, or outside the slide, is white. 16-bit slides are scaled by
255/65535; one that uses no more than a quarter of its range is refused (data_pipelines/formats/depth.py).
A region that a level cannot give (a damaged tile) is made of the next finer level, with one warning a
level: what is read depends on the region alone, never on what was read before it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import pathlib

import numpy as np
from PIL import Image

from data_pipelines.errors import UserError
from data_pipelines.formats import header
from data_pipelines.formats.regular import check_regular
from data_pipelines.intake import find as finder
from data_pipelines.slides import engines, forms, resolution

SUFFIXES = (*finder.SUFFIXES["slide"], ".tif", ".tiff", ".btf")
_STRIP = 2**26  # bytes of a finer level in memory at a time
_NOMINAL = (1.25, 2.5, 5, 10, 20, 40, 60, 80, 100)
_LONGEST = 1 << 20    # pixels of a side: a quarter of a metre at x40
_SAME = 0.01    # downsamples this close are one: 4.0001 is the level of 4


@dataclasses.dataclass(frozen=True)
class Level:
  """One level of a pyramid: its size in pixels, and level-0 pixels a pixel."""
  width: int
  height: int
  downsample: float


class Slide:
  """An open slide; `open_slide` makes it.

  Attributes:
    path, vendor, engine: of the file ("aperio", "generic-tiff" ...) and the library that reads it.
    levels: from the full resolution down. width, height: of level 0.
    mpp: micrometres a pixel of level 0, None where the file does not say (or says nonsense).
    magnification: objective power; the nominal one of mpp (0.25 = 40) where the file does not say.
  """

  def __init__(self, path: pathlib.Path, engine, bits: int, mpp: float | None):
    self.path, self._engine, self._bits = path, engine, bits
    self.vendor, self.engine, self.properties = engine.vendor, engine.name, engine.properties
    self.levels, self._numbers = _levels(path, engine)
    self.width, self.height = self.levels[0].width, self.levels[0].height
    self.mpp = mpp or resolution.of(path, self.properties)
    power = header.positive(self.properties.get("openslide.objective-power"))
    self.magnification = power or (_nominal(self.mpp) if self.mpp else None)
    self._said: set[int] = set()

  def __enter__(self) -> Slide:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Closes the file."""
    self._engine.close()

  def downsample_of(self, mpp: float = 0.0, magnification: float = 0.0) -> float:
    """Level-0 pixels a pixel of the wanted resolution, at least 1.

    Args:
      mpp: micrometres a pixel. magnification: instead, in terms of the slide's own: 10 of 40 is 4.

    Raises:
      UserError: the slide does not say its resolution, or is coarser than what is wanted (by > 5 %).
    """
    own = self.mpp if mpp else self.magnification
    if not own:
      raise UserError(f"{self.path} does not say how many micrometres a pixel is: give it, predict "
                      "--config.predict.slide.own_mpp=0.25, training --config.data.own_mpp=0.25")
    found = mpp / own if mpp else own / magnification
    if found < 0.95:
      raise UserError(f"{self.path} has {own:g} {'micrometres a pixel' if mpp else 'x'} at most: coarser "
                      f"than the {mpp or magnification:g} that are asked for")
    return max(1.0, found)

  def level_of(self, downsample: float) -> int:
    """The coarsest level that is no coarser than `downsample`."""
    fitting = [i for i, level in enumerate(self.levels) if level.downsample <= downsample * (1 + _SAME)]
    return max(fitting, key=lambda i: self.levels[i].downsample, default=0)

  def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
    """uint8 [height,width,3] of a level.

    Args:
      x, y: left top corner in pixels of level 0; any, also outside. width, height: pixels of the level.

    Raises:
      UserError: no such level; the region cannot be read from this level nor from a finer one.
    """
    if not 0 <= level < len(self.levels):
      raise UserError(f"{self.path} has no level {level}: its levels are 0 to {len(self.levels) - 1}")
    for finer in range(level, -1, -1):
      try:
        if finer == level:
          return self._region(level, x, y, width, height)
        ratio = self.levels[level].downsample / self.levels[finer].downsample
        return self._shrunk(finer, ratio, x, y, width, height)
      except engines.Broken as error:
        reason = str(error)
        if finer and finer not in self._said:
          self._said.add(finer)
          logging.warning("%s: level %d cannot be read at (%d, %d) (%s); the next finer level is taken "
                          "instead", self.path, finer, x, y, reason)
    unread = "can not handle" in reason  # libtiff's words
    what = "has pixels of a form that is not read" if unread else "is damaged"
    raise UserError(f"{self.path} {what}: level 0 cannot be read at ({x}, {y}) ({reason})")

  def read_scaled(self, downsample: float, x: int, y: int, width: int, height: int) -> np.ndarray:
    """uint8 [height,width,3] at any downsample: the nearest finer level, averaged down.

    A level within 1 % of it is taken as it is. Args and errors as `read`.
    """
    level = self.level_of(downsample)
    ratio = downsample / self.levels[level].downsample
    if abs(ratio - 1) <= _SAME:
      return self.read(level, x, y, width, height)
    return self._shrunk(level, ratio, x, y, width, height, self.read)

  def overview(self, downsample: float) -> np.ndarray:
    """The whole slide, uint8 [floor(height/downsample), floor(width/downsample), 3], at least 1 x 1."""
    width, height = (max(1, int(n / downsample)) for n in (self.width, self.height))
    return self.read_scaled(downsample, 0, 0, width, height)

  def _region(self, level, x, y, width, height):
    """What lies on the slide by the engine, white around it."""
    box = self.levels[level]
    left, top = (math.floor(n / box.downsample + 1e-6) for n in (x, y))
    first, last = (max(0, -left), max(0, -top)), (min(width, box.width - left), min(height, box.height - top))
    out = np.full((height, width, 3), 255, np.uint8)
    if last[0] <= first[0] or last[1] <= first[1]:
      return out
    pixels = self._engine.read(max(0, x), max(0, y), self._numbers[level], last[0] - first[0],
                               last[1] - first[1])
    out[first[1]:last[1], first[0]:last[0]] = _rgb(pixels)
    return out

  def _shrunk(self, level, ratio, x, y, width, height, read=None):
    """A region of another downsample out of `level`, `ratio` of whose pixels make one; in strips."""
    read = read or self._region
    rows = max(1, int(_STRIP / max(1.0, width * 4 * ratio * ratio)))
    whole, scale = abs(ratio - round(ratio)) * max(width, height) < 0.1, self.levels[level].downsample
    strips, around = [], 0 if whole else math.ceil(ratio) + 1  # rows beside a strip that its ends mix
    for begin in range(0, height, rows):
      n = min(rows, height - begin)
      top = max(0, math.floor(begin * ratio + 1e-6) - around)
      bottom = min(math.ceil(height * ratio - 1e-3), math.ceil((begin + n) * ratio - 1e-3) + around)
      size = math.ceil(width * ratio - 1e-3), bottom - top
      finer = Image.fromarray(read(level, x, y + math.ceil(top * scale - 1e-6), *size))
      if whole:
        strips.append(np.asarray(finer.reduce(round(ratio)).crop((0, 0, width, n))))
        continue
      box = (0, begin * ratio - top, width * ratio, (begin + n) * ratio - top)
      box = tuple(min(max(0, b), limit) for b, limit in zip(box, (*size, *size)))
      strips.append(np.asarray(finer.resize((width, n), Image.Resampling.BILINEAR, box=box)))
    return np.concatenate(strips)


def _levels(path, engine) -> tuple[tuple[Level, ...], list[int]]:
  """(levels, their numbers in the file), without pages that are none: of other proportions than the slide.

  Raises:
    UserError: the header claims more pixels along a side than any slide has.
  """
  width, height = engine.sizes[0]
  if max(width, height) > _LONGEST:
    engine.close()
    raise UserError(f"{path} claims {width} x {height} pixels: no slide has more than {_LONGEST} on a side: "
                    "its header is damaged")
  good = []
  for number, (w, h) in enumerate(engine.sizes):
    apart = abs(width / w - height / h) / (width / w)
    if apart <= forms.PROPORTIONS + 2 / min(w, h):  # sizes are rounded up or down
      good.append(number)
    else:
      logging.warning("%s: page %d of %d x %d pixels is of other proportions than the slide and is not taken "
                      "for a level of it", path, number, w, h)
  sizes = [(*engine.sizes[i], engine.downsamples[i]) for i in good]
  return tuple(Level(w, h, downsample) for w, h, downsample in sizes), good


def open_slide(path, mpp: float = 0.0) -> Slide:
  """Opens a slide.

  Args:
    mpp: micrometres a pixel of level 0, for files that do not say it; 0 = as the file says.

  Raises:
    FileNotFoundError: no such file. UserError: no library, no slide, or a depth that leaves open what
      white is; one line that names the file.
  """
  path = pathlib.Path(path)
  check_regular(path, "slide")
  bits = forms.check(path)
  slide = Slide(path, engines.open_engine(path), bits, mpp)
  if slide._bits > 8:
    _check_depth(slide)
  return slide


def _check_depth(slide):
  """Raises UserError for 10 to 14 bits in 16: they look nearly black."""
  smallest = slide.levels[-1]
  wide = min(1.0, 2048 / smallest.width), min(1.0, 2048 / smallest.height)
  pixels = slide.read(len(slide.levels) - 1, 0, 0, max(1, int(smallest.width * wide[0])),
                      max(1, int(smallest.height * wide[1])))
  if pixels.max() <= 64:  # 16383, the white of 14 bits, becomes 64
    slide.close()
    raise UserError(f"{slide.path} has {slide._bits}-bit pixels of which none reaches a quarter of the "
                    "range: 10, 12 or 14 bits look so; save it as 8 bits")


def _rgb(pixels: np.ndarray) -> np.ndarray:
  """uint8 [H,W,3] of what an engine gives: grey repeated, 16 bits scaled, alpha laid on white."""
  if pixels.dtype == np.uint16:
    pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
  elif pixels.dtype != np.uint8:
    raise engines.Broken(f"{pixels.dtype} pixels")
  if pixels.shape[-1] < 3:  # grey, perhaps with alpha
    pixels = np.concatenate([pixels[..., :1]] * 3 + [pixels[..., 1:]], -1)
  colour, alpha = pixels[..., :3], pixels[..., 3:]
  if not alpha.size or alpha.min() == 255:
    return colour
  alpha = alpha.astype(np.uint16)
  return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _nominal(mpp: float) -> float:
  """Magnification whose usual pixel (10 micrometres / magnification) is nearest to mpp."""
  return min(_NOMINAL, key=lambda m: abs(math.log(m * mpp / 10)))
