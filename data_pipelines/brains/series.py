"""Which DICOM series are the volumes of which scan: by names of folders and by SeriesDescription.

A folder <scan>_<modality>, or <modality> in the folder of the scan, names the modality as files do;
else the ending of SeriesDescription does, and series of one study belong together; else it is the
only modality of a one-modality model, and the series is a scan of its own.
"""

from __future__ import annotations

import os
import pathlib
import re

from data_pipelines.brains.files import NEW_NAMES
from data_pipelines.formats import dicom_series
from data_pipelines.intake import counts, find

# Endings of truth and of our own results.
_NOT_INPUT = ("seg", "mask", "anomaly", "overlay", "label", "labels")


def other_kind(stem: str) -> str:
  """Why a file or series of that name, whose ending is no modality of the model, is no input; or ""."""
  ending = re.split(r"[-_ ]", stem.lower())[-1]
  if ending in _NOT_INPUT:
    return "is named as a label or a result"
  others = (*NEW_NAMES, *NEW_NAMES.values())
  return "is of a sequence that the model does not use" if ending in others else ""


def scans(found, modalities, split_name):
  """[(name, {modality: files})] of the series in `found`; leaves out of it those that are none.

  Args:
    found: of intake.find; its DICOM files are looked at, others (NIfTI, images) are not.
    split_name: of brains/inputs.py.
  """
  files = [f for f in found.files if find.kind_of(f) == "dicom"]
  sets: dict[tuple, list] = {}
  for uid, members in dicom_series.group(files).items():
    folder = members[0].parent
    text, study, image = dicom_series.description(members)
    modality, key, reason = _belongs(folder, text, study or str(folder), uid, modalities, split_name)
    reason = reason if image else "holds no image"
    if reason:
      found.leave_out(dict.fromkeys(members, reason))
    else:
      sets.setdefault(key, []).append((modality, folder, members))
  result = []
  for key, parts in sets.items():
    by_modality = {m: members for m, _, members in parts}
    if len(by_modality) < len(parts):
      found.leave_out({f: "is of one of several series of a modality of a scan: keep one"
                       for _, _, members in parts for f in members}, broken=True)
    else:
      result.append((_names(key, parts, found.root), by_modality))
  # Where several scans share a name, the folder of the first series, or its first file, tells them apart.
  for _ in range(2):
    taken = [titles[0] for titles, _ in result]
    for titles, _ in result:
      if taken.count(titles[0]) > 1:
        titles.pop(0)
  return sorted(((titles[0], by_modality) for titles, by_modality in result), key=lambda item: item[0])


def _belongs(folder, text, study, uid, modalities, split_name):
  """(modality, key of its scan, reason to leave it out)."""
  known = {n: m for m in modalities for n in (m.lower(), NEW_NAMES.get(m.lower(), m.lower()))}
  if folder.name.lower() in known:
    return known[folder.name.lower()], ("path", folder.parent), ""
  prefix, modality = split_name(folder.with_name(folder.name + ".nii"), modalities)
  if modality:
    return modality, ("path", folder.with_name(prefix)), ""
  reason = other_kind(folder.name)
  if reason:
    return "", None, reason
  ending = re.split(r"[-_ ]", text.lower())[-1]
  if ending in known:
    return known[ending], ("study", study), ""
  reason = other_kind(text)
  if not reason and len(modalities) > 1:
    reason = (f"is of a series that names none of {', '.join(modalities)}, neither by its folder nor at "
              "the end of SeriesDescription")
  return modalities[0], ("series", uid), reason


def _names(key, parts, root):
  """What a scan can be called, the best first: the path below the root that its series share, the folder of
  the first, its first file."""
  folders = [folder for _, folder, _ in parts]
  place = key[1] if key[0] == "path" else pathlib.Path(os.path.commonpath(folders))
  root = pathlib.Path(root)
  shown = lambda p: counts.shown(p, root) if p != root and p.is_relative_to(root) else p.name
  return [shown(place), shown(folders[0]), shown(parts[0][2][0])]
