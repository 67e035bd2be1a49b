"""What single elements of a DICOM header say, read without the pixels (nothing where that fails), and
whether the bits of the pixels fit it: more than it says, and padding around the picture."""

from __future__ import annotations

from collections.abc import Sequence
import re
import struct
from typing import Any

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import depth

_COUNT = re.compile(r" *\b\d+ ?(?:/|of) ?\d+$")  # of slices, at the end of a text
# Words of ImageType of which the slices of a volume have the same.
_PARTS = {"M", "P", "R", "I", "W", "F", "WATER", "FAT", "IP", "OP", "IN_PHASE", "OUT_PHASE", "OPP_PHASE",
          "NORM", "LOCALIZER", "MPR", "ADC", "TRACEW", "FA"}
_ROWS, _TORN = 512, 5e-4  # rows that are looked at for a wrong sign; share of neighbours that shows one
_ABOVE_SIGNED = 1e-3  # as _ABOVE of compressed pixels with a sign: dark ones become the brightest
_ABOVE = 0.25  # share of the pixels with bits above Bits Stored: more than an overlay draws


def read(path, names: Sequence[str]) -> Any:
  """pydicom's data set of these elements; empty where it cannot be read: who reads the pixels says so."""
  import pydicom  # only who has DICOM files needs it
  try:
    return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(names))
  except Exception:  # pydicom raises a dozen types for damaged files
    return pydicom.Dataset()


def text(data, name: str) -> str:
  """An element on one line, "" where there is none."""
  return " ".join(str(data.get(name, "") or "").replace("\0", " ").split())


def free_text(data, name: str) -> str:
  """What people and scanners write of a series, in the form in which slices of one agree: in small letters,
  its words alone, without a count at its end (SE_M_1/2, T2 TSE 3 of 24, *tse2d1_15 is whole)."""
  return _COUNT.sub("", " ".join(re.findall(r"[\w*+.<>/]+", text(data, name).lower().replace("_", " "))))


def rescaled(data) -> tuple[bool, bool]:
  """Whether the header has a slope, and an intercept."""
  slope, intercept = (data.get(f"Rescale{name}") not in (None, "") for name in ("Slope", "Intercept"))
  return slope, intercept


def patient_id(path) -> str:
  """PatientID (0010,0020) without blanks around it; "" where there is none or the file cannot be read."""
  try:
    return str(read(path, ["PatientID"]).get("PatientID", "") or "").strip(" \0")
  except Exception:  # elements are decoded when they are asked for
    return ""


def modality(path) -> str:
  """The word of (0008,0060) Modality of a DICOM file, such as "MR"; "" where there is none, or no header."""
  try:
    return text(read(path, ["Modality"]), "Modality").upper()[:16]
  except Exception:  # as above
    return ""


def intent(path) -> str:
  """"raw" or "processed" of a radiograph that says so (Presentation Intent Type), "" of all others."""
  words = {"FOR PROCESSING": "raw", "FOR PRESENTATION": "processed"}
  try:
    found = read(path, ["PresentationIntentType"])
    return words.get(text(found, "PresentationIntentType").upper(), "")
  except Exception:  # as above
    return ""


def part(data) -> str:
  """What of the signal the pixels are by ImageType: magnitude, phase, real or imaginary part, water, fat."""
  found = data.get("ImageType") or ()
  words = (found,) if isinstance(found, str) else found
  return " ".join(sorted({str(word).upper() for word in words[2:]} & _PARTS))


def philips_scale(data) -> str:
  """Rescale Slope times Philips' private one (2005,100E); "" of others.

  Units after rescaling are for a screen: where this differs, they are not the same in two slices.
  """
  try:
    return f"{float(data[0x2005, 0x100E].value) * float(data.get('RescaleSlope') or 1):.3g}"
  except (KeyError, TypeError, ValueError):
    return ""


def no_picture(data) -> str:
  """Why a data set with pixels is no picture, reads on after its name; "" of others."""
  if "MOSAIC" in (str(word).upper() for word in data.get("ImageType", None) or ()):
    return "is a mosaic of the slices of a volume in one picture: convert it to NIfTI, as dcm2niix does"
  known = {"SEG": "a segmentation (SEG)", "RTDOSE": "a map of doses (RTDOSE)"}
  what = known.get(text(data, "Modality"))
  return f"is {what}, no picture: take it out of the images" if what else ""


