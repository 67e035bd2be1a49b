"""Every data set that reads a user's files, in small: the same images by table, and by folder.

`TABLES` and `FOLDERS` hold one `Small` a reader; a test over them shows that no reader is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import pathlib

import numpy as np
from PIL import Image

from data_pipelines.brains import files, inputs
from data_pipelines.datasets import annotations, camelyon, chest_xray, nih, own_folder, paired, segmentation


@dataclasses.dataclass(frozen=True)
class Picture:
  """One image, pair or scan: its path below the folder, without ending."""
  name: str
  split: str = "train"
  group: str = ""
  label: str = "normal"


@dataclasses.dataclass(frozen=True)
class Small:
  """A reader.

  Attributes:
    table: file name of its table, "" = folders.
    columns: {column: Picture -> cell}; the table's header in order.
    write: (root, pictures) writes the files.
    read: (root, fields) -> {split: sorted names of its images}; raises what the reader raises.
    splits: False where the table has no splits (predict).
  """
  table: str
  columns: dict[str, Callable[[Picture], str]]
  write: Callable[[pathlib.Path, Sequence[Picture]], None]
  read: Callable[..., dict[str, list[str]]]
  splits: bool = True
  labels: bool = False


def save(path, value=100, size=(8, 8)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full(size, value, np.uint8)).save(path)


def _save_all(folders):
  def write(root, pictures):
    for p in pictures:
      for k, folder in enumerate(folders):
        save(root / folder / f"{p.name}.png", 255 * (k % 2))
  return write


def _open(module, root, defaults=None, **fields):
  cfg = (defaults or module.defaults)()
  with cfg.unlocked(), cfg.ignore_type():
    cfg.update({"root" if "root" in cfg else "dir": str(root), **fields})
  return module.build(cfg, 0)


def _pairs(module):
  def read(root, **fields):
    found = _open(module, root, channels=1, image_size=(8, 8), **fields)
    return {s: sorted(i.name[:-4] for i in items) for s, items in found._items.items()}
  return read


def _segmentation(**layout):
  def read(root, **fields):
    parts = _open(segmentation, root, clean=1, noise="polygon:3", **layout, **fields).parts
    parts = {"train": [*parts["noisy"], *parts["clean"]], "val": parts.get("val", []),
             "test": parts.get("test", [])}
    return {s: sorted(i.id for i in items) for s, items in parts.items()}
  return read


def _one_class(module):
  def read(root, **fields):
    data = _open(module, root, layout="folder", **fields)
    names = lambda part: sorted(i.name.removeprefix("i/").removesuffix(".png")
                                for key, items in data.lists.items() for i in items
                                if key.partition("_")[0] == part)
    return {s: names(s) for s in ("train", "val", "test")}
  return read


def _scans(root, **fields):
  found = files.find_scans(root, ("flair", "t1"), **fields)
  return {s: sorted(x.patient for x in found.scans if x.split == s) for s in ("train", "val", "test")}


def _predicted(root, **fields):
  del fields
  found = inputs.find(root / "manifest.csv", ("flair", "t1"))
  return {"train": sorted(s.name for s in found), "val": [], "test": []}


_BRAINS = {"patient": lambda p: p.name, "split": lambda p: p.split, "flair": lambda p: f"{p.name}_f.nii.gz",
           "t1": lambda p: f"{p.name}_t.nii.gz", "group": lambda p: p.group}
_LABELS = {"file": lambda p: f"i/{p.name}.png", "split": lambda p: p.split, "label": lambda p: p.label,
           "group": lambda p: p.group}
_FRAMES = {"file": lambda p: f"clean/{p.name}.png", "split": lambda p: p.split, "group": lambda p: p.group}
_NOTHING = lambda root, pictures: None

TABLES = {
    "segmentation": Small("labels.csv", {
        "image": lambda p: f"i/{p.name}.png", "mask": lambda p: f"m/{p.name}.png", "split": lambda p: p.split,
        "group": lambda p: p.group}, _save_all(("i", "m")), _segmentation(layout="manifest")),
    "paired": Small("labels.csv", _FRAMES, _save_all(("clean", "annotated")), _pairs(paired)),
    "annotations": Small("labels.csv", _FRAMES, _save_all(("clean",)), _pairs(annotations)),
    "nih": Small("labels.csv", _LABELS, _save_all(("i",)), _one_class(nih), labels=True),
    "camelyon": Small("labels.csv", _LABELS, _save_all(("i",)), _one_class(camelyon), labels=True),
    "chest_xray": Small("labels.csv", _LABELS, _save_all(("i",)), _one_class(chest_xray), labels=True),
    "brats": Small("manifest.csv", _BRAINS, _NOTHING, _scans),
    "predict": Small("manifest.csv", _BRAINS, _NOTHING, _predicted, splits=False)}
# Data sets without a user's table: arrays in the official order, or made up.
NO_TABLE = {"slides",  # its table is read as that of camelyon
            "natural", "synthetic", "synthetic_radiographs", "synthetic_textures", "own_folder"}


def _write_sides(root, pictures):
  for p in pictures:
    save(root / p.split / ("normal" if p.label == "normal" else "anomaly") / f"{p.name}.png")


def _write_parts(root, pictures):
  for k, p in enumerate(pictures):
    part = f"training/{'noisy' if k % 2 else 'clean'}" if p.split == "train" else p.split
    save(root / f"{part}_img" / f"{p.name}.png")
    save(root / f"{part}_gt" / f"{p.name}.png", 255)


# Given split folders: the user said who is trained on and who is tested on.
FOLDERS = {
    "segmentation": Small("", {}, _write_parts, _segmentation(layout="folders")),
    "nih": Small("", {}, _write_sides, _one_class(nih)),
    "camelyon": Small("", {}, _write_sides, _one_class(camelyon)),
    "chest_xray": Small("", {}, _write_sides, _one_class(chest_xray))}


def _own(root, **fields):
  parts = _open(own_folder, root, **fields).parts
  return {s: sorted(m.name.removeprefix("normal/").removesuffix(".png") for m in found)
          for s, found in parts.items()}


# One folder, split here: by patient.
UNSPLIT = {
    "own_folder": Small("", {}, _save_all(("normal",)), _own),
    "paired": Small("", {}, _save_all(("clean", "annotated")), _pairs(paired)),
    "annotations": Small("", {}, _save_all(("clean",)), _pairs(annotations))}


def write_table(small: Small, root, pictures, separator=",", encoding="utf-8", end="\n",
                change: Callable[[list[list[str]]], None] = lambda cells: None) -> pathlib.Path:
  """Writes files and table; `change` edits its cells, the header's among them, in place."""
  small.write(root, pictures)
  cells = [list(small.columns), *([column(p) for column in small.columns.values()] for p in pictures)]
  change(cells)
  path = root / small.table
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes((end.join(separator.join(row) for row in cells) + end).encode(encoding))
  return path


