"""Images with masks of one class: many with cheap masks (stream "noisy"), few with expert ones.

Layouts (config.data.layout):
  folders    the reference's: [training/]noisy_img, noisy_gt, clean_img, clean_gt, test_img, test_gt
             and optionally val_img, val_gt. Images and masks are paired by their paths below these;
             a mask may end in _mask, _seg, _gt or the like.
  manifest   a CSV file (config.data.manifest) with columns image, mask, split (train, val, test),
             optionally image_id, group (or patient), noisy_mask and clean (0/1). Without a column
             "clean", config.data.clean training images, drawn with clean_seed, keep their expert mask.
  synthetic  data_pipelines/masks/synthetic_lesions.py.
config.data.noise makes the noisy masks from the true ones (data_pipelines/masks/label_noise.py), at
native size and once; "" takes the masks of the folder as they are. All masks are checked when the
data set is opened. Examples: image [S,S,3] float32 in [0,1] (minus config.data.mean_image, if
given), mask [S,S,1], "sample": place in the noisy set, -1 elsewhere.
"""

from __future__ import annotations

import pathlib
import zlib

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields, scored_alone
from data_pipelines.dataset import DataSet
from data_pipelines.errors import UserError
from data_pipelines.formats import images as formats
from data_pipelines.intake import patients, splits
from data_pipelines.masks import images, label_noise, layouts
from data_pipelines.masks.images import Item
from data_pipelines.ops import overlap, resize


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data."""
  fields = data_fields.common("segmentation")
  fields.dir = ""                  # folder of the data set
  fields.layout = "manifest"       # manifest, folders or synthetic
  fields.manifest = "labels.csv"   # its table: columns image, mask, split (and image_id, group)
  data_fields.files(fields)
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
  fields.window = (0, 0)           # (black, white) of deep image files and DICOM; (0, 0) = by their
                                   # headers and the rule of docs/formats.md
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
  data_fields.choice(cfg, "layout", tuple(layouts.READERS))
  data_fields.choice(cfg, "grouping", data_fields.GROUPINGS)
  label_noise.parse(cfg.noise or "none")
  if cfg.channels != 3:
    raise UserError(f"config.data.channels={cfg.channels}: must be 3")
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
  del seed  # of training alone: every run of a study sees the same images and masks
  cfg = resolve(data_cfg)
  if cfg.dir and cfg.layout == "synthetic":
    raise UserError(f"config.data.dir={cfg.dir!r} is not read by config.data.layout=synthetic: set layout to "
                    "manifest or folders, or leave dir empty")
  parts, name = layouts.READERS[cfg.layout](cfg)
  for part in ("noisy", "clean"):
    if not parts[part] and not scored_alone.now():
      raise UserError(f"{name}: no {part} training image is left; config.data.clean={cfg.clean} of "
                      f"{len(parts['noisy'] + parts['clean'])}")
  where = str(pathlib.Path(cfg.dir) / cfg.manifest) if cfg.layout == "manifest" else name
  splits.check_no_leak({"train": _groups(parts, "noisy", "clean"), "val": _groups(parts, "val"),
                        "test": _groups(parts, "test")}, where, patients.REMEDY,
                       allow=cfg.grouping == "legacy")
  return Segmentation(cfg, parts, name, synthetic=cfg.layout == "synthetic")


def _groups(parts, *names):
  return [i.group for n in names for i in parts.get(n, ()) if i.group]


def read_example(path, data_cfg) -> np.ndarray:
  """An image file as the network is shown it: float32 [S,S,3] in [0,1], less the mean image."""
  return of_pixels(data_cfg)[0](formats.read_8bit(path, 3, resolve(data_cfg).window))


def of_pixels(data_cfg):
  """(example, place) of data_pipelines.modules.Module: the same for pixels at hand."""
  cfg = resolve(data_cfg)
  mean = images.read_mean_image(cfg.mean_image) if cfg.mean_image else None
  return (lambda pixels: images.to_network(pixels, cfg.image_size, mean)), resize.bilinear


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
    values = [overlap.dice(i.mask() > 0.5, i.truth() > 0.5)
              for i in self.parts["noisy"][:limit] if i.truth is not None]
    return round(float(np.mean(values)), 4) if values else None


def _crc(items):
  return f"{zlib.crc32(' '.join(i.id for i in items).encode()):08x}"
