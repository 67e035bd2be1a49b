"""Images with masks of one class: many with cheap masks (stream "noisy"), few with expert ones.

Layouts (config.data.layout):
  folders    the reference's: [training/]noisy_img, noisy_gt, clean_img, clean_gt, test_img, test_gt
             and optionally val_img, val_gt. Images and masks are paired by the stem of their names;
             a mask may end in _segmentation.
  manifest   a CSV file (config.data.manifest) with columns image, mask, split (train, val, test),
             optionally image_id, group, noisy_mask and clean (0/1). Without a column "clean",
             config.data.clean training images, drawn with clean_seed, keep their expert mask.
  synthetic  data_pipelines/masks/synthetic_lesions.py.
config.data.noise makes the noisy masks from the true ones (data_pipelines/masks/label_noise.py), at
native size and once; "" takes the masks of the folder as they are. All masks are checked when the
data set is opened. Examples: image [S,S,3] float32 in [0,1] (minus config.data.mean_image, if
given), mask [S,S,1], "sample": place in the noisy set, -1 elsewhere.
"""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import functools
import pathlib
import zlib

import numpy as np

from data_pipelines.masks import label_noise
from data_pipelines.masks import images
from data_pipelines.masks import synthetic_lesions
from data_pipelines.dataset import DataSet
from data_pipelines.errors import UserError
from data_pipelines.masks.images import Item


def open(data_cfg, seed: int) -> DataSet:  # pylint: disable=redefined-builtin
  """The data set of `config.data`, all masks checked.

  Raises:
    ValueError, FileNotFoundError: one line saying which file or field is wrong.
  """
  layouts = {"folders": _folders, "manifest": _manifest, "synthetic": _synthetic}
  layout = data_cfg.get("layout", "manifest")
  if layout not in layouts:
    raise UserError(f"config.data.layout={layout!r}: use {', '.join(layouts)}")
  label_noise.parse(data_cfg.get("noise", "") or "none")
  parts, name = layouts[layout](data_cfg, seed)
  for part in ("noisy", "clean"):
    if not parts[part]:
      raise UserError(f"{name}: no {part} training image is left; config.data.clean="
                       f"{data_cfg.get('clean', 0)} of {len(parts['noisy'] + parts['clean'])}")
  return Segmentation(data_cfg, parts, name, synthetic=layout == "synthetic")


# ---------------------------------------------------------------------------------------- layouts
def _file_items(triples, cfg) -> list[Item]:
  """Items of (id, group, image file, mask file); every mask is read once and checked."""
  soft = cfg.get("soft_masks", False)
  with concurrent.futures.ThreadPoolExecutor(16) as pool:  # Pillow decodes without the GIL
    list(pool.map(lambda t: images.check_pair(t[2], t[3], soft), triples))
  items = []
  for ident, group, image, mask in triples:
    read = functools.partial(images.read_mask, mask, soft)
    items.append(Item(ident, functools.partial(images.read_image, image), read, read,
                      str(image), group))
  return items


def _noisy(item: Item, cfg) -> Item:
  """The item with the noisy version of its expert mask."""
  kind, seed = cfg["noise"], cfg.get("noise_seed", 0)

  def mask():
    image = item.image() if "threshold" in kind else None
    noisy = label_noise.apply(item.truth() > 0.5, kind, seed, item.id, image)
    return noisy.astype(np.float32)
  return dataclasses.replace(item, mask=mask)


def _folders(cfg, seed):
  del seed
  root = pathlib.Path(cfg.get("dir", "") or ".")
  if not root.is_dir():
    raise FileNotFoundError(f"config.data.dir={root} does not exist")
  train = next((root / n for n in ("training", "Training") if (root / n).is_dir()), root)

  def part(folder, name):
    pairs = images.pair(folder / f"{name}_img", folder / f"{name}_gt")
    return _file_items([(stem, "", image, mask) for stem, image, mask in pairs], cfg)
  parts = {"clean": part(train, "clean")}
  if cfg.get("noise", ""):  # the folder's noisy masks are then taken as expert ones
    parts["noisy"] = [_noisy(i, cfg) for i in part(train, "noisy")]
  else:
    parts["noisy"] = [dataclasses.replace(i, truth=None) for i in part(train, "noisy")]
  for name in ("val", "test"):
    if (root / f"{name}_img").exists() or (root / f"{name}_gt").exists():
      parts[name] = part(root, name)
  held = int(cfg.get("val_from_clean", 0))
  if held and "val" not in parts:
    order = np.random.default_rng(cfg.get("clean_seed", 0)).permutation(len(parts["clean"]))
    clean = [parts["clean"][i] for i in order]
    parts["val"], parts["clean"] = clean[:held], clean[held:]
  return _limited(parts, cfg), root.resolve().name


