"""Patches straight from slides, cut when the training asks for them: nothing is prepared on disk.

  ROOT/labels.csv     file, split (train, val, test), label (normal, tumour ...) of slides, group or patient
  MASKS/<stem>.png    of an abnormal slide, over the whole of it at any size: 0 = normal. Cells that are at
                      least half marked are abnormal, unmarked ones normal, others are left out. Without a
                      mask all cells of an abnormal slide count as abnormal; the log says of how many.

The training stream is a pure function of the step: step -> cells (a permutation of all cells a pass), and
within a window of crop_size + jitter a random place, mirror images and stains. Which cells have tissue is
found once a slide and kept in tissue_dir.
"""

from __future__ import annotations

import collections
import logging
import pathlib

import ml_collections
import numpy as np

from data_pipelines import fields as data_fields
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.one_class import transforms
from data_pipelines.one_class.folders import read_labels
from data_pipelines.one_class.lists import ImageSource, Item, OneClassDataSet


def defaults() -> ml_collections.ConfigDict:
  """Fields of config.data."""
  fields = data_fields.common("slides")
  fields.root = ""                 # folder with labels.csv
  fields.image_size = 64           # side of the images, for modes that open no data: crop_size
  fields.channels = 3              # always colour
  fields.masks_dir = ""            # folder with masks of abnormal slides, not below root; "" = none
  data_fields.files(fields)
  fields.normal_words = ()         # further words for normal labels
  fields.anomaly_words = ()        # ... and for anomalies
  fields.crop_size = 64            # side of a patch
  fields.mpp = 0.0                 # its micrometres a pixel, or
  fields.magnification = 10.0      # ... its magnification, where mpp is 0
  fields.own_mpp = 0.0             # of level 0, for slides that do not say it
  fields.jitter = 64               # pixels by which windows are wider than patches; 0 = the cells themselves
  fields.random_flip = True        # training: fresh flips every step
  fields.stain = 0.05              # training: stains vary by this share (data_pipelines/ops/stain.py)
  fields.tissue = 0.5              # least share of tissue in a cell
  fields.per_slide = 2000          # cells of a training slide at most, evenly spread; 0 = all
  fields.scored_per_slide = 100    # ... of a slide of val or test
  fields.tissue_dir = ""           # folder for what is found out about slides; "" = found out at every start
  fields.window = (0, 0)           # of patch files that predict reads
  return fields


def resolve(data_cfg) -> ml_collections.ConfigDict:
  """All fields, checked.

  Raises:
    UserError: an unknown field, or one out of range.
  """
  cfg = data_fields.resolve(data_cfg, defaults())
  data_fields.choice(cfg, "grouping", data_fields.GROUPINGS)
  if not cfg.mpp + cfg.magnification or not 0 <= cfg.stain < 1:
    raise UserError(f"config.data: mpp or magnification must be above 0, stain={cfg.stain} below 1")
  return cfg


def spec(data_cfg) -> data_fields.Spec:
  """Images as they are shown to the network."""
  size = resolve(data_cfg).crop_size
  return data_fields.Spec((size, size, 3), -1, 1)


def build(data_cfg, seed: int) -> SlidePatches:
  """The data set.

  Raises:
    UserError: a field, the table, a slide without tissue or of unknown resolution, masks that fit no slide;
    FileNotFoundError.
  """
  del seed
  from data_pipelines.slides.patches import Library
  cfg = resolve(data_cfg)
  root = pathlib.Path(data_fields.given_dir(cfg, "root", "a folder with labels.csv and slides"))
  library = Library(cfg)
  lists: dict[str, list[Item]] = {}
  used = {place: slides for place, slides in read_labels(root, cfg).items()
          if place[0] and place != ("train", "anomaly")}
  abnormal = [s for (_, side), slides in used.items() if side == "anomaly" for s in slides]
  masks = _masks(abnormal, cfg.masks_dir)
  for (split, side), slides in used.items():
    for slide in slides:
      for item, ill in _cells(library, slide, side, split, masks.get(slide.path), cfg):
        part = "train" if split == "train" else f"{split}_{'anomaly' if ill else 'normal'}"
        lists.setdefault(part, []).append(item)
  return SlidePatches(cfg, lists, library, f"slides of {root.name}")


