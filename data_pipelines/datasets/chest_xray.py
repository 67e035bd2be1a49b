"""Chest radiographs in [0, 1]: labelled folders, RSNA, PadChest, COVID-19 Radiography, the paper's CSV files.

Grey -> [H,W] resized to image_size -> [0, 1]. Training sees normal images alone. Scored images have a
`finding` in their meta ("normal", or findings joined by "|"), and where the data set has boxes or masks a
"mask" [S,S,1] in their batches; "lungs" [S,S,1] where it has masks of the lungs. Bercea et al. 2023 (MICCAI,
LNCS 14224).
"""

from __future__ import annotations

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields
from data_pipelines.chest import listing
from data_pipelines.datasets import _chest_lists as chest_lists
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.one_class import fields as one_class_fields
from data_pipelines.one_class.folders import file_lists, leak_options
from data_pipelines.one_class.lists import OneClassDataSet
from data_pipelines.ops import resize

LAYOUTS = ("folder", *chest_lists.PUBLIC, "lists")
PREPARATIONS = ("antialiased", "published")
_PUBLIC = ("findings", "val_share", "test_share")
_FOLDER = ("any_finding", "normal_words", "anomaly_words", "val_kind")
_UNREAD = {"folder": (*_PUBLIC, "projections", "invert", "image_root", "lists_root"),
           "lists": (*_PUBLIC, *_FOLDER, "projections", "invert"),
           "rsna": (*_FOLDER, "projections", "invert", "lists_root"), "padchest": (*_FOLDER, "lists_root"),
           "covid_radiography": (*_FOLDER, "projections", "invert", "image_root", "lists_root")}


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data."""
  fields = one_class_fields.files("chest_xray")
  fields.image_size, fields.channels = 128, 1  # side of the images the network sees
  fields.layout = "folder"         # folder: root holds labels.csv (file, split, label, group, subtype) or
                                   # <train|val|test>/<normal, good or a finding>/, perhaps with boxes.csv
                                   # or masks/; rsna, padchest, covid_radiography: root is that data set;
                                   # lists: the paper's CSV files in lists_root, paths below image_root
  fields.any_finding = True        # layout folder: folders of val and test are findings whatever their name
  fields.findings = ()             # public data sets: findings that are tested; () = all (of RSNA: lung
                                   # opacity; its images "not normal" by name)
  fields.val_share, fields.test_share = 0.1, 0.1  # public data sets: shares of the patients with a
                                   # normal image; the rest trains. Others are divided between val and test
  fields.projections = ("PA", "AP")  # of PadChest that are used; () = all
  fields.invert = True             # PadChest: the files of MONOCHROME1 are inverted
  fields.lungs = "masks"           # region for errors inside the lungs: masks, where the data set has them;
                                   # ellipses: two fixed ones (_chest_lists.ellipses); none
  fields.preparation = "antialiased"  # published: images of training and its validation are resized without
                                   # anti-aliasing, scored ones with it and rounded to 8 bits, as the
                                   # public code does
  for name in ("crop_size", "resize", "equalize_hist"):
    del fields[name]
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field, or one out of range.
  """
  cfg = one_class_fields.resolve_files(data_cfg, defaults(), LAYOUTS)
  data_fields.choice(cfg, "preparation", PREPARATIONS)
  data_fields.choice(cfg, "lungs", ("masks", "ellipses", "none"))
  if cfg.channels != 1:
    raise UserError(f"config.data.channels={cfg.channels}: radiographs are grey, use 1")
  if not (cfg.val_share > 0 and cfg.test_share > 0 and cfg.val_share + cfg.test_share < 1):
    raise UserError(f"config.data.val_share={cfg.val_share}, test_share={cfg.test_share}: shares above 0 "
                    "that leave some patients for training")
  if cfg.layout in chest_lists.PUBLIC and cfg.fold >= 0:
    raise UserError(f"config.data.fold={cfg.fold}: layout {cfg.layout} has no folds; change fold_seed for "
                    "another split")
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
  one_class_fields.say_unread(cfg, defaults(), _UNREAD)
  if cfg.layout in chest_lists.PUBLIC:
    data_fields.given_dir(cfg, "root", f"the folder of {cfg.layout}")
    lists, notes, known = chest_lists.public(cfg)
    name, options = f"chest radiographs ({cfg.layout})", {"where": cfg.root}
    lists["train"] = lists["train"][:cfg.train_limit or None]
  else:
    name, lists, notes = file_lists(cfg, "chest radiographs", "chest radiographs (CSV lists)",
                                    chest_lists.csv_lists)
    known = chest_lists.of_folder(cfg.root, lists, cfg.window) if cfg.layout == "folder" else {}
    options = leak_options(cfg)
  shapes: dict[str, tuple[int, ...]] = {}
  load = lambda item: _scored(known.get(item.name) or listing.Radiograph(item.name, item.path), cfg, shapes)
  load_train = load if cfg.preparation != "published" else lambda item: _plain(
      known.get(item.name) or listing.Radiograph(item.name, item.path), cfg)
  return OneClassDataSet(name, lists, load, load_train=load_train, validate_as_train=True,
                         cache=cfg.cache, to_float=None,
                         notes={**notes, "size": cfg.image_size, "preparation": cfg.preparation},
                         marks=_marks(known, cfg, shapes), findings=True, val_from_test=cfg.val_from_test,
                         **options)


