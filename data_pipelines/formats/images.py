"""Images: PNG, JPEG, TIFF, BMP, JPEG 2000 and DICOM; the one reader and writer of them.

Every method, mode and preparation reads through `read`. Views of a file, by what it is for:
  read          a Frame at its own depth and colour; `write` stores changed pixels without loss in
                the frame's own format (JPEG becomes PNG)
  read_unit     float32 in [0,1]
  read_8bit     uint8: what a viewer shows on its screen; deeper files are rounded, never cut off
  read_values   float64 in the file's own units, for methods that scale by quantiles
  read_plain    pixels as stored, for masks and labels, whose numbers are no brightness
What black and white are: depth.py and dicom_scale.py. Forms, limits and refusals: decode.py and
dicom.py. docs/formats.md tells users.
"""

from __future__ import annotations

import pathlib

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import decode, depth, dicom
from data_pipelines.formats.frame import Frame
from data_pipelines.formats.regular import check_regular
from data_pipelines.formats.writing import write as _write_image, write_array
from data_pipelines.intake import find as finder

__all__ = ["EXTENSIONS", "Frame", "SUFFIXES", "grey", "read", "read_8bit",
           "read_plain", "read_unit", "read_values", "size", "turn", "write", "write_array"]

SUFFIXES = finder.SUFFIXES["image"]
EXTENSIONS = (*SUFFIXES, *finder.SUFFIXES["dicom"])


def read(path, window=(0, 0)) -> Frame:
  """Reads one image, or all frames of a DICOM file.

  Args:
    window: config.data.window, (black, white) of files deeper than 8 bits; (0, 0) = by the rules.

  Raises:
    FileNotFoundError: no such file. UserError: not an image, damaged, too large, several pages, a
    form that is not read, or a depth that leaves open what white is; one line that names the file.
  """
  path = pathlib.Path(path)
  check_regular(path, "image")
  if dicom.is_dicom(path):
    return dicom.read(path, window)
  found = decode.decode(path)
  low, high = depth.black_and_white(path, found.pixels, found.bits, window)
  return Frame(path, found.pixels[None], low, high, found.inverted, found.alpha, found.header)


def read_unit(path, channels: int = 0, window=(0, 0)) -> np.ndarray:
  """float32 [H,W,C] in [0,1] of a file with one picture.

  Args:
    channels: 1 = grey (colour becomes luma, `grey`), 3 = colour (grey is repeated), 0 = as in the
      file. Transparency is no part of the picture.

  Raises:
    As `read`; UserError: several frames, or another number of channels.
  """
  frame = _shown(read(path, window))
  if channels == 1 and frame.pixels.shape[-1] == 3:
    frame.pixels = grey(frame.pixels)
  return _of_channels(path, frame.unit()[0], channels)


def read_8bit(path, channels: int, window=(0, 0)) -> np.ndarray:
  """uint8 [H,W,channels] = round(255 read_unit): 1 = grey by Pillow's luma, 3 = colour.

  Colours are rounded to 8 bits first: a file and its 8-bit copy give the same grey. Raises as
  `read_unit`.
  """
  frame = _shown(read(path, window))
  shown = frame.pixels[0]
  if shown.dtype != np.uint8 or (frame.low, frame.high) != (0, 255) or frame.inverted or (
      frame.curve is not None) or frame.padding is not None:
    shown = np.round(frame.unit()[0] * 255).astype(np.uint8)
  return _of_channels(path, grey(shown) if channels == 1 else shown, channels)


def read_values(path, channels: int = 0) -> np.ndarray:
  """float64 [H,W,C] in the file's own units (DICOM: rescaled), bright = bright; never cut off.

  Args:
    channels: as in `read_unit`.

  Raises:
    As `read_unit`; no depth is refused, as whoever calls this scales by quantiles. NaN is.
  """
  if dicom.is_dicom(path):
    # Any window will do: units need none, and files of floats are refused without.
    values = dicom.units(_single(dicom.read(pathlib.Path(path), (0, 1))))
  else:
    found = decode.decode(path)
    if found.pixels.dtype.kind == "f" and not np.isfinite(found.pixels).all():
      raise UserError(f"{path} holds NaN or infinite pixels")
    values = found.pixels.astype(np.float64)
    if found.inverted:
      values = (2**found.bits - 1 if found.bits <= 16 else values.max()) - values
  if channels == 1 and values.shape[-1] == 3:
    values = values @ np.array([[0.299], [0.587], [0.114]])
  return _of_channels(path, values, channels)


