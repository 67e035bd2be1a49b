"""Which scans a folder holds, which files each has, and which split it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import logging
import pathlib
import random

from data_pipelines.errors import UserError
from data_pipelines.formats import nifti
from data_pipelines.intake import counts, find as finder, patients as people, splits, tables, vocabulary

# The newer releases' names of the modalities, after a "-" instead of a "_".
NEW_NAMES = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}
SPLITS = vocabulary.SPLITS


@dataclasses.dataclass(frozen=True)
class ScanFiles:
  """Files of one scan.

  Attributes:
    patient: scan id, unique in the set.
    group: whose scan it is; scans of one person are never in two splits.
    split: "train", "val" or "test".
    volumes: paths in the order of the modalities asked for.
    seg: path of the label volume, None = nothing marked.
  """

  patient: str
  split: str
  volumes: tuple[str, ...]
  seg: str | None
  group: str = ""


@dataclasses.dataclass
class Found:
  """Scans of a folder: complete ones, {patient: reason} of the others, and how they were split."""

  scans: list[ScanFiles]
  incomplete: dict[str, str]
  split_rule: str


def find_scans(folder, modalities: Sequence[str], group_pattern: str = "", grouping: str = "patient"
               ) -> Found:
  """Scans of a folder with manifest.csv, or of BraTS folders in the old or the new naming.

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
                            ("split", "seg", "mask", "group"),
                            "Set config.data.modalities to columns of it.")
  table.unique("patient")
  names = [row["patient"] for row in table.rows]
  person = people.of_scans(names, **rule)
  groups = people.unified([("" if rule["grouping"] != "patient" else people.group_column(row)) or person[p]
                           for row, p in zip(table.rows, names)])
  seg_column = table.first("seg", "mask")
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
    files = [row.file(m) for m in map(tables.column_name, modalities)]
    for file in files:
      if file in listed:
        raise UserError(f"{row.where}: {file} is listed twice, first in line {listed[file]}")
      listed[file] = row.line
    seg = row.file(seg_column) if seg_column and row[seg_column] else None
    complete.append(ScanFiles(patient, split, tuple(str(folder / f) for f in files),
                              str(folder / seg) if seg else None, group))
  if unused:
    logging.info("%s: %d scans are in no split: %s", table.path, len(unused), ", ".join(unused[:20]))
  if with_split:
    return Found(complete, incomplete, "column split of manifest.csv")
  return Found(*_assign(complete, incomplete, sorted(names), folder, dict(zip(names, groups))))


def _from_folders(folder, modalities, rule) -> Found:
  found = finder.find(folder, ("nifti",))
  candidates: dict[pathlib.Path, list[pathlib.Path]] = {}
  for path in [*found.files, *(item.path for item in found.broken)]:
    if path.parent.parent == folder:
      candidates.setdefault(path.parent, []).append(path)
  if not candidates:
    raise UserError(f"config.data.dir={str(folder)!r} holds neither manifest.csv nor scan folders "
                     "such as BraTS2021_00000/BraTS2021_00000_flair.nii.gz")
  person = people.of_scans([d.name for d in candidates], **rule)
  incomplete, complete = {}, []
  broken = {item.path: item.reason for item in found.broken}
  kinds = _kinds(candidates, modalities, folder)
  for d in sorted(candidates):
    files = {kind: find_files(candidates[d], d.name, kind) for kind in kinds}
    reason = _incomplete(d.name, files, broken)
    if reason:
      incomplete[d.name] = reason
      continue
    seg = str(files["seg"][0]) if "seg" in files else None
    complete.append(ScanFiles(d.name, "", tuple(str(files[m][0]) for m in modalities), seg, person[d.name]))
  used = {f for scan in complete for f in (*scan.volumes, scan.seg)}
  found.leave_out({p: "is of a scan that is incomplete" if p.parent.name in incomplete else
                   f"is no {', '.join(modalities)} or seg of a scan folder"
                   for p in found.files if str(p) not in used})
  counts.say(found)
  return Found(*_assign(complete, incomplete, [d.name for d in sorted(candidates)], folder, person))


def _kinds(candidates, modalities, folder):
  """What a scan must have: the label as well where any scan has one, so that one without it does not
  pass as healthy among those that are marked; a folder without labels is one of normal scans."""
  if any(find_files(found, d.name, "seg") for d, found in candidates.items()):
    return (*modalities, "seg")
  logging.warning("%s has no seg volume in any of its %d scan folders: all scans are taken for normal; "
                  "pixel metrics need masks", folder, len(candidates))
  return tuple(modalities)


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


# ------------------------------------------------------------------------------ names of files
def file_name(patient: str, kind: str, style: str = "brats2021") -> str:
  """Name of a file; kind is a modality or "seg", style "brats2021" or "brats2023"."""
  return (f"{patient}_{kind}.nii.gz" if style == "brats2021"
          else f"{patient}-{NEW_NAMES.get(kind, kind)}.nii.gz")


def find_files(files: Sequence[pathlib.Path], patient: str, kind: str) -> list[pathlib.Path]:
  """Those of `kind` among the files of a patient, in either naming and any capitals."""
  stems = (f"{patient}_{kind}".lower(), f"{patient}-{NEW_NAMES.get(kind, kind)}".lower())
  return [f for f in files if nifti.stem(f).lower() in stems]


def _incomplete(patient, files, broken):
  """Why a scan cannot be used, "" where each kind has exactly one file that can be read."""
  for kind, paths in files.items():
    if len(paths) > 1:
      return f"{len(paths)} {kind} volumes ({', '.join(p.name for p in paths)}): keep one"
    if paths and paths[0] in broken:
      return f"{paths[0].name} {broken[paths[0]]}"
  lacking = [kind for kind, paths in files.items() if not paths]
  return f"no {', '.join(lacking)} volume in {patient}" if lacking else ""
