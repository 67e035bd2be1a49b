"""Single images at their own depth and colour: PNG, JPEG, TIFF, BMP (8 and 16 bit) and DICOM.

`read` gives a Frame; `Frame.unit()` the network's view of it in [0,1]; `write` stores changed pixels
without loss in the frame's own format (JPEG becomes PNG), with everything else of the file kept.
"""

from __future__ import annotations

import dataclasses
import pathlib
import struct
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_pipelines.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")
_DICOM = (".dcm", ".dicom", "")


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


def is_dicom(path) -> bool:
  """True for DICOM names, and for files without extension that carry DICOM's magic word."""
  path = pathlib.Path(path)
  if path.suffix.lower() in (".dcm", ".dicom"):
    return True
  if path.suffix or not path.is_file():
    return False
  with open(path, "rb") as f:
    return f.read(132)[128:] == b"DICM"


def find(folder) -> list[pathlib.Path]:
  """All images below a folder, sorted; hidden files and folders are left out."""
  folder = pathlib.Path(folder)
  return sorted(p for p in folder.rglob("*") if p.is_file() and not any(
      part.startswith(".") for part in p.relative_to(folder).parts)
                and (p.suffix.lower() in EXTENSIONS or (not p.suffix and is_dicom(p))))


def read(path) -> Frame:
  """Reads one image.

  Raises:
    FileNotFoundError: no such file. ValueError: not an image, damaged, or a form that is not read
    (floating point, 32 bit); one line that names the file.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"{path} does not exist")
  if is_dicom(path):
    return _read_dicom(path)
  if _png_depth(path) == (16, "colour"):
    return _read_png16(path)
  try:
    with Image.open(path) as image:
      image.load()
      return _from_pillow(path, image)
  except (UnidentifiedImageError, OSError, SyntaxError, EOFError, struct.error) as error:
    raise UserError(f"{path} is not a readable image ({str(error)[:120]})") from None


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
  if is_dicom(frame.path):
    return _write_dicom(frame, pixels, folder / (stem + (frame.path.suffix or ".dcm")))
  suffix = frame.path.suffix if frame.path.suffix.lower() in (".png", ".tif", ".tiff", ".bmp"
                                                              ) else ".png"
  target, image = folder / (stem + suffix), pixels[0]
  if frame.alpha is not None:
    image = np.concatenate([image, frame.alpha[..., None]], -1)
  if image.dtype == np.uint16 and image.shape[-1] > 1:
    import tensorflow as tf  # pylint: disable=import-outside-toplevel  # Pillow has no such mode
    target.write_bytes(tf.io.encode_png(image).numpy())
    return target
  options = {"icc_profile": frame.info} if frame.info else {}
  if suffix.lower() in (".tif", ".tiff"):
    options["compression"] = "tiff_deflate"
  Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(target, **options)
  return target


def _from_pillow(path, image) -> Frame:
  frames = getattr(image, "n_frames", 1)
  if frames > 1:
    raise UserError(f"{path} holds {frames} pages; give single images")
  if path.suffix.lower() in (".jpg", ".jpeg"):
    image = ImageOps.exif_transpose(image)  # what every viewer shows
  info, mode = image.info.get("icc_profile"), image.mode
  if mode in ("1", "P", "CMYK", "YCbCr", "LAB", "HSV"):
    grey = mode == "1"
    image = image.convert("L" if grey else "RGBA" if "transparency" in image.info else "RGB")
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
  with open(path, "rb") as f:
    head = f.read(26)
  if len(head) < 26 or not head.startswith(b"\x89PNG"):
    return None
  return head[24], "colour" if head[25] in (2, 4, 6) else "grey"


def _read_png16(path) -> Frame:
  """16-bit colour, which Pillow would cut to 8 bits."""
  import tensorflow as tf  # pylint: disable=import-outside-toplevel
  try:
    array = tf.io.decode_png(path.read_bytes(), dtype=tf.uint16).numpy()
  except tf.errors.InvalidArgumentError:
    raise UserError(f"{path} is a damaged PNG file") from None
  if array.shape[-1] in (2, 4):
    return Frame(path, array[None, ..., :-1], high=65535, alpha=array[..., -1])
  return Frame(path, array[None], high=65535)


def _read_dicom(path) -> Frame:
  import pydicom  # pylint: disable=import-outside-toplevel
  try:
    data = pydicom.dcmread(path)
    array = data.pixel_array
  except Exception as error:  # pylint: disable=broad-except
    # pydicom raises a dozen types for damaged files and for codecs that are not installed
    raise UserError(f"{path} is not readable DICOM ({str(error).splitlines()[0][:160]})") from None
  samples, frames = int(data.get("SamplesPerPixel", 1)), int(data.get("NumberOfFrames", 1) or 1)
  kind = str(data.PhotometricInterpretation)
  if kind == "PALETTE COLOR" or samples not in (1, 3):
    raise UserError(f"{path} has {kind} pixels; grey, RGB and YBR images are read")
  if array.dtype.itemsize > 2:
    raise UserError(f"{path} has {array.dtype} pixels; 8 and 16 bit are read")
  if kind.startswith("YBR"):  # pixel_array has converted to RGB
    data.PhotometricInterpretation = "RGB"
  array = np.ascontiguousarray(array.reshape(frames, *array.shape[-3 if samples == 3 else -2:][:2],
                                             samples))
  if samples == 3:
    low, high = 0, 2 ** int(data.BitsStored) - 1
  else:
    low, high = _window(data, array)
  return Frame(path, array, low, high, kind == "MONOCHROME1", info=data)


def _window(data, array) -> tuple[int, int]:
  """Stored values shown black and white: the file's window, else the range of its bits or values."""
  slope = float(data.get("RescaleSlope", 1) or 1)
  centre, width = data.get("WindowCenter"), data.get("WindowWidth")
  if centre is not None and width is not None:
    first = lambda v: float(v[0] if hasattr(v, "__len__") and not isinstance(v, str) else v)
    middle = (first(centre) - float(data.get("RescaleIntercept", 0) or 0)) / slope
    half = max(first(width) / abs(slope) / 2, 1)
    info = np.iinfo(array.dtype)
    return max(int(middle - half), info.min), min(int(middle + half), info.max)
  if array.dtype == np.uint8:
    return 0, 255
  return int(array.min()), max(int(array.max()), int(array.min()) + 1)


def _write_dicom(frame, pixels, target):
  """The file again with other pixels; all further elements and the identifiers stay."""
  import pydicom  # pylint: disable=import-outside-toplevel
  data = frame.info
  data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
  data["PixelData"].VR = "OB" if pixels.dtype == np.uint8 else "OW"
  data["PixelData"].is_undefined_length = False
  if pixels.shape[-1] == 3:
    data.PlanarConfiguration = 0
  data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  data.save_as(target, enforce_file_format=True)
  return target