def _masks(abnormal: list[Item], folder: str) -> dict[str, pathlib.Path]:
  """{path of an abnormal slide: its mask}; slides without one are said.

  Raises:
    FileNotFoundError: no such folder. UserError: no mask of it fits a slide, or one fits two.
  """
  if not folder:
    return {}
  if not pathlib.Path(folder).is_dir():
    raise FileNotFoundError(f"no folder config.data.masks_dir={folder!r}")
  places = {s.path: pathlib.Path(folder) / f"{pathlib.Path(s.path).stem}.png" for s in abnormal}
  found = {path: mask for path, mask in places.items() if mask.is_file()}
  fits = collections.Counter(found.values())
  if twice := sorted(p for p, mask in found.items() if fits[mask] > 1):
    raise UserError(f"{found[twice[0]]} fits {' and '.join(twice[:2])}: give slides names of their own")
  if places and not found:
    raise UserError(f"config.data.masks_dir={folder!r} holds no mask of an abnormal slide, such as "
                    f"{next(iter(places.values())).name}")
  if lacking := [p for p in places if p not in found]:
    logging.warning("%s: %d of %d abnormal slides have no mask, all their cells count as abnormal: %s ...",
                    folder, len(lacking), len(places), pathlib.Path(lacking[0]).name)
  return found


def _cells(library, slide: Item, side: str, split: str, mask: pathlib.Path | None, cfg):
  """(item, abnormal) of the chosen cells of a slide."""
  from data_pipelines.slides.patches import spread
  plan = library.plan(slide.path)
  ill = np.full(len(plan.places), float(side == "anomaly"))
  if mask:
    ill = library.lesion_shares(slide.path, mask)
  for wanted in (ill == 0, ill >= 0.5):
    cells = np.flatnonzero(wanted)
    most = cfg.per_slide if split == "train" else cfg.scored_per_slide
    for cell in cells[spread(len(cells), most)]:
      row, column = plan.places[cell]
      name = f"{slide.name}_x_{column * plan.tile}_y_{row * plan.tile}"
      abnormal = bool(ill[cell])
      yield Item(name, slide.group, slide.kind if abnormal else "normal", slide.path, int(cell)), abnormal


class _Windows(ImageSource):
  """Training windows with the stains of their slides."""

  def __init__(self, items, library, jitter, ops, stains: bool):
    super().__init__(items, (), lambda item: library.patch(item.path, item.place, jitter), ops,
                     with_label=False)
    self._library, self._stains = library, stains

  def read_one(self, i):
    example = super().read_one(i)
    if self._stains:
      example["stains"] = self._library.stains(self.items[i].path)
    return example


class SlidePatches(OneClassDataSet):
  """Cells of slides; see the module's docstring."""

  def __init__(self, cfg, lists, library, name: str):
    super().__init__(name, lists, lambda item: library.patch(item.path, item.place),
                     remedy="give both the same split, or a column group that tells them apart",
                     notes={k: cfg[k] for k in ("crop_size", "mpp", "magnification", "jitter", "stain",
                                                "random_flip", "tissue", "per_slide")})
    self._cfg, self._library = cfg, library

  def train(self):
    from data_pipelines.ops import augment, stain  # TensorFlow
    cfg = self._cfg
    ops = [augment.random_crop(cfg.crop_size)] if cfg.jitter else []
    ops += [augment.random_flip()] if cfg.random_flip else []
    ops += [stain.stain_jitter(cfg.stain)] if cfg.stain else []
    return _Windows(self.lists["train"], self._library, cfg.jitter, [*ops, transforms.normalize_batch()],
                    bool(cfg.stain))

  def resident_arrays(self):
    raise UserError("config.data.resident: patches of slides are cut when they are asked for; turn it off")


def read_example(path, data_cfg):
  """A patch file as the network is shown it: float32 [S,S,3] in [-1, 1], its centre only."""
  cfg = resolve(data_cfg)
  return of_pixels(cfg)[0](images.read_8bit(path, 3, cfg.window))


def place_map(values, shape, data_cfg):
  """A map [S,S] of `read_example` on the patch's own pixels, float64 [H,W]; zero off the centre."""
  return of_pixels(data_cfg)[1](values, shape)


def of_pixels(data_cfg):
  """(example, place) of data_pipelines.modules.Module: the same for pixels at hand."""
  size = resolve(data_cfg).crop_size
  return (lambda pixels: transforms.normalize(transforms.center_crop(pixels, size)),
          lambda values, shape: transforms.uncrop(values, size, tuple(shape), shape))
