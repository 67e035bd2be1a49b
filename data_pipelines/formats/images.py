"""Images: PNG, JPEG, TIFF, BMP (8 and 16 bit) and DICOM; the only reader and writer of them.

Three views of a file, by what it is for:
  read          a Frame at its own depth and colour; `write` stores changed pixels without loss in
                the frame's own format (JPEG becomes PNG), with everything else of the file kept
  read_8bit     uint8 as data sets of 8-bit images want it; deeper files are refused, never cut
  read_values   float64 in the file's own units with the value that means white
Whatever Pillow raises becomes one UserError in `opened`.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from data_pipelines.errors import UserError
from data_pipelines.formats import dicom
from data_pipelines.intake import find as finder

SUFFIXES = finder.SUFFIXES["image"]
EXTENSIONS = (*SUFFIXES, *finder.SUFFIXES["dicom"])
_COLOUR = ("RGB", "RGBA", "P", "CMYK")


@dataclasses.dataclass
class Frame:
  """An image, or the frames of one DICOM file.

  Attributes:
    path: where it came from.
    pixels: uint8, uint16 or int16 [N,H,W,1 or 3]; N = 1 but for multi-frame DICOM.
    low, high: stored values that mean 0 and 1; `inverted`: 0 means white (MONOCHROME1).
    alpha: [H,W] of the same type, or None; carried along unchanged.
    info: what `write` needs of the file: the pydicom dataset, or Pillow's colour profile.
  """
  path: pathlib.Path
  pixels: np.ndarray
  low: int = 0
  high: int = 255
  inverted: bool = False
  alpha: np.ndarray | None = None
  info: Any = None

  def unit(self) -> np.ndarray:
    """float32 [N,H,W,C] in [0,1], bright = bright."""
    value = (self.pixels.astype(np.float32) - self.low) / np.float32(self.high - self.low)
    return np.clip(1 - value if self.inverted else value, 0, 1)

  def stored(self, unit: np.ndarray) -> np.ndarray:
    """Pixels for values in [0,1]: clipped and rounded, never wrapped; inverse of `unit`."""
    value = np.clip(1 - unit if self.inverted else unit, 0, 1)
    return np.round(self.low + value * (self.high - self.low)).astype(self.pixels.dtype)


@contextlib.contextmanager
def opened(path, what: str = "image") -> Iterator[Any]:
  """Pillow's image of a file, for code that does nothing but decode it.

  Args:
    what: the file is called this in messages.

  Raises:
    FileNotFoundError: no such file. UserError: whatever Pillow raises, or a file of several pages.
  """
  try:
    with Image.open(path) as image:
      # A photograph of a telephone (MPO) carries further views; the first is the photograph.
      pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
      if pages > 1:
        raise UserError(f"{path} has {pages} pages; give one image a file")
      yield image
  except FileNotFoundError:
    raise FileNotFoundError(f"{what} {path} does not exist") from None
  except (UserError, MemoryError):
    raise
  except Exception as error:  # Pillow raises a dozen types for damaged files
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    raise UserError(f"{path} is not a readable {what} ({reason})") from None


def read(path) -> Frame:
  """Reads one image, or all frames of a DICOM file.

  Raises:
    FileNotFoundError: no such file. UserError: not an image, damaged, or a form that is not read
    (floating point, 32 bit); one line that names the file.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"image {path} does not exist")
  if dicom.is_dicom(path):
    pixels, low, high, inverted, data = dicom.read(path)
    return Frame(path, pixels, low, high, inverted, info=data)
  if _png_depth(path) == (16, "colour"):
    return _read_png16(path)
  with opened(path) as image:
    image.load()
    return _from_pillow(path, image)


def read_8bit(path, channels: int) -> np.ndarray:
  """uint8 [H,W,channels] of an 8-bit file: 1 = grey by Pillow's luma, 3 = colour.

  Transparency is dropped.

  Raises:
    FileNotFoundError: no such file. UserError: damaged, or deeper than 8 bits.
  """
  with opened(path) as image:
    depth = "16-bit" if image.mode.startswith("I;16") or _png_depth(path) == (16, "colour") else (
        {"I": "32-bit", "F": "floating-point"}.get(image.mode))
    if depth:
      raise UserError(f"{path} has {depth} pixels; convert it to 8 bits first")
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
  return array[..., None] if channels == 1 else array


def read_values(path, channels: int = 0) -> tuple[np.ndarray, float]:
  """(float64 [H,W,C] in the file's own units, the largest value of its type: 255, 65535 or 1).

  Args:
    channels: 1 = grey (colour becomes luma, ITU-R 601), 3 = colour (grey is repeated), 0 = as in
      the file. Transparency is dropped.

  Raises:
    FileNotFoundError: no such file. UserError: damaged, other channel counts, NaN.
  """
  if _png_depth(path) == (16, "colour"):
    array, top = _read_png16(pathlib.Path(path)).pixels[0].astype(np.float64), 65535.0
  else:
    with opened(path) as image:
      array, top = _values(path, image)
  if not np.isfinite(array).all():
    raise UserError(f"{path} holds NaN or infinite pixels")
  if channels == 1 and array.shape[-1] == 3:
    array = array @ np.array([[0.299], [0.587], [0.114]])
  elif channels == 3 and array.shape[-1] == 1:
    array = np.repeat(array, 3, -1)
  elif channels and array.shape[-1] != channels:
    raise UserError(f"{path} has {array.shape[-1]} channel(s), the model needs {channels}")
  return array, top


