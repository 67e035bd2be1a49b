"""What a TIFF file says of itself, looked at before an engine opens it: forms that engines read wrongly.

OpenSlide takes signed pixels for unsigned ones, five channels for colours, the first plane of a stack for the
slide, and levels of a second picture for levels of the first; it turns a slide tile by tile where its header
turns it as a whole. tifffile follows directories that point back to themselves for ever.
"""

from __future__ import annotations

import contextlib
import logging
import math
import pathlib
import struct
from typing import Any

from data_pipelines.errors import UserError

_MOST = 100_000  # directories of a file; a slide has a dozen
COLOURED = (6, 7, 33003, 33005, 34712)  # compressions whose decoders give RGB: JPEG and JPEG 2000
PROPORTIONS = 0.02   # by which those of a level and of the slide may differ
_ALPHA = (1, 2)  # of tag 338: transparency, with and without the colours multiplied by it
_READ = (0, 1, 2, 3, 5, 6, 8)  # of tag 262
_Page = tuple[int, int, bool]  # width, height, and whether it is a smaller copy of another one
_SCANNERS = ("is_svs", "is_ndpi", "is_scn", "is_bif", "is_philips")  # whose further planes engines leave out


def check(path: pathlib.Path) -> int:
  """Bits a sample of a TIFF file; 8 of other files, and where tifffile is not installed.

  Raises:
    UserError: directories in a circle, signed or floating-point pixels, more than four channels, a stack,
      several pictures of which it is open which is meant, a slide that its header turns.
  """
  if in_circles(path):
    raise UserError(f"{path} is damaged: its directories point back to each other")
  page: Any = None
  planes, pages, turn = "", list[_Page](), 1
  with contextlib.suppress(Exception):  # no TIFF: an engine knows it, and has 8 bits
    import tifffile
    with quiet_tifffile(), tifffile.TiffFile(path) as file:
      page = file.pages[0]
      if not any(getattr(file, scanner) for scanner in _SCANNERS):
        planes = _planes(file.series[0])
        turn = int(page.tags.valueof(274, default=1))
        pages = [(p.imagewidth, p.imagelength, bool(int(p.subfiletype) & 1))
                 for p in (found.aspage() for found in file.pages)]
  if page is None:
    return 8
  bits = _bits(path, page, planes)
  if turn not in (0, 1):
    raise UserError(f"{path} is turned or mirrored by its header (TIFF's Orientation {turn}): save it "
                    "upright")
  _check_pages(path, pages)
  return bits


def _check_pages(path, pages: list[_Page]) -> None:
  """Refuses pages of which engines make levels of one slide, or take a small one for it; says what is
  left out."""
  if not pages:
    return
  width, height, _ = pages[0]
  for at, (w, h, _) in enumerate(pages):
    if w * h > width * height:
      raise UserError(f"{path} begins with a picture of {width} x {height} pixels and holds one of {w} x {h} "
                      f"(page {at}): save the slide first, its smaller levels after it")
  for at, ((w, h, reduced), after) in enumerate(zip(pages[1:], pages[2:]), 1):
    if not reduced and after[2] and after[0] < w and after[1] < h:
      raise UserError(f"{path} holds several pictures with levels of their own (the second begins with page "
                      f"{at}, {w} x {h}): they would be mixed; save each as a file")
  other = [f"{w} x {h}" for w, h, reduced in pages[1:] if not reduced
           and 4 * w * h > width * height and abs(w * height / (h * width) - 1) > PROPORTIONS]
  if other:  # labels and overviews are smaller, levels of the same proportions
    logging.warning("%s holds %d pictures: the first, of %d x %d pixels, is taken for the slide, the others "
                    "(%s) are left out", path, 1 + len(other), width, height, ", ".join(other))


def _bits(path, page: Any, planes: str) -> int:
  kind = "" if page.dtype is None else page.dtype.name
  if kind not in ("", "uint8", "uint16") or (kind and page.bitspersample not in (8, 16)):
    raise UserError(f"{path} has {kind} pixels of {page.bitspersample} bits: of a slide 8 and 16 bits "
                    "without sign are read")
  if page.samplesperpixel > 4:
    raise UserError(f"{path} has {page.samplesperpixel} channels: a slide is grey, RGB, CMYK or RGBA")
  _check_last(path, page)
  if planes:
    raise UserError(f"{path} is a stack ({planes}), of which the first picture would be taken for the slide: "
                    "save the one that is meant as RGB")
  return int(page.bitspersample)


