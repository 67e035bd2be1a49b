"""Labelled folders of images as one-class sets: labels.csv, or <train|val|test>/<normal|anomaly>/."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import difflib
import logging
import pathlib
import re

from data_pipelines import fields as data_fields, scored_alone
from data_pipelines.errors import UserError
from data_pipelines.formats.regular import is_there
from data_pipelines.intake import (
  counts,
  find as finder,
  folder_words,
  mask_words,
  names as naming,
  patients,
  tables,
  unlisted,
  vocabulary,
)
from data_pipelines.intake.mask_words import FOLDERS as MASKS
from data_pipelines.intake.tables import same
from data_pipelines.one_class.lists import Item, hold_out, regrouped

KINDS = ("image", "dicom")  # of files that are read
SIDES = ("normal", "anomaly")
_VIEWS = ("view", "views", "viewposition", "projection", "frontallateral", "viewcodesequencecodemeaning")
_LATERAL = ("lateral", "lat", "ll", "rl", "left lateral", "right lateral", "lateral view")
_OF_MASKS = "lies in a folder of masks"
Items = dict[tuple[str, str], list[Item]]


def read_labels(root, cfg: Mapping) -> Items:
  """{(split, "normal" | "anomaly"): items} of a folder with a `labels.csv`.

  Columns: file, split, label (words of intake/vocabulary.py); optional group or patient (else the rule
  of intake/patients.py) and subtype, the kind of an anomaly.

  Args:
    cfg: group_pattern, grouping, normal_words, anomaly_words.

  Raises:
    FileNotFoundError: no labels.csv. UserError: a column is missing, a word is not known, a file is
      listed twice; with the line.
  """
  root = pathlib.Path(root)
  path = tables.place(root, "labels.csv")
  if not path.is_file():
    raise FileNotFoundError(f"no {path}; config.data.root needs labels.csv with the columns file, "
                            "split, label (and group), or use lists")
  table = tables.read_table(path, ("file", "split", "label"), ("group", "patient", "subtype"))
  table.unique("file", file=True)
  names = [r.file("file") for r in table.rows]
  groups = patients.of_rows(table.rows, names, cfg["group_pattern"], cfg["grouping"], root)
  unlisted.say(path, root, names, KINDS, MASKS if "any_finding" in cfg else ())  # chest_xray finds masks
  _say_views(table)
  _say_other_answers(table, cfg)
  place_of = _place_of_older_runs if cfg["grouping"] == "legacy" else _place
  places = [place_of(row, cfg) for row in table.rows]
  kinds = patients.unified([row["label"] if side == "normal" else row.get("subtype") or row["label"]
                            for row, (_, side) in zip(table.rows, places)])
  items: Items = {}
  for name, group, kind, place in zip(names, groups, kinds, places):
    items.setdefault(place, []).append(Item(name, group, kind, str(root / name)))
  return items


def _say_views(table):
  """Warns of a column that says lateral and frontal radiographs, which is not read."""
  for column in [c for c in table.columns if re.sub(r"[\W_]+", "", c) in _VIEWS]:
    views = collections.Counter(same(row[column]) for row in table.rows
                                if same(row["split"]) != vocabulary.UNUSED)
    odd = [v for v in views if v in _LATERAL or (v == "l" and "r" not in views)]  # PadChest's L is no left
    if odd and len(odd) < len(set(views) - {""}):
      logging.warning("%s: by its column %r %d of %d images are lateral views (%s), and all count alike: "
                      "take them out, or mark their split as unused", table.path, column,
                      sum(views[v] for v in odd), sum(views.values()), ", ".join(odd))


def _say_other_answers(table, cfg):
  """Warns of a column, such as diagnosis, whose words of a side differ from those of `label`."""
  side_of = lambda word: vocabulary.side_of(word, cfg["normal_words"], cfg["anomaly_words"])
  rows = [row for row in table.rows if same(row["split"]) != vocabulary.UNUSED]
  for column in [c for c in table.columns if c != "label" and vocabulary.answers(c)]:
    odd = [r for r in rows if None not in (
        told := (side_of(r["label"]), side_of(r[column]))) and told[0] != told[1]]
    if odd:
      logging.warning("%s: %d of %d images are %s by `label` and %s by column %r, the first in line %d: "
                      "`label` is followed", table.path, len(odd), len(rows), odd[0]["label"],
                      odd[0][column], column, odd[0].line)


def _place(row, cfg):
  """(split, side) of a row; split "" = unused."""
  side = vocabulary.label_word(row["label"], row.where, cfg["normal_words"], cfg["anomaly_words"])
  return vocabulary.split_or_unused(row["split"], row.where), SIDES[side]


def _place_of_older_runs(row, cfg):
  """The same for a run that began when other words were anomalies, or no split; it keeps its images."""
  del cfg
  split = row["split"] if row["split"] in vocabulary.SPLITS else ""
  return split, "normal" if row["label"] == "normal" else "anomaly"


def read_folders(root, cfg: Mapping) -> Items:
  """{(split, side): items} of <root>/<train|val|test>/<normal|anomaly>/**, in any words for them.

  Args:
    cfg: group_pattern, grouping, normal_words, anomaly_words.

  Raises:
    FileNotFoundError: no <root>/train/normal. UserError: a folder of images with another name.
  """
  root = pathlib.Path(root)
  split_of = vocabulary.split_or_unused
  side_of = _side_of_folder(cfg)
  finding_of = _any_finding(cfg) if cfg.get("any_finding") else side_of
  if cfg["grouping"] == "legacy":  # a run that began when only these names were looked at
    split_of = lambda w, where: w if w in vocabulary.SPLITS else ""
    side_of = finding_of = lambda w, where: w if w in SIDES else ""
  found: list[tuple[tuple[str, str], str, str]] = []  # place, kind, name
  search, elsewhere = finder.find(root, KINDS), {}
  if cfg["grouping"] != "legacy":
    search.leave_out(folder_words.thumbnails(search.files))
  for path in search.files:
    folders = path.relative_to(root).parts[:-1]
    inner = cfg["grouping"] != "legacy" and any(map(mask_words.holds_masks, folders[2:]))
    if inner or (folders and cfg.get("any_finding") and folders[0].lower() in MASKS):
      elsewhere[path] = _OF_MASKS
      continue
    if cfg["grouping"] != "legacy" and (reason := naming.beside_its_image(path, search.files)):
      elsewhere[path] = reason
      continue
    split = split_of(folders[0], f"folder {root / folders[0]}") if folders else ""
    of = side_of if split == "train" else finding_of
    side = of(folders[1], f"folder {root.joinpath(*folders[:2])}") if split and folders[1:] else ""
    if side:
      found.append(((split, side), folders[1].lower(), path.relative_to(root).as_posix()))
    else:
      elsewhere[path] = "lies in no folder <train|val|test>/<normal|anomaly>"
  if cfg["grouping"] != "legacy":
    vocabulary.check_one_side((p for p in search.files if p not in elsewhere), root)
    _say_inner_masks([p for p, why in elsewhere.items() if why == _OF_MASKS], root, cfg)
    _say_denied({root.joinpath(*pathlib.PurePosixPath(name).parts[:2]) for (_, side), _, name in found
                 if side != "normal"})
  search.leave_out(elsewhere)
  counts.say(search)
  counts.refuse_broken(search)
  there = {place for place, _, _ in found}
  if ("train", "normal") not in there and not (there and scored_alone.now()):
    raise FileNotFoundError(f"{root} holds neither labels.csv nor images in train/normal; see "
                            "config.data.root")
  groups = patients.of_files([name for _, _, name in found], cfg["group_pattern"], cfg["grouping"], root,
                             kinds={kind for _, kind, _ in found})
  items: Items = {}
  for (place, kind, name), group in zip(found, groups):
    items.setdefault(place, []).append(Item(name, group, kind, str(root / name)))
  return items


def _side_of_folder(cfg):
  """(word, where) -> side, by the words of columns and those of folders alone: controls, ok, patients."""
  own = {same(w) for w in (*cfg["normal_words"], *cfg["anomaly_words"])}

  def side(word, where):
    found = None if same(word) in own else folder_words.MORE.get(same(word))
    return SIDES[vocabulary.label_word(word, where, cfg["normal_words"], cfg["anomaly_words"])
                 if found is None else found]
  return side


def _say_inner_masks(masks, root, cfg):
  """Warns of masks beside the images of findings, where a set has masks at all: they are read elsewhere."""
  inner = [p for p in masks if p.relative_to(root).parts[0].lower() not in MASKS]
  if inner and cfg.get("any_finding"):
    logging.warning("%d files in folders of masks lie beside images, the first %s, and are not read: masks "
                    "of findings are read below %s, by the path of their image", len(inner), inner[0],
                    root / "masks")


def _say_denied(folders):
  """Warns of folders of findings whose names say that there is none: no_pneumonia, uninfected."""
  odd = sorted(str(f) for f in folders if folder_words.denies(f.name))
  if odd:
    logging.warning("%s counts as one of findings by its name: where its images are normal, say so by "
                    "config.data.normal_words", " and ".join(odd[:3]))


def _any_finding(cfg):
  """(word, where) -> side: what is not normal is a finding; a misspelt normal is refused."""
  healthy = [same(w) for w in (*vocabulary.NORMAL_WORDS, *cfg["normal_words"])]
  known = {same(w) for w in (*vocabulary.ANOMALY_WORDS, *cfg["anomaly_words"])}

  def side(word, where):
    name = same(word)
    if name in healthy or name in known:
      return SIDES[name not in healthy]
    if name in folder_words.EVERY:
      return SIDES[folder_words.EVERY[name]]
    if near := difflib.get_close_matches(name, healthy, 1, 0.75):
      raise UserError(f"{where}: did you mean {near[0]}? A finding of that name is declared in "
                      "config.data.anomaly_words")
    return SIDES[1]
  return side


def folder_lists(cfg) -> dict[str, list[Item]]:
  """The five lists of a labelled folder (`read_labels`, `read_folders`) for `cfg.fold`.

  fold -1 uses the folder's own splits; its validation anomalies are those of `cfg.val_kind` where
  that is set ("anomalies of confined variability"), at most `cfg.val_anomalies`. Fold k >= 0
  regroups the training normals and tests on the *validation* anomalies: the test split is not used
  for choosing anything.
  """
  root = pathlib.Path(data_fields.given_dir(cfg, "root", "a folder with labels.csv"))
  if not root.is_dir():
    raise FileNotFoundError(f"no folder {str(root)!r}; set config.data.root")
  items = read_labels(root, cfg) if is_there(tables.place(root, "labels.csv")) else read_folders(root, cfg)
  _say(root, items)
  if cfg["grouping"] == "patient":
    pictures = [unlisted.Picture(i.name, split, int(side == SIDES[1]))
                for (split, side), found in items.items() if split for i in found]
    unlisted.say_tables(unlisted.beside(root, "labels.csv", "boxes.csv"), pictures, root,
                        "keep those of each in one split; a column patient of labels.csv tells them")
  get = lambda split, side: items.get((split, side), [])
  anomalies = [i for i in get("val", "anomaly")
               if not cfg["val_kind"] or same(i.kind) == same(cfg["val_kind"])]
  if not anomalies and (there := {i.kind for i in get("val", "anomaly")}) and not scored_alone.now():
    raise UserError(f"{root}: no validation anomaly is of config.data.val_kind={cfg['val_kind']!r}; there "
                    f"are {', '.join(sorted(there)[:6])}")
  if cfg["fold"] < 0:
    train, val = get("train", "normal"), get("val", "normal")
    if not val:
      train, val = hold_out(train, cfg)
    return {"train": train, "val_normal": val,
            "val_anomaly": anomalies[:cfg["val_anomalies"] or None],
            "test_normal": get("test", "normal"), "test_anomaly": get("test", "anomaly")}
  return regrouped(get("train", "normal"), anomalies, cfg)


def _say(root, items):
  """The counts of every split and side in the log, those that are not used among them."""
  logging.info("%s: %s", root, ", ".join(f"{split or 'unused'} {len(found)} {side}"
                                         for (split, side), found in sorted(items.items())))
  folder_words.say_lateral([i.name for (split, _), found in items.items() if split for i in found], root)
  if rest := items.get(("train", "anomaly")):
    logging.warning("%s: %d anomalies of split train are not used: training sees normals alone (%s ...)",
                    root, len(rest), rest[0].name)


def file_lists(cfg, things: str, name: str, published: Callable) -> tuple[str, dict, dict]:
  """(name, lists, notes for `describe`) of a data set of image files, `cfg.train_limit` applied.

  Args:
    things: what a labelled folder holds, "patches": part of its name.
    name: of the data set where `cfg.layout` is "lists".
    published: (cfg) -> (lists, notes) of that layout.
  """
  if cfg.layout == "folder":
    name = f"{things} of {pathlib.Path(cfg.root).name}"
    lists, notes = folder_lists(cfg), {"protocol": f"labelled folder, fold {cfg.fold}"}
  else:
    lists, notes = published(cfg)
  lists["train"] = lists["train"][:cfg.train_limit or None]
  return name, lists, notes


def leak_options(cfg) -> dict:
  """Options of OneClassDataSet about groups on two sides: who may have them, where they stand, what helps."""
  if cfg.layout != "folder":
    return {"allow_leaks": cfg.folds == "published"}
  root = pathlib.Path(cfg.root)
  table = tables.place(root, "labels.csv")
  return {"allow_leaks": cfg.folds == "published" or cfg.grouping == "legacy", "remedy": patients.REMEDY,
          "where": str(table if table.is_file() else root)}
