"""CIFAR-10 and SVHN, one class against the rest.

`root` is a TFDS folder (tensorflow_datasets, prepared before: nothing is downloaded), a folder with
the official binary files (cifar-10-batches-bin/*.bin, {train,test}_32x32.mat), or an .npz (or a
folder with one) with x_train, y_train, x_test, y_test: uint8 [n,H,W,3] and integers. The images are
held in memory in the official order, which the published index lists refer to.
"""

from __future__ import annotations

import pathlib

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields
from data_pipelines.errors import UserError
from data_pipelines.formats import arrays as npz, images
from data_pipelines.one_class import fields as one_class_fields, folds, transforms
from data_pipelines.one_class.lists import Item, OneClassDataSet, hold_out
from data_pipelines.ops import resize

# Normal class -> class of the validation anomalies (folds/validation_classes of the benchmark).
VAL_CLASS = {"cifar10": (7, 7, 4, 0, 1, 1, 7, 6, 4, 7), "svhn": (8, 9, 6, 4, 0, 8, 8, 9, 0, 6)}
OFFICIAL_TRAIN = {"cifar10": 50000, "svhn": 73257}
TFDS_NAME = {"cifar10": "cifar10", "svhn": "svhn_cropped"}
CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                "truck"),
    "svhn": tuple(str(i) for i in range(10))}


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
  arrays = read_arrays(dataset, data_fields.given_dir(
      cfg, "root", f"an .npz, the official files or a TFDS folder of {dataset}"))
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
    if not official or np.any(labels[fold["train"]] != normal):
      raise UserError(f"the published folds index the {OFFICIAL_TRAIN[dataset]} training images "
                       f"of {dataset}, config.data.root holds {len(labels)} others; use "
                       "config.data.folds=generated")
    return fold, "published lists"
  seed = cfg.fold_seed
  rng = np.random.RandomState(seed * 1000 + normal)  # each class alone: no need to draw the others
  return folds.index_folds(labels, normal, val_class, rng, n)[k], f"generated with seed {seed}"


# ------------------------------------------------------------------------------------------ reading
def read_arrays(dataset: str, root) -> dict[str, np.ndarray]:
  """{"x_train", "y_train", "x_test", "y_test"}: uint8 [n,32,32,3] and int64 [n], official order.

  Raises:
    FileNotFoundError: `root` holds none of the accepted forms. ValueError: a damaged file.
  """
  root = pathlib.Path(root)
  if not root.exists():
    raise FileNotFoundError(f"no {str(root)!r}; config.data.root needs an .npz, the official files "
                            f"or a TFDS folder of {dataset}")
  if root.suffix == ".npz":
    return _read_npz(root)
  binary = root / "cifar-10-batches-bin" if (root / "cifar-10-batches-bin").is_dir() else root
  if dataset == "cifar10" and (binary / "data_batch_1.bin").is_file():
    return _read_cifar_binary(binary)
  if dataset == "svhn" and (root / "train_32x32.mat").is_file():
    return _read_svhn_mat(root)
  if (root / TFDS_NAME[dataset]).is_dir() or (root / "dataset_info.json").is_file():
    return _read_tfds(dataset, root)
  archives = sorted(root.glob("*.npz"))
  if len(archives) == 1:
    return _read_npz(archives[0])
  raise FileNotFoundError(
      f"{root} holds no {dataset}: neither one .npz (x_train, y_train, x_test, y_test), nor the "
      f"official files, nor a prepared TFDS folder {TFDS_NAME[dataset]}/")


def _read_npz(path):
  arrays = npz.read_some(path, ("x_train", "y_train", "x_test", "y_test"))
  for split in ("train", "test"):
    x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
    if x.ndim != 4 or x.dtype != np.uint8 or len(x) != len(y):
      raise UserError(f"{path}: x_{split} must be uint8 [n,H,W,C] with n labels, found "
                       f"{x.dtype} {x.shape} and {len(y)} labels")
    arrays[f"y_{split}"] = y.astype(np.int64).reshape(-1)
  return arrays


def _read_cifar_binary(folder):
  """Official binary version: records of 1 label byte and 3072 bytes, channels first."""
  def part(files):
    raw = [np.fromfile(folder / f, np.uint8) for f in files]
    if any(len(r) % 3073 for r in raw):
      raise UserError(f"{folder}: a .bin file is not a multiple of 3073 bytes; download it again")
    raw = np.concatenate(raw).reshape(-1, 3073)
    images = raw[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), raw[:, 0].astype(np.int64)
  x, y = part([f"data_batch_{i}.bin" for i in range(1, 6)])
  x_test, y_test = part(["test_batch.bin"])
  return {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}


def _read_svhn_mat(folder):
  """Official files, MATLAB 5 format: X [32,32,3,n]; label 10 is the digit 0."""
  import scipy.io
  arrays = {}
  for split in ("train", "test"):
    file = folder / f"{split}_32x32.mat"
    if not file.is_file():
      raise FileNotFoundError(f"no {file}; config.data.root needs train_32x32.mat and "
                              "test_32x32.mat")
    mat = scipy.io.loadmat(file)
    arrays[f"x_{split}"] = np.ascontiguousarray(mat["X"].transpose(3, 0, 1, 2))
    arrays[f"y_{split}"] = mat["y"].reshape(-1).astype(np.int64) % 10
  return arrays


def _read_tfds(dataset, root):
  """A prepared TFDS folder, put back into the official order by the "id" of its records."""
  import tensorflow_datasets as tfds
  folder = root if (root / "dataset_info.json").is_file() else root / TFDS_NAME[dataset]
  versions = sorted(folder.rglob("dataset_info.json"))
  if not versions:
    raise FileNotFoundError(
        f"{folder} is not a prepared TFDS data set; on a machine with a network run: "
        f"tfds build {TFDS_NAME[dataset]} --data_dir={root}")
  builder = tfds.builder_from_directory(versions[-1].parent)
  arrays = {}
  for split in ("train", "test"):
    records = list(tfds.as_numpy(builder.as_dataset(split=split)))
    if records and "id" not in records[0]:
      raise UserError(f"{versions[-1].parent}: records carry no id, so the official order is "
                       "lost; prepare the data set again with a current tensorflow_datasets")
    records.sort(key=lambda r: r["id"])
    arrays[f"x_{split}"] = np.stack([r["image"] for r in records])
    arrays[f"y_{split}"] = np.array([r["label"] for r in records], np.int64)
  return arrays
