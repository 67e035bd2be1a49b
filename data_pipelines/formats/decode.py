"""Pixels of PNG, JPEG, TIFF, BMP and JPEG 2000 files by Pillow: the only place that decodes them.

What comes out is what a viewer shows: palettes resolved, CMYK and YCbCr as RGB, turned as EXIF says,
white-is-zero files marked as inverted; the depth stays that of the file. Pillow keeps 8 of 16 bits
of a colour file: `_both_bytes` reads the others. Whatever a library raises over a damaged file
becomes one UserError in `decode`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import threading
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_pipelines.errors import UserError
from data_pipelines.formats import depth, header as headers, palette
from data_pipelines.formats.regular import check_regular
from data_pipelines.intake import foreign

MAX_PIXELS = 178_956_970  # of one picture: 13,377 x 13,377; twice what Pillow warns of
_OPENING_GIANT = threading.Lock()
_PNG_START = b"\x89PNG\r\n\x1a\n"
_DEEP = (";16L", ";16B", ";16N")  # Pillow's names of rows with 16-bit samples
# Pillow opens forty formats by content, whatever the name; EPS runs a program to be drawn.
_FORMS = ("PNG", "JPEG", "TIFF", "BMP", "JPEG2000", "GIF", "WEBP", "AVIF", "PPM")
_UNKNOWN = (" (no image, damaged at its start, or a form that is not read, such as floats of 16 or 64 bits, "
            "or a rare compression)")
# libtiff gives the words of compressed files in the machine's order; these Pillow takes for the file's.
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
_UNNAMED = {"LX": "LA", "RGBX": "RGBA"}  # rows of TIFF with a channel that Pillow drops, and the mode with it
_CONVERTED = {"YCbCr": "RGB", "HSV": "RGB", "RGBX": "RGB", "CMYK": "RGB", "1": "L", "La": "LA",
              "RGBa": "RGBA"}


@dataclasses.dataclass
class Decoded:
  """One picture.

  Attributes:
    pixels: uint8, uint16, int32 or float32 [H,W,1 or 3].
    bits: that the file says it uses of each value.
    inverted: 0 means white. alpha: [H,W] of the pixels' type, or None.
    header: what travels into results.
    levels: greys that the file tells apart; 16 and fewer are spread over 0 ... 255.
  """
  pixels: np.ndarray
  bits: int = 8
  inverted: bool = False
  alpha: np.ndarray | None = None
  header: headers.Header = dataclasses.field(default_factory=headers.Header)
  levels: int = 256


def decode(path, what: str = "image") -> Decoded:
  """The one picture of a file.

  Args:
    what: the file is called this in messages.

  Raises:
    FileNotFoundError: no such file. UserError: one line: no image, damaged, several pages, more
    than MAX_PIXELS, a form that is not read.
  """
  return _guarded(path, what, lambda *found: _picture(path, *found))


def jpeg_size(path, what: str = "image") -> tuple[int, int] | None:
  """(H, W), as shown, of a JPEG file that can be decoded to its end; None for other formats.

  Raises:
    As `decode`.
  """
  def quickly(image, *_):
    if image.format not in ("JPEG", "MPO"):
      return None
    height, width = image.height, image.width
    try:
      image.draft("RGB", (1, 1))  # an eighth of the lines and columns
      image.load()
    except OSError:  # damaged, or lossless JPEG, which has no eighth: who decodes it all knows
      return None
    return (width, height) if headers.orientation(image) >= 5 else (height, width)
  return _guarded(path, what, quickly)


def turn(path) -> int:
  """EXIF's orientation of a file that `decode` can read; of a PNG only what it says before its pixels."""
  with _open(path) as image:
    return 1 if image.format == "PNG" and "exif" not in image.info else headers.orientation(image)


def _guarded(path, what, use):
  """use(Pillow's image, bytes and chunks of a PNG): the one place where Pillow fails."""
  path = pathlib.Path(path)
  check_regular(path, what)
  try:
    with open(path, "rb") as file:
      data = file.read() if file.read(8) == _PNG_START else b""
    data = _PNG_START + data if data else b""
    chunks = headers.png_chunks(data) if data else []
    with _open(path) as image:
      _check_size(path, *image.size)
      _check_pages(path, image, what)
      return use(image, data, chunks)
  except Image.DecompressionBombError:
    _check_size(path, *_claimed_size(path))
    raise UserError(f"{path} claims more pixels than fit") from None
  except UserError as error:
    if str(path) in str(error):
      raise
    raise UserError(f"{path} is not a readable {what} ({error})") from None
  except MemoryError:
    raise UserError(f"{path} does not fit in memory") from None
  except UnidentifiedImageError:
    raise UserError(f"{path} is not a readable {what}{foreign.of_file(path) or _UNKNOWN}") from None
  except Exception as error:  # Pillow raises a dozen types for damaged files
    reason = " ".join(str(error).split()).replace(str(path), path.name)[:120]
    reason = headers.rare_compression(path) or reason or type(error).__name__
    raise UserError(f"{path} is not a readable {what} ({reason})") from None


