"""One-class data sets: training on normal images, scoring normal and anomalous ones.

What `natural`, `nih` and `camelyon` share: five lists of images (train, val_normal, val_anomaly,
test_normal, test_anomaly), the check that no group (patient, slide, photograph) is in two of train,
val and test, sources that read and transform the images, and the report of `describe`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import logging
import os

import numpy as np

from data_pipelines import scored_alone
from data_pipelines.dataset import DataSet, Source
from data_pipelines.errors import UserError
from data_pipelines.formats import doubts
from data_pipelines.formats.regular import nearly
from data_pipelines.intake import splits
from data_pipelines.one_class import folds, transforms

_REMEDY = "use config.data.folds=leakfree, or published to accept it"
LISTS = ("train", "val_normal", "val_anomaly", "test_normal", "test_anomaly")


@dataclasses.dataclass(frozen=True)
class Item:
  """One image: `name` is unique in its data set, `group` names what must not be split."""
  name: str
  group: str
  kind: str = ""  # class, pathology or tissue, for tables per kind
  path: str = ""  # of a file
  place: int = -1  # in an array


class ImageSource(Source):
  """Images that `load` reads, normal first, then anomalous.

  Args:
    normal, anomalous: items.
    load: Item -> uint8 [H,W,C], every deterministic transform included; or float32, with `to_float` None.
    batch_ops: random transforms on uint8 batches, ending in float32; () = `to_float` on reading.
    with_label: adds "label" int32 (0 normal, 1 anomalous).
    cache: {name: uint8 image} shared by sources of the same transform, or None. It holds what
      `load` returns, that is nothing random.
    marks: Item -> further keys of a labelled example (mask, lungs), or None.
    findings: meta has "finding", the kind of an image, normal ones "normal".
  """

  def __init__(self, normal: Sequence[Item], anomalous: Sequence[Item], load: Callable,
               batch_ops=(), with_label=True, cache: dict | None = None,
               to_float: Callable | None = transforms.normalize, marks: Callable | None = None,
               findings=False):
    self.to_float, self._marks, self._findings = to_float or (lambda image: image), marks, findings
    self.items = [*normal, *anomalous]
    self.labels = np.repeat(np.array([0, 1], np.int32), [len(normal), len(anomalous)])
    self.load, self.batch_ops = load, tuple(batch_ops)
    self.with_label, self.cache = with_label, cache

  def __len__(self):
    return len(self.items)

  def read_one(self, i):
    item = self.items[i]
    image = None if self.cache is None else self.cache.get(item.name)
    if image is None:
      image = self.load(item)
      if self.cache is not None:
        self.cache[item.name] = image
    example = {"image": image if self.batch_ops else self.to_float(image)}
    if not self.with_label:
      return example
    return {**example, **(self._marks(item) if self._marks else {}), "label": self.labels[i]}

  def meta(self, i):
    item = self.items[int(i)]
    kind = {"kind": item.kind} if item.kind else {}
    finding = {"finding": item.kind if self.labels[int(i)] else "normal"} if self._findings else {}
    return {"id": item.name, "group": item.group, "path": item.path, **kind, **finding}


class OneClassDataSet(DataSet):
  """Five lists of images as a data set.

  `train()` and `validation()` hold normal images without labels; the splits "val" and "test" hold
  labelled ones. "val" exists where there are validation images.

  Args:
    name: for reports.
    lists: {one of LISTS: items}.
    load: Item -> uint8 [H,W,C] for scoring.
    load_train, train_ops: the same for training, with its random batch ops.
    validate_as_train: `validation()` sees images as training does, without the random ops, as a published
      trainer that has one loader for both; the split "val" stays as scoring sees it.
    notes: JSON-able, goes into `describe`: protocol, transforms, where the lists come from.
    cache: keep read images in memory.
    to_float: uint8 image -> float32 as the network sees it; None = `load` returns that already.
    allow_leaks: published lists that have groups on two sides; said in the log.
    where, remedy: for the line about groups on two sides: the table or folder, and what to do.
    val_from_test: of a fold, the split "val" is the fold's test part: for choosing the number of
      iterations as it was published for PIAD. The fold's score is optimistic then; the final test
      split is untouched.
    marks, findings: of `ImageSource`, for the splits that are scored.

  Raises:
    UserError: no training or test image; a group on two sides without `allow_leaks`.
    FileNotFoundError: images of the lists are not there.
  """

  def __init__(self, name: str, lists: Mapping[str, Sequence[Item]], load: Callable, *,
               load_train: Callable | None = None, train_ops=(), validate_as_train=False, notes=None,
               cache=False, allow_leaks=False, val_from_test=False, where="", remedy="",
               to_float: Callable | None = transforms.normalize,
               marks: Callable | None = None, findings=False):
    self._to_float, self._marks, self._findings = to_float, marks, findings
    self.name, self.notes = name, notes or {}
    self.lists = {k: list(lists.get(k, ())) for k in LISTS}
    needed = ("train", "test_normal", "test_anomaly")
    if scored_alone.now() and (self.lists["test_normal"] or self.lists["test_anomaly"]):
      needed = ()
    for part in needed:
      if not self.lists[part]:
        raise UserError(f"{name}: no image in {part}; check config.data (root, lists, class, "
                         "fold)")
    _check_files(name, [i for items in self.lists.values() for i in items if i.path])
    doubts.say_told_by_form(*([i.path for i in self.lists[part] if i.path]
                              for part in ("test_normal", "test_anomaly", "train")))
    self.shared = _shared_groups(self.lists)
    splits.check_no_leak(self.sides(), where or name, remedy or _REMEDY, allow=allow_leaks)
    self._load, self._load_train, self._train_ops = load, load_train or load, tuple(train_ops)
    self._validate_as_train = validate_as_train
    self._scored = {"test": "test", "val": "test" if val_from_test else "val"}
    # One cache a transform: training and scoring may prepare an image differently.
    self._cache = {} if cache else None
    self._train_cache = self._cache if self._load_train is self._load else ({} if cache else None)
    validated = val_from_test or self.lists["val_normal"] or self.lists["val_anomaly"]
    self.splits = ("val", "test") if validated else ("test",)

  def sides(self) -> dict[str, list[str]]:
    """{"train", "val", "test": groups of their images}, for the leak check."""
    part = lambda *names: [i.group for n in names for i in self.lists[n]]
    return {"train": part("train"), "val": part("val_normal", "val_anomaly"),
            "test": part("test_normal", "test_anomaly")}

  def train(self):
    return ImageSource(self.lists["train"], (), self._load_train, self._train_ops,
                       with_label=False, cache=self._train_cache, to_float=self._to_float)

  def validation(self):
    if not self.lists["val_normal"]:
      return None
    load, cache = ((self._load_train, self._train_cache) if self._validate_as_train else
                   (self._load, self._cache))
    return ImageSource(self.lists["val_normal"], (), load, with_label=False, cache=cache,
                       to_float=self._to_float)

  def split(self, name):
    if name not in self.splits:
      raise UserError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}. "
                       "A validation split needs config.data.val_fraction > 0 or a fold.")
    part = self._scored[name]
    return ImageSource(self.lists[f"{part}_normal"], self.lists[f"{part}_anomaly"], self._load,
                       cache=self._cache, to_float=self._to_float, marks=self._marks,
                       findings=self._findings)

  def fitting(self):
    return ImageSource(self.lists["train"], (), self._load, with_label=False, cache=self._cache,
                       to_float=self._to_float)

  def resident_arrays(self):
    if self._train_ops:
      raise UserError(f"{self.name}: config.data.resident cannot draw crops and flips; turn "
                       "random_crop and random_flip off, or resident")
    return super().resident_arrays()

  def describe(self):
    lists = {part: {"images": len(items), "groups": len({i.group for i in items}),
                    "sha256_16": folds.checksum([i.name for i in items])}
             for part, items in self.lists.items()}
    return {"name": self.name, "synthetic": self.synthetic, "lists": lists,
            "groups_shared_with_train": self.shared, **self.notes}


def _shared_groups(lists) -> dict[str, int]:
  """Number of training groups that occur in each list of normals and in the anomalies."""
  trained = {i.group for i in lists["train"]}
  return {part: len(trained & {i.group for i in lists[part]}) for part in LISTS[1:]}


def _check_files(name, items) -> None:
  """Raises FileNotFoundError where images are missing: before training, not at its end."""
  there: dict[str, set[str]] = {}  # one listing a folder: much faster than a question a file

  def exists(path):
    folder, file = os.path.split(path)
    if folder not in there:
      with os.scandir(folder) if os.path.isdir(folder) else contextlib.nullcontext(()) as entries:
        there[folder] = {e.name for e in entries if e.is_file()}  # neither pipes nor links to nothing
    return file in there[folder]
  missing = [i.path for i in items if not exists(i.path)]
  if missing:
    raise FileNotFoundError(f"{name}: {len(missing)} of {len(items)} listed images are not there, "
                            f"e.g. {missing[0]}"
                            f"{nearly(missing[0]) or '; check config.data.image_root (folders: root)'}")


# ------------------------------------------------------------------------------- rules of the lists
def regrouped(normal: Sequence[Item], anomalous: Sequence[Item], cfg) -> dict[str, list[Item]]:
  """The five lists of fold `cfg.fold` without leaks (`folds.group_folds`)."""
  k, n = cfg["fold"], cfg["n_folds"]
  if not 0 <= k < n:
    raise UserError(f"config.data.fold={k}: use 0 to {n - 1}, or -1 for the final split")
  if not anomalous:
    raise UserError("a fold needs validation anomalies; check config.data.val_kind")
  fold = folds.group_folds([i.group for i in normal], [i.group for i in anomalous],
                           cfg["fold_seed"], n)[k]
  pick = lambda items, part: [items[i] for i in fold[part]]
  trained = {normal[i].group for part in ("train", "val") for i in fold[part]}
  if shared := sum(i.group in trained for i in anomalous):
    logging.info("fold %d: %d anomalies of groups with normal images in train or val are not tested on", k,
                 shared)
  return {"train": pick(normal, "train"), "val_normal": pick(normal, "val"),
          "test_normal": pick(normal, "test_normal"),
          "test_anomaly": pick(anomalous, "test_anomaly")}


def hold_out(items: Sequence[Item], cfg) -> tuple[list[Item], list[Item]]:
  """(train, val): `cfg.val_fraction` of the groups held out; 0 = train on all, as published."""
  held = folds.split_groups([i.group for i in items], cfg["val_fraction"],
                            cfg["fold_seed"])
  return ([i for i, h in zip(items, held) if not h], [i for i, h in zip(items, held) if h])
