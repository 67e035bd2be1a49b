"""The files that CIFAR-10 and SVHN come in, as arrays in the official order; every form is checked alike."""

from __future__ import annotations

import logging
import pathlib

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import arrays as npz
from data_pipelines.formats.regular import check_regular

TFDS_NAME = {"cifar10": "cifar10", "svhn": "svhn_cropped"}
CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                "truck"),
    "svhn": tuple(str(i) for i in range(10))}
_NAMED = ("class_names", "classes", "label_names", "labels", "names")  # arrays of names of classes
_SAME = {"plane": "airplane", "aeroplane": "airplane", "car": "automobile"}
_CLASSES, _MOST_CLASSES = 10, 100
_RATIO = 4  # of the brightest pixels of train and test, from which they are of two scales
_LEAST, _BLUER = 100, 3  # images, grey levels: means of red and blue that tell which is which


def read_arrays(dataset: str, root) -> dict[str, np.ndarray]:
  """{"x_train", "y_train", "x_test", "y_test"}: uint8 [n,S,S,3] and int64 [n] from 0 to 9, official order.

  Raises:
    FileNotFoundError: `root` holds none of the accepted forms. UserError: a damaged file, images or labels of
      another form.
  """
  root = pathlib.Path(root)
  if not root.exists():
    raise FileNotFoundError(f"no {str(root)!r}; config.data.root needs an .npz, the official files "
                            f"or a TFDS folder of {dataset}")
  arrays, where = _read(dataset, root)
  for split in ("train", "test"):
    arrays[f"y_{split}"] = _checked(where, split, arrays[f"x_{split}"], arrays[f"y_{split}"])
  if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
    raise UserError(f"{where}: images of train are {arrays['x_train'].shape[1:]}, of test "
                    f"{arrays['x_test'].shape[1:]}")
  _check_ranges(where, arrays)
  _say_colours(where, arrays)
  _check_classes(dataset, where)
  _say_copies(where, arrays)
  return arrays


def _check_ranges(where, arrays):
  """Refuses images that were divided by 255 and became whole numbers, and sides of unequal ranges."""
  most = {split: int(arrays[f"x_{split}"].max()) for split in ("train", "test")}
  for split, value in most.items():
    if value <= 1:
      raise UserError(f"{where}: x_{split} holds no value above {value}: pixels are 0 to 255; was it divided "
                      "by 255 before it became uint8?")
  if max(most.values()) > _RATIO * min(most.values()):
    raise UserError(f"{where}: pixels of train reach {most['train']}, of test {most['test']}: bring both to "
                    "0 ... 255")


def _say_colours(where, arrays):
  """Warns where one side is grey and the other is not, or has red and blue exchanged."""
  coloured = {split: bool(np.ptp(arrays[f"x_{split}"], axis=-1).any()) for split in ("train", "test")}
  if len(set(coloured.values())) > 1:
    grey = next(split for split, found in coloured.items() if not found)
    logging.warning("%s: all images of %s are grey, and others are coloured: a score tells the sides apart "
                    "by that", where, grey)
    return
  train, test = means = [arrays[f"x_{split}"].mean((0, 1, 2)) for split in ("train", "test")]
  apart, exchanged = (float(np.abs(train - other).max()) for other in (test, test[::-1]))
  if min(len(arrays["x_train"]), len(arrays["x_test"])) >= _LEAST and (
      abs(train[0] - train[2]) > _BLUER and 3 * exchanged < apart):
    shown = [m.round().astype(int).tolist() for m in means[::-1]]
    logging.warning("%s: test is as red as train is blue (%s and %s): are red and blue exchanged on "
                    "one side (OpenCV writes BGR)?", where, *shown)


def _check_classes(dataset, where):
  """Refuses an archive that names its classes in another order than labels are read in.

  Raises:
    UserError: a name stands at another number; said only where no name is known.
  """
  found = _class_names(where)
  usual = {name: i for i, name in enumerate(CLASS_NAMES[dataset])}
  other = {name: key for key, names in CLASS_NAMES.items() if key != dataset for name in names}
  numbers = [str(i) for i in range(len(found))] == found
  if not found or numbers:
    return
  for i, name in enumerate(found):
    if name in other and name not in usual:
      raise UserError(f"{where} names class {i} {name!r}, which is of {other[name]}: set "
                      f"config.data.dataset={other[name]}")
    if usual.get(name, i) != i:
      raise UserError(f"{where} names class {i} {name!r}, which is number {usual[name]} of {dataset}: write "
                      "the labels by the order " + ", ".join(usual))
  if unknown := [(i, name) for i, name in enumerate(found[:_CLASSES]) if name not in usual]:
    i, name = unknown[0]
    logging.warning("%s names class %d %r, which is read as %r of %s", where, i, name,
                    CLASS_NAMES[dataset][i], dataset)


