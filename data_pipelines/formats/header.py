"""What of an image file's header travels into a result, and the chunks of PNG that carry it.

It travels: the size of a pixel (dpi, TIFF's resolution), the colour profile (where the result still
has its colours), gamma and chromaticities, TIFF's description (ImageJ and OME keep units and scales
there) and ImageJ's own two tags. Nothing else does: no EXIF, no text of PNG, no names, dates or
places. docs/formats.md says so to users.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import logging
import math
import re
import struct
from typing import Any
import zlib

import numpy as np
from PIL import Image

from data_pipelines.errors import UserError

_DESCRIPTION, _BYTES, _IMAGEJ, _METAMORPH = 270, 279, (50838, 50839), 33629
_TIFF_TAGS = (_DESCRIPTION, 282, 283, 296, *_IMAGEJ)  # 282, 283, 296: resolution in x, in y, unit
_RARE = {34925: "LZMA", 50000: "Zstandard", 50001: "WebP"}  # codes of tag 259
_PACKBITS = 32773  # of tag 259
_PNG_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"pHYs")
# Passes of an interlaced PNG: first row and column, steps of both.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_COUNTED: dict[str, int] = {}  # {PNG file: hash of the content} whose rows were counted in this process
_MOST_COUNTED = 100_000
_PROFILE_KINDS = {b"GRAY": 1, b"RGB ": 3}  # channels of a colour profile

# Micrometres of OME's units of length; "" = as the standard has it.
_UNITS = {"\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "pm": 1e-6,
          "\u00c5": 1e-4, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6, "in": 25400.0, "": 1.0}
_MORE_UNITS = {"inch": 25400.0, "micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4}
_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\s([^>]*)>")


@dataclasses.dataclass
class Header:
  """Of one image file.

  Attributes:
    kind: Pillow's name of the format.
    dpi: (horizontal, vertical), None where the file does not say.
    profile: ICC bytes, b"" = none.
    tags: {number: value} of TIFF.
    chunks: [(name, content)] of PNG.
  """
  kind: str = ""
  dpi: tuple[float, float] | None = None
  profile: bytes = b""
  tags: dict[int, Any] = dataclasses.field(default_factory=dict)
  chunks: list[tuple[bytes, bytes]] = dataclasses.field(default_factory=list)

  def turned(self) -> Header:
    """Of the picture after a quarter turn."""
    tags = dict(self.tags)
    if 282 in tags and 283 in tags:
      tags[282], tags[283] = tags[283], tags[282]
    chunks = [(n, c[4:8] + c[:4] + c[8:] if n == b"pHYs" else c) for n, c in self.chunks]
    return dataclasses.replace(self, dpi=self.dpi and self.dpi[::-1], tags=tags, chunks=chunks)

  def without_text(self) -> Header:
    """Without what people can have written into it."""
    free = (_DESCRIPTION, *_IMAGEJ)
    return dataclasses.replace(self, tags={k: v for k, v in self.tags.items() if k not in free})

  def profile_for(self, channels: int) -> bytes:
    """The profile, b"" where it is one of other colours than those of the result."""
    return self.profile if _PROFILE_KINDS.get(self.profile[16:20]) == channels else b""


def of_image(image, chunks: Sequence[tuple[bytes, bytes]]) -> Header:
  """The header of Pillow's image; `chunks`: of a PNG."""
  dpi = image.info.get("dpi")
  fine = dpi and len(dpi) == 2 and all(0 < float(v) < 1e6 for v in dpi)
  found: Any = getattr(image, "tag_v2", {})
  return Header(image.format or "", (float(dpi[0]), float(dpi[1])) if fine else None,
                image.info.get("icc_profile") or b"",
                {t: found[t] for t in _TIFF_TAGS if t in found},
                [c for c in chunks if c[0] in _PNG_CHUNKS])


def pages(image) -> int:
  """Pictures of Pillow's image; previews of telephones (MPO) and TIFF's thumbnails are none.

  Microscopes keep the planes of a stack behind one directory: ImageJ counts them in its description,
  MetaMorph in a tag with a value a plane.
  """
  count = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
  if image.format != "TIFF":
    return count
  tags: Any = image.tag_v2
  if count == 1:
    told = re.match(r"ImageJ=(?:.*\n)*?images=(\d+)", str(tags.get(_DESCRIPTION, "")))
    planes = max(1, int(told[1]) if told else 1, np.size(tags.get(_METAMORPH, 0)))
    whole = image.fp.seek(0, 2) >= planes * np.sum(tags.get(_BYTES, 0))
    return planes if whole else 1  # one that was cut out of a stack
  for page in range(1, count if count <= 64 else 0):
    image.seek(page)
    count -= int(image.tag_v2.get(254, 0)) & 1  # a smaller copy of another page
  image.seek(0)
  return count


def rare_compression(path) -> str:
  """Of a TIFF that cannot be decoded: that libtiff may have been built without its compression; else ""."""
  try:
    with open(path, "rb") as file, Image.open(file, formats=["TIFF"]) as image:
      packed = _RARE.get(int(image.tag_v2.get(259, 1)), "")  # type: ignore[attr-defined]
  except Exception:  # no TIFF, or damaged before its pixels
    packed = ""
  return packed and f"TIFF compressed as {packed}: damaged, or not decoded here; save it with LZW or Deflate"


