"""Scans of a folder of scan folders: NIfTI volumes by their names, DICOM series by series.py.

  P01/P01_flair.nii.gz  P01/P01-t2f.nii.gz       names of BraTS, old and new
  P01/FLAIR.nii.gz  P01/P01_T1w.nii.gz           the sequence alone, names of BIDS and of scanners
  P01/flair/IM0001 ...  P01/P01_flair/IM0001     a folder a modality
  P01/.../IM0001                                 several series a study, told by what they say of themselves
  P01/P01_seg.nii.gz  P01/mask.nii.gz            the label: seg, mask, label, segmentation, lesion ...

Or BIDS, sub-01/[ses-1/]anat/sub-01[_ses-1]_FLAIR.nii.gz, named as intake/bids.py has it: labels lie
below derivatives or beside the scans: a mask, dseg, roi or seg of which an entity says lesion, tumor or wmh
(sub-01_label-lesion_mask.nii.gz); others are of tissues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import pathlib

from data_pipelines.brains import labels, sequences, series
from data_pipelines.brains.sequences import LABEL_ENDINGS, NEW_NAMES, scans_of_label, split_name
from data_pipelines.errors import UserError
from data_pipelines.formats import nifti
from data_pipelines.intake import bids, counts, find as finder, foreign, patients as people, processed


@dataclasses.dataclass(frozen=True)
class ScanFiles:
  """Files of one scan.

  Attributes:
    patient: scan id, unique in the set.
    group: whose scan it is; scans of one person are never in two splits.
    split: "train", "val" or "test".
    volumes: paths in the order of the modalities asked for; a tuple of them = a DICOM series.
    seg: path of the label volume, None = nothing marked.
    site: hospital or scanner, "" where no table says it.
  """

  patient: str
  split: str
  volumes: tuple[str | tuple[str, ...], ...]
  seg: str | None
  group: str
  site: str = ""


@dataclasses.dataclass
class _Candidate:
  """A scan that may lack something; a volume is a path, or the paths of a DICOM series."""

  files: dict[str, list]
  top: str           # name of the folder in `folder` that it lies in
  patient: str = ""  # PatientID
  left_out: str = ""  # why one of the files there is no input


@dataclasses.dataclass(frozen=True)
class Looked:
  """Scans without a split; {scan or folder: why it is none}; {scan: whose it is}, of both."""

  complete: list[ScanFiles]
  incomplete: dict[str, str]
  person: dict[str, str]


def look(folder: pathlib.Path, modalities: Sequence[str], rule: Mapping[str, str]) -> Looked:
  """The scans of a folder of scan folders; says in the log what became of every file.

  Args:
    rule: pattern and grouping of intake/patients.py.

  Raises:
    UserError: nothing of that form in it.
  """
  found = finder.find(folder, ("nifti", "dicom"))
  broken = {item.path: item.reason for item in found.broken}
  candidates, incomplete = _candidates(found, folder, modalities)
  if not candidates and not incomplete:
    raise UserError(f"config.data.dir={str(folder)!r} holds neither manifest.csv nor scan folders such as "
                    "BraTS2021_00000/BraTS2021_00000_flair.nii.gz, or of DICOM series"
                    f"{_where(found.files, folder)}")
  person = _people(candidates, incomplete, rule)
  kinds, complete, used = _kinds(candidates.values(), modalities, folder, found), [], set()
  for name, candidate in sorted(candidates.items()):
    files = {kind: candidate.files[kind] for kind in kinds}
    reason = _incomplete(name, files, broken)
    if reason:
      incomplete[name] = f"{reason} ({candidate.left_out})" if candidate.left_out else reason
      continue
    one = [files[kind][0] for kind in kinds]
    used.update(f for v in one for f in ([v] if isinstance(v, pathlib.Path) else v))
    volumes = [str(v) if isinstance(v, pathlib.Path) else tuple(map(str, v)) for v in one]
    complete.append(ScanFiles(name, "", tuple(volumes[:len(modalities)]),
                              str(volumes[-1]) if "seg" in kinds else None, person[name]))
  processed.refuse_scans((s.patient for s in complete), folder)
  tops = {c.top for name, c in candidates.items() if name in incomplete}
  found.leave_out({p: "is of a scan that is incomplete" if p.relative_to(folder).parts[0] in tops else
                   f"is no {', '.join(modalities)} or seg of a scan folder"
                   for p in found.files if p not in used})
  counts.say(found)
  return Looked(complete, incomplete, person)


def _where(files, folder):
  """What to do where volumes lie elsewhere."""
  above = {p.parent.parent for p in files}
  if len(above) == 1 and (inner := above.pop()).parent == folder:
    return f": are the scan folders those in {inner}? Then give that"
  return (": put the files of each scan into a folder of its own, write manifest.csv, or use "
          "configs/own_folder.py")


def _candidates(found, folder, modalities):
  """({scan: _Candidate}, {folder: why none of its DICOM series is a scan})."""
  kinds, volumes, dicom, deep = (*modalities, "seg"), {}, set(), dict[str, list[pathlib.Path]]()
  for path in [*found.files, *(item.path for item in found.broken)]:
    parts = path.relative_to(folder).parts
    if nifti.is_nifti(path):
      if len(parts) == 2:
        volumes.setdefault(parts[0], []).append(path)
      elif len(parts) > 2:
        deep.setdefault(parts[0], []).append(path)
    elif len(parts) > 1:
      dicom.add(parts[0])
  result = {}
  for top, paths in volumes.items():
    files = {kind: find_files(paths, top, kind) for kind in kinds}
    result[top] = _Candidate(files, top, left_out=next((
        said for kind in modalities if not files[kind]
        if (said := sequences.elsewhere(folder / top, kind, paths, deep.get(top, ())))), ""))
  by_top: dict[str, list[series.SeriesScan]] = {}
  for scan in series.scans(found, modalities) if dicom else ():
    first = next(iter(scan.files.values()))[0].relative_to(folder).parts
    by_top.setdefault(first[0] if len(first) > 1 else "", []).append(scan)
  for scan in by_top.pop("", ()):
    found.leave_out({f: "lies in no folder of a scan" for members in scan.files.values() for f in members})
  every = [p for p in found.files if nifti.is_nifti(p)]
  for top, scans in by_top.items():
    for scan in scans:
      own = result.get(top) if len(scans) == 1 else None
      files = own.files if own else {kind: [] for kind in kinds}
      for kind, members in scan.files.items():
        files[kind].append(members)
      beside = [p for p in every if p.parent in (scan.place, folder / top)]
      files["seg"] = files["seg"] or [p for name in dict.fromkeys((scan.place.name, top))
                                      for p in find_files(beside, name, "seg")]
      result[top if len(scans) == 1 else scan.name] = _Candidate(files, top, scan.patient)
    if len(scans) > 1:
      result.pop(top, None)
  reasons: dict[str, str] = {}
  told = {item.path.relative_to(folder).parts[0] for item in found.left_out if item.broken or
          foreign.may_be_label(item.path.name)}  # P1_seg.mha, where the label is wanting
  for item in sorted(found.left_out, key=lambda item: (
      not item.broken, not foreign.may_be_label(item.path.name))):
    top = item.path.relative_to(folder).parts[0]
    reasons.setdefault(top, f"{counts.shown(item.path, folder)} {item.reason}")
  for candidate in result.values():
    candidate.left_out = candidate.left_out or (
        reasons.get(candidate.top, "") if candidate.top in dicom | told else "")
  return result, {top: f"no series of it is a scan: {reasons.get(top, '')}" for top in sorted(dicom)
                  if top not in by_top and top not in volumes}


def _people(candidates, incomplete, rule):
  """{scan: whose it is}: as names of folders say it, and PatientID of DICOM where that tells people apart."""
  by_name = people.of_scans([*(c.top for c in candidates.values()), *incomplete], **rule)
  person = {name: by_name[c.top] for name, c in candidates.items()}
  ids = {c.patient for c in candidates.values()} - {""}
  if rule["grouping"] == "patient" and len(ids) > 1:
    person.update({name: c.patient for name, c in candidates.items() if c.patient
                   and not people.by_pattern(c.top, rule["pattern"])})
  return {**person, **{name: by_name[name] for name in incomplete}}


def _kinds(candidates, modalities, folder, found):
  """What a scan must have: the label as well where any scan has one, so that one without it does not
  pass as healthy among those that are marked; a folder without labels is one of normal scans.

  Raises:
    UserError: there is no label, and a file that looks like one.
  """
  if any(c.files["seg"] for c in candidates):
    return (*modalities, "seg")
  labels.check_unnamed_labels(folder, [p for p in found.files if nifti.is_nifti(p)])
  labels.check_foreign(folder, found.left_out)
  logging.warning("%s has no seg volume in any of its %d scan folders: all scans are taken for normal; "
                  "pixel metrics need masks%s", folder, len(candidates), _tables(found, folder))
  return tuple(modalities)


def _tables(found, folder):
  """"; ..." where a table lies in the folder, which may say that some are not."""
  named = [item.path.name for item in found.left_out if item.path.parent == folder
           and finder.kind_of(item.path, False) == "table"]
  return f"; {named[0]} is not read: where it says who is not, leave these scans out" if named else ""


def file_name(patient: str, kind: str, style: str = "brats2021") -> str:
  """Name of a file; kind is a modality or "seg", style "brats2021" or "brats2023"."""
  return (f"{patient}_{kind}.nii.gz" if style == "brats2021"
          else f"{patient}-{NEW_NAMES.get(kind, kind)}.nii.gz")


def find_files(files: Sequence[pathlib.Path], patient: str, kind: str) -> list[pathlib.Path]:
  """Those of `kind` among the files of a patient, in any naming of `split_name` and any capitals.

  Of labels the first kind that is there: seg, mask or label; another of LABEL_ENDINGS; an ending with
  words before it (P01_tumor_seg).
  """
  for names in ((LABEL_ENDINGS[:3], LABEL_ENDINGS) if kind == "seg" else ((kind,),)):
    told = [split_name(f, names) for f in files]
    same = [f for f, (prefix, found) in zip(files, told) if found and prefix.lower() == patient.lower()]
    if same or kind != "seg":
      return same
  return [f for f in files if patient.lower() in (name.lower() for name in scans_of_label(f))]


def _incomplete(patient, files, broken):
  """Why a scan cannot be used, "" where each kind has exactly one file that can be read."""
  shown = lambda v: v.name if isinstance(v, pathlib.Path) else f"series {v[0].parent.name}"
  for kind, volumes in files.items():
    if len(volumes) > 1:
      return f"{len(volumes)} {kind} volumes ({', '.join(map(shown, volumes))}): keep one"
    if volumes and isinstance(volumes[0], pathlib.Path) and volumes[0] in broken:
      return f"{volumes[0].name} {broken[volumes[0]]}"
  lacking = [kind for kind, volumes in files.items() if not volumes]
  return f"no {', '.join(lacking)} volume in {patient}" if lacking else ""


# ------------------------------------------------------------------------------------------- BIDS
_BIDS_SUFFIXES = ("mask", "dseg", "roi", "seg", "lesion", "msk")


def is_bids(folder: pathlib.Path) -> bool:
  """Whether scans of subjects lie in it as BIDS says."""
  return bids.root_of(folder) == folder or any(
      bids.parse(p)[0] for p in finder.like(folder, "sub-*/anat/sub-*", "sub-*/ses-*/anat/sub-*"))


def look_bids(folder: pathlib.Path, modalities: Sequence[str], rule: Mapping[str, str]) -> Looked:
  """As `look`, of a BIDS data set: a label is that of its subject and session.

  Raises:
    UserError: a file that cannot be opened; there is no label, and a file that looks like one.
  """
  found = finder.find(folder, ("nifti",))
  counts.refuse_broken(found)
  every = list(found.files)
  scans = bids.scans(found, folder, modalities)
  processed.refuse_scans((name for name, _ in scans), folder)
  label_of: dict[tuple[str, str], list[pathlib.Path]] = {}
  for path in filter(_is_bids_label, every):
    label_of.setdefault(_session(path), []).append(path)
  if not label_of:
    labels.check_foreign(folder, found.left_out)
    labels.check_unnamed_labels(folder, [p for p in every if bids.parse(p)[1] != "dseg"])  # tissues
    logging.warning("%s has no label of a lesion (derivatives/.../sub-01_label-lesion_mask.nii.gz): all its "
                    "%d scans are taken for normal; pixel metrics need masks%s", folder, len(scans),
                    _tables(found, folder))
  complete, incomplete, person = [], {}, {}
  for name, files in scans:
    session = _session(next(iter(files.values())))
    person[name] = _person(name, session[0], rule)
    lacking = [m for m in modalities if m not in files]
    mine = label_of.get(session, [])
    if lacking:
      incomplete[name] = f"no {', '.join(lacking)} volume of {name}"
    elif len(mine) > 1:
      incomplete[name] = f"{len(mine)} labels ({', '.join(counts.shown(p, folder) for p in mine)}): keep one"
    elif label_of and not mine:
      incomplete[name] = f"no label of {name}"
    else:
      complete.append(ScanFiles(name, "", tuple(str(files[m]) for m in modalities),
                                str(mine[0]) if mine else None, person[name]))
  found.left_out = [item for item in found.left_out if str(item.path) not in {s.seg for s in complete}]
  counts.say(found)
  return Looked(complete, incomplete, person)


def _is_bids_label(path):
  entities, suffix = bids.parse(path)
  return bool(entities) and suffix.lower() in _BIDS_SUFFIXES and sequences.says_lesion(path)


def _session(path):
  entities = bids.parse(path)[0]
  return f"sub-{entities['sub']}", entities.get("ses", "")


def _person(name, subject, rule):
  if rule["grouping"] == "file":
    return name
  return people.by_pattern(name, rule["pattern"]) or subject
