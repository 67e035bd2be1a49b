"""Image files out, without loss: the only writer of PNG, TIFF and BMP."""

from __future__ import annotations

import io
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, TiffImagePlugin

from data_pipelines.errors import UserError
from data_pipelines.formats import decode, header as headers

_LOSSLESS = (".png", ".tif", ".tiff", ".bmp")
_WRITTEN = {"PNG": (".png",), "TIFF": (".tif", ".tiff"), "BMP": (".bmp",)}


def write(frame, pixels: np.ndarray, folder: pathlib.Path, stem: str, text: bool) -> pathlib.Path:
  """An image of Pillow's formats again with other pixels; see `images.write`.

  Args:
    text: header texts travel as well.
  """
  header = frame.info or headers.Header()
  header = header if text else header.without_text()
  suffix = frame.path.suffix
  if suffix.lower() not in _WRITTEN.get(header.kind, _LOSSLESS):  # lossy, or a wrong ending
    suffix = {"TIFF": ".tif"}.get(header.kind, ".png")
  target, image = folder / (stem + suffix), pixels[0]
  if frame.alpha is not None:
    image = np.concatenate([image, frame.alpha[..., None]], -1)
  if suffix.lower() == ".png":
    channels = pixels.shape[-1]
    target.write_bytes(headers.png_with(_png(image), header, channels))
  elif image.dtype == np.uint16 and image.shape[-1] > 1:
    target.write_bytes(_deep_tiff(image, header))
  else:
    try:
      _pillow(image, header, pixels.shape[-1], target, suffix)
    except (TypeError, KeyError) as error:  # Pillow has no such mode
      raise UserError(f"{frame.path}: {pixels.dtype} pixels cannot be written as {suffix} "
                      f"({error})") from None
  again = decode.decode(target)
  if again.pixels.dtype != pixels.dtype or not np.array_equal(again.pixels, pixels[0]):
    target.unlink()
    raise UserError(f"{frame.path}: {pixels.dtype} pixels of this form cannot be written as {suffix}")
  return target


def write_array(path, array: np.ndarray) -> None:
  """Writes float32 [H,W] (TIFF, exact), uint8 [H,W], [H,W,1] or [H,W,3], or uint16 [H,W]."""
  squeezed = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
  Image.fromarray(np.ascontiguousarray(squeezed)).save(path)


def _pillow(image, header, channels, target, suffix):
  options: dict = {}
  profile = header.profile_for(channels)
  if profile:
    options["icc_profile"] = profile
  if suffix.lower() == ".bmp":
    if header.dpi:
      options["dpi"] = header.dpi
  else:
    options["compression"] = "tiff_deflate"
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in header.tags.items():
      if isinstance(value, bytes):
        tags.tagtype[number] = 1
      elif number in (50838,):
        tags.tagtype[number] = 4
      tags[number] = value
    if header.dpi and 282 not in header.tags:
      tags[282], tags[283], tags[296] = header.dpi[0], header.dpi[1], 2
    options["tiffinfo"] = tags
  squeezed = image[..., 0] if image.shape[-1] == 1 else image
  Image.fromarray(np.ascontiguousarray(squeezed)).save(target, **options)


def _png(image: np.ndarray) -> bytes:
  """PNG of uint8 or uint16 [H,W,1 to 4]."""
  height, width, channels = image.shape
  if image.dtype == np.uint8 or channels == 1:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[..., 0] if channels == 1 else image)).save(file, "PNG")
    return file.getvalue()
  rows = image.astype(">u2").reshape(height, -1).view(np.uint8)  # Pillow has no such mode
  plain = np.concatenate([np.zeros((height, 1), np.uint8), rows], 1)  # filter 0 in every row
  start = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + headers.png_chunk(b"IHDR", start) + headers.png_chunk(
      b"IDAT", zlib.compress(plain.tobytes())) + headers.png_chunk(b"IEND", b"")


def _deep_tiff(image: np.ndarray, header) -> bytes:
  """TIFF of uint16 [H,W,2 to 4], one deflated strip; Pillow has no such mode."""
  height, width, channels = image.shape
  data = zlib.compress(image.astype("<u2").tobytes())
  tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
  for number, value in header.tags.items():
    tags[number] = value
  colours = channels - 1 if channels in (2, 4) else channels
  tags[256], tags[257], tags[258], tags[259] = width, height, (16,) * channels, 8
  tags[262], tags[277], tags[278], tags[284] = 1 if colours == 1 else 2, channels, height, 1
  if colours < channels:
    tags[338] = 2  # alpha that the colours were not multiplied with
  profile = header.profile_for(colours)
  if profile:
    tags.tagtype[34675] = 7
    tags[34675] = profile
  tags[279], tags[273] = len(data), 0  # behind the directory: Pillow adds the directory's end
  return b"II*\0" + struct.pack("<I", 8) + tags.tobytes(8) + data


def encoded(image: np.ndarray, ending: str) -> bytes:
  """uint8 [H,W] or [H,W,3] as the content of a .png (lossless) or a .jpg (Pillow's quality 75)."""
  file = io.BytesIO()
  # of tissue, zlib's level 1 makes a PNG 6 % larger than level 6 does, in a fifth of the time
  form, level = {".png": ("PNG", 1), ".jpg": ("JPEG", 0)}[ending]
  Image.fromarray(np.ascontiguousarray(image)).save(file, form, compress_level=level)
  return file.getvalue()
