"""Chest radiographs in [0, 1]: labelled folders, and the CSV split files of the MorphAEus paper.

Grey -> [H,W] resized to image_size -> [0, 1]. Training sees normal images alone; every finding is a kind of
its own in the tables. Bercea et al. 2023 (MICCAI, LNCS 14224).
"""

from __future__ import annotations

import pathlib

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.intake import tables
from data_pipelines.one_class import fields as one_class_fields
from data_pipelines.one_class.folders import file_lists, leak_options
from data_pipelines.one_class.lists import Item, OneClassDataSet
from data_pipelines.ops import resize

# Split files of the paper: {list: [(file, finding)]}.
CSV_FILES = {
    "train": [("cxr_normal_train.csv", "normal")], "val_normal": [("cxr_normal_val.csv", "normal")],
    "test_normal": [("cxr_normal_test.csv", "normal")],
    "test_anomaly": [("cxr_opa_test.csv", "lung opacity"), ("cxr_covid_padchest_test.csv", "covid")]}
PREPARATIONS = ("antialiased", "published")


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data."""
  fields = one_class_fields.files("chest_xray")
  fields.image_size, fields.channels = 128, 1  # side of the images the network sees
  fields.layout = "folder"         # folder: root holds labels.csv (file, split, label, group, subtype) or
                                   # <train|val|test>/<normal or a finding>/; lists: the paper's CSV files
                                   # in lists_root, their paths below image_root
  fields.preparation = "antialiased"  # published: training images are resized without anti-aliasing,
                                   # scored ones with it and rounded to 8 bits, as the public code does
  for name in ("crop_size", "resize", "equalize_hist"):
    del fields[name]
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field, or one out of range.
  """
  cfg = one_class_fields.resolve_files(data_cfg, defaults())
  data_fields.choice(cfg, "preparation", PREPARATIONS)
  if cfg.channels != 1:
    raise UserError(f"config.data.channels={cfg.channels}: radiographs are grey, use 1")
  return cfg


def spec(data_cfg) -> data_fields.Spec:
  """Images as they are shown to the network."""
  size = resolve(data_cfg).image_size
  return data_fields.Spec((size, size, 1), 0, 1)


def build(data_cfg, seed: int) -> OneClassDataSet:
  """The data set.

  Raises:
    UserError: a field out of range, lists that leak. FileNotFoundError: a list, folder or image.
  """
  del seed
  cfg = resolve(data_cfg)
  name, lists, notes = file_lists(cfg, "chest radiographs", "chest radiographs (CSV lists)", _lists)
  load = lambda item: read_example(item.path, cfg)
  load_train = load if cfg.preparation != "published" else lambda item: _plain(item.path, cfg)
  return OneClassDataSet(name, lists, load, load_train=load_train, cache=cfg.cache, to_float=None,
                         notes={**notes, "size": cfg.image_size, "preparation": cfg.preparation},
                         val_from_test=cfg.val_from_test, **leak_options(cfg))


def read_example(path, data_cfg) -> np.ndarray:
  """A radiograph as scoring sees it: float32 [S,S,1] in [0, 1].

  "published" takes the first channel of a colour file, and rounds the resized image to 8 bits, as Pillow does
  with an 8-bit image.
  """
  size = data_cfg["image_size"]
  if data_cfg["preparation"] == "published":
    return resize.antialiased(_first_channel(path, data_cfg), size).astype(np.float32) / 255
  return resize.antialiased_float(images.read_unit(path, 1, data_cfg["window"]), (size, size))


def _plain(path, cfg):
  """Without anti-aliasing: two neighbours whatever the factor, half-pixel centres."""
  return resize.bilinear(_first_channel(path, cfg) / 255, (cfg["image_size"],) * 2).astype(np.float32)


def _first_channel(path, cfg):
  return images.read_8bit(path, 3, cfg["window"])[..., :1]


def place_map(values, shape, data_cfg):
  """A map [S,S] of `read_example` on the image's own pixels, float64 [H,W]."""
  del data_cfg
  return resize.bilinear(values, shape)


def _lists(cfg):
  """The lists of the paper's CSV files: a header line, then a path a line."""
  root, base = pathlib.Path(cfg["lists_root"]), pathlib.Path(cfg["image_root"])
  for name, folder in (("lists_root", root), ("image_root", base)):
    if not cfg[name] or not folder.is_dir():
      raise FileNotFoundError(f"no folder config.data.{name}={cfg[name]!r}; give the folder with "
                              f"{CSV_FILES['train'][0]} and the one its paths start from")
  lists, seen = {}, []
  for part, files in CSV_FILES.items():
    lists[part] = []
    for file, kind in files:
      path = tables.place(root, file)
      if not path.is_file() and part == "test_anomaly":
        continue  # each finding may be missing, not all: that OneClassDataSet refuses
      for row in tables.read_table(path, ("filename",)).rows:
        item = row.file("filename").removeprefix("./")
        lists[part].append(Item(item, pathlib.PurePosixPath(item).stem, kind, str(base / item)))
      seen.append(file)
  return lists, {"protocol": "CSV split files", "files": seen}
