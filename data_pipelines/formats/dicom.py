"""DICOM images: pixels with the grey levels that mean black and white, and writing them back.

pydicom is loaded when a DICOM file is met. What its decoders raise becomes one UserError in `load`.
"""

from __future__ import annotations

import logging
import pathlib
import re
from typing import Any
import zlib

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import dicom_head, dicom_identity, dicom_scale
from data_pipelines.formats.decode import MAX_PIXELS
from data_pipelines.formats.frame import Frame
from data_pipelines.formats.regular import check_regular
from data_pipelines.intake import find as finder, foreign

_MAX_VALUES = 1 << 30  # of all frames of a file together
_KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT",
          "PALETTE COLOR")
_JPEG = "pylibjpeg pylibjpeg-libjpeg"
_WORDS = (  # for what Python and NumPy say to programmers
    (r"could not broadcast input array.*",
     "its compressed picture has another size or depth than Rows, Columns and Bits Allocated say"),
    (r"cannot reshape array.*|StopIteration", "it holds another number of frames than its header says"),
    (r"Unable to decode .* cannot identify image file.*",
     "its compressed picture is damaged, or of another compression than its header says"),
    (r".*object has no attribute '(\w+)'.*", r"its header has no \1"),
    (r"could not convert string to float: (.*)", r"its header holds \1 where a number belongs"),
    (r"float\(\) argument.*MultiValue.*", "its header holds several numbers where one belongs"))
_PACKAGES = {  # transfer syntax: what decodes it
    **dict.fromkeys(("4.50", "4.51", "4.57", "4.70"), _JPEG),
    **dict.fromkeys(("4.80", "4.81"), "pyjpegls"),
    **dict.fromkeys(("4.90", "4.91", "4.201", "4.202", "4.203"), "pylibjpeg pylibjpeg-openjpeg")}


def is_dicom(path) -> bool:
  """True for DICOM names, and for files without a known ending that are DICOM by their content."""
  return finder.kind_of(path) == "dicom"


def load(path) -> tuple[Any, np.ndarray]:
  """(pydicom's data set, its pixels [N,H,W,1 or 3] in native byte order).

  Raises:
    FileNotFoundError: no such file. UserError: damaged, too large, a codec that is not installed
    (with the package to install), or pixels of a form that is not read.
  """
  check_regular(path, "DICOM file")
  logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it logs tracebacks of what it raises
  data: Any = None
  try:
    data = _data_set(path)
    _check_form(path, data)
    dicom_head.check_length(path, data)
    array = data.pixel_array
    dicom_head.check_stored(path, data, array)
    dicom_head.check_sign(path, data, array)
    dicom_head.check_layout(path, data, array)
    if data.PhotometricInterpretation == "PALETTE COLOR":
      from pydicom.pixels import apply_color_lut
      array = apply_color_lut(array, data)
    return data, _frames(data, array)
  except UserError:
    raise
  except MemoryError:
    raise UserError(f"{path} does not fit in memory") from None
  except Exception as error:  # pydicom raises a dozen types for damaged files
    raise UserError(_reason(path, data, error)) from None


def read(path, window=(0, 0), mask: bool = False) -> Frame:
  """A Frame of all frames of a file; raises as `load` and `dicom_scale.of_file` do.

  Args:
    mask: it is wanted as a mask: a segmentation will do.

  Raises:
    UserError: NaN; an object of pixels that are no picture.
  """
  path = pathlib.Path(path)
  data, array = load(path)
  if not mask and (why := dicom_head.no_picture(data)):
    raise UserError(f"{path} {why}")
  if array.dtype.kind == "f" and not np.isfinite(array).all():
    raise UserError(f"{path} holds NaN or infinite pixels")
  try:
    beside = dicom_head.padding(data, array)
    shown = array if beside is None else array[~beside].reshape(1, -1, 1, 1)
    scale = dicom_scale.of_file(path, data, shown, window)
  except UserError:
    raise
  except Exception as error:  # elements of the header that are no numbers, tables cut short
    raise UserError(_reason(path, data, error)) from None
  return Frame(path, array, scale.low, scale.high, scale.inverted, None, data, scale.curve,
               scale.least, scale.most, scale.unsaid, beside)


def modality(path) -> str:
  """The word of (0008,0060) Modality, such as "MR"; "" of files that are no DICOM or say none."""
  return dicom_head.modality(path) if is_dicom(path) else ""


def intent(path) -> str:
  """"raw" (FOR PROCESSING) or "processed" (FOR PRESENTATION) of a DICOM file that says it, else ""."""
  return dicom_head.intent(path) if is_dicom(path) else ""


