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

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields
from data_pipelines.dataset import DataSet
from data_pipelines.errors import UserError
from data_pipelines.formats import images as formats
from data_pipelines.masks import images, label_noise, synthetic_lesions
from data_pipelines.masks.images import Item

LAYOUTS = ("manifest", "folders", "synthetic")


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data."""
  fields = data_fields.common("segmentation")
  fields.dir = ""                  # folder of the data set
  fields.layout = "manifest"       # manifest, folders or synthetic
  fields.manifest = "labels.csv"   # its table: columns image, mask, split (and image_id, group)
  fields.image_size = 96           # images and masks are resized to this side
  fields.channels = 3              # always colour
  fields.noise = ""                # how noisy masks are made from true ones; "" = the folder's own
  fields.noise_seed = 0            # of the noise: fixed, so that all seeds see the same masks
  fields.clean = 10                # images with expert masks; the others get noisy ones
  fields.clean_seed = 0            # which images these are
  fields.noisy_includes_clean = False  # clean images are among the noisy ones, too
  fields.limit = 0                 # first n noisy training images only; 0 = all
  fields.val_from_clean = 0        # layout folders without val_img: clean images held out for it
  fields.soft_masks = False        # accept grey values in masks as soft targets (the reference)
  fields.mean_image = ""           # .npy file [H,W,C] in [0,1] to subtract; "" = none
  fields.flip = True               # random flips of image and mask
  fields.crop = 0                  # random crops out of images larger by so many pixels
  fields.synthetic_counts = (160, 24, 40)  # layout synthetic: train, val and test images
  fields.batch_sizes = sizes = ml_collections.ConfigDict()  # of the two training streams
  sizes.noisy = 0                  # 0 = config.train.batch_size
  sizes.clean = 6                  # the paper says 10 (R), the published code really uses 6
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field or kind of noise, or a value out of range.
  """
  cfg = data_fields.resolve(data_cfg, defaults())
  data_fields.choice(cfg, "layout", LAYOUTS)
  label_noise.parse(cfg.noise or "none")
  if cfg.channels != 3 or cfg.image_size < 1:
    raise UserError(f"config.data: channels={cfg.channels} must be 3, image_size={cfg.image_size} "
                    "at least 1")
  if len(cfg.synthetic_counts) != 3:
    raise UserError(f"config.data.synthetic_counts={cfg.synthetic_counts}: (train, val, test)")
  return cfg


def spec(data_cfg) -> data_fields.Spec:
  """Images as they are shown to the network."""
  cfg = resolve(data_cfg)
  return data_fields.Spec((cfg.image_size, cfg.image_size, 3), -1 if cfg.mean_image else 0, 1)


def build(data_cfg, seed: int) -> Segmentation:
  """The data set of `config.data`, all masks checked.

  Raises:
    UserError, FileNotFoundError: one line saying which file or field is wrong.
  """
  cfg = resolve(data_cfg)
  parts, name = {"folders": _folders, "manifest": _manifest, "synthetic": _synthetic}[cfg.layout](
      cfg, seed)
  for part in ("noisy", "clean"):
    if not parts[part]:
      raise UserError(f"{name}: no {part} training image is left; config.data.clean={cfg.clean} of "
                      f"{len(parts['noisy'] + parts['clean'])}")
  return Segmentation(cfg, parts, name, synthetic=cfg.layout == "synthetic")


def read_example(path, data_cfg) -> np.ndarray:
  """An image file as the network is shown it: float32 [S,S,3] in [0,1], less the mean image."""
  cfg = resolve(data_cfg)
  mean = images.read_mean_image(cfg.mean_image) if cfg.mean_image else None
  return images.to_network(formats.read_8bit(path, 3), cfg.image_size, mean)


# ---------------------------------------------------------------------------------------- layouts
def _file_items(triples, cfg) -> list[Item]:
  """Items of (id, group, image file, mask file); every mask is read once and checked."""
  soft = cfg.soft_masks
  with concurrent.futures.ThreadPoolExecutor(16) as pool:  # Pillow decodes without the GIL
    list(pool.map(lambda t: images.check_pair(t[2], t[3], soft), triples))
  items = []
  for ident, group, image, mask in triples:
    read = functools.partial(images.read_mask, mask, soft)
    items.append(Item(ident, functools.partial(formats.read_8bit, image, 3), read, read,
                      str(image), group))
  return items


def _noisy(item: Item, cfg) -> Item:
  """The item with the noisy version of its expert mask."""
  kind, seed = cfg.noise, cfg.noise_seed

  def mask():
    image = item.image() if "threshold" in kind else None
    noisy = label_noise.apply(item.truth() > 0.5, kind, seed, item.id, image)
    return noisy.astype(np.float32)
  return dataclasses.replace(item, mask=mask)


