"""Frames as data: files on disk, whole frames for scoring, windows for training, the three splits.

What the data sets `paired` (clean and annotated files) and `annotations` (annotations drawn on
clean files) share.
"""

from __future__ import annotations

import concurrent.futures
import pathlib
from typing import Any

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields, scored_alone
from data_pipelines.dataset import DataSet, Source
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.intake import counts
from data_pipelines.ops import resize

_CACHE_BYTES = 2 << 30  # decoded frames kept in memory, over all splits


def defaults(name: str) -> ml_collections.ConfigDict:
  """Fields of config.data that pairs and synthesised annotations share."""
  fields = data_fields.common(name)
  fields.dir = ""                  # folder of the data set
  fields.clean_dir = "clean"       # sub-folder of clean frames
  fields.channels = 3              # 1 = grey, 3 = colour; grey frames are repeated
  fields.window = (0, 0)           # (black, white) of deep image files and DICOM; (0, 0) = by their
                                   # headers and the rule of docs/formats.md
  fields.resize = (0, 0)           # (height, width) of every frame, whatever its shape; (0, 0) = native
  fields.image_size = (128, 128)   # (height, width) of training windows
  fields.mark_centred = 0.5        # share of windows centred on a mark
  fields.scale = (1.0, 1.0)        # magnification of windows, (low, high)
  fields.flip_lr = 0.5             # probability of a left-right mirror image
  fields.flip_ud = 0.0             # probability of an up-down one
  fields.gain = (1.0, 1.0)         # brightness factor, the same for both images of a pair
  fields.gamma = (1.0, 1.0)        # exponent, likewise
  fields.split_by = "auto"         # table, group, file, reference; auto = table where there is one
  fields.table = "labels.csv"      # columns file, split (train, val, test, unused), optionally group
  data_fields.files(fields)
  fields.val_share = 0.1           # of the groups, where no table says
  fields.test_share = 0.1          # likewise; 0 with split_by=reference
  fields.strict = True             # False: leave unusable files out and say so, instead of failing
  return fields


