"""Folds of the one-class benchmark: lists of names, and the rules that make them.

Protocol: Shvetsova et al., IEEE Access 9 (2021), public lists of ninatu/anomaly_detection. A fold
has four parts: "train" and "val" (normal), "test_normal" and "test_anomaly". The published rules
are kept number for number (`index_folds`, `patient_folds`, `patch_folds_published`), with NumPy's
legacy generator, because the published lists come from them. Two of them leak: the Camelyon16 rule
cuts a list of patches and then keeps every patch of every slide that occurs in a part, and the
lists of the NIH subset test on their validation images. `group_folds` is the rule without leaks.
"""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import pathlib

import numpy as np

from data_pipelines.errors import UserError
from data_pipelines.formats import arrays
from data_pipelines.intake import tables

PARTS = ("train", "val", "test_normal", "test_anomaly")
VAL_FRACTION = 0.2  # of what a fold does not test on


# ------------------------------------------------------------------------------------------ files
def read_list(path) -> list[str]:
  """Names in a text file, one a line; `<path>.gz` is read where `path` is not there.

  Raises:
    FileNotFoundError: neither exists.
  """
  path = pathlib.Path(path)
  if not path.is_file() and not path.with_name(path.name + ".gz").is_file():
    raise FileNotFoundError(f"no list {path} (nor {path.name}.gz); check config.data.lists_root")
  return tables.read_list(path)


def read_index_fold(lists_root, dataset: str, normal_class: int, fold: int) -> dict:
  """{part: int64 indices into the official training split} of a published CIFAR-10 or SVHN fold.

  Reads `folds/<dataset>.npz` (keys "<class>/<fold>/<part>") or the published layout
  `folds/<dataset>/<class>/<fold>/<part>.npy`.

  Raises:
    FileNotFoundError: neither is there. UserError: no such class or fold; what is no list of indices, or an
      index of two parts.
  """
  folder = pathlib.Path(lists_root) / "folds"
  if (folder / f"{dataset}.npz").is_file():
    path, where = folder / f"{dataset}.npz", f"{normal_class}/{fold}"
    if f"{where}/train" not in arrays.names_of(path):
      raise UserError(f"{path} has no fold {fold} of class {normal_class}; classes are 0 to 9, "
                      "folds 0 to 2")
    found = arrays.read_some(path, [f"{where}/{part}" for part in PARTS])
    return _checked(path, {part: found[f"{where}/{part}"] for part in PARTS})
  single = folder / dataset / str(normal_class) / str(fold)
  if not single.is_dir():
    raise FileNotFoundError(f"no published folds of {dataset} under {folder}; check "
                            "config.data.lists_root, or set config.data.folds=generated")
  return _checked(single, {part: arrays.read(single / f"{part}.npy", "fold") for part in PARTS})


def _checked(path, parts):
  """The indices as int64: not a mask, nor scores, nor images that are trained on and tested on."""
  for part, found in parts.items():
    if found.dtype.kind not in "iu" or found.ndim != 1 or found.min(initial=0) < 0:
      raise UserError(f"{path}: its {part} is {found.dtype} of shape {found.shape}, no list of places of "
                      "images (whole numbers from 0)")
  every = np.concatenate([np.unique(found) for found in parts.values()])
  if len(every) > len(np.unique(every)):
    raise UserError(f"{path}: {len(every) - len(np.unique(every))} images are in two of {', '.join(parts)}")
  return {part: found.astype(np.int64) for part, found in parts.items()}