# ------------------------------------------------------------------------------------ bits of pixels
def check_stored(path, data, decoded: np.ndarray) -> None:
  """Refuses a header that says fewer bits than the pixels have: what is above them is cut off, or all white.

  Overlays of old scanners, the values beside the picture (padding) and a sign may lie there.

  Args:
    decoded: pydicom's pixels, which keep all bits of compressed ones.
  """
  bits, allocated = int(data.get("BitsStored", 0) or 0), int(data.BitsAllocated)
  if not 0 < bits < allocated <= 16 or decoded.dtype.kind not in "iu":
    return
  signed = int(data.get("PixelRepresentation", 0) or 0)
  stored = decoded.view(f"u{decoded.itemsize}") if _is_compressed(data) else _raw(data)
  padding = int(data.get("PixelPaddingValue", 0) or 0) % 2**allocated
  beyond = (stored >> bits != 0) & (stored != padding)
  if signed:  # of negative values they are all set, or left out
    beyond &= stored >> (bits - 1) != 2 ** (allocated - bits + 1) - 1
  above = float(np.mean(beyond)) if stored.size else 0.0
  if signed and _is_compressed(data) and np.mean(
      (np.abs(decoded + 0.5) > 2 ** (bits - 1)) & (stored != padding)) > _ABOVE_SIGNED:
    raise UserError(f"{path} holds a compressed picture of numbers up to {decoded.max()}, and says {bits} "
                    "bits with a sign: the sign is lost, or Bits Stored wrong; save it uncompressed")
  if above > _ABOVE and not any((group, 0x0102) in data for group in range(0x6000, 0x6020, 2)):
    raise UserError(f"{path} says that it stores {bits} bits, and {above:.0%} of its pixels have more: its "
                    "header (Bits Stored) is wrong")


