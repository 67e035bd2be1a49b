"""Forms whose compression changes pixels: around a mark of a mask it leaves a ring of faint values."""

from __future__ import annotations

import pathlib

from PIL import Image

from data_pipelines.formats import dicom

_TIFF = {6: "JPEG", 7: "JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 50001: "WebP",
         50002: "JPEG XL"}  # tag 259
_FORMS = {"JPEG": "JPEG", "MPO": "JPEG", "JPEG2000": "JPEG 2000", "AVIF": "AVIF", "WEBP": "WebP"}


def name_of(path) -> str:
  """Of a file that `images.read` can read: the name of a form that may have changed its pixels, else "".

  JPEG 2000 and AVIF do not say whether they did.
  """
  if dicom.is_dicom(path):
    return ""
  with open(pathlib.Path(path), "rb") as file, Image.open(file) as image:
    packed = getattr(image, "tag_v2", {}).get(259, 1) if image.format == "TIFF" else 1
    file.seek(0)
    exact = b"VP8L" in file.read(64)  # of WebP
    if packed in _TIFF:
      return f"TIFF ({_TIFF[packed]})"
    return "" if exact else _FORMS.get(image.format or "", "")