def _folders(cfg, seed):
  del seed
  root = pathlib.Path(cfg.dir or ".")
  if not root.is_dir():
    raise FileNotFoundError(f"config.data.dir={root} does not exist")
  train = next((root / n for n in ("training", "Training") if (root / n).is_dir()), root)

  def part(folder, name):
    pairs = images.pair(folder / f"{name}_img", folder / f"{name}_gt")
    return _file_items([(stem, "", image, mask) for stem, image, mask in pairs], cfg)
  parts = {"clean": part(train, "clean")}
  if cfg.noise:  # the folder's noisy masks are then taken as expert ones
    parts["noisy"] = [_noisy(i, cfg) for i in part(train, "noisy")]
  else:
    parts["noisy"] = [dataclasses.replace(i, truth=None) for i in part(train, "noisy")]
  for name in ("val", "test"):
    if (root / f"{name}_img").exists() or (root / f"{name}_gt").exists():
      parts[name] = part(root, name)
  held = cfg.val_from_clean
  if held and "val" not in parts:
    order = np.random.default_rng(cfg.clean_seed).permutation(len(parts["clean"]))
    clean = [parts["clean"][i] for i in order]
    parts["val"], parts["clean"] = clean[:held], clean[held:]
  return _limited(parts, cfg), root.resolve().name


def _manifest(cfg, seed):
  del seed
  root = pathlib.Path(cfg.dir or ".")
  path = root / cfg.manifest
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
  if cfg.noise:
    parts["noisy"] = [_noisy(i, cfg) for i in items(noisy)]
  elif "noisy_mask" in rows[0]:
    masks = items(noisy, "noisy_mask")
    parts["noisy"] = [dataclasses.replace(i, truth=t.mask) for i, t in zip(masks, items(noisy))]
  else:
    raise UserError(f"{path} has no column 'noisy_mask': add one, or set config.data.noise")
  return _limited(parts, cfg), root.resolve().name


def _draw_clean(n, cfg) -> np.ndarray:
  """bool [n]: config.data.clean of n, drawn so that a larger number contains a smaller one."""
  wanted = cfg.clean
  if not 0 < wanted < n:
    raise UserError(f"config.data.clean={wanted}: choose 1 to {n - 1} of the {n} training images")
  chosen = np.zeros(n, bool)
  chosen[np.random.default_rng(cfg.clean_seed).permutation(n)[:wanted]] = True
  return chosen


def _synthetic(cfg, seed):
  del seed  # the lesions stay the same, so that seeds of a study differ in training alone
  counts = dict(zip(("train", "val", "test"), cfg.synthetic_counts))
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
  parts["noisy"] = [_noisy(t, cfg) if cfg.noise else t
                    for t, c in zip(train, clean) if not c]
  return _limited(parts, cfg), "synthetic_lesions"


def _limited(parts, cfg):
  limit = cfg.limit
  return {**parts, "noisy": parts["noisy"][:limit]} if limit else parts


# --------------------------------------------------------------------------------------- data set
class Segmentation(DataSet):
  """Streams "noisy" and "clean"; splits val, test, and of the training images noisy (the quality of
  annotations) and clean (how far the few expert masks are fitted)."""

  def __init__(self, cfg, parts: dict[str, list[Item]], name: str, synthetic: bool = False):
    self._cfg, self.parts, self.name, self.synthetic = cfg, parts, name, synthetic
    self.splits = tuple(s for s in ("val", "test", "noisy", "clean") if parts.get(s))
    path = cfg.mean_image
    self._mean = images.read_mean_image(path) if path else None
    self._sources = {}

  def _source(self, items, **options):
    soft = self._cfg.soft_masks
    return images.Pairs(items, self._cfg.image_size, soft=soft, mean_image=self._mean,
                               **options)

  def train(self):
    if "train" not in self._sources:
      from data_pipelines.ops import augment  # TensorFlow
      margin, ops = self._cfg.crop, []
      ops += [augment.paired_crop(self._cfg.image_size)] if margin else []
      ops += [augment.paired_flip()] if self._cfg.flip else []
      options = dict(margin=margin, batch_ops=ops, augmented=True)
      noisy, clean = self.parts["noisy"], self.parts["clean"]
      both = noisy + clean if self._cfg.noisy_includes_clean else noisy
      self._sources["train"] = {
          "noisy": self._source(both, first_sample=0, noisy=len(noisy), **options),
          "clean": self._source(clean, **options)}
    return self._sources["train"]

  def validation(self):
    return self.split("val") if "val" in self.splits else None

  def fitting(self):
    return self.split("noisy")

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
            "size": self._cfg.image_size, "noise": self._cfg.noise,
            "noise_dice_first_100": self.noise_dice(100)}

  def noise_dice(self, limit: int | None = None) -> float | None:
    """Mean Dice of the noisy masks against the expert ones; None where there are none."""
    values = [label_noise.dice(i.mask() > 0.5, i.truth() > 0.5)
              for i in self.parts["noisy"][:limit] if i.truth is not None]
    return round(float(np.mean(values)), 4) if values else None


def _crc(items):
  return f"{zlib.crc32(' '.join(i.id for i in items).encode()):08x}"
