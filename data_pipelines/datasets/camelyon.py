"""Camelyon16 patches in the layout of the DPA benchmark, and other folders of tissue patches.

config.data fields:
  layout      lists: image_root holds the patches (folder x10, x20 or x40), lists_root the published
              lists (train_test_split/camelyon16/healthy/..., folds/camelyon16/healthy/<fold>/...);
              folder: root holds labels.csv (file, split, label, group), or
              <train|val|test>/<normal|anomaly>/
  image_root, lists_root, root   the folders
  fold        -1 = final lists; 0 to 2
  folds       leakfree: patches regrouped by slide; published: the published lists, in which the
              normal test patches of every fold are the whole training list
  fold_seed, n_folds   of regrouped folds
  val_fraction, val_anomalies   fold -1: share of training slides held out; number of tumour patches
              (0 = none with lists) from the four published validation slides
  crop_size   64 at x10; centre crop for scoring
  random_crop, random_flip   training: a fresh crop and fresh flips every step (DPA); without them
              the centre crop (PIAD)
  freeze_augmentation   one crop and flip an image for the whole run, as the published DPA run with
              growing had it; drawn once with fold_seed
  resize      0 = off; else the images are scaled to this before the crop (folders of other sizes)
  equalize_hist, cache, val_kind, val_from_test   as in data_pipelines/datasets/nih.py
"""

from __future__ import annotations

import pathlib

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.one_class import folds, transforms
from data_pipelines.one_class.lists import (
    Item, OneClassDataSet, check_choice, folder_lists, hold_out, regrouped, val_from_test)


def open(data_cfg, seed: int) -> OneClassDataSet:  # pylint: disable=redefined-builtin
  """The data set; see the module's docstring for the fields.

  Raises:
    ValueError: a field out of range, lists that leak. FileNotFoundError: a list or folder.
  """
  del seed
  if check_choice(data_cfg, "layout", ("lists", "folder")) == "folder":
    lists, name = folder_lists(data_cfg), f"patches of {pathlib.Path(data_cfg['root']).name}"
    notes = {"protocol": f"labelled folder, fold {int(data_cfg.get('fold', -1))}"}
  else:
    (lists, notes), name = _lists(data_cfg), "camelyon16"
  crop, size = int(data_cfg.get("crop_size", 64)), int(data_cfg.get("resize", 0))
  equal = bool(data_cfg.get("equalize_hist", False))
  random_crop = bool(data_cfg.get("random_crop", False))
  random_flip = bool(data_cfg.get("random_flip", False))
  frozen = bool(data_cfg.get("freeze_augmentation", False))

  def read(item):
    image = transforms.read_image(item.path, 3)
    return transforms.resize(image, size) if size else image

  def load(item):
    image = transforms.center_crop(read(item), crop)
    return transforms.equalize(image) if equal else image
  load_train, ops = load, ()
  if frozen:
    load_train = _frozen(read, lists["train"], int(data_cfg.get("fold_seed", 0)), crop, random_crop,
                         random_flip, equal)
  elif random_crop or random_flip:
    load_train = read if random_crop else load
    ops = [transforms.random_crop(crop)] if random_crop else []
    ops += [transforms.equalize_batch()] if equal and random_crop else []
    ops += [transforms.random_flip()] if random_flip else []
    ops += [transforms.normalize_batch()]
  limit = int(data_cfg.get("train_limit", 0))
  lists["train"] = lists["train"][:limit or None]
  notes = {**notes, "crop_size": crop, "resize": size, "random_crop": random_crop,
           "random_flip": random_flip, "freeze_augmentation": frozen, "equalize_hist": equal}
  return OneClassDataSet(name, lists, load, load_train=load_train, train_ops=ops, notes=notes,
                         cache=bool(data_cfg.get("cache", True)),
                         allow_leaks=data_cfg.get("folds", "leakfree") == "published",
                         val_from_test=val_from_test(data_cfg))


def read_example(path, data_cfg):
  """A patch as the network is shown it: float32 [S,S,3] in [-1, 1], its centre only."""
  size = int(data_cfg.get("resize", 0))
  image = transforms.read_image(path, 3)
  image = transforms.center_crop(transforms.resize(image, size) if size else image,
                                int(data_cfg.get("crop_size", 64)))
  equal = bool(data_cfg.get("equalize_hist", False))
  return transforms.normalize(transforms.equalize(image) if equal else image)


def place_map(values, shape, data_cfg):
  """A map [S,S] of `read_example` on the patch's own pixels, float64 [H,W]; zero off the centre."""
  size = int(data_cfg.get("resize", 0))
  prepared = (size, size) if size else tuple(shape)
  return transforms.uncrop(values, int(data_cfg.get("crop_size", 64)), prepared, shape)


def _frozen(read, items, seed, crop, random_crop, random_flip, equal):
  """A loader that draws crop and flips of an image once, from its place in the list."""
  place = {item.name: i for i, item in enumerate(items)}

  def load(item):
    image = read(item)
    rng = np.random.RandomState((seed, place[item.name]))
    if random_crop:
      top, left = (rng.randint(0, n - crop + 1) for n in image.shape[:2])
      image = image[top:top + crop, left:left + crop]
    else:
      image = transforms.center_crop(image, crop)
    image = transforms.equalize(image) if equal else image
    if random_flip:
      image = image[:, ::-1] if rng.rand() < 0.5 else image
      image = image[::-1] if rng.rand() < 0.5 else image
    return np.ascontiguousarray(image)
  return load


def _lists(cfg):
  """The five lists, and what `describe` says about them."""
  choice = check_choice(cfg, "folds", ("leakfree", "published"))
  root, images = pathlib.Path(cfg["lists_root"]), pathlib.Path(cfg["image_root"])
  if not images.is_dir():
    raise FileNotFoundError(f"no folder {str(images)!r}; set config.data.image_root to the patches "
                            "(x10 for the published runs)")
  final = root / "train_test_split" / "camelyon16" / "healthy"
  parts = root / "folds" / "camelyon16" / "healthy"
  k = int(cfg.get("fold", -1))

  def items(path, kind):
    return [Item(n, folds.slide_of(n), kind, str(images / n)) for n in folds.read_list(path)]

  def validation_tumours():
    found = {i.name: i for f in range(3)
             for i in items(parts / str(f) / "anomaly" / "test", "tumor")}
    return list(found.values())
  if k < 0:
    train, val = hold_out(items(final / "normal" / "train", "normal"), cfg)
    wanted = int(cfg.get("val_anomalies", 0)) if val else 0
    return ({"train": train, "val_normal": val,
             "val_anomaly": validation_tumours()[:wanted] if wanted else [],
             "test_normal": items(final / "normal" / "test", "normal"),
             "test_anomaly": items(final / "anomaly" / "test", "tumor")},
            {"protocol": "final lists"})
  if choice == "leakfree":
    lists = regrouped(items(final / "normal" / "train", "normal"), validation_tumours(), cfg)
    return lists, {"protocol": f"fold {k}, published patches regrouped by slide"}
  if not 0 <= k <= 2:
    raise UserError(f"config.data.fold={k}: the published folds are 0 to 2; -1 = final lists")
  fold = parts / str(k)
  return ({"train": items(fold / "normal" / "train", "normal"),
           "val_normal": items(fold / "normal" / "val", "normal"),
           "test_normal": items(fold / "normal" / "test", "normal"),
           "test_anomaly": items(fold / "anomaly" / "test", "tumor")},
          {"protocol": f"fold {k}, published lists (they test on training images)"})
