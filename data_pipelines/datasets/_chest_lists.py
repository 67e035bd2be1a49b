"""The five lists of chest data sets, by their layouts, and the marks of each image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import concurrent.futures
import logging
import pathlib

import numpy as np

from data_pipelines.chest import covid_radiography, listing, padchest, rsna
from data_pipelines.chest.listing import NORMAL, Radiograph
from data_pipelines.errors import UserError
from data_pipelines.formats import doubts, images
from data_pipelines.formats.regular import is_there
from data_pipelines.intake import find, mask_words, patients, splits, tables, unlisted
from data_pipelines.intake.tables import same
from data_pipelines.masks import images as mask_images
from data_pipelines.one_class.lists import Item
from data_pipelines.ops import resize

BOXES = "boxes.csv"
_PROPORTIONS = 0.02  # by which those of a mask and its image may differ: rounding
PUBLIC = ("rsna", "padchest", "covid_radiography")
# Split files of the MorphAEus paper: {list: [(file, finding)]}.
CSV_FILES = {
    "train": [("cxr_normal_train.csv", NORMAL)], "val_normal": [("cxr_normal_val.csv", NORMAL)],
    "test_normal": [("cxr_normal_test.csv", NORMAL)],
    "test_anomaly": [("cxr_opa_test.csv", "lung opacity"), ("cxr_covid_padchest_test.csv", "covid")]}
Lists = dict[str, list[Item]]


def public(cfg) -> tuple[Lists, dict, dict[str, Radiograph]]:
  """(lists, notes, {name: radiograph}) of the public data sets, split here by patient.

  Raises:
    FileNotFoundError, UserError: what the readers of chest/ find; no finding that config.data.findings names.
  """
  found = {"rsna": lambda: rsna.radiographs(cfg.root, cfg.image_root),
           "padchest": lambda: padchest.radiographs(cfg.root, cfg.image_root, cfg.projections, cfg.invert),
           "covid_radiography": lambda: covid_radiography.radiographs(cfg.root)}[cfg.layout]()
  shown = list(listing.counts(found).items())[:12]
  logging.info("%s: %s", cfg.root, ", ".join(f"{n} {finding}" for finding, n in shown))
  found = _wanted(found, cfg)
  patient = lambda r: patients.by_pattern(r.name, cfg.group_pattern) or r.patient or r.name
  items = [Item(r.name, r.name if cfg.grouping == "file" else patient(r), r.finding, r.path) for r in found]
  place = _split(items, cfg)
  lists: Lists = {part: [] for part in ("train", "val_normal", "val_anomaly", "test_normal", "test_anomaly")}
  unused = 0
  for item in items:
    split, ill = place[item.group], item.kind != NORMAL
    if split == "train" and ill:
      unused += 1
    else:
      lists["train" if split == "train" else f"{split}_{'anomaly' if ill else 'normal'}"].append(item)
  if unused:
    logging.info("%s: %d images with findings belong to patients that are trained on: not used", cfg.root,
                 unused)
  return lists, {"protocol": f"{cfg.layout}, split by patient", "fold_seed": cfg.fold_seed}, {
      r.name: r for r in found}


def _split(items, cfg):
  """{patient: split}: those with a normal image by the shares; the others between val and test alone, in the
  same proportion."""
  healthy = {i.group for i in items if i.kind == NORMAL}
  place = splits.split_patients(healthy, {"test": cfg.test_share, "val": cfg.val_share}, cfg.fold_seed)
  ill = {i.group for i in items} - healthy
  share = cfg.test_share / (cfg.test_share + cfg.val_share)
  half = splits.split_patients(ill, {"test": share}, cfg.fold_seed)
  return {**place, **{p: "val" if s == "train" else s for p, s in half.items()}}


def _wanted(found: Sequence[Radiograph], cfg) -> list[Radiograph]:
  """Normal images, and those whose findings are asked for; "not normal" of RSNA only by name."""
  asked = {same(f) for f in cfg.findings}
  of = lambda r: {same(f) for f in r.finding.split("|")}
  there = set[str]().union(*(of(r) for r in found)) if found else set()
  if lacking := sorted(asked - there):
    raise UserError(f"config.data.findings: {cfg.root} has no {lacking[0]!r}; it has "
                    f"{', '.join(sorted(there - {NORMAL})[:12])} ...")
  default = lambda r: r.finding != "not normal"
  return [r for r in found if r.finding == NORMAL or (of(r) & asked if asked else default(r))]


def csv_lists(cfg) -> tuple[Lists, dict]:
  """The lists of the MorphAEus paper's CSV files: a header line, then a path a line."""
  root, base = pathlib.Path(cfg["lists_root"]), pathlib.Path(cfg["image_root"])
  for name, folder in (("lists_root", root), ("image_root", base)):
    if not cfg[name] or not folder.is_dir():
      raise FileNotFoundError(f"no folder config.data.{name}={cfg[name]!r}; give the folder with "
                              f"{CSV_FILES['train'][0]} and the one its paths start from")
  lists: Lists = {}
  seen = []
  for part, files in CSV_FILES.items():
    lists[part] = []
    for file, kind in files:
      path = tables.place(root, file)
      if not path.is_file() and part == "test_anomaly":
        continue  # each finding may be missing, not all: that OneClassDataSet refuses
      for row in tables.read_table(path, ("filename",)).rows:
        item = row.file("filename").removeprefix("./")
        lists[part].append(Item(item, pathlib.PurePosixPath(item).stem, kind, str(base / item)))
      seen.append(file)
  if any(item.kind == "covid" for item in lists["test_anomaly"]):
    logging.warning("%s: covid is of PadChest and tested against cxr_normal_test.csv, largely of RSNA; the "
                    "paper's normal images of PadChest are in no list of its code. A score that tells "
                    "sources apart finds covid", root)
  return lists, {"protocol": "CSV split files", "files": seen}


