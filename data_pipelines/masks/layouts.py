"""Layouts of a segmentation set: folders, a table, synthetic lesions; see datasets/segmentation.py."""

from __future__ import annotations

import collections
from collections.abc import Callable
import dataclasses
import functools
import logging
import pathlib
import re

import numpy as np

from data_pipelines import scored_alone
from data_pipelines.errors import UserError
from data_pipelines.formats import images as formats
from data_pipelines.intake import patients, tables, unlisted, vocabulary
from data_pipelines.masks import images, label_noise, synthetic_lesions
from data_pipelines.masks.images import Item

# Names that say a place in a list and no patient.
_COUNTED = re.compile(r"(.*/)?(img|image|im|frame|pic|picture|photo)?[-_ ]*\d+", re.IGNORECASE)
Parts = dict[str, list[Item]]  # "noisy", "clean" to train on; "val", "test" where there are some


def _file_items(triples, cfg) -> list[Item]:
  """Items of (id, group, image file, mask file); every mask is read once and checked."""
  soft = cfg.soft_masks
  images.check_pairs([t[2:] for t in triples], soft, cfg.window)
  items = []
  for ident, group, image, mask in triples:
    read = functools.partial(images.read_mask, mask, soft)
    items.append(Item(ident, functools.partial(formats.read_8bit, image, 3, cfg.window), read, read,
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


def _folders(cfg):
  root = pathlib.Path(cfg.dir or ".")
  if not root.is_dir():
    raise FileNotFoundError(f"config.data.dir={root} does not exist")
  train = next((root / n for n in ("training", "Training") if (root / n).is_dir()), root)

  folders = {"noisy": train / "noisy", "clean": train / "clean"}
  folders |= {s: root / s for s in ("val", "test")
              if any((root / f"{s}_{kind}").exists() for kind in ("img", "gt"))}
  pairs = {part: images.pair(f"{path}_img", f"{path}_gt") for part, path in folders.items()}
  _say_same_names({part: [stem for stem, _, _ in found] for part, found in pairs.items()}, root)
  names = [f"{part}_img/{stem}" for part, found in pairs.items() for stem, _, _ in found]
  groups = dict(zip(names, [""] * len(names) if cfg.grouping == "legacy" else patients.of_files(
      names, cfg.group_pattern, cfg.grouping)))
  parts = {part: _file_items([(stem, groups[f"{part}_img/{stem}"], image, mask)
                              for stem, image, mask in found], cfg) for part, found in pairs.items()}
  if cfg.noise:  # the folder's noisy masks are then taken as expert ones
    parts["noisy"] = [_noisy(i, cfg) for i in parts["noisy"]]
  else:
    parts["noisy"] = [dataclasses.replace(i, truth=None) for i in parts["noisy"]]
  if cfg.val_from_clean and "val" not in parts:
    parts["val"], parts["clean"] = _held_out(parts, cfg)
  return _limited(parts, cfg), root.resolve().name


def _say_same_names(stems, root):
  """Warns of scored images that are called as training images; bare numbers begin anew in every folder."""
  trained = {*stems["noisy"], *stems["clean"]}
  both = [stem for part in ("val", "test") for stem in stems.get(part, ())
          if stem in trained and not _COUNTED.fullmatch(stem)]
  if both:
    logging.warning("%s: %d images of val and test have the names of training images, the first %s: where "
                    "they are of the same patients, results say how well these are known", root, len(both),
                    both[0])


def _held_out(parts, cfg):
  """(val, clean): `val_from_clean` clean images or more, as no patient of theirs stays in training."""
  order = np.random.default_rng(cfg.clean_seed).permutation(len(parts["clean"]))
  clean = [parts["clean"][i] for i in order]
  trained = {i.group for i in parts["noisy"] if i.group}
  free = [i for i in clean if i.group not in trained]
  held: set[str] = set()
  for item in free:
    if sum(_owner(i) in held for i in clean) >= cfg.val_from_clean:
      break
    held.add(_owner(item))
  return [i for i in clean if _owner(i) in held], [i for i in clean if _owner(i) not in held]


def _owner(item):
  return item.group or item.id


def _manifest(cfg):
  root = pathlib.Path(cfg.dir or ".")
  path = tables.place(root, cfg.manifest)
  if not path.is_file():
    raise FileNotFoundError(f"{path} does not exist: set config.data.dir to the folder of the data "
                            "set and config.data.manifest to its table")
  table = tables.read_table(path, ("image", "mask", "split"), ("image_id", "group", "noisy_mask", "clean"))
  table.unique("image", file=True)
  names = [r.file("image") for r in table.rows]
  masks = [r[c].replace("\\", "/") for c in ("mask", "noisy_mask") if c in table.columns for r in table.rows]
  unlisted.say(path, root, [*names, *masks], ("image",))
  _say_doubts(table, names, cfg.noise)
  idents = dict(zip(names, _idents(table, names)))
  groups = dict(zip(names, patients.of_rows(table.rows, names, cfg.group_pattern, cfg.grouping)))

  def items(rows, column="mask"):
    return _file_items([(idents[r.file("image")], groups[r.file("image")], root / r.file("image"),
                         root / r.file(column)) for r in rows], cfg)
  by_split: dict[str, list] = {split: [] for split in ("train", "val", "test", "")}
  for row in table.rows:
    if cfg.grouping == "legacy":  # a run that began when other words were no split keeps its images
      by_split[row["split"] if row["split"] in by_split else ""].append(row)
    else:
      by_split[vocabulary.split_or_unused(row["split"], row.where)].append(row)
  if cfg.grouping == "patient":
    pictures = [unlisted.Picture(row.file("image"), split, 0)
                for split, rows in by_split.items() if split for row in rows]
    unlisted.say_tables(unlisted.beside(root, path.name.lower()), pictures, root,
                        f"keep those of each in one split; a column patient of {path.name} tells them")
  train = by_split["train"]
  if "clean" in table.columns:
    clean = np.array([vocabulary.yes_or_no(r["clean"], r.where, "clean") for r in train], bool)
  else:
    clean = _draw_clean(len(train), cfg)
  parts = {"clean": items([r for r, c in zip(train, clean) if c]),
           "val": items(by_split["val"]), "test": items(by_split["test"])}
  noisy = [r for r, c in zip(train, clean) if not c]
  if cfg.noise:
    parts["noisy"] = [_noisy(i, cfg) for i in items(noisy)]
  elif "noisy_mask" in table.columns:
    masks = items(noisy, "noisy_mask")
    parts["noisy"] = [dataclasses.replace(i, truth=t.mask) for i, t in zip(masks, items(noisy))]
  else:
    raise UserError(f"{path} has no column 'noisy_mask': add one, or set config.data.noise")
  return _limited(parts, cfg), root.resolve().name


def _say_doubts(table, names, noise):
  """Warns of columns that are not read and seem to be meant, and of masks that seem to be others'."""
  if noise and "noisy_mask" in table.columns:
    logging.warning("%s has a column noisy_mask, which is not read: config.data.noise=%s makes noisy masks "
                    "of the others; --config.data.noise= takes the column", table.path, noise)
  for column in table.columns:
    if column not in ("clean", "noisy_mask") and {"clean", "noisy"} & set(re.split(r"[\W_]+", column)):
      logging.warning("%s: its column %r is not read; the one that says which masks are clean is clean",
                      table.path, column)
  stem = lambda name: pathlib.PurePosixPath(name).stem.lower()
  pictures, masks = list(map(stem, names)), [row.file("mask") for row in table.rows]
  named = [re.sub("[-_ ](mask|seg|segmentation|label|gt)$", "", stem(mask)) for mask in masks]
  odd = [(row, other) for row, own, other in zip(table.rows, pictures, named)
         if other != own and other in pictures and pictures.count(own) == 1]
  if odd:
    logging.warning("%s: %d masks are named as those of other images, the first in line %d: was a column "
                    "sorted alone? The table is followed", table.path, len(odd), odd[0][0].line)
  if shared := [name for name, count in collections.Counter(masks).items() if count > 1]:
    logging.warning("%s: %d masks are each of several images, the first %s: is that meant?", table.path,
                    len(shared), shared[0])


def _idents(table, names):
  """What images are called: image_id, else their stems, else (where two share one) their paths."""
  if "image_id" in table.columns:
    table.unique("image_id")
    return [r["image_id"] for r in table.rows]
  stems = [pathlib.PurePosixPath(n).stem for n in names]
  if len(set(stems)) == len(stems):
    return stems
  return [pathlib.PurePosixPath(n).with_suffix("").as_posix() for n in names]


def _draw_clean(n, cfg) -> np.ndarray:
  """bool [n]: config.data.clean of n, drawn so that a larger number contains a smaller one."""
  wanted = cfg.clean
  if not n and scored_alone.now():
    return np.zeros(0, bool)
  if not 0 < wanted < n:
    raise UserError(f"config.data.clean={wanted}: choose 1 to {n - 1} of the {n} training images")
  chosen = np.zeros(n, bool)
  chosen[np.random.default_rng(cfg.clean_seed).permutation(n)[:wanted]] = True
  return chosen


def _synthetic(cfg):
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


# config.data.layout: cfg -> (parts, name of the set); UserError, FileNotFoundError: one line.
READERS: dict[str, Callable[..., tuple[Parts, str]]] = {
    "manifest": _manifest, "folders": _folders, "synthetic": _synthetic}
