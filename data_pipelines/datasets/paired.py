"""Pairs of an annotated frame and the same frame without annotations, from two folders.

<dir>/annotated and <dir>/clean hold files of equal names (PNG, JPEG, TIFF, BMP, DICOM; 8 and 16 bit;
grey and colour); <dir>/mask, where it exists, masks of the drawn pixels (any value above 0). Without
masks, |annotated - clean| > mask_threshold at native size marks a pixel: JPEG noise does not count.
Pairs alone say nothing about a frame's patient: the split is by `group_pattern`, or by a table.
Example: {"image" annotated [H,W,C], "clean" [H,W,C], "mask" [H,W,1]}, float32 in [0,1].
"""

from __future__ import annotations

import concurrent.futures
import pathlib
from typing import Any

import ml_collections
import numpy as np

from data_pipelines.formats import images
from data_pipelines.pairs import ops
from data_pipelines.dataset import DataSet, Source
from data_pipelines.errors import UserError
from data_pipelines.pairs.splits import group_of, split_names

_CACHE_BYTES = 2 << 30  # decoded frames kept in memory, over all splits


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data that pairs and synthesised annotations share."""
  c = ml_collections.ConfigDict()
  c.name = "paired"
  c.dir = ""                     # folder of the data set
  c.clean_dir = "clean"          # sub-folder of clean frames
  c.channels = 3                 # 1 = grey, 3 = colour; grey frames are repeated
  c.resize = (0, 0)              # (height, width) of every frame, whatever its shape; (0, 0) = native
  c.image_size = (128, 128)      # (height, width) of training windows
  c.mark_centred = 0.5           # share of windows centred on a mark
  c.scale = (1.0, 1.0)           # magnification of windows, (low, high)
  c.flip_lr = 0.5                # probability of a left-right mirror image
  c.flip_ud = 0.0                # probability of an up-down one
  c.gain = (1.0, 1.0)            # brightness factor, the same for both images of a pair
  c.gamma = (1.0, 1.0)           # exponent, likewise
  c.split_by = "auto"            # table, group, file, reference; auto = table where there is one
  c.table = "labels.csv"         # columns file, split (train, val, test) and optionally group
  c.group_pattern = r"^(.*)_[^_]*$"  # first group of this pattern in the stem = the patient
  c.val_share = 0.1              # of the groups, where no table says
  c.test_share = 0.1             # likewise; 0 with split_by=reference
  c.strict = True                # False: leave unusable files out and say so, instead of failing
  return c


def pair_defaults() -> ml_collections.ConfigDict:
  """`defaults` and the fields of this data set."""
  c = defaults()
  c.annotated_dir = "annotated"  # sub-folder of annotated frames
  c.mask_dir = "mask"            # sub-folder of drawn masks; need not exist
  c.mask_threshold = 8           # grey levels of 255 from which a difference is a mark
  c.mask_dilate = 0              # pixels by which such a mask grows
  return c


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


class FilePair(Item):
  """An annotated and a clean file, and perhaps a mask."""

  def __init__(self, name, path, group, cfg, folders):
    super().__init__(name, path, group, cfg)
    self._folders = folders

  def load(self):
    annotated, clean = (read_frame(f / self.name, self.cfg.channels)
                        for f in (self._folders["annotated"], self._folders["clean"]))
    if annotated.shape != clean.shape:
      raise UserError(f"{self.name}: annotated is {annotated.shape[0]}x{annotated.shape[1]}, clean "
                       f"{clean.shape[0]}x{clean.shape[1]}")
    drawn = self._folders["mask"] / (pathlib.Path(self.name).stem + ".png")
    if drawn.is_file():
      mask = (read_frame(drawn, 1) > 0).astype(np.float32)
      if mask.shape[:2] != clean.shape[:2]:
        raise UserError(f"{self.name}: mask is {mask.shape[0]}x{mask.shape[1]}, clean "
                         f"{clean.shape[0]}x{clean.shape[1]}")
    else:
      mask = difference_mask(annotated, clean, self.cfg.mask_threshold, self.cfg.mask_dilate)
    size = tuple(self.cfg.resize) if any(self.cfg.resize) else clean.shape[:2]
    self.size = tuple(size)
    return (ops.resize_image(annotated, size), ops.resize_image(clean, size),
            ops.resize_mask(mask, size))


def read_frame(path, channels: int) -> np.ndarray:
  """float32 [H,W,channels] in [0,1] of a single-frame file; colour -> grey by the integer rule.

  Raises:
    ValueError, FileNotFoundError: one line that names the file.
  """
  frame = images.read(path)
  if len(frame.pixels) != 1:
    raise UserError(f"{path} holds {len(frame.pixels)} frames; pairs are single frames")
  if channels == 1 and frame.pixels.shape[-1] == 3:
    frame.pixels = ops.grey(frame.pixels)
  unit = frame.unit()[0]
  return np.repeat(unit, 3, -1) if channels == 3 and unit.shape[-1] == 1 else unit


def difference_mask(annotated, clean, threshold: float, dilate: int = 0) -> np.ndarray:
  """1 where any channel differs by more than `threshold` grey levels of 255: float32 [H,W,1]."""
  mask = np.abs(annotated - clean).max(-1) > threshold / 255
  if dilate:
    from scipy import ndimage  # pylint: disable=import-outside-toplevel
    mask = ndimage.binary_dilation(mask, iterations=int(dilate))
  return mask.astype(np.float32)[..., None]


def open(data_cfg, seed: int) -> DataSet:  # pylint: disable=redefined-builtin
  """The pairs of config.data.dir.

  Raises:
    FileNotFoundError: a folder is missing. ValueError: unpaired names, differing sizes, unreadable
    files (listed), or fields that do not fit; each one line.
  """
  cfg = resolve(data_cfg, pair_defaults())
  if not cfg.dir:
    raise UserError("config.data.dir is empty: give the folder that holds clean/ and annotated/")
  root = pathlib.Path(cfg.dir)
  folders = {k: root / cfg[f"{k}_dir"] for k in ("annotated", "clean", "mask")}
  names = {k: {p.relative_to(folders[k]).as_posix() for p in list_frames(folders[k])}
           for k in ("annotated", "clean")}
  lonely = sorted(f"annotated/{n}" for n in names["annotated"] - names["clean"]) + sorted(
      f"clean/{n}" for n in names["clean"] - names["annotated"])
  problems = [f"{n} has no partner" for n in lonely]
  items = [FilePair(n, folders["annotated"] / n, group_of(n, cfg.group_pattern), cfg, folders)
           for n in sorted(names["annotated"] & names["clean"])]
  usable, problems = load_all(items, problems, cfg.strict)
  return PairDataSet(root.name, cfg, usable, split_names(usable, root, cfg), problems, seed)


def resolve(data_cfg, known) -> ml_collections.ConfigDict:
  """`known` with the given fields; raises ValueError for fields that do not exist."""
  given = dict(data_cfg.items())
  unknown = sorted(set(given) - set(known))
  if unknown:
    raise UserError(f"config.data.{unknown[0]} is not a field of {known.name}; "
                     f"there are {', '.join(sorted(known))}")
  known.update(ml_collections.ConfigDict({k: v for k, v in given.items() if k != "marks"}))
  if "marks" in given:
    known.marks.update(given["marks"])
  size = known.image_size
  if np.ndim(size) == 0:  # one number = a square
    known.image_size = size = (size, size)
  if len(size) != 2 or min(size) < 1:
    raise UserError(f"config.data.image_size={size}: (height, width) of the training windows")
  if known.channels not in (1, 3):
    raise UserError(f"config.data.channels={known.channels}: use 1 (grey) or 3 (colour)")
  return known


def list_frames(folder) -> list[pathlib.Path]:
  """Image files of a folder that must exist and not be empty."""
  if not folder.is_dir():
    raise FileNotFoundError(f"folder {folder} does not exist; see config.data.dir")
  files = images.find(folder)
  if not files:
    raise FileNotFoundError(f"folder {folder} holds no image ({', '.join(images.EXTENSIONS)})")
  return files


def load_all(items, problems, strict: bool):
  """Reads every item once: (usable ones, problems). Keeps decoded frames while memory allows.

  Raises:
    ValueError: problems and `strict`, or nothing is usable.
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
    if not self._items["train"]:
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

  def split(self, name):
    if name not in self.splits:
      raise UserError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
    return WholeFrames(self._items[name])