def read_plain(path, what: str = "mask") -> np.ndarray:
  """[H,W,1 or 3] as stored, of the file's type: numbers that are no brightness (white-is-zero TIFF as shown).

  Args:
    what: the file is called this in messages.

  Raises:
    As `read`, but for the depth. UserError: its transparency varies: nobody can know which of the two counts;
      floats whose white is zero: what white is.
  """
  if dicom.is_dicom(path):
    return _single(dicom.read(pathlib.Path(path), mask=True)).pixels[0]
  found = decode.decode(path, what)
  if found.alpha is not None and np.ptp(found.alpha):
    raise UserError(f"{what} {path} has a picture and transparency that varies: save it without transparency")
  if found.inverted and found.bits > 16:
    raise UserError(f"{what} {path} has {found.pixels.dtype} pixels and white is zero: save it as 8-bit grey")
  if found.inverted:
    return 2**found.bits - 1 - found.pixels
  return depth.as_stored(found.pixels, found.levels)


def size(path, window=(0, 0)) -> tuple[int, int]:
  """(H, W) as shown, of a file that `read_unit` can read; JPEG at an eighth, and so quickly.

  Raises:
    As `read_unit`.
  """
  found = None if dicom.is_dicom(path) else decode.jpeg_size(path)
  if found is None:
    height, width = _shown(read(path, window)).pixels.shape[1:3]
    return height, width
  return found


def turn(path) -> int:
  """EXIF's orientation 1 ... 8 of a file, by which its picture is shown turned or mirrored; 1 of DICOM."""
  return 1 if dicom.is_dicom(path) else decode.turn(path)


def grey(pixels: np.ndarray) -> np.ndarray:
  """uint8 or uint16 [...,3] -> [...,1], exact: (19595 R + 38470 G + 7471 B + 32768) >> 16.

  ITU-R 601-2 luma in Pillow's integer weights; grey pixels stay as they are.
  """
  if pixels.shape[-1] == 1:
    return pixels
  weighted = pixels.astype(np.uint64) @ np.array([19595, 38470, 7471], np.uint64)
  return ((weighted + 32768) >> np.uint64(16)).astype(pixels.dtype)[..., None]


def write(frame: Frame, pixels: np.ndarray, folder, stem: str,
          identifiers: str = "derived") -> pathlib.Path:
  """Stores `pixels` (same shape and type as frame.pixels) without loss as folder/stem.<ext>.

  DICOM stays DICOM (uncompressed, explicit little endian); PNG, TIFF and BMP stay what they are;
  JPEG and JPEG 2000 become PNG. What was written is read back: it is equal, or it is not kept.

  Args:
    identifiers: what of the header travels, docs/formats.md: derived (a changed DICOM image gets an
      instance UID of its own), same (every element stays), none (nothing that identifies, no text).

  Raises:
    UserError: shape or type differ from the frame's, or the form cannot be written.
  """
  if pixels.shape != frame.pixels.shape or pixels.dtype != frame.pixels.dtype:
    raise UserError(f"{frame.path}: {pixels.dtype} {pixels.shape} is not the form of the input")
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  if dicom.is_dicom(frame.path):
    return dicom.write(frame, pixels, folder / (stem + (finder.suffix_of(frame.path) or ".dcm")),
                       identifiers)
  return _write_image(frame, pixels, folder, stem, text=identifiers != "none")


def _single(frame: Frame) -> Frame:
  if len(frame.pixels) != 1:
    raise UserError(f"{frame.path} holds {len(frame.pixels)} frames; give one image a file")
  return frame


def _shown(frame: Frame) -> Frame:
  if frame.unsaid:
    raise UserError(frame.unsaid)
  return _single(frame)


def _of_channels(path, array, channels):
  """Grey repeated where colour is wanted; raises UserError where the number does not fit."""
  if channels == 3 and array.shape[-1] == 1:
    return np.repeat(array, 3, -1)
  if channels and array.shape[-1] != channels:
    raise UserError(f"{path} has {array.shape[-1]} channel(s), the model needs {channels}")
  return array