def check_predictor(path, image) -> None:
  """Refuses TIFF of PackBits with differences of neighbours: tifffile writes them, libtiff shows them."""
  tags: Any = getattr(image, "tag_v2", {})
  if int(tags.get(317, 1)) > 1 and int(tags.get(259, 1)) == _PACKBITS:
    raise UserError(f"{path} holds differences between its pixels (TIFF's Predictor) in PackBits, which has "
                    "none: save it with LZW or Deflate")


def orientation(image) -> int:
  """EXIF's 1 ... 8; what cannot be read counts as upright, as in viewers."""
  try:
    turn = int(image.getexif().get(0x0112, 1))
    return turn if 1 <= turn <= 8 else 1
  except Exception:  # damaged EXIF beside a good picture
    return 1


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
  """(name, content) of every chunk, in order.

  Pillow, like most viewers, draws a PNG whose checksums are wrong; here such a file is damaged.

  Raises:
    UserError: a chunk that is cut off, a wrong checksum of what makes the picture, no end.
  """
  found, at = [], 8
  while at + 12 <= len(data):
    (length,), name = struct.unpack(">I", data[at:at + 4]), data[at + 4:at + 8]
    content, end = data[at + 8:at + 8 + length], at + 12 + length
    if end > len(data):
      break
    essential = not name[:1].islower()
    if essential and zlib.crc32(name + content) != int.from_bytes(data[end - 4:end], "big"):
      raise UserError(f"damaged: wrong checksum of chunk {name.decode('latin-1')}")
    found.append((name, content))
    if name == b"IEND":
      return found
    at = end
  raise UserError("damaged: cut off before its end")


def check_png_rows(path, chunks: Sequence[tuple[bytes, bytes]]) -> None:
  """Refuses a PNG whose stream of pixels is whole and of another length than its header says.

  Pillow draws rows that are missing black, and leaves what is too much: another width shears the picture.
  Counting inflates the file as decoding does: a stream that reads it in every epoch counts once.

  Raises:
    UserError: there are fewer or more bytes, or a row of no known filter, which Pillow draws black.
  """
  content = hash(tuple(chunks))
  if _COUNTED.get(str(path)) == content:
    return
  _count_png_rows(chunks)
  if len(_COUNTED) >= _MOST_COUNTED:
    _COUNTED.clear()
  _COUNTED[str(path)] = content


def _count_png_rows(chunks):
  width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", dict(chunks)[b"IHDR"])
  bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
  need = sum(rows * (1 + -(-columns * bits // 8)) for rows, columns in (
      [(-(-(height - y) // dy), -(-(width - x) // dx)) for y, x, dy, dx in _ADAM7] if interlaced
      else [(height, width)]) if rows > 0 and columns > 0)
  row = need + 1 if interlaced else need // height
  inflate, there = zlib.decompressobj(), 0
  for name, content in chunks:
    while name == b"IDAT" and content and there <= need:
      found = inflate.decompress(content, 1 << 20)
      if max(found[-there % row::row], default=0) > 4:
        raise UserError("damaged: a row of a kind that no PNG has")
      there, content = there + len(found), inflate.unconsumed_tail
  there += len(inflate.flush()) if there <= need else 0
  if there != need:
    raise UserError("damaged: its rows end before the picture does" if there < need else
                    f"damaged: it holds more pixels than the {width}x{height} of its header")


def png_with(data: bytes, header: Header, channels: int) -> bytes:
  """A PNG with the header's size of a pixel, profile and gamma behind its first chunk."""
  chunks = list(header.chunks)
  if header.dpi and not any(name == b"pHYs" for name, _ in chunks):
    x, y = (round(v / 0.0254) for v in header.dpi)
    chunks.append((b"pHYs", struct.pack(">IIB", x, y, 1)))
  profile = header.profile_for(channels)
  if profile:
    chunks = [c for c in chunks if c[0] != b"sRGB"]  # one of the two, says the standard
    chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
  return data[:33] + b"".join(png_chunk(*c) for c in chunks) + data[33:]


def png_chunk(name: bytes, content: bytes) -> bytes:
  """Length, name, content and checksum."""
  return (struct.pack(">I", len(content)) + name + content
          + struct.pack(">I", zlib.crc32(name + content)))


def ome_pixel(path, text) -> list[float] | None:
  """Micrometres along x and y of the first image; one that is not said is the other."""
  if "<OME" not in text[:2000] and ":OME" not in text[:2000]:
    return None
  pixels = _OME_PIXELS.search(text)
  said = dict(re.findall(r"""(\w+)\s*=\s*["']([^"']*)["']""", pixels[1] if pixels else ""))
  sizes = []
  for axis in "XY":
    size, unit = positive(said.get(f"PhysicalSize{axis}")), said.get(f"PhysicalSize{axis}Unit", "").strip()
    unit = unit.replace("&#181;", "\u00b5").replace("&#xB5;", "\u00b5")
    if size and unit not in _UNITS:
      logging.warning("%s says that a pixel is %g %s, which is no length that is known: it counts as unknown",
                      path, size, unit[:20])
    sizes.append(size * _UNITS[unit] if size and unit in _UNITS else None)
  first = sizes[0] or sizes[1]
  return [size or first for size in sizes] if first else None


def micrometres(unit: str) -> float | None:
  """Of a unit as ImageJ names it (its Greek letter may be escaped); None of pixels and of none."""
  unit = re.sub(r"\\u00b5", "\u00b5", unit, flags=re.IGNORECASE)
  return {**_UNITS, **_MORE_UNITS}.get(unit) if unit else None


def positive(text) -> float | None:
  """A positive number, None of anything else."""
  try:
    value = float(text)
  except (TypeError, ValueError):
    return None
  return value if math.isfinite(value) and value > 0 else None
