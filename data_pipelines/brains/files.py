"""Which scans a folder holds, which files each has, and which split it belongs to."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import json
import logging
import pathlib
import random
import re

from data_pipelines.brains import scan_folders, sequences, series
from data_pipelines.brains.scan_folders import ScanFiles
from data_pipelines.errors import UserError
from data_pipelines.intake import (
  counts,
  find as finder,
  folder_words,
  patients as people,
  splits,
  tables,
  vocabulary,
)

SPLITS = vocabulary.SPLITS
SITE = ("site", "institution", "center", "centre")  # columns that name the hospital
# Words of columns in which 0 and 1 are normal and abnormal.
_SIDES = {"label", "diagnosis", "dx", "abnormal", "anomaly", "pathology", "disease", "diseased", "lesion",
          "lesions", "tumor", "tumour"}


@dataclasses.dataclass
class Found:
  """Scans of a folder: complete ones, {patient: reason} of the others, and how they were split."""

  scans: list[ScanFiles]
  incomplete: dict[str, str]
  split_rule: str


def find_scans(folder, modalities: Sequence[str], group_pattern: str = "", grouping: str = "patient"
               ) -> Found:
  """Scans of a folder with manifest.csv, or of BraTS folders in the old or the new naming; a volume may be
  a DICOM series (series.py).

  Args:
    group_pattern, grouping: whose a scan is, see intake/patients.py.

  Raises:
    FileNotFoundError: no such folder. UserError: nothing of that form in it, a manifest that
      lacks a column or says something unknown, a person in two splits.
  """
  folder = pathlib.Path(folder).expanduser().resolve()  # records remember absolute paths
  if not folder.is_dir():
    raise FileNotFoundError(f"config.data.dir={str(folder)!r} is not a folder")
  table = tables.place(folder, "manifest.csv")
  rule = {"pattern": group_pattern, "grouping": grouping}
  found = (_from_manifest if table.is_file() else _from_folders)(folder, modalities, rule)
  splits.check_no_leak({s: [x.group for x in found.scans if x.split == s] for s in SPLITS},
                       f"{table if table.is_file() else folder} ({found.split_rule})",
                       "put all scans of a patient into one split; where names mislead, give manifest.csv a "
                       "column group, or set config.data.group_pattern", allow=grouping == "legacy")
  return found


def split_by_rule(patients: Sequence[str], seed: int = 0, groups: Mapping[str, str] | None = None
                  ) -> dict[str, list[str]]:
  """The published split of n scans: 938/62/251 for the 1251 of BraTS2021.

  Sorted ids, indices shuffled with random.Random(seed); int(0.75 n) train, int(0.05 n) val, the
  rest test, each in shuffled order. Where people have several scans (`groups`: scan -> person), n
  counts people.
  """
  of: dict[str, list[str]] = {}
  for patient in sorted(patients):
    of.setdefault((groups or {}).get(patient, patient), []).append(patient)
  people_of = list(of.values())
  order = list(range(len(people_of)))
  random.Random(seed).shuffle(order)
  train, val = int(0.75 * len(order)), int(0.05 * len(order))
  parts = (order[:train], order[train:train + val], order[train + val:])
  return {split: [p for i in part for p in people_of[i]] for split, part in zip(SPLITS, parts)}


def published_split() -> dict[str, list[str]]:
  """The published lists of BraTS2021 scan ids: 938 train, 62 val, 251 test."""
  text = (pathlib.Path(__file__).parent / "brats2021_splits.json").read_text()
  return {split: [f"BraTS2021_{i:05d}" for i in ids] for split, ids in json.loads(text).items()}


def _from_manifest(folder, modalities, rule) -> Found:
  table = tables.read_table(tables.place(folder, "manifest.csv"), ("patient", *modalities),
                            ("split", "seg", "mask", "group", *SITE),
                            "Set config.data.modalities to columns of it.")
  table.unique("patient")
  _check_columns(table, modalities)
  names = [row["patient"] for row in table.rows]
  person = people.of_scans(names, **rule)
  groups = people.unified([("" if rule["grouping"] != "patient" else people.group_column(row)) or person[p]
                           for row, p in zip(table.rows, names)])
  seg_column, site_column = table.first("seg", "mask"), table.first(*SITE)
  with_split = any(row.get("split") for row in table.rows)
  incomplete, complete, listed, unused = {}, [], {}, []
  for row, patient, group in zip(table.rows, names, groups):
    split = vocabulary.split_or_unused(row["split"], row.where) if with_split else ""
    lacking = [m for m in modalities if not row[tables.column_name(m)]]
    if with_split and not split:
      unused.append(patient)
      continue
    if lacking:
      incomplete[patient] = f"no {', '.join(lacking)} volume (empty column of manifest.csv)"
      continue
    seg = row.file(seg_column) if seg_column and row[seg_column] else None
    try:
      volumes = [_of_cell(folder / row.file(tables.column_name(m)), m) for m in modalities]
      if seg and not isinstance(_of_cell(folder / seg, "seg"), str):
        raise UserError(f"{folder / seg} is DICOM: a label is a NIfTI volume")
    except UserError as e:
      incomplete[patient] = str(e)
      continue
    for file in (*volumes, *([str(folder / seg)] if seg else ())):
      tables.refuse_twice(row, file, listed, counts.shown(file if isinstance(file, str) else file[0], folder))
    complete.append(ScanFiles(patient, split, tuple(volumes), str(folder / seg) if seg else None, group,
                              row[site_column] if site_column else ""))
  sequences.say_columns(item for scan in complete for item in zip(modalities, scan.volumes))
  _say_mixed(complete, modalities, table.path)
  _say_ill(complete, table, modalities)
  if unused:
    logging.info("%s: %d scans are in no split: %s", table.path, len(unused), ", ".join(unused[:20]))
  if with_split:
    return Found(complete, incomplete, "column split of manifest.csv")
  return Found(*_assign(complete, incomplete, sorted(names), folder, dict(zip(names, groups))))


def _check_columns(table, modalities):
  """Refuses columns that hold what another one is read for: a label or a split under a name of its own.

  Raises:
    UserError: with the column.
  """
  read = {"patient", "split", "seg", "mask", *SITE, *people.COLUMNS, *map(tables.column_name, modalities)}
  if table.first("seg") and table.first("mask"):
    logging.warning("%s has a column seg, which is read, and a column mask, which is not", table.path)
  for column in (c for c in table.columns if c not in read):
    cells = [row[column] for row in table.rows if row[column]]
    is_split = all(tables.same(cell) in vocabulary.SPLIT_WORDS for cell in cells)
    if cells and is_split and "split" not in table.columns:
      raise UserError(f"{table.path} has no column split, and its column {column!r} holds words of one: call "
                      "it split, or take it away")
    volumes = [pathlib.Path(cell) for cell in cells if finder.kind_of(cell, False) == "nifti"]
    named = sequences.like_label(pathlib.Path(column)) or any(map(sequences.like_label, volumes))
    if volumes and named and not table.first("seg", "mask"):
      raise UserError(f"{table.path} has no column seg, and its column {column!r} seems to hold labels: call "
                      "it seg, or take it away")


def _say_mixed(scans, modalities, path):
  """Warns where a row holds files of two scans by their names, each of which has a row of its own."""
  def prefixes(scan):
    volumes = [sequences.split_name(pathlib.Path(v), modalities) for v in scan.volumes if isinstance(v, str)]
    label = sequences.split_name(pathlib.Path(scan.seg), sequences.LABEL_ENDINGS) if scan.seg else ("", "")
    return {prefix.lower() for prefix, known in (*volumes, label) if known}
  of = [prefixes(scan) for scan in scans]
  rows = collections.Counter(prefix for found in of for prefix in found)
  odd = [(scan, found) for scan, found in zip(scans, of)
         if len(found) > 1 and all(rows[prefix] > 1 for prefix in found)]
  if odd:
    logging.warning("%s: %d rows hold files of several scans by their names, the first that of %s (%s): was "
                    "a column sorted alone? The table is followed", path, len(odd), odd[0][0].patient,
                    ", ".join(sorted(odd[0][1])))


def _say_ill(scans, table, modalities):
  """Warns of scans without a label that a column calls abnormal: they count as normal all over."""
  read = {"patient", "split", "seg", "mask", *SITE, *map(tables.column_name, modalities)}
  unmarked = {scan.patient for scan in scans if not scan.seg}
  rows = [row for row in table.rows if row["patient"] in unmarked]
  for column in (c for c in table.columns if c not in read and (c == "group" or c not in people.COLUMNS)):
    told = {tables.same(row[column]) for row in table.rows if row[column]}
    named = bool(_SIDES & set(re.findall("[a-z]+", column)))
    if not told <= folder_words.EVERY.keys() or (not named and all(map(str.isdigit, told))):
      continue
    ill = [row for row in rows if folder_words.EVERY.get(tables.same(row[column])) == 1]
    if ill:
      logging.warning("%s: %d scans have no label and are abnormal by column %r (%s), the first %s: all of "
                      "their slices count as normal, in training too. Give their labels in column seg, or "
                      "mark their split as unused", table.path, len(ill), column, ill[0][column],
                      ill[0]["patient"])
      return


def _of_cell(path, modality):
  """A path, or those of the series that a cell of a table means."""
  members = series.of_cell(path, modality)
  return tuple(map(str, members)) if members else str(path)


def _from_folders(folder, modalities, rule) -> Found:
  look = scan_folders.look_bids if scan_folders.is_bids(folder) else scan_folders.look
  looked = look(folder, modalities, rule)
  return Found(*_assign(looked.complete, looked.incomplete, sorted(looked.person), folder, looked.person))


def _assign(complete, incomplete, patients, folder, person):
  """Gives each scan its split: split files, the published lists, or the seeded rule."""
  lists, rule = _split_lists(patients, folder, person)
  splits.check_no_leak(lists, f"{folder} ({rule})", "list each scan once")
  where = {patient: split for split, ids in lists.items() for patient in ids}
  scans = []
  for scan in complete:
    if scan.patient in where:
      scans.append(dataclasses.replace(scan, split=where[scan.patient]))
    else:
      incomplete = {**incomplete, scan.patient: f"in no list of {rule}"}
  absent = sorted(set(where) - set(patients))
  if rule.startswith("files"):
    incomplete = {**incomplete, **dict.fromkeys(absent, f"listed in {rule}, but has no folder")}
  if not lists["val"]:
    logging.warning("%d scans are too few for a val split by the published rule (5 %%): give "
                    "manifest.csv a column split to choose one", len(patients))
  return scans, incomplete, rule


def _split_lists(patients, folder, person=None):
  """({split: ids}, name of the rule)."""
  for base in (folder / "data_splits", folder):
    files = {s: base / s / "scans.csv" for s in SPLITS}
    if all(f.is_file() for f in files.values()):
      lists = {s: tables.read_list(f) for s, f in files.items()}  # no header
      return lists, f"files {base.name}/*/scans.csv"
  published = published_split()
  known = {p for ids in published.values() for p in ids}
  if set(patients) <= known:
    lists = {s: [p for p in ids if p in set(patients)] for s, ids in published.items()}
    if all(lists.values()):
      return lists, "published BraTS2021 lists"
  return split_by_rule(patients, groups=person), "seeded rule (0.75 / 0.05 / rest, seed 0)"