@contextlib.contextmanager
def _open(path):
  """Pillow's image of an open file.

  Of a *name* Pillow 13 maps uncompressed TIFF into memory, and turned by 90 degrees they come out
  sheared.
  """
  Image.init()
  forms = [form for form in _FORMS if form in Image.OPEN]
  with open(path, "rb") as file, Image.open(file, formats=forms) as image:
    yield image


def _check_size(path, width, height):
  if width * height > MAX_PIXELS:
    raise UserError(f"{path} is {width}x{height} pixels ({width * height / 1e6:.0f} million); the "
                    f"limit is {MAX_PIXELS / 1e6:.0f} million: cut it into tiles or make it smaller")


def _claimed_size(path):
  """(width, height) in the header of a file that Pillow refuses to open for its size."""
  with _OPENING_GIANT:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      with _open(path) as image:
        return image.size
    finally:
      Image.MAX_IMAGE_PIXELS = limit


def _check_pages(path, image, what):
  if (pages := headers.pages(image)) > 1:
    advice = "give one image a file" if what == "image" else f"join them into one {what}, or give one a file"
    raise UserError(f"{path} has {pages} pages; {advice}")
  if (channels := int(getattr(image, "tag_v2", {}).get(277, 1))) > 4:  # Pillow drops the others
    raise UserError(f"{path} has {channels} channels: save it with 1 (grey) or 3 (colour)")


def _picture(path, image, data, chunks) -> Decoded:
  header, tags, rows = headers.of_image(image, chunks), _tags(image), _row_kind(image)
  if tags["tiff"] and rows.partition(";")[0] in _UNNAMED:
    _check_unnamed(path, rows)
  few = _check_jpeg2000(path, image.mode not in ("L", "I;16")) if image.format == "JPEG2000" else 8
  headers.check_predictor(path, image)
  deep, levels = _is_deep_colour(path, image, tags, rows), depth.levels(image, rows, few)
  turn = headers.orientation(image)  # of a PNG decodes it
  if deep:
    bits, (pixels, alpha) = 16, _split(_both_bytes(path, rows, data))
  else:
    image.tile = [t._replace(args=(_NATIVE.get(t.args[0], t.args[0]), *t.args[1:]))
                  if t.codec_name == "libtiff" else t for t in image.tile]
    image.load()
    pixels, alpha, bits = _plain(path, _shown(image), tags)
    pixels = depth.widened(pixels, few)
  if chunks:
    headers.check_png_rows(path, chunks)
  if turn >= 5:
    header = header.turned()
  inverted = tags["white_is_zero"] and pixels.dtype != np.uint8  # Pillow inverts 8 bits itself
  return Decoded(pixels, bits, inverted, alpha, header, levels)


def _tags(image) -> dict[str, Any]:
  """What TIFF says and Pillow's mode does not."""
  found: Any = getattr(image, "tag_v2", {})
  bits = found.get(258, (16,))
  return {"bits": int(bits[0] if isinstance(bits, tuple) else bits),
          "signed": 2 in np.ravel(found.get(339, 1)), "white_is_zero": found.get(262) == 0,
          "planes": found.get(284) == 2, "tiff": bool(found)}


