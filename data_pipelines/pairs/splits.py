"""Which frame belongs to which split: by a table, by patient, by file, or as the reference."""

from __future__ import annotations

from collections.abc import Sequence
import logging
import math
import pathlib

import numpy as np

from data_pipelines import scored_alone
from data_pipelines.errors import UserError
from data_pipelines.formats.regular import is_there
from data_pipelines.intake import folder_words, patients, splits, tables, vocabulary

SPLITS = vocabulary.SPLITS
_TABLE = "labels.csv"  # the default of config.data.table, which need not exist
_SEED = 42  # of the split by patient: not config.seed, runs compare


def groups_of(names: Sequence[str], folder: pathlib.Path, cfg) -> list[str]:
  """The patient of each frame, by its path below the folder of clean frames (intake/patients.py).

  Raises:
    UserError: group_pattern is not a regular expression with a group.
  """
  if cfg.grouping == "legacy":
    return [_group_of_older_runs(n, cfg.group_pattern) for n in names]
  return patients.of_files(names, cfg.group_pattern, cfg.grouping, folder)


def _group_of_older_runs(name, pattern):
  """By the stem of the file alone: what runs that began with it keep."""
  return patients.by_pattern(name, pattern.replace("/", "")) or pathlib.PurePosixPath(name).stem


def reference_split(count: int, val_share: float) -> tuple[list[int], list[int]]:
  """(train, val) places of the original: frames, not patients; legacy generator with seed 42."""
  order = np.random.RandomState(42).permutation(count)
  n_val = math.ceil(val_share * count)
  return order[n_val:].tolist(), order[:n_val].tolist()


def split_names(items, root: pathlib.Path, cfg) -> dict[str, str]:
  """{item.name: train, val, test, or "" for frames the table leaves out}.

  Where the table has a column group (or patient), items get their group from it.

  Raises:
    UserError: an unknown `split_by`, a table without the columns, a word that is no split, a frame
      that the table does not list, a patient in two splits of it.
    FileNotFoundError: split_by=table without a table.
  """
  table = tables.place(root, cfg.table) if cfg.table else None
  by = cfg.split_by
  if by == "auto" and table is not None and cfg.table != _TABLE and not is_there(table) and (
      not scored_alone.now()):
    raise FileNotFoundError(f"config.data.table={cfg.table!r}: {table} does not exist; leave the field out "
                            "to split by patient")
  if by == "auto":
    by = "table" if table is not None and is_there(table) else "group"
  if by not in ("table", "group", "file", "reference"):
    raise UserError(f"config.data.split_by={by!r}: use auto, table, group, file or reference")
  place = _from_table(items, table, cfg) if by == "table" else _by_rule(items, by, root, cfg)
  # By file and as the reference, a patient may be on two sides because the config says so.
  allow = by in ("file", "reference") or cfg.grouping == "legacy"
  what = str(table) if by == "table" else f"{root}, config.data.split_by={by}"
  splits.check_no_leak({s: [i.group for i in items if place[i.name] == s] for s in SPLITS}, what,
                       "put all frames of a patient into one split, or correct the column group",
                       allow=allow)
  return place


def _by_rule(items, by, root, cfg):
  if by == "reference":
    train, val = reference_split(len(items), cfg.val_share)
    return {items[i].name: s for s, places in (("train", train), ("val", val)) for i in places}
  if by == "group" and items:
    folder_words.say_splits((root / i.name for i in items), root, "table")
    logging.info("%s", patients.describe({i.name: i.group for i in items}, "split by patient"))
  key = (lambda i: i.group) if by == "group" else (lambda i: i.name)
  shares = {"val": cfg.val_share, "test": cfg.test_share}
  place = splits.split_patients([key(i) for i in items], shares, _SEED)
  found = {i.name: place[key(i)] for i in items}
  if by == "group" and "train" not in found.values():
    groups = sorted({i.group for i in items})
    raise UserError(f"{root}: no frame is left for training: all are of {len(groups)} patients "
                    f"({', '.join(groups[:3])} ...); see config.data.val_share and test_share, and set "
                    f"{patients.PATTERN_FIELD} where these are no patients")
  return found


def _from_table(items, path, cfg):
  if path is None or not path.is_file():
    raise FileNotFoundError(f"config.data.split_by=table, but {path} does not exist")
  table = tables.read_table(path, ("file", "split"), ("group", "patient"))
  table.unique("file", file=True)
  rows = _rows_of([i.name for i in items], table, cfg.clean_dir)
  used = {row.line for row in rows}
  if unnamed := [r for r in table.rows if r.line not in used]:
    logging.info("%s: %d of %d rows name no frame of this set, the first in line %d", path, len(unnamed),
                 len(table.rows), unnamed[0].line)
  place = {}
  for item, row in zip(items, rows):
    item.group = patients.patient_column(row) or item.group
    if cfg.grouping == "legacy":
      place[item.name] = row["split"] if row["split"] in SPLITS else ""
    else:
      place[item.name] = vocabulary.split_or_unused(row["split"], row.where)
  for item, group in zip(items, patients.unified([i.group for i in items])):
    item.group = group
  if rest := sum(not s for s in place.values()):
    logging.info("%s: %d frames are in no split", path, rest)
  return place


def _rows_of(names, table, clean_dir):
  """The row of each frame: by its path, or by its name where one row and one frame alone have it."""
  by_path = {row.file("file"): row for row in table.rows}
  by_name: dict[str, list] = {}
  for path, row in by_path.items():
    by_name.setdefault(pathlib.PurePosixPath(path).name, []).append(row)
  count: dict[str, int] = {}
  for name in names:
    bare = pathlib.PurePosixPath(name).name
    count[bare] = count.get(bare, 0) + 1
  found = []
  for name in names:
    bare = pathlib.PurePosixPath(name).name
    rows = [by_path[p] for p in dict.fromkeys((f"{clean_dir}/{name}", name)) if p in by_path]
    if not rows and count[bare] == 1:
      rows = by_name.get(bare, [])
    if not rows:
      raise UserError(f"{table.path} does not list {name}; add it, or set config.data.split_by=group")
    if len(rows) > 1:
      raise UserError(f"{table.path} lists {name} in the lines {rows[0].line} and {rows[1].line}: give its "
                      "path below the data folder, once")
    found.append(rows[0])
  return found
