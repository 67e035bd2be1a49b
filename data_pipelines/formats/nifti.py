"""NIfTI volumes: the only reader and writer of them.

What is written has the shape, affine, qform and sform codes and units of the volume it was computed
from, so that any viewer lays it over the original.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import pathlib
from typing import Any

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import depth
from data_pipelines.formats.regular import check_regular
from data_pipelines.intake import find as finder, foreign, geometry

SUFFIXES = finder.SUFFIXES["nifti"]
_HEADER = 544  # bytes of NIfTI-2's header and its four flags
_DEFLATE = 1040  # gzip shrinks by 1032 at most
_FREE_TEXT = ("descrip", "db_name", "data_type", "aux_file", "intent_name")
_BEYOND = 1 << 26  # bytes behind the voxels that are let through


def is_nifti(path: pathlib.Path) -> bool:
  """Whether the name ends as NIfTI files do, in any capitals."""
  return finder.kind_of(path, by_content=False) == "nifti"


def stem(path: pathlib.Path) -> str:
  """File name without its ending, in any capitals."""
  return finder.stem_of(path)


def read(path) -> tuple[np.ndarray, Any]:
  """(float64 [H,W,Z] or [H,W,Z,C], the nibabel image with affine and header).

  Raises:
    FileNotFoundError: no such file. UserError: damaged, not 3-D or 4-D, not numbers, NaN.
  """
  path = pathlib.Path(path)
  array, image = _load(path)
  if array.ndim not in (3, 4) or not array.size:
    raise UserError(f"{path} has shape {array.shape}; a volume needs three axes (or four, modalities "
                    "last)")
  if not np.isfinite(array).all():
    raise UserError(f"{path} holds {int((~np.isfinite(array)).sum())} NaN or infinite voxels: write 0 where "
                    "nothing was measured")
  return array, image


def read_volume(path) -> np.ndarray:
  """Voxels of a file as stored (no reorientation), float64 [H,W,Z].

  Raises:
    FileNotFoundError, UserError: absent, damaged, not NIfTI, or not three-dimensional.
  """
  return read_on_grid(path)[0]


def read_on_grid(path) -> tuple[np.ndarray, geometry.Grid, Any]:
  """(float64 [H,W,Z] as stored, its grid, the nibabel image).

  Raises:
    FileNotFoundError, UserError: as `read`, or not three-dimensional, or without a valid place.
  """
  array, image = read(path)
  if array.ndim != 3:
    raise UserError(f"{path} has shape {array.shape}, a volume has three axes")
  return array, grid(path, image), image


def grid(path, image) -> geometry.Grid:
  """Where the voxels of a file lie: by its sform, else its qform; in mm.

  An affine that cannot be inverted places nothing: the other of the two is taken, where it is valid.

  Raises:
    UserError: the header has forms, and all of them are singular, or two that say that an axis runs in
      other directions: nobody knows then which side is left.
  """
  header, shape = image.header, tuple(int(n) for n in image.shape[:3])
  mm = {1: 1000.0, 3: 1e-3}.get(int(header["xyzt_units"]) & 7, 1.0)  # metres, micrometres; 2 and unknown: mm
  scale = np.diag([mm, mm, mm, 1])
  forms = [form for form, code in ((header.get_sform, "sform_code"), (_qform(header), "qform_code"))
           if int(header[code]) > 0]
  placed = [a for a in (np.asarray(form(), np.float64) for form in forms) if _places(a)]
  if placed:
    found = [geometry.Grid(str(path), shape, scale @ affine) for affine in placed]
    if len(found) > 1:
      geometry.compare_forms(path, *found)
    else:
      _say_sizes(path, header, found[0], mm)
    return found[0]
  affine = np.asarray(header.get_base_affine(), np.float64)
  if forms or not _places(affine):
    raise UserError(f"{path} has a singular affine (sform and qform): its header places no voxel; "
                    "write it again with a valid one")
  return geometry.Grid(str(path), shape, scale @ affine, known=False)


def time_step(image) -> str:
  """"2 s" where the fourth axis is time by its header, else "". A step of 0 or 1 says nothing: programs write
  it, and seconds, whatever the axis is.
  """
  unit = {8: "s", 16: "ms", 24: "us"}.get(int(image.header["xyzt_units"]) & 0x38, "")
  step = float(image.header["pixdim"][4])
  return f"{step:g} {unit}" if unit and np.isfinite(step) and step not in (0.0, 1.0) else ""


def _say_sizes(path, header, taken, mm):
  """Warns where voxels have other sizes by pixdim than by the form that is taken: FSL measures with these."""
  sizes = mm * np.abs(np.asarray(header["pixdim"][1:4], np.float64))
  if (sizes > 0).all() and np.isfinite(sizes).all() and not np.allclose(sizes, taken.spacing, rtol=0.05):
    shown = [" x ".join(f"{s:.4g}" for s in found) for found in (taken.spacing, sizes)]
    logging.warning("%s: its voxels are %s mm by its affine, which is taken, and %s mm by pixdim: write it "
                    "again with one of them, else volumes in ml may be wrong", path, *shown)


def _qform(header):
  def form():
    try:
      return header.get_qform()
    except Exception:  # a quaternion longer than 1: nibabel raises several types
      return np.zeros((4, 4))
  return form


def _places(affine):
  """Whether an affine is finite and can be inverted, whatever its units."""
  linear = affine[:3, :3]
  if not np.isfinite(affine).all():
    return False
  lengths = np.sqrt((linear**2).sum(0))
  return bool(lengths.min() > 0 and abs(np.linalg.det(linear / lengths)) > 1e-3)


def write(path, array: np.ndarray, affine: np.ndarray) -> None:
  """Writes [H,W,Z] of any numeric type with an affine of its own."""
  import nibabel
  nibabel.save(nibabel.Nifti1Image(array, affine), path)


def image_of(array: np.ndarray, affine: np.ndarray):
  """nibabel's image of [H,W,Z] on a grid in scanner's mm: what `write_like` needs of other formats."""
  import nibabel
  image = nibabel.Nifti1Image(array, affine)
  image.set_sform(affine, 1)
  image.set_qform(affine, 1)
  image.header.set_xyzt_units("mm")
  return image


def write_like(path, array: np.ndarray, reference, what: str = "", shown: float = 0.0) -> None:
  """Writes [H,W,Z] as NIfTI on the grid of `reference`, a nibabel image: affine, codes, units.

  The header's free text (description, names, intent) and its extensions (DICOM elements, comments) may
  name the patient: they do not travel.

  Args:
    array: float32 (a map: intent "estimate") or uint8 (a mask: intent "label"), of the reference's first
      three axes.
    what: it is, for the header's description (at most 79 characters).
    shown: where a viewer's scale ends (cal_max); it begins at 0. 0 = the viewer chooses.
  """
  if array.shape != tuple(reference.shape[:3]):
    raise UserError(f"result of shape {array.shape} does not fit the grid {reference.shape[:3]}")
  import nibabel
  header = reference.header.copy()
  header.set_data_dtype(array.dtype)
  header.set_data_shape(array.shape)
  header["cal_max"], header["cal_min"] = shown, 0  # the viewer's window of the original does not apply
  for field in _FREE_TEXT:
    if field in header:
      header[field] = b""
  header["descrip"] = what.encode("ascii", "replace")[:79]
  header.set_intent("label" if array.dtype == np.uint8 else "estimate")
  header.extensions = type(header.extensions)()
  second = isinstance(reference, (nibabel.Nifti2Pair, nibabel.Nifti2Image))
  kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
  # Without an affine of its own the image keeps the header's forms, also those that place nothing.
  nibabel.save(kind(array, None, header), path)


def _load(path):
  """(float64 array without trailing axes of length 1, nibabel's image); the one place nibabel fails."""
  check_regular(path, "volume")
  try:
    with _opened(path) as stream:
      image = _checked(path, stream)
      array = np.asarray(image.dataobj, np.float64)  # scales; a value of the header may fail here
      _check_exact(path, image)
      depth.check_stored(path, array, image.dataobj)
  except (MemoryError, UserError):  # one that finds no memory beside others is read alone later
    raise
  except Exception as error:  # nibabel, gzip and zlib raise a dozen types for damaged files
    reason = " ".join(str(error).split())[:160]
    raise UserError(f"{path} is not a readable NIfTI volume: corrupt or truncated "
                    f"({type(error).__name__}: {reason})") from None
  while array.ndim > 3 and array.shape[-1] == 1:
    array = array[..., 0]
  return array, image


def _opened(path):
  return gzip.open(path, "rb") if _packed(path) else open(path, "rb")


def _packed(path) -> bool:
  """Whether a file is gzip, by its first bytes: names lie after a download has unpacked it, or packed it."""
  with open(path, "rb") as file:
    return file.read(2) == b"\x1f\x8b"


def _checked(path, stream):
  """The image of an open file, read to its end (gzip's checksum stands there), sizes checked first."""
  import nibabel
  logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it logs doubts without the file's name
  head = stream.read(_HEADER)
  kinds = (nibabel.Nifti2Image, nibabel.Nifti1Image)
  # The first number of a header is its own length, 540 or 348, in either order of bytes.
  size = next((n for order in ("little", "big") for n in (540, 348)
               if int.from_bytes(head[:4], order) == n), 0)
  if not size:
    raise UserError(f"{path} is no NIfTI volume, or corrupt: it does not begin as one"
                    f"{foreign.what_it_is(head)}")
  kind = kinds[0] if size == 540 else kinds[1]
  # The header alone: extensions of any length may follow it.
  header = kind.header_class(head[:kind.header_class.sizeof_hdr], check=False)
  _check_numbers(path, header)
  dtype, shape = header.get_data_dtype(), header.get_data_shape()
  if dtype.kind not in "biuf":
    raise UserError(f"{path} holds {dtype}, not grey values")
  count = math.prod(int(n) for n in shape)
  expected = int(header.get_data_offset()) + count * dtype.itemsize
  _check_size(path, shape, count, expected)
  data = head + stream.read(expected - len(head)) if expected > len(head) else head
  if len(data) < expected:
    raise UserError(f"{path} is corrupt or truncated: its header tells of {expected} bytes, it has "
                    f"{len(data)}")
  beyond, filled = 0, False
  while block := stream.read(1 << 20):
    beyond, filled = beyond + len(block), filled or any(block)
    if beyond > _BEYOND:
      raise UserError(f"{path} holds more than {_BEYOND} bytes behind its voxels: its header is wrong")
  if filled:  # zeros only fill a block up
    logging.warning("%s: %d bytes behind its voxels belong to none: does it have more slices?", path, beyond)
  return kind.from_bytes(data)


def _check_numbers(path, header):
  """Refuses numbers by which other bytes, or none, would be taken for the voxels. NaN is "not scaled"."""
  offset = float(header["vox_offset"])
  if not offset >= header.single_vox_offset:  # nibabel takes 0 as it stands, and reads the header as voxels
    form = {b"ni": "a pair, .hdr and .img", b"": "Analyze 7.5"}.get(header["magic"].item()[:2], "")
    raise UserError(f"{path} is corrupt: by its header voxels begin at byte {offset:g}, inside the header"
                    + (form and f" (that of {form}: save it as one .nii.gz)"))
  if offset % 16:  # extensions are multiples of 16 bytes
    raise UserError(f"{path} is corrupt: by its header voxels begin at byte {offset:g}, no multiple of 16")
  for form in ("sform_code", "qform_code"):
    if not 0 <= int(header[form]) <= 5:  # nibabel leaves such a form out
      raise UserError(f"{path} is corrupt: its {form} is {int(header[form])}, which is none that is known")
  for field in ("scl_slope", "scl_inter"):
    if np.isinf(header[field]):
      raise UserError(f"{path} is corrupt: its {field} is infinite")
  # nibabel makes 1 mm of a pixdim of 0.
  sizes = [float(s) for s, n in zip(header["pixdim"][1:4], header.get_data_shape()[:3]) if n > 1]
  if int(header["sform_code"]) <= 0 and not all(np.isfinite(s) and s for s in sizes):
    raise UserError(f"{path} has voxels of size {', '.join(f'{s:g}' for s in sizes)} (pixdim) and no sform: "
                    "its header does not say how large they are; write it again with their size")


def _check_size(path, shape, count, expected):
  """Refuses what a header claims before memory is asked for."""
  there = path.stat().st_size
  most = there * _DEFLATE if _packed(path) else there
  told = f"{path} claims {' x '.join(map(str, shape))} voxels ({expected / 1e9:.3g} GB)"
  if not count or min(shape) < 1:
    raise UserError(f"{path} has shape {tuple(shape)}, no voxels")
  if expected > most:
    raise UserError(f"{told} and has {there} bytes: corrupt or truncated")
  if 8 * count + expected > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
    raise UserError(f"{told}: more than fits into the memory of this machine")


def _check_exact(path, image):
  """Refuses whole numbers of 64 bits beyond those that floats count one by one."""
  if image.get_data_dtype().itemsize == 8 and image.get_data_dtype().kind in "iu":
    stored = np.asarray(image.dataobj.get_unscaled())
    least, most = int(stored.min()), int(stored.max())
    if max(-least, most) > 2**53:
      raise UserError(f"{path} holds whole numbers from {least} to {most}, beyond 2^53, which would be "
                      "rounded: are they grey values? Write it again as 16 bits or floats")
