"""NIH ChestX-ray14 in the layout of the DPA benchmark, and other folders of chest radiographs.

config.data fields:
  layout      lists: image_root holds the images, lists_root the published lists
              (train_test_split/nih/<view>/..., folds/nih/<view>/<fold>/..., with or without .gz);
              folder: root holds labels.csv (file, split, label, group), or
              <train|val|test>/<normal|anomaly>/
  image_root, lists_root, root   the folders; lists refer to images scaled to 300x300 ("nih_300")
  view        AP, PA or subset ("clearer" cases)
  fold        -1 = final lists; 0 to 2
  folds       leakfree: AP and PA use the published lists, which are divided by patient; subset is
              regrouped by patient (its published folds test on their validation images).
              published: the lists as they are
  fold_seed, n_folds   of regrouped folds
  val_fraction, val_anomalies   fold -1: share of training patients held out; number of anomalies
              (0 = none with lists) from the published validation anomalies ({Infiltration})
  val_from_test   of a fold: "val" is the fold's test part, to choose the number of iterations
  crop_size, equalize_hist, resize   grey -> centre crop -> [equalise] -> resize; then [-1, 1]
  equalize_hist_test   the published PIAD runs on AP and subset scored equalised images with a model
              that had seen none; None = as equalize_hist
  cache       keep prepared images in memory
  val_kind    folder layout: subtype of the validation anomalies, "" = all
"""

from __future__ import annotations

import pathlib

from data_pipelines.errors import UserError
from data_pipelines.one_class import folds, transforms
from data_pipelines.one_class.lists import (
    Item, OneClassDataSet, check_choice, folder_lists, hold_out, regrouped, val_from_test)

VIEWS = ("AP", "PA", "subset")


def open(data_cfg, seed: int) -> OneClassDataSet:  # pylint: disable=redefined-builtin
  """The data set; see the module's docstring for the fields.

  Raises:
    ValueError: a field out of range, lists that leak. FileNotFoundError: a list or folder.
  """
  del seed
  if check_choice(data_cfg, "layout", ("lists", "folder")) == "folder":
    lists, name = folder_lists(data_cfg), f"radiographs of {pathlib.Path(data_cfg['root']).name}"
    notes = {"protocol": f"labelled folder, fold {int(data_cfg.get('fold', -1))}"}
  else:
    lists, notes = _lists(data_cfg)
    name = f"nih {data_cfg['view']}"
  crop, size, equal, equal_test = _transform(data_cfg)

  def loader(equalised):
    return lambda item: _prepare(transforms.read_image(item.path, 1), crop, equalised, size)
  load = loader(equal_test)
  load_train = load if equal == equal_test else loader(equal)
  notes = {**notes, "crop_size": crop, "resize": size, "equalize_hist": equal,
           "equalize_hist_test": equal_test}
  limit = int(data_cfg.get("train_limit", 0))
  lists["train"] = lists["train"][:limit or None]
  return OneClassDataSet(name, lists, load, load_train=load_train, notes=notes,
                         cache=bool(data_cfg.get("cache", True)),
                         allow_leaks=data_cfg.get("folds", "leakfree") == "published",
                         val_from_test=val_from_test(data_cfg))


def _transform(cfg):
  """(crop, size, equalise in training, equalise for scoring)."""
  equal = bool(cfg.get("equalize_hist", False))
  test = cfg.get("equalize_hist_test", None)
  return (int(cfg.get("crop_size", 224)), int(cfg.get("resize", 64)), equal,
          equal if test is None else bool(test))


def _prepare(image, crop, equalised, size):
  image = transforms.center_crop(image, crop)
  return transforms.resize(transforms.equalize(image) if equalised else image, size)


# --------------------------------------------------------------------------------- single images
STORED = 300  # side of the images that the published lists refer to


def _stored_shape(shape, cfg):
  """Size at which an image is cropped: NIH originals are first scaled to 300x300."""
  return (STORED, STORED) if cfg.get("layout", "lists") == "lists" else tuple(shape)


def read_example(path, data_cfg):
  """A radiograph of any source as the network is shown it: float32 [S,S,1] in [-1, 1]."""
  crop, size, _, equal = _transform(data_cfg)
  image = transforms.read_image(path, 1)
  if _stored_shape(image.shape[:2], data_cfg) == (STORED, STORED):
    image = transforms.resize(image, STORED)
  return transforms.normalize(_prepare(image, crop, equal, size))


def place_map(values, shape, data_cfg):
  """A map [S,S] of `read_example` on the image's own pixels, float64 [H,W]; zero off the crop."""
  crop = _transform(data_cfg)[0]
  return transforms.uncrop(values, crop, _stored_shape(shape, data_cfg), shape)


# ----------------------------------------------------------------------------------------- lists
def _lists(cfg):
  """The five lists of a view, and what `describe` says about them."""
  view = check_choice(cfg, "view", VIEWS)
  choice = check_choice(cfg, "folds", ("leakfree", "published"))
  root, images = pathlib.Path(cfg["lists_root"]), pathlib.Path(cfg["image_root"])
  if not images.is_dir():
    raise FileNotFoundError(f"no folder {str(images)!r}; set config.data.image_root to the 300x300 "
                            "images of ChestX-ray14")
  final, parts = root / "train_test_split" / "nih" / view, root / "folds" / "nih" / view
  k = int(cfg.get("fold", -1))

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
  wanted = int(cfg.get("val_anomalies", 0))
  if not wanted:
    return []
  trained = {i.group for i in train}
  found = {i.name: i for k in range(3)
           for i in items(parts / str(k) / "anomaly" / "test", "anomaly") if i.group not in trained}
  return list(found.values())[:wanted]
