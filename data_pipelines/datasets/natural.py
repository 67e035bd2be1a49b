"""CIFAR-10 and SVHN, one class against the rest.

`root` is a TFDS folder (tensorflow_datasets, prepared before: nothing is downloaded), a folder with
the official binary files (cifar-10-batches-bin/*.bin, {train,test}_32x32.mat), or an .npz (or a
folder with one) with x_train, y_train, x_test, y_test: uint8 [n,H,W,3] and integers. The images are
held in memory in the official order, which the published index lists refer to.
"""

from __future__ import annotations

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields
from data_pipelines.datasets import _natural_files as files
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.one_class import fields as one_class_fields, folds, transforms
from data_pipelines.one_class.lists import Item, OneClassDataSet, hold_out
from data_pipelines.ops import resize

# Normal class -> class of the validation anomalies (folds/validation_classes of the benchmark).
VAL_CLASS = {"cifar10": (7, 7, 4, 0, 1, 1, 7, 6, 4, 7), "svhn": (8, 9, 6, 4, 0, 8, 8, 9, 0, 6)}
OFFICIAL_TRAIN = {"cifar10": 50000, "svhn": 73257}
CLASS_NAMES = files.CLASS_NAMES


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data. `lists_root` holds folds/cifar10.npz, folds/svhn.npz."""
  fields = one_class_fields.protocol("natural")
  fields.dataset = "cifar10"       # cifar10 or svhn
  fields.normal_class = 0          # 0 to 9: trained on; the other nine of the test split are anomalies
  fields.folds = "leakfree"        # leakfree (published lists where given, else generated), published,
                                   # or generated
  fields.val_class = -1            # class of the validation anomalies; -1 = the published pairing
  fields.to_grayscale = False      # grey images; before equalize_hist
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field, or one out of range.
  """
  cfg = data_fields.resolve(data_cfg, defaults())
  data_fields.choice(cfg, "dataset", tuple(VAL_CLASS))
  data_fields.choice(cfg, "folds", ("leakfree", "published", "generated"))
  if not 0 <= cfg.normal_class <= 9:
    raise UserError(f"config.data.normal_class={cfg.normal_class}: use 0 to 9")
  if cfg.val_class > 9:
    raise UserError(f"config.data.val_class={cfg.val_class}: use 0 to 9, or -1 for the published pairing")
  if cfg.val_class == cfg.normal_class:
    raise UserError(f"config.data.val_class={cfg.val_class} is the normal class")
  one_class_fields.check_folds(cfg)
  return cfg


def spec(data_cfg) -> data_fields.Spec:
  """Images as they are shown to the network."""
  cfg = resolve(data_cfg)
  return data_fields.Spec((cfg.image_size, cfg.image_size, 1 if cfg.to_grayscale else 3), -1, 1)


def build(data_cfg, seed: int) -> OneClassDataSet:
  """The data set.

  Raises:
    UserError: a field out of range; lists that do not fit the images. FileNotFoundError.
  """
  del seed  # folds have their own, so that seeds of runs share them
  cfg = resolve(data_cfg)
  dataset, normal = cfg.dataset, cfg.normal_class
  arrays = files.read_arrays(dataset, data_fields.given_dir(
      cfg, "root", f"an .npz, the official files or a TFDS folder of {dataset}"))
  if arrays["x_train"].shape[1] != cfg.image_size:
    raise UserError(f"config.data.root={cfg.root}: its images are {arrays['x_train'].shape[1]} pixels wide, "
                    f"config.data.image_size={cfg.image_size}")
  labels = {"train": arrays["y_train"], "test": arrays["y_test"]}

  def item(split, i):
    return Item(f"{split}_{i:05d}", f"{split}_{i:05d}", CLASS_NAMES[dataset][labels[split][i]],
                place=int(i))
  lists, notes = _lists(cfg, dataset, normal, labels, item)
  lists["train"] = lists["train"][:cfg.train_limit or None]
  gray, equal = cfg.to_grayscale, cfg.equalize_hist
  load = lambda it: _prepare(arrays["x_" + it.name.partition("_")[0]][it.place], cfg)
  notes = {**notes, "normal_class": normal, "class_name": CLASS_NAMES[dataset][normal],
           "to_grayscale": gray, "equalize_hist": equal}
  name = f"{dataset}, normal class {CLASS_NAMES[dataset][normal]}"
  return OneClassDataSet(name, lists, load, notes=notes, cache=gray or equal,
                         val_from_test=cfg.val_from_test)


def read_example(path, data_cfg) -> np.ndarray:
  """An image file as the network is shown it: float32 [S,S,C] in [-1, 1]."""
  cfg = resolve(data_cfg)
  image = resize.antialiased(images.read_8bit(path, 3, cfg.window), cfg.image_size)
  return transforms.normalize(_prepare(image, cfg))


def _prepare(image, cfg):
  image = images.grey(image) if cfg.to_grayscale else image
  return transforms.equalize(image) if cfg.equalize_hist else image


def _lists(cfg, dataset, normal, labels, item):
  """The five lists, and what `describe` says about them."""
  val_class = VAL_CLASS[dataset][normal] if cfg.val_class < 0 else cfg.val_class
  where = lambda split, keep: [item(split, i) for i in np.flatnonzero(keep(labels[split]))]
  k = cfg.fold
  if k < 0:
    train, val = hold_out(where("train", lambda y: y == normal), cfg)
    anomalies = where("train", lambda y: y == val_class)[:cfg.val_anomalies]
    return ({"train": train, "val_normal": val, "val_anomaly": anomalies if val else [],
             "test_normal": where("test", lambda y: y == normal),
             "test_anomaly": where("test", lambda y: y != normal)},
            {"protocol": "official split", "val_class": val_class})
  fold, source = _fold(cfg, dataset, normal, val_class, labels["train"], k)
  pick = lambda part: [item("train", i) for i in fold[part]]
  return ({"train": pick("train"), "val_normal": pick("val"), "test_normal": pick("test_normal"),
           "test_anomaly": pick("test_anomaly")},
          {"protocol": f"fold {k} of the training split, {source}", "val_class": val_class})


def _fold(cfg, dataset, normal, val_class, labels, k):
  """({part: indices}, where from). Published folds of these two sets do not leak."""
  n, choice, root = cfg.n_folds, cfg.folds, cfg.lists_root
  official = len(labels) == OFFICIAL_TRAIN[dataset]
  if not 0 <= k < n:
    raise UserError(f"config.data.fold={k}: use 0 to {n - 1}, or -1 for the official split")
  if choice == "published" or (choice == "leakfree" and root and official and n == 3):
    if not root:
      raise UserError("config.data.folds=published needs config.data.lists_root")
    fold = folds.read_index_fold(root, dataset, normal, k)
    last = max(found.max(initial=0) for found in fold.values())
    if not official or last >= len(labels) or np.any(labels[fold["train"]] != normal):
      raise UserError(f"the published folds index the {OFFICIAL_TRAIN[dataset]} training images "
                       f"of {dataset}, config.data.root holds {len(labels)} others; use "
                       "config.data.folds=generated")
    return fold, "published lists"
  seed = cfg.fold_seed
  rng = np.random.RandomState(seed * 1000 + normal)  # each class alone: no need to draw the others
  return folds.index_folds(labels, normal, val_class, rng, n)[k], f"generated with seed {seed}"
