"""Scans given to predict: which files belong together, and reading them on one grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
import dataclasses
import logging
import pathlib

from data_pipelines.brains import labels, series, volumes
from data_pipelines.brains.sequences import (
  ANY,
  NAMES,
  of_brains,
  of_scan_beside,
  other_kind,
  say_columns,
  split_name,
)
from data_pipelines.errors import UserError
from data_pipelines.formats import nifti
from data_pipelines.intake import bids, counts, find as finder, folder_words, names, processed, tables
from data_pipelines.intake.words_of_volumes import CLEAR_OTHERS


@dataclasses.dataclass(frozen=True)
class Scan:
  """Files of one scan: one a modality, or a single file under "" with all of them as 4th axis.

  Attributes:
    name: of its results, safe and unique; title: what the user calls it.
    series: {file of `files`: all files of the DICOM series that it stands for}.
  """

  name: str
  files: dict[str, pathlib.Path]
  title: str = ""
  series: dict[pathlib.Path, tuple[pathlib.Path, ...]] = dataclasses.field(default_factory=dict)

  @property
  def all_files(self) -> list[pathlib.Path]:
    """Every file that is read for it."""
    return [f for p in self.files.values() for f in self.series.get(p, (p,))]


def find(path, modalities: Sequence[str]) -> list[Scan]:
  """Volumes under a file, a manifest.csv, or a folder; see `find_all`."""
  return find_all(path, modalities, ("nifti",))[0]


def find_all(path, modalities: Sequence[str], kinds: Collection[str]
             ) -> tuple[list[Scan], finder.Found]:
  """Scans under a file, a manifest.csv, or a folder (searched with its subfolders), volumes first.

  <prefix>_<modality>.nii.gz (or -<modality>; of brains by more names, see sequences.py) belong
  together; a file without such an ending is a scan of its own, with one modality or with all of them
  along its last axis. Truth (_seg), our own results (_anomaly, _mask, _overlay), sequences that the
  model does not use and pictures that lie beside volumes are left out and named in `Found.left_out`.
  Where `modalities` is empty, each file is an input, but for what is named as the result of another one
  beside it (a_mask.png beside a.png).
  A DICOM series is one volume, see brains/series.py. In a BIDS data set (a folder with
  dataset_description.json, or a subject, session or file of it) names count as intake/bids.py says.

  Args:
    kinds: of intake.find.

  Raises:
    FileNotFoundError: nothing there. UserError: a manifest that cannot be read.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise FileNotFoundError(f"{path} does not exist")
  table = tables.place(path, "manifest.csv") if path.is_dir() else path
  if modalities and table.suffix.lower() in finder.SUFFIXES["table"] and table.is_file():
    scans = _from_manifest(table, modalities)
    found = finder.find(path, kinds) if path.is_dir() else finder.Found(path)
    listed = {f for scan in scans for f in scan.all_files}
    found.leave_out({f: "is not listed in manifest.csv" for f in found.files if f not in listed})
    return scans, found
  root = bids.root_of(path) if modalities and "nifti" in kinds else None
  if root is not None:
    return _of_bids(path, root, modalities)
  if modalities and path.is_file() and finder.kind_of(path) == "dicom":  # its whole series
    found = finder.find(path.parent, ("dicom",), deep=False)
    scans = [s for s in _of_series(found, modalities) if path in s.all_files]
    return scans, finder.Found(path, [f for s in scans for f in s.all_files], [
        item for item in found.left_out if item.path == path])
  if path.is_file() and len(modalities) > 1:
    modality = split_name(path, modalities)[1]
    if modality:  # the others of the same scan
      found = finder.find(path.parent, kinds, deep=False)
      groups = _group(found, modalities)
      mine = [g for g in groups if path in g[2].values()]
      used = {f for _, _, files in mine for f in files.values()}
      return _named(mine, path.parent), finder.Found(path, sorted(used))
  found = finder.find(path, kinds)
  volumes_too = _of_series(found, modalities) if modalities and "dicom" in kinds else []
  slices = {f for scan in volumes_too for f in scan.all_files}
  found.files = [f for f in found.files if f not in slices]
  groups = _group(found, modalities, bool(slices)) if path.is_dir() or of_brains(modalities) else [
      (p, finder.stem_of(p), {split_name(p, modalities)[1]: p}) for p in found.files]
  scans = _named(groups, path)
  found.files = sorted([*found.files, *slices])
  return _told_apart([*scans, *volumes_too]), found