def of_folder(root, lists: Mapping[str, Sequence[Item]], window=(0, 0)) -> dict[str, Radiograph]:
  """{name: radiograph} of a labelled folder where it has boxes.csv or a folder of masks, else {}.

  boxes.csv: file, x, y, width, height. Masks: masks/ (or ground_truth/, segmentations/ ...) and below it the
  image's path, whole or without its split, perhaps with _mask or the like: ground_truth/crack/3_mask.png
  belongs to test/crack/3.png.

  Raises:
    UserError: boxes of images that are not listed, of normal images, or beyond their image; two masks of one.
  """
  items = [i for part in lists.values() for i in part]
  table = tables.place(root, BOXES)
  boxes = listing.read_boxes(table) if is_there(table) else {}
  if lacking := sorted(boxes.keys() - {i.name for i in items}):
    logging.warning("%s: boxes of %d images that are in no split, e.g. %s", table, len(lacking), lacking[0])
    if len(lacking) == len(boxes):
      raise UserError(f"{table}: none of its files is one of the images; write them as labels.csv does, e.g. "
                      f"{items[0].name}")
  masks = _masks(pathlib.Path(root), {place for i in items for place in _places(i.name)})
  if not boxes and not masks:
    unlisted.say_boxes(unlisted.beside(root), [unlisted.Picture(i.name, "", 0) for i in items], (
        f"write them into {BOXES} (file, x, y, width, height), or draw masks, masks/<path of the image>"))
    return {}
  found = {i.name: Radiograph(i.name, i.path, i.kind, i.group, boxes.get(i.name, ()), _mask_of(i.name, masks))
           for i in items}
  of_mask: dict[str, str] = {}
  for r in found.values():
    if r.mask and of_mask.setdefault(r.mask, r.name) != r.name:
      raise UserError(f"{r.mask} is the mask of {of_mask[r.mask]} and of {r.name} by its path: put it below "
                      "the folder of its split, as the image is")
  normal = {i.name for part in ("train", "val_normal", "test_normal") for i in lists.get(part, ())}
  if healthy := [r for r in found.values() if r.boxes and r.name in normal]:
    raise UserError(f"{table}: {len(healthy)} normal images have boxes, the first {healthy[0].name}: a box "
                    "says where a finding is")
  used = {place for r in found.values() if r.mask for place in _places(r.name)}
  mask_words.refuse_several({name: file for name, file in masks.items() if name not in used},
                            {place for i in items for place in _places(i.name)})
  if lacking := sorted(set(masks.values()) - {r.mask for r in found.values()}):
    logging.warning("%s: %d masks fit no image and are not used, the first %s; a mask has its image's path",
                    root, len(lacking), lacking[0])
  doubts.say_of_masks([(r.path, r.mask) for r in found.values() if r.mask])
  doubts.say_turned([(r.path, None) for r in found.values() if r.boxes], "boxes")
  _check_masks({r.mask: r for r in found.values() if r.mask}, normal)
  boxed = [r for r in found.values() if r.boxes]
  listing.say_of_boxes([(r, images.size(r.path, window)) for r in boxed], str(table))
  unmarked = sum(not (r.boxes or r.mask) for part in ("val_anomaly", "test_anomaly") for r in
                 (found[i.name] for i in lists.get(part, ())))
  if unmarked:
    logging.warning("%s: %d images with findings have neither box nor mask: nothing in them counts as "
                    "abnormal in scores of pixels", root, unmarked)
  return found