def _check_last(path, page: Any) -> None:
  """Refuses channels beyond the colours of which the file does not say that they are transparency: engines
  lay them on white, or leave them out."""
  colour = {0: 1, 1: 1, 3: 1, 5: 4}.get(int(page.photometric), 3)
  if page.samplesperpixel - colour > sum(e in _ALPHA for e in _extras(page)):
    raise UserError(f"{path} has {page.samplesperpixel} channels, and does not say what the last one is: "
                    "save it as RGB, or with the last one marked as transparency (TIFF's ExtraSamples)")


def is_multiplied(page: Any) -> bool:
  """Whether the last channel is transparency that the colours are multiplied with."""
  return _extras(page)[-1:] == [1]


def _extras(page: Any) -> list[int]:
  """Tag 338: what the channels beside the colours are."""
  found = page.extrasamples if isinstance(page.extrasamples, (tuple, list)) else (page.extrasamples,)
  return [int(e) for e in found if e is not None]


def beyond_libtiff(path) -> str:
  """Colours that libtiff makes no RGB of, "" of others: OpenSlide opens such a file and fails later."""
  with contextlib.suppress(Exception):  # as above
    import tifffile
    with quiet_tifffile(), tifffile.TiffFile(path) as file:
      page: Any = file.pages[0]
      name, depth = colours(int(page.photometric)), int(page.bitspersample)
      if int(page.compression) in COLOURED:
        return ""
      if depth > 8 and name in ("CMYK", "palette", "YCbCr"):
        return f"{depth}-bit {name}"
      if int(page.photometric) in (0, 1) and (depth > 8 or int(page.samplesperpixel) > 1):
        # libtiff goes on too early in a row of a tile that the right edge cuts: the rest of it is sheared
        return "grey with transparency" if int(page.samplesperpixel) > 1 else f"{depth}-bit grey"
      planes = name == "CIELab" and int(page.planarconfig) == 2
      return f"{name} (in planes)" if planes else "" if int(page.photometric) in _READ else name
  return ""


def colours(kind: int) -> str:
  """The name of TIFF's tag 262."""
  names = {3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32844: "LogL",
           32845: "LogLuv"}
  return names.get(kind, f"photometric {kind}")


def _planes(series) -> str:
  """"C 3, Z 5" of a series with axes beside rows, columns and colours, "" of a picture."""
  sizes = dict(zip(series.axes, series.shape))
  beside = {axis: n for axis, n in sizes.items() if axis not in "YXS"}
  return ", ".join(f"{a} {n}" for a, n in beside.items() if n > 1) if math.prod(beside.values()) > 1 else ""


def in_circles(path) -> bool:
  """Whether the directories of a TIFF file point back to one before; False of other files."""
  try:
    with open(path, "rb") as file:
      return _circle(file)
  except (OSError, struct.error):  # ends in the middle: an engine says so
    return False


def _circle(file) -> bool:
  start = file.read(16)
  order = {b"II": "<", b"MM": ">"}.get(start[:2])
  if order is None:
    return False
  big = struct.unpack(order + "H", start[2:4])[0] == 43
  count, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
  at, seen = struct.unpack_from(order + pointer, start, 8 if big else 4)[0], set[int]()
  while at and len(seen) < _MOST:
    if at in seen:
      return True
    seen.add(at)
    file.seek(at)
    n = struct.unpack(order + count, file.read(struct.calcsize(count)))[0]
    file.seek(at + struct.calcsize(order + count) + n * entry)
    at = struct.unpack(order + pointer, file.read(struct.calcsize(pointer)))[0]
  return bool(at)


@contextlib.contextmanager
def quiet_tifffile():
  """What tifffile logs about a damaged file is left out: the file is refused in one line, or read."""
  logger = logging.getLogger("tifffile")
  before = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    logger.setLevel(before)