def _plain(path, image, tags):
  """(pixels, alpha, bits) of what Pillow decodes at its full depth."""
  if image.mode == "P" or image.mode == "PA":
    image = palette.resolved(path, image)
  if image.mode in ("L", "RGB") and "transparency" in image.info:  # one colour that is clear
    image = image.convert(image.mode + "A")
  if image.mode in _CONVERTED:
    image = image.convert(_CONVERTED[image.mode])
  if image.mode in ("L", "RGB", "LA", "RGBA"):
    if tags["signed"]:
      raise UserError(f"{path} has signed 8-bit pixels; save it as 8 bits without sign")
    return *_split(np.asarray(image)), 8
  if image.mode.startswith("I;16"):
    array = np.asarray(image).astype(np.uint16)
    return array[..., None], None, tags["bits"] if tags["tiff"] else 16
  if image.mode in ("I", "F"):
    array = np.asarray(image)
    if image.mode == "I" and tags["tiff"] and tags["bits"] == 16:
      return array.astype(np.int16)[..., None], None, 16
    if image.mode == "I" and tags["tiff"] and not tags["signed"] and array.min() < 0:
      raise UserError(f"{path} has values beyond 31 bits; save it as 16 bits")
    return array[..., None], None, 32
  raise UserError(f"{path} has {image.mode} pixels; grey and colour of 8 and 16 bits, integers of "
                  "32 bits and floats are read")


def _split(array):
  """(colours [H,W,1 or 3], alpha [H,W] or None) of [H,W] or [H,W,1 to 4]."""
  array = array.reshape(*array.shape[:2], -1)
  if array.shape[-1] in (2, 4):
    return np.ascontiguousarray(array[..., :-1]), array[..., -1].copy()
  return array, None


def _shown(image):
  """Turned as EXIF says."""
  if image.format == "TIFF":  # which Pillow turns on loading
    return image
  try:
    return ImageOps.exif_transpose(image)
  except Exception:  # likewise
    return image


def _check_unnamed(path, rows):
  """Refuses a TIFF with one channel beside grey or colour that varies and is not called transparency."""
  kind, semicolon, rest = rows.partition(";")
  with _open(path) as whole:
    whole._mode = _UNNAMED[kind]
    whole.tile = [t._replace(args=(whole.mode + semicolon + rest, *t.args[1:])) for t in whole.tile]
    whole.load()
    extra = np.asarray(whole)[..., -1]
  if np.ptp(extra):
    raise UserError(f"{path} has {len(kind)} channels, and does not say what the last one is: save it with 1 "
                    "(grey) or 3 (colour), or with the last one marked as transparency")


# ----------------------------------------------------------------------------- 16 bits of colour
def _row_kind(image) -> str:
  """Pillow's name for how the samples of a row lie in the file."""
  args = image.tile[0].args if image.tile else ""
  return str(args[0] if isinstance(args, tuple) and args else args)


def _is_deep_colour(path, image, tags, rows) -> bool:
  """Whether Pillow would keep 8 of 16 bits; refuses what cannot be read at its full depth."""
  if image.mode in ("L", "I", "I;16", "I;16B", "F", "1", "P"):
    return False
  deep = rows.endswith(_DEEP)
  if tags["tiff"] and tags["bits"] > 8 and (
      not deep or image.mode not in ("RGB", "RGBA") or "a;" in rows):
    raise UserError(f"{path} has {tags['bits']}-bit {image.mode} pixels of a form that is not read; "
                    "save it as 16-bit RGB")
  return deep


def _check_jpeg2000(path, colour) -> int:
  """Bits of a value; refuses depths of which Pillow drops a part, and a sign, of which it makes greys."""
  with open(path, "rb") as file:
    head = file.read(1 << 16)
  bits, signed = depth.of_jpeg2000(head) or (8, False)
  if signed:
    raise UserError(f"{path} has signed pixels (JPEG 2000); save it as 8 or 16 bits without sign")
  if colour and bits > 8:
    raise UserError(f"{path} is a colour JPEG 2000 file of more than 8 bits; save it as PNG or TIFF")
  return bits


def _both_bytes(path, kind, data) -> np.ndarray:
  """uint16 [H,W,2 to 4]: the upper byte as Pillow reads it, the lower in the other byte order."""
  if kind.startswith("LA;"):  # of which Pillow knows one order only
    from data_pipelines.tf import tf
    array = tf.io.decode_png(data, dtype=tf.uint16).numpy()
    return array.reshape(*array.shape[:2], -1)
  order = kind[-1] if kind[-1] != "N" else ("L" if np.little_endian else "B")
  halves = []
  for name in (kind[:-1] + order, kind[:-1] + ("B" if order == "L" else "L")):
    with _open(path) as half:
      half.tile = [t._replace(args=(name, *t.args[1:]) if isinstance(t.args, tuple) else name)
                   for t in half.tile]
      half.load()
      halves.append(np.asarray(_shown(half)).astype(np.uint16))
  return (halves[0] << 8) | halves[1]
