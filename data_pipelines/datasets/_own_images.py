"""Images of one's own folder as a data set: normals train, all are scored, masks where there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import logging
import re

import numpy as np

from data_pipelines.dataset import DataSet, Source
from data_pipelines.errors import UserError
from data_pipelines.formats import doubts, images
from data_pipelines.intake import find as finder, folder_words, mask_words, sides, unlisted
from data_pipelines.intake.sides import Member
from data_pipelines.intake.tables import same
from data_pipelines.masks import images as mask_images
from data_pipelines.ops import resize

_LABELS = 64  # kinds and pieces of a picture that has a number or a colour for each
_KINDS, _LOOKED_AT = 50, 3  # folders by name that can be of masks, images of each that are looked at


def inner(shape, size) -> tuple[slice, slice]:
  """Where an image of `shape` lies on a canvas of `size`, both (rows, columns): in the middle, unsqueezed."""
  scale = min(n / m for n, m in zip(size, shape))
  sides_ = [max(1, round(m * scale)) for m in shape]
  return tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(size, sides_))  # type: ignore[return-value]


def on_canvas(image: np.ndarray, size) -> np.ndarray:
  """float32 [H,W,C] -> [h,w,C]: resized with anti-aliasing to fit, the rest 0."""
  rows, columns = inner(image.shape[:2], size)
  full = np.zeros((*size, image.shape[2]), np.float32)
  size_inside = rows.stop - rows.start, columns.stop - columns.start
  full[rows, columns] = resize.antialiased_float(image, size_inside)
  return full


def off_canvas(values: np.ndarray, shape) -> np.ndarray:
  """[h,w] on the canvas -> [H,W] on the image's own pixels."""
  rows, columns = inner(shape, values.shape)
  return resize.bilinear(np.asarray(values)[rows, columns], shape)


def read(path, cfg: Mapping) -> np.ndarray:
  """A file as the network is shown it: float32 [h,w,C] in [0,1], or [-1,1] where cfg["signed"]."""
  image = np.clip(on_canvas(images.read_unit(path, cfg["channels"], cfg["window"]), cfg["image_size"]), 0, 1)
  return 2 * image - 1 if cfg["signed"] else image


class _Images(Source):
  """Members as examples: "image", with truth "label" int32, and "mask" where `masks`."""

  def __init__(self, members: Sequence[Member], cfg, with_truth: bool, masks: bool, ops=(), cache=None):
    self.members, self._cfg, self.batch_ops = list(members), cfg, tuple(ops)
    self._truth, self._masks, self._cache = with_truth, masks, cache

  def __len__(self):
    return len(self.members)

  def read_one(self, i):
    m = self.members[i]
    image = None if self._cache is None else self._cache.get(m.name)
    if image is None:
      image = read(m.path, self._cfg)
      if self._cache is not None:
        self._cache[m.name] = image
    if not self._truth:
      return {"image": image}
    example = {"image": image, "label": np.int32(m.label)}
    if self._masks:
      example["mask"] = self._mask(m)
    return example

  def _mask(self, m):
    size = tuple(self._cfg["image_size"])
    if m.mask is None:  # a normal image
      return np.zeros((*size, 1), np.float32)
    mask = mask_images.read_mask(m.mask)
    shape = images.size(m.path, self._cfg["window"])
    if tuple(mask.shape[:2]) != tuple(shape):
      raise UserError(f"image {m.path} is {shape[1]}x{shape[0]} and its mask {m.mask} is "
                      f"{mask.shape[1]}x{mask.shape[0]} pixels: bring them to the same size")
    return (on_canvas(np.asarray(mask, np.float32)[..., None], size) > 0.5).astype(np.float32)

  def meta(self, i):
    m = self.members[int(i)]
    return {"id": m.name, "patient": m.patient, "path": str(m.path)}


