"""Which scans a folder holds, which files each has, and which split it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
import csv
import dataclasses
import json
import logging
import pathlib
import random

from data_pipelines.errors import UserError
from data_pipelines.formats import nifti

# The newer releases' names of the modalities, after a "-" instead of a "_".
NEW_NAMES = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}
SPLITS = ("train", "val", "test")
_SEG_COLUMNS = ("seg", "mask")
_SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val",
                "validation": "val", "test": "test"}


@dataclasses.dataclass(frozen=True)
class ScanFiles:
  """Files of one scan.

  Attributes:
    patient: scan id, unique in the set.
    split: "train", "val" or "test".
    volumes: paths in the order of the modalities asked for.
    seg: path of the label volume, None = nothing marked.
  """

  patient: str
  split: str
  volumes: tuple[str, ...]
  seg: str | None


@dataclasses.dataclass
class Found:
  """Scans of a folder: complete ones, {patient: reason} of the others, and how they were split."""

  scans: list[ScanFiles]
  incomplete: dict[str, str]
  split_rule: str


def find_scans(folder, modalities: Sequence[str]) -> Found:
  """Scans of a folder with manifest.csv, or of BraTS folders in the old or the new naming.

  Raises:
    FileNotFoundError: no such folder. ValueError: nothing of that form in it, or a manifest that
      lacks a column.
  """
  folder = pathlib.Path(folder).expanduser().resolve()  # records remember absolute paths
  if not folder.is_dir():
    raise FileNotFoundError(f"config.data.dir={str(folder)!r} is not a folder")
  if (folder / "manifest.csv").is_file():
    return _from_manifest(folder, modalities)
  return _from_folders(folder, modalities)


def split_by_rule(patients: Sequence[str], seed: int = 0) -> dict[str, list[str]]:
  """The published split of n scans: 938/62/251 for the 1251 of BraTS2021.

  Sorted ids, indices shuffled with random.Random(seed); int(0.75 n) train, int(0.05 n) val, the
  rest test, each in shuffled order.
  """
  patients = sorted(patients)
  order = list(range(len(patients)))
  random.Random(seed).shuffle(order)
  train, val = int(0.75 * len(order)), int(0.05 * len(order))
  parts = (order[:train], order[train:train + val], order[train + val:])
  return {split: [patients[i] for i in part] for split, part in zip(SPLITS, parts)}


def published_split() -> dict[str, list[str]]:
  """The published lists of BraTS2021 scan ids: 938 train, 62 val, 251 test."""
  text = (pathlib.Path(__file__).parent / "brats2021_splits.json").read_text()
  return {split: [f"BraTS2021_{i:05d}" for i in ids] for split, ids in json.loads(text).items()}


def _from_manifest(folder, modalities) -> Found:
  path = folder / "manifest.csv"
  try:
    with path.open(newline="", encoding="utf-8-sig") as f:
      reader = csv.DictReader(f)
      columns, rows = [c.strip() for c in reader.fieldnames or ()], list(reader)
  except (UnicodeDecodeError, csv.Error) as e:
    raise UserError(f"{path} is not a CSV file ({e})") from e
  rows = [{(k or "").strip(): (v or "").strip() if isinstance(v, str) else "" for k, v in r.items()}
          for r in rows]
  missing = [c for c in ("patient", *modalities) if c not in columns]
  if missing:
    raise UserError(f"{path} has no column {', '.join(missing)}; its columns are "
                     f"{', '.join(columns) or 'none'}. Set config.data.modalities to columns of it.")
  if not rows:
    raise UserError(f"{path} lists no scan")
  seg_column = next((c for c in _SEG_COLUMNS if c in columns), None)
  incomplete, complete, seen = {}, [], set()
  with_split = any(r.get("split") for r in rows)
  for number, row in enumerate(rows, 2):
    patient = row["patient"]
    if not patient or patient in seen:
      raise UserError(f"{path} line {number}: patient {patient!r} is empty or listed twice")
    seen.add(patient)
    split = _SPLIT_NAMES.get(row.get("split", "").lower())
    if with_split and split is None:
      raise UserError(f"{path} line {number}: split {row.get('split')!r} is not train, val, test")
    lacking = [m for m in modalities if not row[m]]
    if lacking:
      incomplete[patient] = f"no {', '.join(lacking)} volume (empty column of manifest.csv)"
      continue
    seg = row.get(seg_column) if seg_column else None
    complete.append(ScanFiles(patient, split or "", tuple(str(folder / row[m]) for m in modalities),
                              str(folder / seg) if seg else None))
  if with_split:
    return Found(complete, incomplete, "column split of manifest.csv")
  return Found(*_assign(complete, incomplete, sorted(seen), folder))


def _from_folders(folder, modalities) -> Found:
  candidates = [d for d in sorted(folder.iterdir()) if d.is_dir()]
  candidates = [d for d in candidates if any(nifti.is_nifti(f) for f in d.iterdir())]
  if not candidates:
    raise UserError(f"config.data.dir={str(folder)!r} holds neither manifest.csv nor scan folders "
                     "such as BraTS2021_00000/BraTS2021_00000_flair.nii.gz")
  incomplete, complete = {}, []
  for d in candidates:
    files = {m: find_file(d, m) for m in modalities}
    lacking = [m for m, f in files.items() if f is None]
    seg = find_file(d, "seg")
    if lacking or seg is None:  # BraTS scans without a label must not pass as healthy
      incomplete[d.name] = f"no {', '.join(lacking + ([] if seg else ['seg']))} volume in {d.name}"
      continue
    complete.append(ScanFiles(d.name, "", tuple(str(files[m]) for m in modalities), str(seg)))
  return Found(*_assign(complete, incomplete, [d.name for d in candidates], folder))


def _assign(complete, incomplete, patients, folder):
  """Gives each scan its split: split files, the published lists, or the seeded rule."""
  lists, rule = _split_lists(patients, folder)
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


def _split_lists(patients, folder):
  """({split: ids}, name of the rule)."""
  for base in (folder / "data_splits", folder):
    files = {s: base / s / "scans.csv" for s in SPLITS}
    if all(f.is_file() for f in files.values()):
      # No header, no newline after the last line.
      lists = {s: [line.strip() for line in f.read_text().splitlines() if line.strip()]
               for s, f in files.items()}
      return lists, f"files {base.name}/*/scans.csv"
  published = published_split()
  known = {p for ids in published.values() for p in ids}
  if set(patients) <= known:
    lists = {s: [p for p in ids if p in set(patients)] for s, ids in published.items()}
    if all(lists.values()):
      return lists, "published BraTS2021 lists"
  return split_by_rule(patients), "seeded rule (0.75 / 0.05 / rest, seed 0)"


# ------------------------------------------------------------------------------ names of files
def file_name(patient: str, kind: str, style: str = "brats2021") -> str:
  """Name of a file; kind is a modality or "seg", style "brats2021" or "brats2023"."""
  return (f"{patient}_{kind}.nii.gz" if style == "brats2021"
          else f"{patient}-{NEW_NAMES.get(kind, kind)}.nii.gz")


def find_file(folder: pathlib.Path, kind: str) -> pathlib.Path | None:
  """The file of `kind` in a scan folder named as the patient, in either naming; None = absent."""
  patient = folder.name
  for stem in (f"{patient}_{kind}", f"{patient}-{NEW_NAMES.get(kind, kind)}"):
    for suffix in nifti.SUFFIXES:
      if (folder / (stem + suffix)).is_file():
        return folder / (stem + suffix)
  return None