def units(frame: Frame) -> np.ndarray:
  """float64 [H,W,C] of the first frame after rescaling; MONOCHROME1 turned to bright = bright, padding dark.

  Raises:
    UserError: a rescaling or a modality look-up table that cannot be applied.
  """
  stored = frame.pixels[0]
  if stored.shape[-1] == 3:
    return stored.astype(np.float64)
  try:
    values = dicom_scale.in_units(frame.path, frame.info, stored)
    if frame.inverted:
      ends = np.array([frame.least or 0, stored.max() if frame.most is None else frame.most], stored.dtype)
      values = dicom_scale.in_units(frame.path, frame.info, ends).sum() - values
    if frame.padding is not None:  # background: the darkest there is
      beside = frame.padding[0]
      values[beside] = min(0.0, values[~beside].min(initial=0.0))
  except UserError:
    raise
  except Exception as error:  # tables cut short
    raise UserError(_reason(frame.path, frame.info, error)) from None
  return values


def write(frame: Frame, pixels: np.ndarray, target: pathlib.Path, identifiers: str) -> pathlib.Path:
  """The file again with other pixels, as explicit little endian without compression.

  The result is read back with pydicom and compared: a form that cannot be written is refused.

  Args:
    identifiers: see `images.write`.

  Raises:
    UserError: such a form.
  """
  import pydicom
  data = frame.info
  if data.PhotometricInterpretation == "PALETTE COLOR":
    raise UserError(f"{frame.path} has PALETTE COLOR pixels, which cannot be changed in place; "
                    "convert it to RGB first")
  changed = not np.array_equal(pixels, frame.pixels)
  data = dicom_identity.result_of(data, identifiers, changed)
  _little_endian(data)
  stored = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)
  if int(data.BitsAllocated) == 1:
    content = pydicom.pixels.pack_bits(stored[..., 0])
  else:
    content = _with_other_bits(frame.info, stored).tobytes()
  data.PixelData = content + b"\0" * (len(content) % 2)
  data["PixelData"].VR = "OB" if int(data.BitsAllocated) <= 8 else "OW"
  data["PixelData"].is_undefined_length = False
  if pixels.shape[-1] == 3:
    data.PlanarConfiguration, data.PhotometricInterpretation = 0, "RGB"  # pydicom converted YBR
  for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):  # of compressed pixels
    if name in data:
      del data[name]
  data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  try:
    data.save_as(target, enforce_file_format=True)
    again = load(target)[1]
  except Exception as error:  # pydicom raises several types for elements it cannot write
    target.unlink(missing_ok=True)
    reason = " ".join(str(error).split())[:160]
    raise UserError(f"{frame.path} cannot be written again ({reason})") from None
  if again.shape != pixels.shape or not np.array_equal(again, pixels):
    target.unlink()
    raise UserError(f"{frame.path} cannot be written again: its {data.BitsAllocated}-bit pixels "
                    "would read otherwise")
  return target


def _data_set(path):
  """pydicom's data set, of old files without preamble and file header too."""
  import pydicom
  _check_inflated(path)
  try:
    data = pydicom.dcmread(path)
  except pydicom.errors.InvalidDicomError:
    data = pydicom.dcmread(path, force=True)
    if "PixelData" not in data or "Rows" not in data:
      raise
  if word := dicom_head.text(data, "PhotometricInterpretation").upper():  # some write it in small letters
    data.PhotometricInterpretation = word
  if "TransferSyntaxUID" not in data.file_meta:
    implicit, little = data.original_encoding
    data.file_meta.TransferSyntaxUID = (
        pydicom.uid.ImplicitVRLittleEndian if implicit else
        pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian)
  return data


def _frames(data, array):
  """pydicom's pixels as [N,H,W,1 or 3] in native byte order."""
  colour = array.ndim > 2 and array.shape[-1] == 3 and (
      int(data.SamplesPerPixel) == 3 or data.PhotometricInterpretation == "PALETTE COLOR")
  array = array.astype(array.dtype.newbyteorder("="), copy=False)
  frames = int(data.get("NumberOfFrames", 1) or 1)
  size = array.shape[-3:-1] if colour else array.shape[-2:]
  return np.ascontiguousarray(array.reshape(frames, *size, 3 if colour else 1))