def grey(pixels: np.ndarray) -> np.ndarray:
  """uint8 or uint16 [...,3] -> [...,1], exact: (19595 R + 38470 G + 7471 B + 32768) >> 16.

  ITU-R 601-2 luma in Pillow's integer weights; grey pixels stay as they are.
  """
  if pixels.shape[-1] == 1:
    return pixels
  weighted = pixels.astype(np.uint64) @ np.array([19595, 38470, 7471], np.uint64)
  return ((weighted + 32768) >> np.uint64(16)).astype(pixels.dtype)[..., None]


def write(frame: Frame, pixels: np.ndarray, folder, stem: str) -> pathlib.Path:
  """Stores `pixels` (same shape and type as frame.pixels) without loss as folder/stem.<ext>.

  DICOM stays DICOM with only the pixel data changed (uncompressed, explicit little endian);
  PNG, TIFF and BMP stay what they are; JPEG becomes PNG.

  Raises:
    ValueError: shape or type differ from the frame's.
  """
  if pixels.shape != frame.pixels.shape or pixels.dtype != frame.pixels.dtype:
    raise UserError(f"{frame.path}: {pixels.dtype} {pixels.shape} is not the form of the input")
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  if dicom.is_dicom(frame.path):
    return dicom.write(frame.info, pixels, folder / (stem + (finder.suffix_of(frame.path) or ".dcm")))
  suffix = frame.path.suffix if frame.path.suffix.lower() in (".png", ".tif", ".tiff", ".bmp"
                                                              ) else ".png"
  target, image = folder / (stem + suffix), pixels[0]
  if frame.alpha is not None:
    image = np.concatenate([image, frame.alpha[..., None]], -1)
  if image.dtype == np.uint16 and image.shape[-1] > 1:
    import tensorflow as tf  # Pillow has no such mode
    target.write_bytes(tf.io.encode_png(image).numpy())
    return target
  options = {"icc_profile": frame.info} if frame.info else {}
  if suffix.lower() in (".tif", ".tiff"):
    options["compression"] = "tiff_deflate"
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(target, **options)
  return target


def write_array(path, array: np.ndarray) -> None:
  """Writes float32 [H,W] (TIFF, exact), uint8 [H,W], [H,W,1] or [H,W,3], or uint16 [H,W]."""
  squeezed = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
  Image.fromarray(np.ascontiguousarray(squeezed)).save(path)


def _values(path, image):
  """(float64 [H,W,C], top) of Pillow's image."""
  if image.mode in _COLOUR:
    return np.asarray(image.convert("RGB"), np.float64), 255.0
  if image.mode in ("1", "LA"):
    image = image.convert("L")
  if image.mode not in ("L", "F", "I") and not image.mode.startswith("I;16"):
    raise UserError(f"{path}: pixel type {image.mode} is not supported; save it as 8- or 16-bit")
  top = {"L": 255.0, "F": 1.0}.get(image.mode, 65535.0)
  return np.asarray(image).astype(np.float64)[..., None], top


def _from_pillow(path, image) -> Frame:
  if path.suffix.lower() in (".jpg", ".jpeg"):
    image = ImageOps.exif_transpose(image)  # what every viewer shows
  info, mode = image.info.get("icc_profile"), image.mode
  if mode in ("1", "P", "CMYK", "YCbCr", "LAB", "HSV"):
    image = image.convert("L" if mode == "1" else "RGBA" if "transparency" in image.info else "RGB")
  if image.mode in ("LA", "PA", "RGBA"):
    array = np.asarray(image)
    return Frame(path, array[None, ..., :-1], alpha=array[..., -1], info=info)
  if image.mode in ("L", "RGB"):
    array = np.asarray(image)
    return Frame(path, array.reshape(1, *array.shape[:2], -1), info=info)
  if image.mode.startswith("I"):
    array = np.asarray(image).astype(np.int64)
    if array.min() < 0 or array.max() > 65535:
      raise UserError(f"{path} has values {array.min()}..{array.max()}, beyond 16 bits")
    return Frame(path, array.astype(np.uint16)[None, ..., None], high=65535, info=info)
  raise UserError(f"{path} has {image.mode!r} pixels (floating point?); 8 and 16 bit grey and "
                   "colour are read")


def _png_depth(path):
  """(bits, "grey" or "colour") of a PNG file, None for others."""
  try:
    with open(path, "rb") as f:
      head = f.read(26)
  except OSError:  # the reader says so
    return None
  if len(head) < 26 or not head.startswith(b"\x89PNG"):
    return None
  return head[24], "colour" if head[25] in (2, 4, 6) else "grey"


def _read_png16(path) -> Frame:
  """16-bit colour, which Pillow would cut to 8 bits."""
  import tensorflow as tf
  try:
    array = tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()
  except tf.errors.InvalidArgumentError:
    raise UserError(f"{path} is not a readable image (damaged PNG)") from None
  if array.shape[-1] in (2, 4):
    return Frame(path, array[None, ..., :-1], high=65535, alpha=array[..., -1])
  return Frame(path, array[None], high=65535)