def _check_masks(members, window):
  """Reads all masks; says which abnormal images have an empty one.

  Raises:
    UserError: as `mask_images.check_pairs`; a mask marks something in an image that is normal by its folder.
  """
  masked = [m for m in members if m.mask is not None]
  marked = mask_images.check_pairs([(m.path, m.mask) for m in masked], window=window)
  odd = [m for m, share in zip(masked, marked) if share and not m.label]
  if odd:
    raise UserError(f"{odd[0].path} is normal by its folder, and its mask {odd[0].mask} marks something "
                    f"({len(odd)} such images): move it to the abnormal ones, or take the mask away")
  if empty := [m for m, share in zip(masked, marked) if m.label and not share]:
    logging.warning("%d of %d abnormal images have a mask that marks nothing, the first %s: all of their "
                    "pixels count as normal", len(empty), sum(m.label for m in masked), empty[0].mask)


def _check_beside(found: sides.Sides):
  """Says masks beside abnormal images, which are not read.

  Raises:
    UserError: x_mask.png beside x.png marks something, and x.png counts as normal.
  """
  healthy = {m.path.parent for m in found.members if not m.label}
  truth = [p for p in found.beside if p.parent not in healthy and mask_words.may_be_truth(p.stem)]
  if truth and not found.masks:
    logging.warning("%d files beside abnormal images are named as their masks, the first %s, and are not read"
                    ": put them into masks/, by the path of their image", len(truth), truth[0])
  for path in found.beside:
    if path.parent in healthy and mask_words.may_be_truth(path.stem) and _marks(path):
      raise UserError(f"{path} marks something, and its image counts as normal by its folder: put the image "
                      "into abnormal/ and the mask into masks/, or take the mask away")


def _say_tables(found, members, cfg):
  """Says tables beside the images that are not read and say more of them than folders and names do."""
  beside = unlisted.tables_of(found.found, cfg["split_table"])
  pictures = [unlisted.Picture(m.name, m.split, m.label) for m in members]
  if cfg["grouping"] == "patient":
    unlisted.say_tables(beside, pictures, found.root, unlisted.TOGETHER)
  if any(m.label for m in members) and not any(m.mask for m in members):
    unlisted.say_boxes(beside, pictures, "draw them as masks, masks/a.png of abnormal/a.png")


def _marks(path) -> bool:
  """Whether a file beside an image marks something: a mask, or numbers or colours of labels on 0."""
  try:
    return bool(np.any(mask_images.read_mask(path) > 0.5))
  except (UserError, OSError):
    pass
  try:
    pixels = images.read_plain(path)
  except (UserError, OSError):  # no mask
    return False
  if len(_colours(pixels[::8, ::8])[0]) > _LABELS:  # a photograph, without sorting all of it
    return False
  found, number = _colours(pixels)
  return 1 < len(found) <= _LABELS and not found[number.argmax()].any()


def _colours(pixels):
  """(the different ones [n,C], how many pixels have each [n]) of [H,W,C]."""
  return np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0, return_counts=True)


def _check_folders(members, window):
  """Raises UserError where a folder of images holds masks by its first files, and others do not."""
  folders: dict[tuple, list] = {}
  for m in members:
    folders.setdefault((m.label, same(m.path.parent.name)), []).append(m.path)
  if not 1 < len(folders) <= _KINDS:  # more are of patients
    return
  greys = {key: _greys(paths[:_LOOKED_AT], window) for key, paths in folders.items()}
  for label, side in enumerate(("normal", "abnormal")):
    masks = [key for key, found in greys.items() if set(found) == {2} and key[0] == label]
    # Abnormal ones lie beside pictures for sure; normal ones beside whatever is no mask.
    others = [k for k, found in greys.items() if (0 in found if label else k[0] == 0 and k not in masks)]
    if masks and others:
      raise UserError(f"{folders[masks[0]][0]} has two grey values alone, as masks have, and so have others "
                      f"of its folder, which count as {side} images: call the folder masks, or take it away")


