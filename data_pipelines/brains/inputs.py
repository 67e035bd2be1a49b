"""Scans given to predict: which files belong together, and reading them on one grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import pathlib

import numpy as np

from data_pipelines.brains.files import NEW_NAMES
from data_pipelines.errors import UserError
from data_pipelines.formats import nifti
from data_pipelines.intake import tables

# Endings of truth and of our own results.
_NOT_INPUT = ("seg", "mask", "anomaly", "overlay", "label", "labels")


@dataclasses.dataclass(frozen=True)
class Scan:
  """Files of one scan: one a modality, or a single file under "" with all of them as 4th axis."""

  name: str
  files: dict[str, pathlib.Path]


def find(path, modalities: Sequence[str], accept: Callable | None = None) -> list[Scan]:
  """Scans under a file, a manifest.csv, or a folder (searched with its subfolders), by name.

  <prefix>_<modality>.nii.gz (or -<modality>) belong together; a file without such an ending is a
  scan of its own, with one modality or with all of them along its last axis. Truth (_seg), our
  own results (_anomaly, _mask, _overlay) and sequences that the model does not use are left out.

  Args:
    accept: path -> bool, which files count; default `is_volume`.

  Raises:
    FileNotFoundError: nothing there.
  """
  path, accept = pathlib.Path(path), accept or is_volume
  if not path.exists():
    raise FileNotFoundError(f"{path} does not exist")
  if path.is_dir() and modalities and tables.place(path, "manifest.csv").is_file():
    path = tables.place(path, "manifest.csv")
  if path.suffix.lower() == ".csv":
    return _from_manifest(path, modalities)
  if path.is_file():
    if not accept(path):
      return []
    prefix, modality = split_name(path, modalities)
    if not modality or len(modalities) == 1:
      return [Scan(nifti.stem(path), {modality: path})]
    files = [p for p in path.parent.iterdir() if accept(p)]
    return [s for s in _group(files, modalities) if s.name == prefix]
  return _group([p for p in sorted(path.rglob("*")) if accept(p)], modalities)


def is_volume(path: pathlib.Path) -> bool:
  """True for NIfTI names; hidden files are left out."""
  return nifti.is_nifti(path) and not path.name.startswith(".") and path.is_file()


def split_name(path: pathlib.Path, modalities: Sequence[str]) -> tuple[str, str]:
  """("BraTS2021_00000", "flair") of BraTS2021_00000_flair.nii.gz; (stem, "") where nothing fits."""
  name = nifti.stem(path)
  for separator in ("_", "-"):
    prefix, found, ending = name.rpartition(separator)
    if found:
      for modality in modalities:
        if ending.lower() in (modality.lower(), NEW_NAMES.get(modality.lower())):
          return prefix, modality
  return name, ""


def _group(files, modalities):
  """Scans out of loose files, in the order of their names."""
  others = {*_NOT_INPUT, *(NEW_NAMES if modalities else ()), *NEW_NAMES.values()}
  scans: dict[tuple, dict[str, pathlib.Path]] = {}
  for path in sorted(files):
    prefix, modality = split_name(path, modalities)
    if not modality:
      ending = prefix.replace("-", "_").rpartition("_")[2].lower()
      if ending in others:  # truth, our own results, or a sequence that the model does not use
        continue
    scans.setdefault((path.parent, prefix), {})[modality] = path
  return [Scan(prefix, found) for (_, prefix), found in scans.items()]


def _from_manifest(path, modalities):
  table = tables.read_table(path, ("patient", *modalities))
  table.unique("patient")
  column = {m: tables.column_name(m) for m in modalities}
  return [Scan(row["patient"], {m: path.parent / row.file(c) for m, c in column.items() if row[c]})
          for row in table.rows]


# ------------------------------------------------------------------------------------------- reading
def read_scan(scan: Scan, modalities: Sequence[str]):
  """Modalities of a scan in order: (list of float64 [H,W,Z], the first file's nibabel image).

  Raises:
    FileNotFoundError, ValueError: a modality is missing, or the files are on different grids.
  """
  if "" in scan.files:
    array, image = nifti.read(scan.files[""])
    volumes = [array] if array.ndim == 3 else list(np.moveaxis(array, -1, 0))
    if len(volumes) != len(modalities):
      raise UserError(f"{scan.files['']} has {len(volumes)} channel(s), the model needs "
                       f"{len(modalities)}: {', '.join(modalities)}")
    return volumes, image
  missing = [m for m in modalities if m not in scan.files]
  if missing:
    there = ", ".join(p.name for p in scan.files.values())
    raise UserError(f"scan {scan.name} has no {', '.join(missing)} volume (found {there})")
  volumes, first = [], None
  for modality in modalities:
    array, image = nifti.read(scan.files[modality])
    if array.ndim != 3:
      raise UserError(f"{scan.files[modality]} has shape {array.shape}; one needs three axes")
    first = first or image
    if volumes and array.shape != volumes[0].shape:
      raise UserError(f"{scan.files[modality]} has shape {array.shape}, "
                       f"{scan.files[modalities[0]].name} has {volumes[0].shape}: co-register them")
    if not np.allclose(image.affine, first.affine, atol=1e-3):
      raise UserError(f"{scan.files[modality]} lies on another grid (affine) than "
                       f"{scan.files[modalities[0]].name}: co-register them")
    volumes.append(array)
  return volumes, first