def _marks(known, cfg, shapes):
  """Item -> {"mask", "lungs"} where the data set marks anything or a region is asked for, else None.

  Args:
    shapes: {path: (H, W, ...)} of the images that `_scored` has read: none is decoded again for its size.
  """
  shape_of = lambda path: shapes[path][:2] if path in shapes else images.size(path, cfg.window)
  masks = any(r.boxes or r.mask for r in known.values())
  lungs = cfg.lungs == "masks" and bool(known) and all(r.lungs for r in known.values())
  keys = ("mask",) * masks + ("lungs",) * lungs
  ellipses = {"lungs": chest_lists.ellipses(cfg.image_size)} if cfg.lungs == "ellipses" else {}

  def of(item):
    found = chest_lists.marks(known[item.name], cfg.image_size, shape_of) if keys else {}
    return {key: found[key] for key in keys} | ellipses
  return of if keys or ellipses else None


def read_example(path, data_cfg) -> np.ndarray:
  """A radiograph as scoring sees it: float32 [S,S,1] in [0, 1].

  "published" takes the first channel of a colour file, and rounds the resized image to 8 bits, as Pillow does
  with an 8-bit image.
  """
  return _scored(listing.Radiograph(str(path), str(path)), data_cfg)


def _scored(radiograph, cfg, shapes=None):
  """The image; notes its own shape in `shapes`."""
  size, published = cfg["image_size"], cfg["preparation"] == "published"
  image = _first_channel(radiograph, cfg) if published else listing.read_unit(radiograph, cfg["window"])
  if shapes is not None:
    shapes[radiograph.path] = image.shape
  if published:
    return resize.antialiased(image, size).astype(np.float32) / 255
  return resize.antialiased_float(image, (size, size))


def _plain(radiograph, cfg):
  """Without anti-aliasing: two neighbours whatever the factor, half-pixel centres."""
  image = _first_channel(radiograph, cfg) / 255
  return resize.bilinear(image, (cfg["image_size"],) * 2).astype(np.float32)


def _first_channel(radiograph, cfg):
  if radiograph.inverted or radiograph.bits:  # what a table says of the file
    return np.round(255 * listing.read_unit(radiograph, cfg["window"])).astype(np.uint8)
  return images.read_8bit(radiograph.path, 3, cfg["window"])[..., :1]


def place_map(values, shape, data_cfg):
  """A map [S,S] of `read_example` on the image's own pixels, float64 [H,W]."""
  del data_cfg
  return resize.bilinear(values, shape)