def check_sign(path, data, decoded: np.ndarray) -> None:
  """Refuses grey pixels whose sign the header has wrong: black and white meet where greys go on smoothly.

  Neighbours half the range apart count, where without the sign (or with it) they are near; many greys on both
  sides of the step tell it from writing and from borders of one value.

  Args:
    decoded: pydicom's pixels, [...,H,W].
  """
  bits = min(int(data.get("BitsStored", 0) or 0), 8 * decoded.dtype.itemsize)
  whole = decoded.dtype.kind in "iu" and 8 <= bits <= 16
  if not whole or int(data.SamplesPerPixel) != 1 or decoded.ndim < 2:
    return
  rows = decoded.reshape(-1, decoded.shape[-1])
  here = rows[::max(1, len(rows) // _ROWS)].astype(np.int32)
  half = 2 ** (bits - 1)
  there = np.where(here >= half, here - 2 * half, here) if decoded.dtype.kind == "u" else here % (2 * half)
  if np.array_equal(here, there):
    return
  step, other = (np.abs(np.diff(values)) for values in (here, there))
  torn, mended = (step > half) & (other < half // 4), (other > half) & (step < half // 4)
  if torn.sum() <= max(_TORN * step.size, 8, 20 * mended.sum()):
    return
  dark, bright = here < here.min() + half // 4, here > here.max() - half // 4
  if min(np.unique(here[part]).size for part in (dark, bright)) >= 8:
    raise UserError(f"{path}: its pixels jump from black to white where greys go on smoothly "
                    f"{'without' if decoded.dtype.kind == 'i' else 'with'} a sign: its header (Pixel "
                    "Representation) is wrong")


def check_layout(path, data, decoded: np.ndarray) -> None:
  """Refuses pixels without compression that are torn by their header, and whole the other way.

  Rows and Columns are exchanged, or colours lie otherwise than Planar Configuration says, or are others.

  Args:
    decoded: pydicom's pixels, [...,H,W] or [...,H,W,3]; the first picture is looked at.
  """
  kind = data.PhotometricInterpretation
  if _is_compressed(data) or decoded.dtype.kind not in "iu" or kind == "YBR_FULL_422":
    return
  rows, columns, samples = int(data.Rows), int(data.Columns), int(data.SamplesPerPixel)
  values = decoded.reshape(-1)[:rows * columns * samples]
  if samples == 1 and rows != columns and depth.torn(
      values.reshape(rows, columns), values.reshape(columns, rows)):
    raise UserError(f"{path} is torn with {rows} rows of {columns} pixels, and whole with {columns} of "
                    f"{rows}: its header (Rows, Columns) is wrong")
  if samples == 3 and decoded.shape[-1] == 3 and kind == "RGB":
    shown, planes = values.reshape(rows, columns, 3), int(data.get("PlanarConfiguration", 0) or 0)
    stored = np.moveaxis(shown, -1, 0).reshape(-1) if planes else values
    other = stored.reshape(rows, columns, 3) if planes else np.moveaxis(
        stored.reshape(3, rows, columns), 0, -1)
    if depth.torn(shown, other):
      raise UserError(f"{path}: its colours are torn, and whole in the other Planar Configuration than its "
                      "header says: write it again")
  if samples == 3 and kind in ("RGB", "YBR_FULL") and int(data.BitsAllocated) == 8:
    stored, planes = _raw(data)[:rows * columns * 3], int(data.get("PlanarConfiguration", 0) or 0)
    if why := depth.other_colours(stored.reshape(3, -1).T if planes else stored.reshape(-1, 3), kind):
      raise UserError(f"{path}: {why}: its header (Photometric Interpretation) is wrong")


def check_length(path, data) -> None:
  """Refuses more pixels than Rows and Columns say: without them it is another picture, or sheared."""
  kind, allocated = data.PhotometricInterpretation, int(data.BitsAllocated)
  if _is_compressed(data):
    _check_size(path, data)
    return
  if kind == "YBR_FULL_422" or allocated % 8:
    return
  frames = int(data.get("NumberOfFrames", 1) or 1)
  said = int(data.Rows) * int(data.Columns) * int(data.SamplesPerPixel) * frames * allocated // 8
  more = (data.get("PixelData") or b"")[said:]
  if len(more) > 1 and any(more):  # zeros fill a block up
    raise UserError(f"{path} holds {len(more)} bytes more than {data.Rows} x {data.Columns} pixels take: its "
                    "header is wrong")


def _check_size(path, data):
  """Refuses a compressed picture of other sides than Rows and Columns, which would be sheared; and JPEG 2000
  whose numbers have a sign or whose colours are changed, where the header says otherwise."""
  import pydicom
  stream = pydicom.encaps.get_frame(data.PixelData, 0, number_of_frames=int(
      data.get("NumberOfFrames", 1) or 1))
  found = _sides(stream)
  if found and found != (int(data.Rows), int(data.Columns)):
    raise UserError(f"{path} holds a compressed picture of {found[0]} x {found[1]} pixels and says "
                    f"{data.Rows} x {data.Columns}: its header is wrong")
  coded, style = depth.of_jpeg2000(stream, 256), stream.find(b"\xff\x52", 0, 4096)  # COD: how it is coded
  if coded is None or style < 0 or len(stream) < style + 9:
    return
  # A header with a sign over numbers without is common: their bits are read again, as all viewers do.
  if coded[1] and not int(data.get("PixelRepresentation", 0) or 0):
    raise UserError(f"{path} holds a compressed picture of numbers with a sign, and its header (Pixel "
                    "Representation) says that they have none: save it uncompressed from a viewer")
  if stream[style + 8] and str(data.PhotometricInterpretation).startswith("YBR_FULL"):
    raise UserError(f"{path} holds a JPEG 2000 picture whose colours are changed twice by its header "
                    "(YBR_FULL, not YBR_RCT or YBR_ICT): are they RGB? Save it uncompressed from a viewer")


def _sides(stream: bytes) -> tuple[int, int] | None:
  """(rows, columns) in the head of a JPEG, JPEG-LS or JPEG 2000 stream; None of others."""
  if stream[:4] == depth.JPEG2000:
    right, bottom, left, top = struct.unpack(">4I", stream[8:24])
    return bottom - top, right - left
  at = 2 if stream[:2] == b"\xff\xd8" else len(stream)
  while at + 9 <= len(stream) and stream[at] == 0xFF:
    kind, length = stream[at + 1], int.from_bytes(stream[at + 2:at + 4], "big")
    if kind == 0xF7 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):  # start of a frame
      rows, columns = struct.unpack(">2H", stream[at + 5:at + 9])
      return (rows, columns) if rows else None  # 0: said later
    at += 1 if kind == 0xFF else 2 + length
  return None


def padding(data, array: np.ndarray) -> np.ndarray | None:
  """bool, as `array`: values beside the picture, by Pixel Padding Value and its range; None = there are none.

  They may lie above Bits Stored, where the decoder cuts them off and makes white of them: pixels without
  compression are looked at as they are stored.

  Args:
    array: decoded grey pixels [N,H,W,1].
  """
  first = data.get("PixelPaddingValue")
  if first in (None, "") or array.shape[-1] != 1 or array.dtype.kind not in "iu":
    return None
  allocated = int(data.BitsAllocated)
  native = not _is_compressed(data) and allocated in (8, 16, 32)
  values = _raw(data)[:array.size].reshape(array.shape) if native else array
  ends = [int(first), int(data.get("PixelPaddingRangeLimit") or first)]
  values = values.astype(np.int64)
  if array.dtype.kind == "i":
    values -= (values >= 2 ** (allocated - 1)) * 2**allocated
    ends = [end - 2**allocated if end >= 2 ** (allocated - 1) else end for end in ends]
  else:
    ends = [end % 2**allocated for end in ends]
  found = (values >= min(ends)) & (values <= max(ends))
  found |= (array >= min(ends)) & (array <= max(ends))  # with the sign that its bits do not repeat
  return found if found.any() and not found.all() else None


def _is_compressed(data) -> bool:
  return bool(data.file_meta.TransferSyntaxUID.is_compressed)


def _raw(data):
  """The words of uncompressed pixels without sign, with the bits above Bits Stored."""
  size = int(data.BitsAllocated) // 8
  order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
  return np.frombuffer(data.PixelData[:len(data.PixelData) // size * size], f"{order}u{size}")