def _class_names(where) -> list[str]:
  """Names of the classes in small letters, as an archive or batches.meta.txt lists them; [] of others."""
  if where.is_dir():
    path = where / "batches.meta.txt"
    lines = path.read_text("utf-8", "replace").splitlines() if path.is_file() else []
    given = [line for line in lines if line.strip()]
  else:
    there = [name for name in _NAMED if name in npz.names_of(where)]
    array = npz.read_some(where, there[:1])[there[0]] if there else np.zeros(0, str)
    names = array.ndim == 1 and array.dtype.kind in "US" and array.size <= _MOST_CLASSES
    given = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in array] if names else []
  words = [name.strip().casefold() for name in given]
  return [_SAME.get(word, word) for word in words]


def _say_copies(where, arrays):
  """Warns of test images that are trained on, and of training images that are there twice."""
  train = [hash(image.tobytes()) for image in arrays["x_train"]]
  known = set(train)
  both = sum(hash(image.tobytes()) in known for image in arrays["x_test"])
  if both:
    logging.warning("%s: %d of %d test images are, byte for byte, training images: a measure says how well "
                    "the model knows them", where, both, len(arrays["x_test"]))
  if 100 * (len(train) - len(known)) > len(train):
    logging.warning("%s: %d of %d training images are copies of others: is a file there twice?", where,
                    len(train) - len(known), len(train))


def _read(dataset, root):
  """(arrays as they are stored, the file or folder they come from)."""
  if root.suffix.lower() == ".npz":
    return _read_npz(root), root
  binary = root / "cifar-10-batches-bin" if (root / "cifar-10-batches-bin").is_dir() else root
  if dataset == "cifar10" and (binary / "data_batch_1.bin").is_file():
    return _read_cifar_binary(binary), binary
  if dataset == "svhn" and (root / "train_32x32.mat").is_file():
    return _read_svhn_mat(root), root
  if (root / TFDS_NAME[dataset]).is_dir() or (root / "dataset_info.json").is_file():
    return _read_tfds(dataset, root), root
  archives = sorted(p for p in root.glob("*.*") if p.suffix.lower() == ".npz")
  if len(archives) == 1:
    return _read_npz(archives[0]), archives[0]
  raise FileNotFoundError(
      f"{root} holds no {dataset}: neither one .npz (x_train, y_train, x_test, y_test), nor the "
      f"official files, nor a prepared TFDS folder {TFDS_NAME[dataset]}/")


def _checked(where, split, x, y) -> np.ndarray:
  """The labels as int64 [n]; refuses images and labels that would be taken for others."""
  if x.ndim != 4 or x.dtype != np.uint8 or x.shape[1] != x.shape[2] or x.shape[3] != 3 or not len(x):
    raise UserError(f"{where}: x_{split} must be uint8 [n,S,S,3], found {x.dtype} {x.shape}")
  if y.size != len(x) or y.dtype.kind not in "iufUS":
    raise UserError(f"{where}: y_{split} must be one whole number from 0 to {_CLASSES - 1} for each of the "
                    f"{len(x)} images, found {y.dtype} {y.shape}")
  try:
    labels = y.reshape(-1).astype(np.float64)
  except ValueError:
    labels = np.array([np.nan])
  wrong = labels[~(np.isin(labels, np.arange(_CLASSES)))]
  if wrong.size:
    raise UserError(f"{where}: y_{split} must be whole numbers from 0 to {_CLASSES - 1}, found {y.dtype} "
                    f"such as {wrong[0]:g}")
  return labels.astype(np.int64)


def _read_npz(path):
  return npz.read_some(path, ("x_train", "y_train", "x_test", "y_test"))


def _read_cifar_binary(folder):
  """Official binary version: records of 1 label byte and 3072 bytes, channels first."""
  def part(names):
    for name in names:
      check_regular(folder / name)
    raw = [np.fromfile(folder / name, np.uint8) for name in names]
    odd = next((name for name, r in zip(names, raw) if not len(r) or len(r) % 3073), None)
    if odd:
      raise UserError(f"{folder / odd} is empty or not a multiple of 3073 bytes; download it again")
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
    try:
      mat = scipy.io.loadmat(file, variable_names=("X", "y"))
      images, labels = np.asarray(mat["X"]), np.asarray(mat["y"]).reshape(-1)
    except Exception as error:  # scipy raises half a dozen types for damaged files
      reason = " ".join(str(error).split())[:120] or type(error).__name__
      raise UserError(f"{file} is not a readable MATLAB 5 file with X and y ({reason}); download it "
                      "again") from None
    if images.ndim != 4:
      raise UserError(f"{file}: X must be [32,32,3,n], found {images.shape}")
    if np.isin((0, 10), labels).all():
      raise UserError(f"{file}: y has both 0 and 10, and 10 is the digit 0 in the official files: write the "
                      "digit 0 in one way")
    arrays[f"x_{split}"] = np.ascontiguousarray(images.transpose(3, 0, 1, 2))
    arrays[f"y_{split}"] = np.where(labels == 10, 0, labels)
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
