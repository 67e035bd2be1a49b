"""Camelyon16 patches in the layout of the DPA benchmark, and other folders of tissue patches."""

from __future__ import annotations

import pathlib

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.one_class import fields as one_class_fields, folds, transforms
from data_pipelines.one_class.folders import file_lists, leak_options
from data_pipelines.one_class.lists import Item, OneClassDataSet, hold_out, regrouped
from data_pipelines.ops import resize


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data.

  `image_root` holds the patches (folder x10, x20 or x40), `lists_root` the published lists
  (train_test_split/camelyon16/healthy/..., folds/camelyon16/healthy/<fold>/...). folds=leakfree:
  patches are regrouped by slide; in the published folds the normal test patches of every fold are
  the whole training list. `val_anomalies` come from the four published validation slides, of lists that
  `prepare camelyon16` drew from all tumour slides of training.
  """
  fields = one_class_fields.files("camelyon")
  fields.image_size = 64           # side of the images, for modes that open no data
  fields.random_crop = False       # training: a fresh crop every step (DPA), else the centre (PIAD)
  fields.random_flip = False       # training: fresh flips every step
  fields.freeze_augmentation = False  # one crop and flip an image for the whole run, as the published
                                   # DPA run with growing had it; drawn once with fold_seed
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field, or one out of range.
  """
  return one_class_fields.resolve_files(data_cfg, defaults())


def spec(data_cfg) -> data_fields.Spec:
  """Images as they are shown to the network."""
  size = resolve(data_cfg).crop_size
  return data_fields.Spec((size, size, 3), -1, 1)


def build(data_cfg, seed: int) -> OneClassDataSet:
  """The data set.

  Raises:
    UserError: a field out of range, lists that leak. FileNotFoundError: a list or folder.
  """
  del seed
  cfg = resolve(data_cfg)
  name, lists, notes = file_lists(cfg, "patches", "camelyon16", _lists)
  crop, size, equal = cfg.crop_size, cfg.resize, cfg.equalize_hist
  random_crop, random_flip = cfg.random_crop, cfg.random_flip
  read = lambda item: _read(item.path, cfg)
  load = lambda item: _scored(read(item), cfg)
  load_train, ops = load, ()
  if cfg.freeze_augmentation:
    load_train = _frozen(read, lists["train"], cfg.fold_seed, crop, random_crop, random_flip, equal)
  elif random_crop or random_flip:
    from data_pipelines.ops import augment  # TensorFlow
    load_train = read if random_crop else load
    ops = [augment.random_crop(crop)] if random_crop else []
    ops += [transforms.equalize_batch()] if equal and random_crop else []
    ops += [augment.random_flip()] if random_flip else []
    ops += [transforms.normalize_batch()]
  notes = {**notes, "crop_size": crop, "resize": size, "random_crop": random_crop,
           "random_flip": random_flip, "freeze_augmentation": cfg.freeze_augmentation,
           "equalize_hist": equal}
  return OneClassDataSet(name, lists, load, load_train=load_train, train_ops=ops, notes=notes,
                         cache=cfg.cache, **leak_options(cfg),
                         val_from_test=cfg.val_from_test)


def read_example(path, data_cfg):
  """A patch as the network is shown it: float32 [S,S,3] in [-1, 1], its centre only."""
  cfg = resolve(data_cfg)
  return transforms.normalize(_scored(_read(path, cfg), cfg))


def place_map(values, shape, data_cfg):
  """A map [S,S] of `read_example` on the patch's own pixels, float64 [H,W]; zero off the centre."""
  return of_pixels(data_cfg)[1](values, shape)


def of_pixels(data_cfg):
  """(example, place) of data_pipelines.modules.Module: the same for pixels at hand."""
  cfg = resolve(data_cfg)

  def place(values, shape):
    prepared = (cfg.resize, cfg.resize) if cfg.resize else tuple(shape)
    return transforms.uncrop(values, cfg.crop_size, prepared, shape)
  return lambda pixels: transforms.normalize(_scored(_resized(pixels, cfg), cfg)), place


def _read(path, cfg):
  return _resized(images.read_8bit(path, 3, cfg.window), cfg)


def _resized(image, cfg):
  return resize.antialiased(image, cfg.resize) if cfg.resize else image


def _scored(image, cfg):
  image = transforms.center_crop(image, cfg.crop_size)
  return transforms.equalize(image) if cfg.equalize_hist else image


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
  root, images = pathlib.Path(cfg["lists_root"]), pathlib.Path(cfg["image_root"])
  if not images.is_dir():
    raise FileNotFoundError(f"no folder {str(images)!r}; set config.data.image_root to the patches "
                            "(x10 for the published runs)")
  final = root / "train_test_split" / "camelyon16" / "healthy"
  parts = root / "folds" / "camelyon16" / "healthy"
  k = cfg.fold

  def items(path, kind):
    return [Item(n, folds.slide_of(n), kind, str(images / n)) for n in folds.read_list(path)]

  def validation_tumours():
    if not parts.is_dir():
      return items(final / "anomaly" / "train", "tumor")
    found = {i.name: i for f in range(3)
             for i in items(parts / str(f) / "anomaly" / "test", "tumor")}
    return list(found.values())
  if k < 0:
    train, val = hold_out(items(final / "normal" / "train", "normal"), cfg)
    wanted = cfg.val_anomalies if val else 0
    return ({"train": train, "val_normal": val,
             "val_anomaly": validation_tumours()[:wanted] if wanted else [],
             "test_normal": items(final / "normal" / "test", "normal"),
             "test_anomaly": items(final / "anomaly" / "test", "tumor")},
            {"protocol": "final lists"})
  if cfg.folds == "leakfree":
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
