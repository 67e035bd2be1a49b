"""Formats of the field that are not read: what to do about a file of one, said where it is left out."""

from __future__ import annotations

from collections.abc import Collection

_VOLUMES = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".mnc", ".img", ".hdr", ".img.gz", ".par",
            ".rec", ".nii.bz2", ".nii.xz", ".nii.zst", ".brik", ".head")
_IMAGES = (".webp", ".gif", ".heic", ".heif", ".avif", ".pdf", ".svg", ".jxl", ".psd", ".ppm", ".pgm")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".7z", ".rar")
_ADVICE = (("nifti", _VOLUMES, "save it as .nii.gz, as 3D Slicer, ITK-SNAP and nibabel do"),
           ("image", _IMAGES, "save it as PNG or TIFF"))


def advice(name: str, kinds: Collection[str]) -> str:
  """": save it as .nii.gz, ..." for the name of a file that could be read in another format, else ""."""
  name = name.lower()
  if name.endswith(_ARCHIVES):
    return ": unpack it"
  found = [text for kind, endings, text in _ADVICE if kind in kinds and name.endswith(endings)]
  return f": {found[0]}" if found else ""
