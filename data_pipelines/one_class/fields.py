"""Fields of config.data that the one-class data sets share, and their checks."""

from __future__ import annotations

import logging

import ml_collections

from data_pipelines import fields as data_fields
from data_pipelines.errors import UserError


def protocol(name: str) -> ml_collections.ConfigDict:
  """Which images are trained on and tested on: the start of the defaults of all of them."""
  fields = data_fields.common(name)
  fields.image_size = 32           # side of the images, for modes that open no data
  fields.channels = 3              # 1 = grey, 3 = colour, likewise
  fields.root = ""                 # folder or file that holds the images
  fields.lists_root = ""           # folder with the published lists
  fields.fold = -1                 # -1 = final split; 0 to 2 = fold of the training part
  fields.folds = "leakfree"        # leakfree, or published: as they are, even where they leak
  fields.fold_seed = 0             # of regrouped folds and of held-out validation images
  fields.n_folds = 3               # number of regrouped folds
  fields.val_fraction = 0.0        # fold -1: share of training groups held out for validation
  fields.val_anomalies = 0         # fold -1: validation anomalies, all of one kind
  fields.val_from_test = False     # of a fold: "val" is its test part, to choose the number of
                                   # iterations as it was published for PIAD
  fields.train_limit = 0           # keep this many training images; 0 = all
  fields.equalize_hist = False     # equalise the histogram of every channel
  fields.window = (0, 0)           # (black, white) of deep image files and DICOM; (0, 0) = by their
                                   # headers and the rule of docs/formats.md
  return fields


def files(name: str) -> ml_collections.ConfigDict:
  """`protocol` and what data sets of image files have on top."""
  fields = protocol(name)
  fields.layout = "lists"          # lists: image_root and lists_root; folder: root holds labels.csv
                                   # (file, split, label, group) or <train|val|test>/<normal|anomaly>/
  fields.image_root = ""           # layout lists: folder of the images
  fields.crop_size = 64            # side of the centre crop
  fields.resize = 0                # side after resizing; 0 = as it is
  fields.cache = True              # keep prepared images in memory
  data_fields.files(fields)        # of layout folder
  fields.normal_words = ()         # layout folder: further words for normal labels, beside those of
  fields.anomaly_words = ()        # data_pipelines/intake/vocabulary.py; likewise for anomalies
  fields.val_kind = ""             # layout folder: subtype of the validation anomalies; "" = all
  return fields


def resolve_files(data_cfg, known: ml_collections.ConfigDict, layouts=("lists", "folder")
                  ) -> ml_collections.ConfigDict:
  """`known`, which started as `files`, with the given fields put over it and checked.

  Raises:
    UserError: an unknown field, or one out of range.
  """
  cfg = data_fields.resolve(data_cfg, known)
  data_fields.choice(cfg, "layout", layouts)
  data_fields.choice(cfg, "folds", ("leakfree", "published"))
  data_fields.choice(cfg, "grouping", data_fields.GROUPINGS)
  check_folds(cfg)
  return cfg


def check_folds(cfg) -> None:
  """Raises UserError for the final split with val_from_test: its test part chooses nothing."""
  if cfg["val_from_test"] and cfg["fold"] < 0:
    raise UserError("config.data.val_from_test is for folds: the final test split must not choose "
                    "anything; set config.data.fold")


def say_unread(cfg, known: ml_collections.ConfigDict, unread) -> None:
  """Warns of fields that were set and that the layout does not read: findings of a labelled folder.

  Args:
    known: the defaults. unread: {layout: names of its fields}.
  """
  odd = [name for name in unread.get(cfg["layout"], ()) if cfg[name] != known[name]]
  if odd:
    logging.warning("config.data.%s=%r is not read with config.data.layout=%s%s: leave it out", odd[0],
                    cfg[odd[0]], cfg["layout"], f", nor is {', '.join(odd[1:])}" if odd[1:] else "")