def _of_bids(path, root, modalities):
  """Scans of a BIDS data set, or of the part of it that `path` is; of a file the scan that it belongs to."""
  found = finder.find(path.parent if path.is_file() else path, ("nifti",))
  if path.is_file() and len(modalities) == 1:
    found.files = [f for f in found.files if f == path]
  scans = bids.scans(found, root, modalities, tuple(modalities) == (ANY,))
  scans = [s for s in scans if not path.is_file() or path in s[1].values()]
  _say_forms(f for _, files in scans for f in files.values())
  safe = names.unique([name for name, _ in scans])
  result = [Scan(own, files, name) for own, (name, files) in zip(safe, scans)]
  if path.is_file():
    found = finder.Found(path, sorted(f for s in result for f in s.all_files),
                         [item for item in found.left_out if item.path == path])
  return result, found


def _told_apart(scans):
  """Names of volumes and of series that no two share."""
  return [dataclasses.replace(scan, name=name)
          for scan, name in zip(scans, names.unique([s.name for s in scans]))]


def _of_series(found, modalities):
  """Scans of the DICOM series among the files found; takes out of `found` those that are none."""
  return [Scan(names.safe(s.name), {m: files[0] for m, files in s.files.items()}, s.name,
               {files[0]: tuple(files) for files in s.files.values()})
          for s in series.scans(found, modalities)]


def _group(found, modalities, series_there=False):
  """[(first file, name, {modality: file})] out of loose files; takes out of `found` what is none."""
  sets: dict[tuple, list[tuple[str, pathlib.Path]]] = {}
  volumes = [p for p in found.files if modalities and nifti.is_nifti(p)]
  marks = {p: f"is named as a label of {scan.name}, which lies beside it"
           for p, scan in labels.marks_beside(volumes, modalities).items()}
  masks = _in_folders_of_masks(volumes, found.root)
  maps = processed.maps(volumes) if of_brains(modalities) else {}
  beside = {p: f"is a file of the scan of {own.name}, of no sequence that its name tells"
            for p, own in of_scan_beside(volumes, modalities).items()}
  channels = {p: f"is a channel of {case} by nnU-Net's names: call it {case}_{modalities[0]} or the like, or "
              "list the channels in manifest.csv" for p, case in processed.channels(volumes).items()
              if not split_name(p, modalities)[1]}
  reasons: dict[pathlib.Path, str] = {}
  for path in found.files:
    prefix, modality = split_name(path, modalities)
    reason = maps.get(path) or (marks.get(path, "") if modality else (
        _no_input(path, modalities, found.files) or marks.get(path, "") or masks.get(path, "")
        or beside.get(path, "")))
    if path in channels:
      continue
    if reason:
      reasons[path] = reason
    else:
      kind = finder.kind_of(path, False) == "nifti"
      sets.setdefault((not kind, path.parent, prefix, bool(modality)), []).append((modality, path))
  _say_forms(p for members in sets.values() for _, p in members)
  groups, twins = [], {}
  for (_, _, prefix, _), members in sorted(sets.items(), key=lambda item: item[0][0]):
    for part in _apart(members):
      files = dict(part)
      if len(files) < len(part):
        twins.update({p: f"is one of several files of a modality of {prefix}: keep one" for _, p in part})
      else:
        groups.append((part[0][1], prefix, files))
  pictures = _beside(groups, modalities, series_there)
  found.leave_out({**reasons, **pictures})
  found.leave_out({**twins, **channels}, broken=True)
  return [g for g in groups if g[0] not in pictures]


def _in_folders_of_masks(volumes, root):
  """{file: reason} of those below labelsTr/, masks/ ..., where others lie elsewhere."""
  inside = [p for p in volumes if p.is_relative_to(root) and folder_words.side(
      p.relative_to(root).parts[:-1], ((), ())) == "mask"]
  return dict.fromkeys(inside, "lies in a folder of masks") if len(inside) < len(volumes) else {}


def _no_input(path, modalities, files):
  """Why a file without a modality in its name is no input, "" where it is one."""
  if not modalities:
    return names.beside_its_image(path, files)
  if of_brains(modalities) and processed.of_program(path, files):
    return "is named as what FreeSurfer or FSL make of a T1: call it <scan>_<sequence>, P01_flair"
  if reason := other_kind(finder.stem_of(path), modalities):
    return reason
  folder = path.parent.name  # T1/P01.nii.gz, for a model of FLAIR
  known = NAMES.get(folder.lower()) or (folder.lower() in CLEAR_OTHERS and "other")
  other = known and of_brains(modalities) and known not in {m.lower() for m in modalities}
  return f"lies in the folder {folder}, of a sequence that the model does not use" if other else ""