def _manifest(cfg, seed):
  del seed
  root = pathlib.Path(cfg.get("dir", "") or ".")
  path = root / cfg.get("manifest", "labels.csv")
  if not path.is_file():
    raise FileNotFoundError(f"{path} does not exist: set config.data.dir to the folder of the data "
                            "set and config.data.manifest to its table")
  with path.open(newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  lacking = [c for c in ("image", "mask", "split") if not rows or c not in rows[0]]
  if lacking:
    raise UserError(f"{path} has no column {lacking[0]!r}" if rows else f"{path} has no row")
  ident = lambda r: r.get("image_id") or pathlib.Path(r["image"]).stem
  items = lambda rows, column="mask": _file_items(
      [(ident(r), r.get("group", ""), root / r["image"], root / r[column]) for r in rows], cfg)
  split = lambda name: [r for r in rows if r["split"] == name]
  train = split("train")
  if "clean" in rows[0]:
    clean = np.array([r["clean"] == "1" for r in train], bool)
  else:
    clean = _draw_clean(len(train), cfg)
  parts = {"clean": items([r for r, c in zip(train, clean) if c]),
           "val": items(split("val")), "test": items(split("test"))}
  noisy = [r for r, c in zip(train, clean) if not c]
  if cfg.get("noise", ""):
    parts["noisy"] = [_noisy(i, cfg) for i in items(noisy)]
  elif "noisy_mask" in rows[0]:
    masks = items(noisy, "noisy_mask")
    parts["noisy"] = [dataclasses.replace(i, truth=t.mask) for i, t in zip(masks, items(noisy))]
  else:
    raise UserError(f"{path} has no column 'noisy_mask': add one, or set config.data.noise")
  return _limited(parts, cfg), root.resolve().name


def _draw_clean(n, cfg) -> np.ndarray:
  """bool [n]: config.data.clean of n, drawn so that a larger number contains a smaller one."""
  wanted = int(cfg.get("clean", 10))
  if not 0 < wanted < n:
    raise UserError(f"config.data.clean={wanted}: choose 1 to {n - 1} of the {n} training images")
  chosen = np.zeros(n, bool)
  chosen[np.random.default_rng(cfg.get("clean_seed", 0)).permutation(n)[:wanted]] = True
  return chosen


def _synthetic(cfg, seed):
  del seed  # the lesions stay the same, so that seeds of a study differ in training alone
  counts = dict(zip(("train", "val", "test"), cfg.get("synthetic_counts", (160, 24, 40))))
  parts = {}
  for split, count in counts.items():
    items = []
    for i in range(count):
      image = lambda split=split, i=i: synthetic_lesions.draw(0, split, i)[0]
      mask = lambda split=split, i=i: synthetic_lesions.draw(0, split, i)[1].astype(np.float32)
      items.append(Item(f"synthetic_{split}_{i:04d}", image, mask, mask))
    parts[split] = items
  train = parts.pop("train")
  clean = _draw_clean(len(train), cfg)
  parts["clean"] = [t for t, c in zip(train, clean) if c]
  parts["noisy"] = [_noisy(t, cfg) if cfg.get("noise", "") else t
                    for t, c in zip(train, clean) if not c]
  return _limited(parts, cfg), "synthetic_lesions"


def _limited(parts, cfg):
  limit = int(cfg.get("limit", 0))
  return {**parts, "noisy": parts["noisy"][:limit]} if limit else parts


# --------------------------------------------------------------------------------------- data set
class Segmentation(DataSet):
  """Streams "noisy" and "clean"; splits val, test, and of the training images noisy (the quality of
  annotations) and clean (how far the few expert masks are fitted)."""

  def __init__(self, cfg, parts: dict[str, list[Item]], name: str, synthetic: bool = False):
    self._cfg, self.parts, self.name, self.synthetic = cfg, parts, name, synthetic
    self.splits = tuple(s for s in ("val", "test", "noisy", "clean") if parts.get(s))
    path = cfg.get("mean_image", "")
    self._mean = images.read_mean_image(path) if path else None
    self._sources = {}

  def _source(self, items, **options):
    soft = self._cfg.get("soft_masks", False)
    return images.Pairs(items, self._cfg["image_size"], soft=soft, mean_image=self._mean,
                               **options)

  def train(self):
    if "train" not in self._sources:
      margin, ops = int(self._cfg.get("crop", 0)), []
      ops += [images.paired_crop(self._cfg["image_size"])] if margin else []
      ops += [images.paired_flip()] if self._cfg.get("flip", True) else []
      options = dict(margin=margin, batch_ops=ops, augmented=True)
      noisy, clean = self.parts["noisy"], self.parts["clean"]
      both = noisy + clean if self._cfg.get("noisy_includes_clean", False) else noisy
      self._sources["train"] = {
          "noisy": self._source(both, first_sample=0, noisy=len(noisy), **options),
          "clean": self._source(clean, **options)}
    return self._sources["train"]

  def validation(self):
    return self.split("val") if "val" in self.splits else None

  def split(self, name):
    if name not in self.splits:
      raise UserError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
    if name not in self._sources:
      first = 0 if name == "noisy" else None
      self._sources[name] = self._source(self.parts[name], first_sample=first)
    return self._sources[name]

  def describe(self):
    counts = {name: {"examples": len(items), "ids_crc32": _crc(items)}
              for name, items in self.parts.items()}
    return {"name": self.name, "synthetic": self.synthetic, "splits": counts,
            "size": self._cfg["image_size"], "noise": self._cfg.get("noise", ""),
            "noise_dice_first_100": self.noise_dice(100)}

  def noise_dice(self, limit: int | None = None) -> float | None:
    """Mean Dice of the noisy masks against the expert ones; None where there are none."""
    values = [label_noise.dice(i.mask() > 0.5, i.truth() > 0.5)
              for i in self.parts["noisy"][:limit] if i.truth is not None]
    return round(float(np.mean(values)), 4) if values else None


def _crc(items):
  return f"{zlib.crc32(' '.join(i.id for i in items).encode()):08x}"