def _check_inflated(path):
  """Refuses a deflated file that would fill the memory; pydicom inflates such files as a whole."""
  with open(path, "rb") as file:
    if b"1.2.840.10008.1.2.1.99" not in file.read(2048):
      return
    file.seek(140)  # the length of the file header, which is not deflated
    file.seek(int.from_bytes(file.read(4), "little"), 1)
    inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    piece = file.read(1 << 16)
    while piece and not inflate.eof:
      total += len(inflate.decompress(piece, 1 << 20))
      if total > _MAX_VALUES:
        raise UserError(f"{path} is deflated and would grow beyond {_MAX_VALUES >> 20} MiB")
      piece = inflate.unconsumed_tail or file.read(1 << 16)


def _check_form(path, data):
  """Refuses what is no picture, what is too large, and what pydicom would decode wrongly."""
  if not any(data.get(k) for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
    modality = " ".join(str(data.get("Modality", "no modality")).split())[:40]
    raise UserError(f"{path} holds no image ({modality})")
  height, width = int(data.Rows), int(data.Columns)
  whole = [int(data.get(f"TotalPixelMatrix{k}", 0) or 0) for k in ("Rows", "Columns")]
  if whole[0] > height or whole[1] > width:  # its frames are tiles of one large picture
    raise UserError(f"{path} is a tile store of a whole slide ({whole[1]}x{whole[0]} pixels), whose first "
                    "tile would be taken for the picture; save the slide as tiled TIFF, OME-TIFF or SVS")
  frames = int(data.get("NumberOfFrames", 1) or 1)
  if height * width > MAX_PIXELS or height * width * frames * int(data.SamplesPerPixel) > _MAX_VALUES:
    raise UserError(f"{path} is {width}x{height} pixels, {frames} frame(s); the limit is "
                    f"{MAX_PIXELS / 1e6:.0f} million a frame and {_MAX_VALUES / 1e6:.0f} million in all")
  kind = " ".join(str(data.PhotometricInterpretation).split())[:40]
  if kind not in _KINDS or int(data.SamplesPerPixel) not in (1, 3):
    raise UserError(f"{path} has {kind} pixels; grey, RGB, YBR and palette images are read")
  if "BitsStored" in data and "HighBit" in data and (
      int(data.HighBit) != int(data.BitsStored) - 1):
    raise UserError(f"{path} stores its {data.BitsStored} bits up to bit {data.HighBit}, not from bit "
                    "0 on; such files are not read")


def _reason(path, data, error) -> str:
  """One line for what pydicom raised: the codec and its package where one is missing."""
  text = " ".join(str(error).split()) or type(error).__name__
  syntax = getattr(getattr(data, "file_meta", None), "TransferSyntaxUID", None)
  lacking = any(said in text for said in ("missing dependencies", "does not support", "is not supported",
                                          "is not a transfer syntax"))
  if syntax is not None and lacking:
    package = _PACKAGES.get(str(syntax).removeprefix("1.2.840.10008.1.2."))
    advice = f"pip install {package}" if package else "export it as Explicit VR Little Endian, uncompressed"
    return f"{path} is compressed as {syntax.name}, which nothing installed decodes: {advice}"
  if "force=True" in text:  # pydicom's advice to programmers
    other = foreign.of_file(path)
    text = other[2:-1] if other else "the mark DICM and a file header are missing, and so is a picture"
  for pattern, words in _WORDS:
    text = re.sub(pattern, words, text)
  return f"{path} is not readable DICOM ({text[:160]})"


def _with_other_bits(data, pixels):
  """`pixels` with what the file keeps above Bits Stored (overlays of old scanners)."""
  bits, allocated = int(data.BitsStored), int(data.BitsAllocated)
  native = not data.file_meta.TransferSyntaxUID.is_compressed
  if not native or bits == allocated or pixels.dtype.kind != "u" or pixels.shape[-1] != 1:
    return pixels
  order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
  raw = np.frombuffer(data.PixelData, pixels.dtype.newbyteorder(order), pixels.size)
  above = raw.reshape(pixels.shape).astype(pixels.dtype) & ~pixels.dtype.type(2**bits - 1)
  return pixels | above


def _little_endian(data, top: bool = True) -> None:
  """Swaps what pydicom leaves in a big-endian file's order: words in bulk data."""
  if data.original_encoding[1] is not False and top:
    return
  for element in data:
    size = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(element.VR)
    if element.VR == "SQ":
      for item in element.value:
        _little_endian(item, top=False)
    elif size and element.keyword != "PixelData" and isinstance(element.value, bytes):
      element.value = np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()
  data.set_original_encoding(False, True, data.original_character_set)
