"""A data set of prepared brain scans: healthy slices train, every slice is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import logging
import random

import numpy as np

from data_pipelines import machine, when_read
from data_pipelines.dataset import DataSet, Source
from data_pipelines.errors import UserError


@dataclasses.dataclass(frozen=True)
class Scan:
  """One prepared scan, in memory, memory-mapped, or made when it is read (data_pipelines/when_read.py).

  Attributes:
    patient: scan id.
    image: [n,h,w,C] float32 or float16.
    mask: uint8 [n,h,w,1], 1 = lesion after the resize.
    slices: int [n], slice numbers in the volume.
    lesion_px: int [n], lesion pixels of each slice.
    path: folder or file it came from, "" if none.
    unlabelled: abnormal, but nobody marked where: its mask says nothing.
    scan_label: 0 or 1 where the scan as a whole is known to be normal or abnormal, else None.
    spacing: mm along the three axes of the scan, () where it is not known.
    voxel_mm: mm between slices, rows and columns as they are here, () where that is not known.
  """

  patient: str
  image: np.ndarray | when_read.WhenRead
  mask: np.ndarray | when_read.WhenRead
  slices: np.ndarray
  lesion_px: np.ndarray
  path: str = ""
  unlabelled: bool = False
  scan_label: int | None = None
  spacing: tuple[float, ...] = ()
  voxel_mm: tuple[float, ...] = ()

  def healthy(self) -> np.ndarray:
    """bool [n]: slices without lesion; none of an abnormal scan that nobody marked."""
    return (self.lesion_px == 0) & (not self.unlabelled)


class SliceSource(Source):
  """Slices of scans: "image" [h,w,C] float32, and "mask" [h,w,1] float32, "label" int32 if asked.

  Args:
    scans: prepared scans.
    healthy_only: leave out slices with lesion.
    with_truth: give "mask" and "label".
    batch_ops: see Source.
    cache: copy the slices into memory at once, where the scans are files.
  """

  def __init__(self, scans: Sequence[Scan], healthy_only: bool, with_truth: bool,
               batch_ops: Sequence[Callable] = (), cache: bool = False):
    self.scans, self.with_truth, self.batch_ops = list(scans), with_truth, tuple(batch_ops)
    # Pixel metrics need the masks of all scans: one that nobody marked has no empty mask.
    self._with_mask = with_truth and not any(s.unlabelled for s in self.scans)
    self._marked = np.array([not s.unlabelled for s in self.scans], bool)
    picked = [np.flatnonzero(s.healthy()) if healthy_only else np.arange(len(s.slices))
              for s in self.scans]
    self._scan = np.repeat(np.arange(len(picked)), [len(p) for p in picked])
    self._place = np.concatenate(picked) if picked else np.zeros(0, np.int64)
    self._cached = None
    if cache and len(self._place) and not isinstance(self.scans[0].image, np.ndarray):
      self._cached = self._load(picked)

  def __len__(self):
    return len(self._place)

  def _load(self, picked):
    """All slices in one array, or None where they would take over half of the free memory."""
    h, w, c = self.scans[0].image.shape[1:]
    need = len(self) * h * w * (c * self.scans[0].image.dtype.itemsize + self.with_truth)
    if need > machine.free_memory() / 2:
      logging.warning("config.data.cache: %d slices take %.1f GB, more than half of the free "
                      "memory; reading them from the prepared files instead", len(self), need / 1e9)
      return None
    image = np.empty((len(self), h, w, c), self.scans[0].image.dtype)
    mask = np.empty((len(self), h, w, 1), np.uint8) if self.with_truth else None
    start = 0
    for scan, places in zip(self.scans, picked):
      if len(places):
        image[start:start + len(places)] = scan.image[places]
        if mask is not None:
          mask[start:start + len(places)] = scan.mask[places]
      start += len(places)
    return {"image": image, "mask": mask}

  def read(self, indices):
    indices = np.asarray(indices)
    if self._cached is not None:
      image = self._cached["image"][indices].astype(np.float32, copy=False)
      if not self.with_truth:
        return {"image": image}
      return self._truth(image, self._cached["mask"][indices].astype(np.float32), indices)
    scans = [self.scans[i] for i in self._scan[indices]]
    when_read.make_all(s.image for s in scans)
    places = self._place[indices]
    h, w, c = self.scans[0].image.shape[1:]
    image = np.empty((len(indices), h, w, c), np.float32)
    for i, (scan, place) in enumerate(zip(scans, places)):
      image[i] = scan.image[place]
    if not self.with_truth:
      return {"image": image}
    mask = np.empty((len(indices), h, w, 1), np.float32)
    for i, (scan, place) in enumerate(zip(scans, places)):
      mask[i] = scan.mask[place]
    return self._truth(image, mask, indices)

  def _truth(self, image, mask, indices):
    """An example with its label, -1 = not known, and its mask where all scans have theirs."""
    label = mask.any(axis=(1, 2, 3)).astype(np.int32)
    if self._with_mask:
      return {"image": image, "mask": mask, "label": label}
    return {"image": image, "label": np.where(self._marked[self._scan[indices]], label, -1).astype(np.int32)}

  def meta(self, i):
    scan, place = self.scans[self._scan[i]], self._place[i]
    z = int(scan.slices[place])
    known: dict = {} if scan.scan_label is None else {"scan_label": scan.scan_label}
    if scan.spacing:
      known["spacing"] = scan.spacing
    if scan.voxel_mm:
      known["voxel_mm"] = scan.voxel_mm
    return {"id": f"{scan.patient}/{z}", "patient": scan.patient, "slice": z, "path": scan.path, **known}


class SliceDataSet(DataSet):
  """Prepared scans by split.

  Args:
    name: of the data set; carries "synthetic" if it is.
    scans: {"train" | "val" | "test": scans}.
    info: preparation parameters, checksums, for `describe`.
    batch_ops: of training and validation (the noise).
    seed: orders the training scans as random.Random(seed).shuffle of the sorted list; the order of
      the evaluated splits is that of seed 0, as in the published code.
    cache: see SliceSource.
    limit_train: use the first n training scans of that order; 0 = all.
    augment: batch_ops of training alone, before the others.
  """

  splits: tuple[str, ...] = ("val", "test")

  def __init__(self, name: str, synthetic: bool, scans: Mapping[str, Sequence[Scan]], info: dict,
               batch_ops: Sequence[Callable] = (), seed: int = 0, cache: bool = False,
               limit_train: int = 0, augment: Sequence[Callable] = ()):
    self.augment = tuple(augment)
    self.name, self.synthetic, self.info = name, synthetic, info
    self.batch_ops, self.cache, self._sources = tuple(batch_ops), cache, {}
    self.scans = {split: shuffled(found, seed if split == "train" else 0)
                  for split, found in scans.items()}
    if limit_train:
      self.scans["train"] = self.scans["train"][:limit_train]
    self.splits = tuple(s for s in ("val", "test") if self.scans.get(s))

  def _source(self, split, healthy_only, with_truth, ops=()):
    """Sources are kept, so that a cache is read once."""
    key = (split, healthy_only, with_truth)
    if key not in self._sources:
      self._sources[key] = SliceSource(self.scans[split], *key[1:], ops, self.cache)
    return self._sources[key]

  def train(self):
    source = self._source("train", True, False, (*self.augment, *self.batch_ops))
    if not len(source):
      raise UserError(f"data set {self.name} has no healthy slice in its train split "
                       f"({len(self.scans['train'])} scans); check config.data")
    return source

  def validation(self):
    if not self.scans.get("val"):
      return None
    source = self._source("val", True, False, self.batch_ops)
    return source if len(source) else None

  def split(self, name):
    if not self.scans.get(name):
      raise UserError(f"data set {self.name} has no split {name!r}; "
                       f"it has {', '.join(s for s in self.scans if self.scans[s])}")
    return self._source(name, False, True)

  def has_lesions(self, name):
    return any((s.lesion_px > 0).any() for s in self.scans.get(name, ()))

  def describe(self):
    splits = {}
    for name, scans in self.scans.items():
      healthy = int(sum(s.healthy().sum() for s in scans))
      slices = int(sum(len(s.slices) for s in scans))
      splits[name] = {"patients": len(scans), "slices": slices, "healthy_slices": healthy,
                      "lesion_slices": slices - healthy,
                      "lesion_pixels": int(sum(s.lesion_px.sum() for s in scans))}
    shape = next((list(s.image.shape[1:]) for found in self.scans.values() for s in found), [])
    return {"name": self.name, "synthetic": self.synthetic, "image_shape": shape,
            "splits": splits, **self.info}


def shuffled(scans: Sequence[Scan], seed: int) -> list[Scan]:
  """Scans sorted by id, then shuffled with random.Random(seed), as the published code does."""
  scans = sorted(scans, key=lambda s: s.patient)
  random.Random(seed).shuffle(scans)
  return scans