def _check_masks(of_mask: Mapping[str, Radiograph], normal) -> None:
  """Reads masks of findings once; says which look inverted, empty or like lines.

  Args:
    of_mask: {file: its image}. normal: names of the normal images.

  Raises:
    UserError: one marks something in a normal image, or cannot be read.
  """
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    told = list(pool.map(lambda f: mask_images.told_of(mask_images.read_marks(f)[..., 0].astype(np.float32)),
                         of_mask))
  odd = [(f, r) for (f, r), t in zip(of_mask.items(), told) if t.share and r.name in normal]
  if odd:
    raise UserError(f"{odd[0][1].path} is normal by its label, and its mask {odd[0][0]} marks something "
                    f"({len(odd)} such images): a mask says where a finding is; masks of the lungs lie in "
                    "another folder")
  of_ill = [(f, t) for (f, r), t in zip(of_mask.items(), told) if r.name not in normal]
  mask_images.say_of_shapes([f for f, _ in of_ill], [t for _, t in of_ill])


def _masks(root, known):
  """{the one of the `known` places that a mask belongs to: file}; refuses two for one image."""
  found: dict[str, str] = {}
  for path in find.find(root, ("image",)).files:
    first, *below = path.relative_to(root).parts
    if below and first.lower() in mask_words.FOLDERS:
      name = mask_words.image_of(find.without_ending("/".join(below)), known)
      if name in found:
        raise UserError(f"{found[name]} and {path} are masks of one image: take one away")
      found[name] = str(path)
  return found


def _places(name):
  """Where the mask of an image may lie below its folder: as the image does, or without train, val or test."""
  whole = find.without_ending(name)
  return [whole, *filter(None, [whole.partition("/")[2]])]


def _mask_of(name, masks):
  return next((masks[place] for place in _places(name) if place in masks), "")


def marks(radiograph: Radiograph, size: int, shape_of: Callable[[str], tuple[int, int]]
          ) -> dict[str, np.ndarray]:
  """{"mask" float32 [S,S,1]: the finding, by its mask, else its boxes; "lungs" where their mask is known}.

  Args:
    shape_of: path -> (H, W) of an image.
  """
  found = {"mask": np.zeros((size, size, 1), np.float32)}
  if radiograph.mask:
    found["mask"] = read_mask(radiograph.mask, size, shape_of(radiograph.path))
  elif radiograph.boxes:
    shape = shape_of(radiograph.path)
    listing.check_inside(radiograph, shape)
    found["mask"] = listing.rasterise(radiograph.boxes, shape, size)
  if radiograph.lungs:
    found["lungs"] = read_mask(radiograph.lungs, size)
  return found


def ellipses(size: int) -> np.ndarray:
  """A stated lung region for frontal radiographs without masks, float32 [S,S,1]: two upright ellipses.

  Centres (0.30, 0.48) and (0.70, 0.48), half axes 0.16 and 0.31 of width and height: nobody's lungs exactly.
  """
  y, x = (np.mgrid[:size, :size] + 0.5) / size
  inside = [((x - u) / 0.16) ** 2 + ((y - 0.48) / 0.31) ** 2 <= 1 for u in (0.30, 0.70)]
  return (inside[0] | inside[1])[..., None].astype(np.float32)


def read_mask(path, size: int, shape: tuple[int, int] | None = None) -> np.ndarray:
  """A mask's file as float32 [S,S,1]: 1 where more than half of a pixel is marked (at least one pixel).

  Args:
    shape: (H, W) of its image: the mask may be coarser or finer, but not of other proportions.
  """
  marked = mask_images.read_marks(path)[..., 0].astype(np.float32)
  if shape and abs(marked.shape[0] * shape[1] / (marked.shape[1] * shape[0]) - 1) > _PROPORTIONS:
    raise UserError(f"mask {path} is {marked.shape[1]}x{marked.shape[0]} pixels, its image "
                    f"{shape[1]}x{shape[0]}: not of its proportions, it is not the mask of this image")
  shares = resize.area(marked, size)
  mask = shares > 0.5
  if marked.any() and not mask.any():
    mask = shares == shares.max()
  return mask[..., None].astype(np.float32)
