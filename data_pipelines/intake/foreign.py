"""What a file is by its name and its first bytes: formats of the field that are not read, and what to do
about them; DICOM without an ending; what clouds and browsers leave in a file's place."""

from __future__ import annotations

from collections.abc import Collection
import os
import re
import stat

_NOT_HERE = re.compile(r"\.(?!_)(?P<cloud>.+)\.icloud|(?P<begun>.+)\.(?:crdownload|part|partial|filepart|"
                       r"download|opdownload|!qb|!ut)|(?P<reserved>.+)\.aria2", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/\r\n]+=*\s*")
_VOLUMES = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".mnc", ".img", ".hdr", ".img.gz", ".par",
            ".rec", ".nii.bz2", ".nii.xz", ".nii.zst", ".brik", ".head", ".mif", ".mif.gz", ".mih", ".gipl",
           ".gipl.gz", ".b2nd")
_ARRAYS = (".npy", ".npz", ".h5", ".hdf5")  # in which programs of segmentation keep labels
_IMAGES = (".webp", ".gif", ".heic", ".heif", ".avif", ".pdf", ".svg", ".jxl", ".psd", ".ppm", ".pgm")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".7z", ".rar")
_ADVICE = (("nifti", _VOLUMES, "save it as .nii.gz, as 3D Slicer, ITK-SNAP and nibabel do"),
           ("image", _IMAGES, "save it as PNG or TIFF"),
           ("image", (*_ARRAYS, ".mat"), "save its images as PNG or TIFF, its volumes as .nii.gz"))
# First elements of DICOM files without preamble: groups 0002 and 0008.
_FIRST_ELEMENTS = {(2, e) for e in (0, 1, 2, 3, 16)} | {(8, e) for e in (0, 1, 5, 8, 18, 20, 22, 24)}
# Beginnings of what is no image, volume or table whatever its name says: what it is, and what to do.
_IN_PLACE = (
    (b"version https://git-lfs", "a note of Git LFS in place of the file: run git lfs pull"),
    (b"<!doctype html", "a web page: download it again"), (b"<html", "a web page: download it again"))
# ... and of what is no image and no volume; a table may begin with some of these.
_BEGINNINGS = (
    *_IN_PLACE,
    (b"8bps", "a Photoshop file: save it as PNG"),
    (b"<svg", "an SVG drawing: save it as PNG"), (b"%pdf", "a PDF file: save its pictures as PNG"),
    (b"pk\3\4", "a ZIP archive: unpack it"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"\x1f\x8b", "packed by gzip: unpack it"), (b"\xfd7zxz", "packed by xz: unpack it"),
    (b"bzh", "packed by bzip2: unpack it"), (b"nrrd0", "an NRRD volume: save it as .nii.gz"),
    (b"objecttype", "a MetaImage: save it as .nii.gz"), (b"cdf", "a MINC volume: save it as .nii.gz"),
    (b"\x89hdf", "an HDF5 file"), (b"\x93numpy", "an array of NumPy"))


def what_it_is(beginning: bytes) -> str:
  """" (it is a web page: ...)" of the first bytes of a file (132 or more), "" where they say nothing."""
  if not beginning:
    return " (it is empty: copy it again)"
  if beginning[128:132] == b"DICM":
    return " (it is a DICOM file: let its name end in .dcm)"
  if beginning[4:12].lower() in (b"ftypavif", b"ftypavis"):
    return " (it is an AVIF picture: save it as PNG)"
  if beginning.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
    return " (it is a JPEG XL picture: save it as PNG)"
  if beginning[4:12].lower() in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
    return " (it is an HEIC photograph: save it as JPEG or PNG)"
  if len(beginning) >= 132 and not any(beginning):
    return " (it begins with zeros alone, as a copy that was broken off: copy it again)"
  if beginning.startswith(b"data:") or (len(beginning) >= 64 and _BASE64.fullmatch(beginning)):
    return " (it is text in base64 or the like: decode it into the file that it was)"
  return _named(beginning, _BEGINNINGS)


def in_place(beginning: bytes) -> str:
  """The same of a table, for what was stored or downloaded in its place."""
  return _named(beginning, _IN_PLACE)


def _named(beginning, known):
  begins = beginning.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
  found = next((what for magic, what in known if begins.startswith(magic)), "")
  return f" (it is {found})" if found else ""


def not_here(name: str) -> tuple[str, str]:
  """(the file that a name stands for, why it is not there) of what clouds and browsers leave in its place:
  .a.png.icloud, a.png.crdownload; ("", "") of other names."""
  found = _NOT_HERE.fullmatch(name)
  if not found:
    return "", ""
  if found["cloud"]:
    return found["cloud"], "stands for a file that lies in iCloud alone: download it (Finder: Download Now)"
  return found["begun"] or found["reserved"], "is a download that has not ended: let it end, or start it anew"


def may_be_label(name: str) -> bool:
  """Whether a name is that of a volume, or of arrays, in a format that is not read."""
  return name.lower().endswith((*_VOLUMES, *_ARRAYS))


def without_ending(name: str) -> str:
  """P1.seg of P1.seg.nrrd: the name of such a file without the ending of its format."""
  ending = max((e for e in (*_VOLUMES, *_ARRAYS) if name.lower().endswith(e)), key=len, default="")
  return name[:len(name) - len(ending)]


def of_file(path) -> str:
  """`what_it_is` of a file."""
  with open(path, "rb") as file:
    return what_it_is(file.read(132))


def start_of(path, length: int = 1 << 16) -> bytes:
  """The first bytes of a regular file, none of a pipe and of what cannot be read; never raises."""
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):
      return b""
    with open(path, "rb") as file:
      return file.read(length)
  except OSError:  # who wants to read it says so
    return b""


def begins_as_dicom(path) -> bool:
  """Whether a regular file is DICOM by its content, also without preamble; never raises."""
  head = start_of(path, 132)
  if head[128:] == b"DICM":
    return True
  group, element, rest = (int.from_bytes(head[i:i + 2], "little") for i in (0, 2, 6))
  explicit = head[4:6].isalpha() and head[4:6].isupper()
  return len(head) == 132 and (group, element) in _FIRST_ELEMENTS and (explicit or rest == 0)


def is_array(name: str) -> bool:
  """Whether a name is that of arrays of NumPy, HDF5 or MATLAB."""
  return name.lower().endswith((*_ARRAYS, ".mat"))


def is_archive(name: str) -> bool:
  """Whether a name is that of an archive."""
  return name.lower().endswith(_ARCHIVES)


def advice(name: str, kinds: Collection[str]) -> str:
  """": save it as .nii.gz, ..." for the name of a file that could be read in another format, else ""."""
  name = name.lower()
  if name.endswith(_ARCHIVES):
    return ": unpack it"
  found = [text for kind, endings, text in _ADVICE if kind in kinds and name.endswith(endings)]
  return f": {found[0]}" if found else ""