def _say_forms(files):
  """One warning for forms of one scan, skull-stripped and not: each is an input, of one patient."""
  files = [p for p in files if nifti.is_nifti(p)]
  if twice := processed.forms(files) or processed.forms(sorted({p.parent for p in files})):
    logging.warning("%s and %s are forms of one scan by their names (%d such files): each gets results of "
                    "its own; those of the form that the model was trained on count", *twice[0], len(twice))


def _apart(members):
  """[(modality, file)] by ending where a modality has several: x_t1.nii and x_t1.nii.gz."""
  if len(dict(members)) == len(members):
    return [members]
  endings = sorted({finder.suffix_of(p) for _, p in members})
  return [[m for m in members if finder.suffix_of(m[1]) == e] for e in endings]


def _beside(groups, modalities, series_there):
  """{picture: reason} where volumes were found: a picture is a scan only as a whole set."""
  volumes = {(p.parent, prefix) for p, prefix, _ in groups if nifti.is_nifti(p)}
  if not modalities or not (volumes or series_there):
    return {}
  return {path: "is a picture beside scans, not a scan" for p, prefix, files in groups
          if not nifti.is_nifti(p) and ((p.parent, prefix) in volumes or set(files) != set(modalities))
          for path in files.values()}


def _named(groups, root):
  """Scans with names for their results; two that share one get their folder or ending into it."""
  single = {p for p, _, files in groups if "" in files}  # P1.nii beside P1_flair.nii ... is another scan
  plain = [p.with_name(prefix + finder.suffix_of(p)) for p, prefix, _ in groups]
  plain = [p if short in single and "" not in files else short
           for short, (p, _, files) in zip(plain, groups)]
  name_of = names.result_names(plain, root, flat=True)
  title = lambda p, prefix: name_of[p] if names.safe(prefix) == prefix else (
      counts.shown(p.with_name(prefix), root))
  return [Scan(name_of[p], files, title(p, prefix)) for p, (_, prefix, files) in zip(plain, groups)]


def _from_manifest(path, modalities):
  table = tables.read_table(path, ("patient", *modalities))
  table.unique("patient")
  column = {m: tables.column_name(m) for m in modalities}
  safe = names.unique([row["patient"] for row in table.rows])
  scans, listed = [], dict[pathlib.Path, int]()
  for name, row in zip(safe, table.rows):
    cells = {m: path.parent / row.file(c) for m, c in column.items() if row[c]}
    files, of_series, known = dict(cells), {}, []
    for m, cell in cells.items():
      try:
        members = series.of_cell(cell, m)
      except UserError:
        continue  # read_scan says it in the row of this scan
      known.append(m)
      if members:
        files[m] = members[0]
        of_series[members[0]] = tuple(members)
    mine: dict[pathlib.Path, int] = {}
    for m in known:
      tables.refuse_twice(row, files[m], mine, counts.shown(files[m], path.parent))
      if files[m] in listed:
        logging.warning("%s: %s is also of line %d", row.where, files[m], listed[files[m]])
    listed.update(mine)
    scans.append(Scan(name, files, row["patient"], of_series))
  say_columns(item for scan in scans for item in scan.files.items())
  return scans


# ------------------------------------------------------------------------------------------- reading
def read_scan(scan: Scan, modalities: Sequence[str], orientation: str = "") -> volumes.Volumes:
  """Modalities of a scan in order, turned to `orientation` ("" = as stored).

  Raises:
    FileNotFoundError, UserError: a modality is missing, or the files are on different grids.
  """
  if "" in scan.files:
    return volumes.read_stacked(scan.files[""], modalities, orientation)
  missing = [m for m in modalities if m not in scan.files]
  if missing:
    there = ", ".join(p.name for p in scan.files.values())
    raise UserError(f"scan {scan.name} has no {', '.join(missing)} volume (found {there})")
  files = {m: scan.series.get(scan.files[m], scan.files[m]) for m in modalities}
  return volumes.read({m: f if isinstance(f, tuple) else series.of_cell(f, m) or f for m, f in files.items()},
                      orientation)