def checksum(names: Sequence) -> str:
  """First 16 hex digits of the SHA-256 of the names in their order, newline after each."""
  return hashlib.sha256("".join(f"{n}\n" for n in names).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------- published rules
def blocks(n: int, folds: int) -> list[np.ndarray]:
  """range(n) in contiguous blocks; the first n mod folds blocks are one longer."""
  return np.array_split(np.arange(n), folds)


def validation_classes(rng: np.random.RandomState, classes: int = 10) -> list[int]:
  """For each normal class, the one other class whose images serve as validation anomalies."""
  return [int(rng.choice([k for k in range(classes) if k != c])) for c in range(classes)]


def index_folds(labels, normal_class: int, valid_class: int, rng: np.random.RandomState,
                folds: int = 3) -> list[dict]:
  """Folds of a labelled training split: the published CIFAR-10 and SVHN rule, without leaks.

  Args:
    labels: int [n].
    normal_class, valid_class: the class trained on, and the class of the validation anomalies.
    rng: draws one shuffle a fold; call the classes in order to get the published sequence.

  Returns:
    For each fold {part: indices into `labels`}; tests ascending, train and val shuffled.
  """
  normal = np.flatnonzero(np.asarray(labels) == normal_class)
  anomalous = np.flatnonzero(np.asarray(labels) == valid_class)
  result = []
  for block, other in zip(blocks(len(normal), folds), blocks(len(anomalous), folds)):
    rest = np.delete(normal, block)
    rng.shuffle(rest)
    n_val = int(VAL_FRACTION * len(rest))
    result.append({"train": rest[n_val:], "val": rest[:n_val], "test_normal": normal[block],
                   "test_anomaly": anomalous[other]})
  return result


def read_data_entry(path) -> list[dict]:
  """Rows {"name", "patient", "view", "findings": set} of Data_Entry_2017.csv, in its order.

  Raises:
    FileNotFoundError; ValueError: a column is missing.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"no NIH table {path}; it is Data_Entry_2017.csv of ChestX-ray14")
  table = tables.read_table(path, ("Image Index", "Finding Labels", "Patient ID", "View Position"))
  table.unique("image index", file=True)
  return [{"name": r["image index"], "patient": r.need("patient id"), "view": r["view position"],
           "findings": set(r["finding labels"].split("|"))} for r in table.rows]


def patient_folds(rows: Sequence[dict], train_val: Sequence[str], rng: np.random.RandomState,
                  anomaly=frozenset({"Infiltration"}), folds: int = 3) -> list[dict]:
  """Folds of one NIH view by patient: the published rule for AP and PA, without leaks.

  Args:
    rows: of `read_data_entry`, those of one view.
    train_val: names of the official train_val list.
    anomaly: the exact set of findings of the validation anomalies.

  Returns:
    For each fold {part: names in the order of the table}.
  """
  official = set(train_val)
  rows = [r for r in rows if r["name"] in official]
  patients = list(dict.fromkeys(r["patient"] for r in rows))
  rng.shuffle(patients)
  result = []
  for block in blocks(len(patients), folds):
    test = {patients[i] for i in block}
    rest = [p for p in patients if p not in test]
    rng.shuffle(rest)
    val = set(rest[:int(VAL_FRACTION * len(rest))])
    healthy = [r for r in rows if r["findings"] == {"No Finding"}]
    result.append({
        "train": [r["name"] for r in healthy if r["patient"] not in test | val],
        "val": [r["name"] for r in healthy if r["patient"] in val],
        "test_normal": [r["name"] for r in healthy if r["patient"] in test],
        "test_anomaly": [r["name"] for r in rows
                         if r["patient"] in test and r["findings"] == set(anomaly)]})
  return result


def train_test_lists(rows: Sequence[dict], train_val: Sequence[str], test: Sequence[str]) -> dict:
  """{"normal/train", "normal/test", "anomaly/test"} of one NIH view, names in table order."""
  train_val, test = set(train_val), set(test)
  healthy = lambda r: r["findings"] == {"No Finding"}
  return {"normal/train": [r["name"] for r in rows if r["name"] in train_val and healthy(r)],
          "normal/test": [r["name"] for r in rows if r["name"] in test and healthy(r)],
          "anomaly/test": [r["name"] for r in rows if r["name"] in test and not healthy(r)]}


def slide_of(patch: str) -> str:
  """"normal_007" of "normal_007_normal_x_139776_y_61440_w_768_h_768.jpg"."""
  return "_".join(patch.split("_")[:2])


def patch_folds_published(normal: Sequence[str], tumor: Sequence[str],
                          rng: np.random.RandomState, folds: int = 3, valid_slides: int = 4):
  """The published Camelyon16 rule, which leaks; for parity only.

  It cuts the *positions* of the patch list in blocks and then takes every patch whose slide occurs
  in a part. With about fifty patches a slide in random order every slide occurs in every part, so
  each fold tests on images it trains on. Use `group_folds`.

  Returns:
    (validation slides, [{part: names} for each fold]).
  """
  slides = [slide_of(n) for n in normal]
  chosen = rng.choice(sorted({slide_of(n) for n in tumor}), valid_slides, replace=False)
  result = []
  for block, which in zip(blocks(len(normal), folds), blocks(valid_slides, folds)):
    inside = set(block.tolist())
    test = {slides[i] for i in block}
    rest = {s for i, s in enumerate(slides) if i not in inside}
    train = [n for n in normal if slide_of(n) in rest]
    rng.shuffle(train)
    n_val = int(VAL_FRACTION * len(train))
    kept = {str(chosen[i]) for i in which}
    result.append({"train": train[n_val:], "val": train[:n_val],
                   "test_normal": [n for n in normal if slide_of(n) in test],
                   "test_anomaly": [n for n in tumor if slide_of(n) in kept]})
  return [str(s) for s in chosen], result


# ------------------------------------------------------------------------------ rules without leaks
def split_groups(groups: Sequence[str], fraction: float, seed: int) -> np.ndarray:
  """bool [n]: True for the examples of round(fraction * groups) groups, drawn by `seed`."""
  unique = sorted(set(groups))
  order = np.random.RandomState(seed).permutation(len(unique))
  taken = {unique[i] for i in order[:int(round(fraction * len(unique)))]}
  return np.array([g in taken for g in groups], bool)


def group_folds(normal: Sequence[str], anomalous: Sequence[str], seed: int, folds: int = 3
                ) -> list[dict]:
  """Folds in which no group (patient, slide, photograph) is on two sides.

  Groups of the normals are shuffled and cut in `folds` blocks: the test part. Of the other groups a
  fifth is the validation part. Anomalous groups are cut in blocks the same way; an anomaly whose
  group has normals in the fold's train or val part is left out.

  Args:
    normal, anomalous: group of every example.
    seed: of the shuffles.

  Returns:
    For each fold {part: indices into `normal` (train, val, test_normal) or `anomalous`}.

  Raises:
    UserError: fewer groups than folds.
  """
  rng = np.random.RandomState(seed)
  unique, kinds = sorted(set(normal)), sorted(set(anomalous))
  if len(unique) < folds:
    raise UserError(f"{len(unique)} groups of normal images cannot make {folds} folds")
  unique = [unique[i] for i in rng.permutation(len(unique))]
  kinds = [kinds[i] for i in rng.permutation(len(kinds))]
  result = []
  for block, other in zip(blocks(len(unique), folds), blocks(len(kinds), folds)):
    test = {unique[i] for i in block}
    rest = [g for g in unique if g not in test]
    rest = [rest[i] for i in rng.permutation(len(rest))]
    val = set(rest[:int(VAL_FRACTION * len(rest))])
    seen = set(rest)
    tested = {kinds[i] for i in other} - seen
    pick = lambda groups, kept: np.array([i for i, g in enumerate(groups) if g in kept], np.int64)
    result.append({"train": pick(normal, seen - val), "val": pick(normal, val),
                   "test_normal": pick(normal, test), "test_anomaly": pick(anomalous, tested)})
  return result