def resolve(data_cfg, known: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """`known` with the given fields, checked.

  Raises:
    UserError: an unknown field, or a value out of range.
  """
  cfg = data_fields.resolve(data_cfg, known)
  for name in ("scale", "gain", "gamma"):  # factors and exponents: 0 makes all frames black, white or nothing
    if not 0 < cfg[name][0] <= cfg[name][1]:
      raise UserError(f"config.data.{name}={tuple(cfg[name])}: use (low, high), both above 0")
  if cfg.channels not in (1, 3):
    raise UserError(f"config.data.channels={cfg.channels}: use 1 (grey) or 3 (colour)")
  data_fields.choice(cfg, "split_by", ("auto", "table", "group", "file", "reference"))
  data_fields.choice(cfg, "grouping", data_fields.GROUPINGS)
  return cfg


def spec_of(cfg) -> data_fields.Spec:
  """Windows in training; evaluation shows whole frames at their own sizes."""
  return data_fields.Spec((*cfg.image_size, cfg.channels), 0, 1, native=True)


class Item:
  """One frame pair. `pair()` gives (annotated, clean, mask), float32 [H,W,C or 1], as configured."""

  def __init__(self, name: str, path: pathlib.Path, group: str, cfg):
    self.name, self.path, self.group, self.cfg = name, path, group, cfg
    self.size: tuple[int, int] = (0, 0)
    self.cache: tuple | None = None

  def load(self) -> tuple[np.ndarray, ...]:
    """Decodes the files; `size` is known afterwards. Raises ValueError, FileNotFoundError."""
    raise NotImplementedError

  def arrays(self) -> tuple[np.ndarray, ...]:
    """The decoded arrays, from memory where they are kept."""
    return self.cache if self.cache is not None else self.load()

  def pair(self, rng=None):
    del rng
    return self.arrays()


def read_resized(path, cfg) -> np.ndarray:
  """float32 [h,w,C] in [0,1] of a file, at config.data.resize where that is set."""
  frame = images.read_unit(path, cfg.channels, cfg.window)
  return resize.unit_image(frame, cfg.resize) if any(cfg.resize) else frame


def list_frames(folder, strict: bool = True) -> list[pathlib.Path]:
  """Image files of a folder that must exist and not be empty, without masks; see counts.files."""
  return counts.files(folder, ("image", "dicom"), strict, clean=True)


def load_all(items, problems, strict: bool):
  """Reads every item once: (usable ones, problems). Keeps decoded frames while memory allows.

  Raises:
    UserError: problems and `strict`, or nothing is usable.
  """
  def load(item):
    try:
      return item.load()
    except (ValueError, FileNotFoundError) as error:
      return str(error)
  usable, kept, problems = [], 0, list(problems)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:  # decoders release the GIL
    for item, found in zip(items, pool.map(load, items)):
      if isinstance(found, str):
        problems.append(found)
        continue
      usable.append(item)
      kept += sum(a.nbytes for a in found)
      item.cache = found if kept < _CACHE_BYTES else None
  if problems and (strict or not usable):
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise UserError(f"{len(problems)} unusable files: {'; '.join(problems[:5])}{more} "
                     "(config.data.strict=False leaves such files out)")
  if not usable:
    raise UserError("no usable frame; see config.data.dir")
  return usable, problems


class WholeFrames(Source):
  """Frames of a split, padded at the bottom and the right to one size by mirroring."""

  def __init__(self, items, draw=None):
    self.items, self._draw = items, draw
    self._size = tuple(np.max([i.size for i in items], 0)) if items else (0, 0)

  def __len__(self):
    return len(self.items)

  def read_one(self, i):
    item = self.items[int(i)]
    arrays = item.pair(self._draw(item) if self._draw else None)
    (height, width), (h, w) = self._size, item.size
    pad = ((0, height - h), (0, width - w), (0, 0))
    image, clean, mask = (np.pad(a, pad, mode="symmetric") if any(map(any, pad)) else a
                          for a in arrays)
    return {"image": image, "clean": clean, "mask": mask}

  def meta(self, i):
    item = self.items[int(i)]
    return {"id": item.name, "group": item.group, "path": str(item.path), "height": item.size[0],
            "width": item.size[1]}


class Windows(WholeFrames):
  """Training windows: the ops of config.data on frames of any size."""
  ragged = True

  def __init__(self, items, cfg, draw=None):
    from data_pipelines.pairs import ops  # TensorFlow
    super().__init__(items)
    self.example_ops = (ops.flip(cfg.flip_lr, cfg.flip_ud),)
    if (*cfg.gain, *cfg.gamma) != (1.0, 1.0, 1.0, 1.0):
      self.example_ops += (ops.jitter(tuple(cfg.gain), tuple(cfg.gamma)),)
    if draw is not None:  # after the mirror: scanners do not write from right to left
      self.example_ops += (draw,)
    self.example_ops += (ops.crop(cfg.image_size, cfg.mark_centred, tuple(cfg.scale)),)

  def read_one(self, i):
    return dict(zip(("image", "clean", "mask"), self.items[int(i)].pair()))


class PairDataSet(DataSet):
  """Train, val and test splits of items; a subclass draws annotations on clean frames."""

  def __init__(self, name, cfg, items, split_of, problems, seed):
    self.name, self.cfg, self.seed, self.problems = name, cfg, seed, problems
    self._items = {s: [i for i in items if split_of[i.name] == s] for s in ("train", "val", "test")}
    self.splits = tuple(s for s in ("train", "val", "test") if self._items[s])
    if not self._items["train"] and not scored_alone.now():
      raise UserError(f"{name}: no frame is left for training; see config.data.val_share, test_share "
                       "and the split column of the table")

  def describe(self) -> dict[str, Any]:
    return {"name": self.name, "synthetic": self.synthetic, "left_out": self.problems,
            "splits": {s: {"frames": len(v), "groups": len({i.group for i in v})}
                       for s, v in self._items.items()},
            "preparation": self.cfg.to_dict()}

  def train(self):
    return Windows(self._items["train"], self.cfg)

  def validation(self):
    return self.split("val") if self._items["val"] else None

  def fitting(self):
    return self.split("train")

  def split(self, name):
    if name not in self.splits:
      raise UserError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
    return WholeFrames(self._items[name])
