"""Which frame belongs to which split: by a table, by patient group, by file, or as the reference."""

from __future__ import annotations

import csv
import math
import pathlib
import re

import numpy as np

from data_pipelines.errors import UserError


def group_of(name: str, pattern: str) -> str:
  """First group of `pattern` in the stem of a file name (LUM00054_2 -> LUM00054), else the stem.

  Raises:
    ValueError: not a regular expression with a group.
  """
  stem = pathlib.PurePosixPath(name).stem
  try:
    match = re.search(pattern, stem)
    return match.group(1) if match else stem
  except (re.error, IndexError) as error:
    raise UserError(f"config.data.group_pattern={pattern!r} is not a regular expression with one "
                     f"group ({error})") from None


def reference_split(count: int, val_share: float) -> tuple[list[int], list[int]]:
  """(train, val) places of the original: frames, not patients; legacy generator with seed 42."""
  order = np.random.RandomState(42).permutation(count)
  n_val = math.ceil(val_share * count)
  return order[n_val:].tolist(), order[:n_val].tolist()


def split_names(items, root: pathlib.Path, cfg) -> dict[str, str]:
  """{item.name: train, val, test, or "" for frames the table leaves out}.

  Where the table has a column group, items get their group from it.

  Raises:
    ValueError: an unknown `split_by`, a table without the columns, or a frame it does not list.
    FileNotFoundError: split_by=table without a table.
  """
  table = root / cfg.table if cfg.table else None
  by = cfg.split_by
  if by == "auto":
    by = "table" if table is not None and table.is_file() else "group"
  if by == "table":
    return _from_table(items, table, cfg)
  if by == "reference":
    train, val = reference_split(len(items), cfg.val_share)
    return {items[i].name: s for s, places in (("train", train), ("val", val)) for i in places}
  if by not in ("group", "file"):
    raise UserError(f"config.data.split_by={by!r}: use auto, table, group, file or reference")
  key = (lambda i: i.group) if by == "group" else (lambda i: i.name)
  groups = sorted({key(i) for i in items})
  order = np.random.default_rng(42).permutation(len(groups))
  n_val, n_test = (math.ceil(share * len(groups)) for share in (cfg.val_share, cfg.test_share))
  place = {groups[g]: "val" if k < n_val else "test" if k < n_val + n_test else "train"
           for k, g in enumerate(order)}
  return {i.name: place[key(i)] for i in items}


def _from_table(items, table, cfg):
  if table is None or not table.is_file():
    raise FileNotFoundError(f"config.data.split_by=table, but {table} does not exist")
  with open(table, newline="", encoding="utf-8-sig") as f:
    rows = list(csv.DictReader(f))
  if not rows or not {"file", "split"} <= set(rows[0]):
    raise UserError(f"{table} needs the columns file and split; it has "
                     f"{', '.join(rows[0]) if rows else 'no row'}")
  known = {}
  for row in rows:  # the table may name files with or without their sub-folder
    known[row["file"]] = known[pathlib.PurePosixPath(row["file"]).name] = row
  splits = {}
  for item in items:
    row = known.get(f"{cfg.clean_dir}/{item.name}", known.get(item.name))
    if row is None:
      raise UserError(f"{table} does not list {item.name}; add it, or set config.data.split_by=group")
    item.group = row.get("group") or item.group
    splits[item.name] = row["split"] if row["split"] in ("train", "val", "test") else ""
  return splits
