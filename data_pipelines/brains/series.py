"""Which DICOM series are the volumes of which scan: by names of folders and by what series say.

A folder <scan>_<modality>, or <modality> in the folder of the scan, names the modality as files do, also
where folders of series lie in it; else words of SeriesDescription, else of ProtocolName do, and series of one
study belong together; else the series is the only modality of a one-modality model, and a scan of its
own, unless another series of its study names the modality.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import pathlib

from data_pipelines.brains import sequences
from data_pipelines.errors import UserError
from data_pipelines.formats import dicom_series
from data_pipelines.formats.dicom_series import Series
from data_pipelines.intake import counts, find

# Words of ImageType of what is computed from slices: projections and maps.
_MADE = {"MIP", "MINIP", "MIN IP", "PROJECTION IMAGE", "ADC", "EADC", "FA", "CBF", "CBV", "MTT", "TTP",
         "TMAX", "T1 MAP", "T2 MAP", "T2_STAR MAP", "VELOCITY MAP", "SCREEN SAVE"}
_NO_MR = {"CT", "PT", "NM", "US", "XA", "CR", "DX", "MG"}  # words of Modality


@dataclasses.dataclass(frozen=True)
class SeriesScan:
  """The series of one scan.

  Attributes:
    name: unique among the scans found; the path below the root where that is enough.
    files: {modality: the files of its series}. place: folder that all of them lie in.
    patient: PatientID, "" where the headers do not agree on one.
  """

  name: str
  files: dict[str, list[pathlib.Path]]
  place: pathlib.Path
  patient: str = ""


def scans(found: find.Found, modalities: Sequence[str], given: Sequence[Series] | None = None
          ) -> list[SeriesScan]:
  """Scans of the series in `found`; leaves out of it those that are none.

  Args:
    found: of intake.find; its DICOM files are looked at, others (NIfTI, images) are not.
    given: the series, where they are known already.
  """
  if given is None:
    given = dicom_series.gather(f for f in found.files if find.kind_of(f) == "dicom")
  belongs = [(s, *_belongs(s, modalities, pathlib.Path(found.root))) for s in given]
  named = _named(belongs)
  sets: dict[tuple, list[tuple[str, Series]]] = {}
  reasons: dict[pathlib.Path, str] = {}
  for s, modality, key, reason in belongs:
    reason = s.reason or reason
    if not reason and not modality and _study(s) in named:
      reason = "is of a series that names no modality, as another one of its study does"
    if reason:
      reasons.update(dict.fromkeys(s.files, reason))
    else:
      sets.setdefault(key, []).append((modality or modalities[0], s))
  twins = {key for key, parts in sets.items() if len({m for m, _ in parts}) < len(parts)}
  result = [_scan(key, parts, found.root) for key, parts in sets.items() if key not in twins]
  used = {f for _, scan in result for files in scan.files.values() for f in files}
  found.leave_out({f: reason for f, reason in reasons.items() if f not in used})
  found.leave_out({f: "is of one of several series of a modality of a scan: keep one"
                   for key in twins for _, s in sets[key] for f in s.files if f not in used}, broken=True)
  # Where several scans share a name, the folder of the first series, or its first file, tells them apart.
  for _ in range(2):
    taken = [titles[0] for titles, _ in result]
    for titles, _ in result:
      if taken.count(titles[0]) > 1:
        titles.pop(0)
  return sorted((dataclasses.replace(scan, name=titles[0]) for titles, scan in result), key=lambda s: s.name)


def unnamed(given: Sequence[Series], modalities: Sequence[str], root: pathlib.Path) -> list[Series]:
  """Series of studies of which no series names a modality."""
  named = _named((s, *_belongs(s, modalities, root)) for s in given)
  return [s for s in given if not s.reason and _study(s) not in named]


def _named(belongs) -> set[str]:
  """Studies of which a series names its modality, of (series, modality, key, reason)."""
  return {_study(s) for s, modality, _, reason in belongs if modality and not (s.reason or reason)}


def of_cell(path: pathlib.Path, modality: str) -> list[pathlib.Path]:
  """The files of the series that a table's cell means, a folder or one slice of it; [] where it means a
  NIfTI volume, or nothing that exists.

  Raises:
    UserError: no series there; several, none or more than one of which says that it is the modality.
  """
  if not path.is_dir():
    if not path.is_file() or find.kind_of(path) != "dicom":
      return []
    there = dicom_series.gather(find.find(path.parent, ("dicom",), deep=False).files)
    return next(s.files for s in there if path in s.files)
  there = dicom_series.gather(find.find(path, ("dicom",)).files)
  images = [s for s in there if not s.reason]
  if not images:
    reason = f": {there[0].files[0].name} {there[0].reason}" if there else ""
    raise UserError(f"{path} holds no DICOM series{reason}")
  if len(images) == 1:
    return images[0].files
  told = [s for s in images if sequences.described(s.texts, (modality,))[0]]
  if len(told) != 1:
    raise UserError(f"{path} holds {len(images)} series, and {len(told) or 'none'} of them say {modality} in "
                    "SeriesDescription: name the folder of one series, or one of its files")
  return told[0].files


def _study(s):
  return s.study or str(s.folder)


def _belongs(s, modalities, root):
  """(modality or "" where nothing tells it, key of its scan, reason to leave it out)."""
  if tuple(modalities) == (sequences.ANY,):
    return "", ("series", s.uid), ""
  modality, key = _by_name(s.folder, modalities)
  reason = sequences.other_kind(s.folder.name)
  if modality or reason:
    return modality, key, "" if modality else reason
  modality, reason = sequences.described(s.texts, modalities)
  for folder in s.folder.parents:  # flair/1.2.826.0.1/IM0001
    below = folder != root and folder.is_relative_to(root)
    above, key = _by_name(folder, modalities) if below else ("", None)
    if above and modality not in ("", above) and (above, modality) != ("t1ce", "t1"):  # contrast goes unsaid
      return "", None, f"lies in a folder of {above}, its description says {modality}"
    if above:
      return above, key, reason if reason == sequences.UNUSED else ""
  made = next((word for word in s.words if word in _MADE and word.lower() not in modalities), "")
  other = next((word for word in s.words if word in _NO_MR), "") if sequences.of_brains(modalities) else ""
  if other and not reason:
    return "", ("series", s.uid), f"is of a series of Modality {other}: the sequences of the model are of MR"
  if made and not reason:
    return "", ("series", s.uid), f"is of a series that its ImageType calls {made}"
  if not modality and not reason and len(modalities) > 1:
    reason = (f"is of a series that names none of {', '.join(modalities)}, neither by its folder nor by "
              "words of SeriesDescription or ProtocolName")
  return modality, ("study", _study(s)) if modality else ("series", s.uid), reason


def _by_name(folder, modalities):
  """(modality, key of the scan) that a folder's name tells, ("", None) where it tells none."""
  prefix, modality = sequences.split_name(pathlib.Path(folder.name + ".nii"), modalities)
  place = folder.with_name(prefix) if prefix else folder.parent
  return (modality, ("path", place)) if modality else ("", None)


def _scan(key, parts, root):
  """(what the scan can be called, the best first; the scan).

  The path below the root that its series share, the folder of the first, its first file.
  """
  folders = [s.folder for _, s in parts]
  place = key[1] if key[0] == "path" else pathlib.Path(os.path.commonpath(folders))
  root = pathlib.Path(root)
  shown = lambda p: (counts.shown(p, root) if p != root and p.is_relative_to(root) else
                     p.name or p.resolve().name)
  people = {s.patient for _, s in parts}
  scan = SeriesScan("", {m: s.files for m, s in parts}, pathlib.Path(os.path.commonpath(folders)),
                    people.pop() if len(people) == 1 else "")
  return [shown(place), shown(folders[0]), shown(parts[0][1].files[0])], scan