def _check_twins(members, window):
  """Raises UserError where of a.jpg and a.png, or of a.png and a_tumor.png, one has two grey values alone: it
  is the mask of the other."""
  named: dict = {}
  for m in members:
    named.setdefault((m.path.parent, same(finder.stem_of(m.path))), []).append(m.path)
  pairs = [paths for paths in named.values() if len(paths) > 1][:_LOOKED_AT]
  further: dict[str, list] = {}  # by the words behind, or before, the name of the image
  for (folder, stem), paths in named.items():
    for at in mask_words.BETWEEN.finditer(stem):
      for image, rest in ((stem[:at.start()], stem[at.end():]), (stem[at.end():], stem[:at.start()])):
        if own := named.get((folder, image)):
          further.setdefault(re.sub(r"\d+", "", rest), []).append([own[0], paths[0]])
  pairs += [pair for found in list(further.values())[:_KINDS] for pair in found[:_LOOKED_AT]]
  for paths in pairs:
    greys = _greys(paths, window)
    if {0, 2} <= set(greys):
      raise UserError(f"{paths[greys.index(2)]} has two grey values alone, as the mask of "
                      f"{paths[greys.index(0)].name} has, and counts as an image: put such files into masks/"
                      ", by the path of their image")


def _greys(paths, window) -> list[int]:
  """`doubts.few_greys` of each; [] where one cannot be read, its reader says why."""
  try:
    return [doubts.few_greys(images.read_unit(p, window=window)) for p in paths]
  except (UserError, OSError):
    return []


class OwnImages(DataSet):
  """Images of one's own folder; see intake/sides.py for who is in which split.

  Attributes:
    decided: fields of config.data that opening has found. listing: rows of splits.csv.
  """

  synthetic = False

  def __init__(self, found: sides.Sides, cfg: Mapping, ops):
    self.name, self._cfg, self._ops = found.root.name, cfg, tuple(ops)
    mask_words.refuse_folders([m.path for m in found.members], found.root, [
        *cfg["normal_words"], *cfg["anomaly_words"]])
    members = sides.assign(sides.with_masks(found), cfg, found.root)
    self.parts = {s: [m for m in members if m.split == s] for s in sides.SPLITS}
    self.decided = {"modalities": (), **sides.decided(found)}
    self.listing = sides.rows(members)
    self._cache: dict | None = {} if cfg["cache"] else None
    ill = [m for m in members if m.label]
    # Pixel metrics need the masks of all abnormal images: one that lacks its mask is no empty one.
    self._masks = bool(ill) and all(m.mask is not None for m in ill)
    self._notes = {"abnormal images with a mask": f"{sum(m.mask is not None for m in ill)} of {len(ill)}"}
    _check_twins(members, cfg["window"])
    _check_folders(members, cfg["window"])
    _check_masks(members, cfg["window"])
    _check_beside(found)
    _say_tables(found, members, cfg)
    folder_words.say_lateral([m.name for m in members], found.root)
    test = self.parts["test"]
    healthy, abnormal = ([str(m.path) for m in test if m.label == side] for side in (0, 1))
    doubts.say_told_by_form(healthy, abnormal, [str(m.path) for m in self.parts["train"]])
    self.splits = tuple(s for s in ("val", "test") if self.parts[s])

  def _source(self, members, truth, ops=()):
    return _Images(members, self._cfg, truth, self._masks, ops, self._cache)

  def train(self):
    return self._source([m for m in self.parts["train"] if not m.label], False, self._ops)

  def validation(self):
    return self._source([m for m in self.parts["val"] if not m.label], False, self._ops)

  def fitting(self):
    return self._source([m for m in self.parts["train"] if not m.label], False)

  def split(self, name):
    if name not in self.splits:
      raise UserError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
    return self._source(self.parts[name], True)

  def has_lesions(self, name):
    return self._masks and any(m.label for m in self.parts[name])

  def describe(self):
    count = lambda members: {"normal": sum(not m.label for m in members),
                             "abnormal": sum(m.label for m in members),
                             "patients": len({m.patient for m in members})}
    return {"name": self.name, "synthetic": False, "source": str(self._cfg["dir"]),
            "splits": {s: count(found) for s, found in self.parts.items()}, **self._notes}
