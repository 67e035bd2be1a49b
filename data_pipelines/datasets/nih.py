"""NIH ChestX-ray14 in the layout of the DPA benchmark, and other folders of chest radiographs.

Grey -> centre crop -> [equalise] -> resize -> [-1, 1]. The lists refer to images scaled to 300x300.
"""

from __future__ import annotations

import pathlib

import ml_collections

from data_pipelines import fields as data_fields
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.one_class import fields as one_class_fields, folds, transforms
from data_pipelines.one_class.folders import file_lists, leak_options
from data_pipelines.one_class.lists import Item, OneClassDataSet, hold_out, regrouped
from data_pipelines.ops import resize

VIEWS = ("AP", "PA", "subset")


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data.

  `lists_root` holds train_test_split/nih/<view>/..., folds/nih/<view>/<fold>/..., with or without
  .gz. folds=leakfree: AP and PA use the published lists, which are divided by patient; subset is
  regrouped by patient (its published folds test on their validation images).
  """
  fields = one_class_fields.files("nih")
  fields.image_size, fields.channels = 64, 1  # side and channels, for modes that open no data
  fields.view = "AP"               # of the lists: AP, PA or subset ("clearer" cases)
  fields.crop_size = 224           # side of the centre crop
  fields.resize = 64               # side of the images the network sees
  fields.equalize_hist_test = None  # the published PIAD runs on AP and subset scored equalised images
                                   # with a model that had seen none; None = as equalize_hist
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field, or one out of range.
  """
  cfg = one_class_fields.resolve_files(data_cfg, defaults())
  data_fields.choice(cfg, "view", VIEWS)
  return cfg


def spec(data_cfg) -> data_fields.Spec:
  """Images as they are shown to the network."""
  size = resolve(data_cfg).resize
  return data_fields.Spec((size, size, 1), -1, 1)


def build(data_cfg, seed: int) -> OneClassDataSet:
  """The data set.

  Raises:
    UserError: a field out of range, lists that leak. FileNotFoundError: a list or folder.
  """
  del seed
  cfg = resolve(data_cfg)
  name, lists, notes = file_lists(cfg, "radiographs", f"nih {cfg.view}", _lists)
  crop, size, equal, equal_test = _transform(cfg)

  def loader(equalised):
    return lambda item: _prepare(images.read_8bit(item.path, 1, cfg.window), crop, equalised, size)
  load = loader(equal_test)
  load_train = load if equal == equal_test else loader(equal)
  notes = {**notes, "crop_size": crop, "resize": size, "equalize_hist": equal,
           "equalize_hist_test": equal_test}
  return OneClassDataSet(name, lists, load, load_train=load_train, notes=notes,
                         cache=cfg.cache, **leak_options(cfg),
                         val_from_test=cfg.val_from_test)


def _transform(cfg):
  """(crop, size, equalise in training, equalise for scoring)."""
  test = cfg.equalize_hist_test
  return (cfg.crop_size, cfg.resize, cfg.equalize_hist,
          cfg.equalize_hist if test is None else bool(test))


def _prepare(image, crop, equalised, size):
  image = transforms.center_crop(image, crop)
  return resize.antialiased(transforms.equalize(image) if equalised else image, size)


# --------------------------------------------------------------------------------- single images
STORED = 300  # side of the images that the published lists refer to


def _stored_shape(shape, cfg):
  """Size at which an image is cropped: NIH originals are first scaled to 300x300."""
  return (STORED, STORED) if cfg.layout == "lists" else tuple(shape)


def read_example(path, data_cfg):
  """A radiograph of any source as the network is shown it: float32 [S,S,1] in [-1, 1]."""
  cfg = resolve(data_cfg)
  crop, size, _, equal = _transform(cfg)
  image = images.read_8bit(path, 1, cfg.window)
  if _stored_shape(image.shape[:2], cfg) == (STORED, STORED):
    image = resize.antialiased(image, STORED)
  return transforms.normalize(_prepare(image, crop, equal, size))


def place_map(values, shape, data_cfg):
  """A map [S,S] of `read_example` on the image's own pixels, float64 [H,W]; zero off the crop."""
  cfg = resolve(data_cfg)
  return transforms.uncrop(values, cfg.crop_size, _stored_shape(shape, cfg), shape)


# ----------------------------------------------------------------------------------------- lists
def _lists(cfg):
  """The five lists of a view, and what `describe` says about them."""
  view, choice = cfg.view, cfg.folds
  root, images = pathlib.Path(cfg["lists_root"]), pathlib.Path(cfg["image_root"])
  if not images.is_dir():
    raise FileNotFoundError(f"no folder {str(images)!r}; set config.data.image_root to the 300x300 "
                            "images of ChestX-ray14")
  final, parts = root / "train_test_split" / "nih" / view, root / "folds" / "nih" / view
  k = cfg.fold

  def items(path, kind):  # the first eight digits of an image's name are its patient
    return [Item(n, n[:8], kind, str(images / n)) for n in folds.read_list(path)]
  if k < 0:
    train, val = hold_out(items(final / "normal" / "train", "No Finding"), cfg)
    anomalies = _validation_anomalies(cfg, parts, items, train) if val else []
    return ({"train": train, "val_normal": val, "val_anomaly": anomalies,
             "test_normal": items(final / "normal" / "test", "No Finding"),
             "test_anomaly": items(final / "anomaly" / "test", "anomaly")},
            {"protocol": "final lists", "view": view})
  if choice == "leakfree" and view == "subset":
    normal = items(parts / "0" / "normal" / "train", "No Finding")
    normal += items(parts / "0" / "normal" / "val", "No Finding")
    lists = regrouped(normal, items(parts / "0" / "anomaly" / "test", "anomaly"), cfg)
    return lists, {"protocol": f"fold {k}, published images regrouped by patient", "view": view}
  if not 0 <= k <= 2:
    raise UserError(f"config.data.fold={k}: the published folds are 0 to 2; -1 = final lists")
  fold = parts / str(k)
  return ({"train": items(fold / "normal" / "train", "No Finding"),
           "val_normal": items(fold / "normal" / "val", "No Finding"),
           "test_normal": items(fold / "normal" / "test", "No Finding"),
           "test_anomaly": items(fold / "anomaly" / "test", "Infiltration")},
          {"protocol": f"fold {k}, published lists", "view": view})


def _validation_anomalies(cfg, parts, items, train):
  """The published validation anomalies of all folds, without patients that are trained on."""
  wanted = cfg.val_anomalies
  if not wanted:
    return []
  trained = {i.group for i in train}
  found = {i.name: i for k in range(3)
           for i in items(parts / str(k) / "anomaly" / "test", "anomaly") if i.group not in trained}
  return list(found.values())[:wanted]
