"""The volumes of one scan, read and compared: the same for the preparation and for predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import json
import logging
import pathlib
from typing import Any

import numpy as np

from data_pipelines.brains import sequences
from data_pipelines.errors import UserError
from data_pipelines.formats import dicom_series, nifti
from data_pipelines.intake import geometry
from data_pipelines.ops import anatomy

# Intent codes of NIfTI of what is no picture; 1001, an estimate, is no news: programs leave it in pictures.
_NO_GREYS = {range(2, 25): "a statistic", (1002, 1003): "labels", range(1004, 1010): "matrices or vectors"}
_MOST_LABELS = 4  # the largest value of a volume that is hardly a picture


@dataclasses.dataclass(frozen=True)
class Volumes:
  """A scan on one grid.

  Attributes:
    arrays: float64 [H,W,Z] each, one a modality, with the axes asked for.
    seg: the label, on the same grid; None = none given.
    spacing: mm between neighbours along the axes of `arrays`.
    grid: of the first file, as stored; change: what `geometry.undo` takes back.
    image: nibabel's of the first file: its header goes into results.
  """

  arrays: list[np.ndarray]
  seg: np.ndarray | None
  spacing: tuple[float, ...]
  grid: geometry.Grid
  change: np.ndarray | None
  image: Any

  def back(self, array: np.ndarray) -> np.ndarray:
    """[H,W,Z] with the axes of `arrays` -> contiguous, with those of the file."""
    return np.ascontiguousarray(geometry.undo(array, self.change))


def read(files: Mapping[str, Any], orientation: str, seg=None) -> Volumes:
  """Reads one file a modality, and the label.

  Args:
    files: {modality: path, or the sequence of files of a DICOM series}, in the order of the channels.
      Beside a series NIfTI files may have their axes in another order, as converted copies of it do.
    orientation: axes to turn to, such as "LPS"; "" = as stored.
    seg: path of the label, or None.

  Raises:
    FileNotFoundError, UserError: a file is absent or damaged, lies on another grid than the first, or has
      voxels of an impossible size.
  """
  arrays, grids, images = [], [], []
  for path in (*files.values(), *([seg] if seg else [])):
    array, grid, image = _on_grid(path)
    if grids and (_is_series(path) or _is_series(next(iter(files.values())))):
      array, grid = _laid_over(grids[0], array, grid)
    arrays.append(array)
    grids.append(grid)
    images.append(image)
  geometry.check_same_grid(grids)
  _say_doubts(files, arrays, images)
  label = arrays.pop() if seg else None
  return _turned(arrays, label, next((g for g in grids if g.known), grids[0]), images[0], orientation)


def _say_doubts(files, arrays, images):
  """Warns of volumes that hold no grey values by their headers, and of one that stands for two modalities."""
  for path, image in zip(files.values(), images):
    code = int(image.header["intent_code"]) if "intent_code" in image.header else 0
    if what := next((what for codes, what in _NO_GREYS.items() if code in codes), ""):
      logging.warning("%s holds %s by its header (intent code %d), and is read as grey values", path, what,
                      code)
  for path, array in zip(files.values(), arrays):
    if 0 < array.max() <= _MOST_LABELS and array.min() == 0 and not (array[::7, ::7] % 1).any() and not (
        array % 1).any():
      logging.warning("%s holds the values %s alone, as labels do, and is read as grey values", path,
                      ", ".join(f"{v:g}" for v in np.unique(array)))
  for (a, first), (b, second) in itertools.combinations(zip(files, arrays), 2):
    if np.array_equal(first[::7, ::7, ::7], second[::7, ::7, ::7]) and np.array_equal(first, second):
      logging.warning("%s and %s hold the same voxels, as %s and as %s: is one a copy under the wrong name?",
                      files[a], files[b], a, b)
  anatomy.check_outlines({str(f): a for f, a in zip(files.values(), arrays)})


def _is_series(path):
  return isinstance(path, (tuple, list))


def _on_grid(path):
  """(array, grid, nibabel's image) of a NIfTI file or of the files of a DICOM series."""
  if not _is_series(path):
    return nifti.read_on_grid(path)
  paths = [pathlib.Path(p) for p in path]
  array, affine = dicom_series.read_series(paths)
  return (array, geometry.Grid(str(paths[0].parent), array.shape, affine),
          nifti.image_of(array, affine))


def _laid_over(first, array, grid):
  """(array, grid) with its axes in the order and directions of the first grid's.

  Slices of a series have places and no order of axes: which one it is read in, and programs convert it
  in, is a convention. Places decide; where they differ, `geometry.check_same_grid` says so.
  """
  if not (first.known and grid.known):
    silent = grid if first.known else first
    raise UserError(f"{silent.name} says nothing of its place (neither sform nor qform): it cannot be laid "
                    "over a DICOM series")
  change = geometry.turned(grid, first.codes)
  return np.ascontiguousarray(geometry.apply(array, change)), geometry.after(grid, change)


def read_stacked(path, modalities: Sequence[str], orientation: str) -> Volumes:
  """Reads one file with all modalities along its fourth axis (or the one modality alone).

  Raises:
    FileNotFoundError, UserError: absent, damaged, another number of channels than modalities, or times.
  """
  array, image = nifti.read(path)
  if array.ndim == 4 and (apart := nifti.time_step(image)):
    raise UserError(f"{path} is a series of {array.shape[-1]} times, {apart} apart by its header, and no "
                    "set of modalities: give one volume a modality")
  arrays = [array] if array.ndim == 3 else list(np.moveaxis(array, -1, 0))
  if len(arrays) != len(modalities):
    names = ", ".join(f"<scan>_{m}" for m in modalities)
    raise UserError(f"{path} has {len(arrays)} channel(s), the model needs {len(modalities)}: "
                    f"{', '.join(modalities)}" + (f". One file a modality is called {names}" if
                                                  len(modalities) > 1 else ""))
  _check_declared(pathlib.Path(path), modalities)
  return _turned(arrays, None, nifti.grid(path, image), image, orientation)


def _check_declared(path, modalities):
  """Refuses channels that the set's own list, dataset.json of the Decathlon and of nnU-Net, has otherwise.

  Raises:
    UserError: with both orders; a list that says nothing of the model's sequences is left aside.
  """
  for place in (path.parent, path.parent.parent) if len(modalities) > 1 else ():
    try:
      said = json.loads((place / "dataset.json").read_text(encoding="utf-8"))
      said = said.get("modality") or said.get("channel_names")
      declared = [str(said[str(i)]) for i in range(len(modalities))]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
      continue
    told = [sequences.NAMES.get(name.lower(), "") for name in declared]
    if any(known and known != own.lower() for known, own in zip(told, modalities)):
      raise UserError(f"{path}: by {place / 'dataset.json'} its channels are {', '.join(declared)}, and the "
                      f"model reads {', '.join(modalities)}, in this order: give one file a modality")


def _turned(arrays, seg, grid, image, orientation):
  geometry.check_voxels(grid)
  change = geometry.turned(grid, orientation)
  if orientation:
    anatomy.check_slab(grid.name, geometry.after(grid, change).shape, geometry.spacing_after(grid, change))
  return Volumes([geometry.apply(a, change) for a in arrays],
                 None if seg is None else geometry.apply(seg, change),
                 geometry.spacing_after(grid, change), grid, change, image)
