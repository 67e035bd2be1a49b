"""Scans and labels of a BIDS data set to train on: names as intake/bids.py has them, for predict as well.

  sub-01/[ses-1/]anat/sub-01[_ses-1]_FLAIR.nii.gz
  derivatives/<any>/sub-01/[ses-1/]anat/sub-01[_ses-1]..._label-lesion_mask.nii.gz      or beside the scan

A label is a mask, dseg, roi or seg of which an entity says lesion, tumor or wmh: others are of tissues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import logging
import pathlib

from data_pipelines.brains import sequences
from data_pipelines.brains.scan_folders import Looked, ScanFiles
from data_pipelines.intake import bids, counts, find as finder, patients as people

_SUFFIXES = ("mask", "dseg", "roi", "seg", "lesion")


def is_data_set(folder: pathlib.Path) -> bool:
  """Whether scans of subjects lie in it as BIDS says."""
  return bids.root_of(folder) == folder or any(
      bids.parse(p)[0] for p in finder.like(folder, "sub-*/anat/sub-*", "sub-*/ses-*/anat/sub-*"))


def look(folder: pathlib.Path, modalities: Sequence[str], rule: Mapping[str, str]) -> Looked:
  """As `scan_folders.look`: a label is that of its subject and session.

  Raises:
    UserError: a file that cannot be opened.
  """
  found = finder.find(folder, ("nifti",))
  counts.refuse_broken(found)
  every = list(found.files)
  scans = bids.scans(found, folder, modalities)
  labels: dict[tuple[str, str], list[pathlib.Path]] = {}
  for path in filter(_is_label, every):
    labels.setdefault(_session(path), []).append(path)
  if not labels:
    logging.warning("%s has no label of a lesion (derivatives/.../sub-01_label-lesion_mask.nii.gz): all its "
                    "%d scans are taken for normal; pixel metrics need masks", folder, len(scans))
  complete, incomplete, person = [], {}, {}
  for name, files in scans:
    session = _session(next(iter(files.values())))
    person[name] = _person(name, session[0], rule)
    lacking = [m for m in modalities if m not in files]
    mine = labels.get(session, [])
    if lacking:
      incomplete[name] = f"no {', '.join(lacking)} volume of {name}"
    elif len(mine) > 1:
      incomplete[name] = f"{len(mine)} labels ({', '.join(counts.shown(p, folder) for p in mine)}): keep one"
    elif labels and not mine:
      incomplete[name] = f"no label of {name}"
    else:
      complete.append(ScanFiles(name, "", tuple(str(files[m]) for m in modalities),
                                str(mine[0]) if mine else None, person[name]))
  found.left_out = [item for item in found.left_out if str(item.path) not in {s.seg for s in complete}]
  counts.say(found)
  return Looked(complete, incomplete, person)


def _is_label(path):
  entities, suffix = bids.parse(path)
  return bool(entities) and suffix.lower() in _SUFFIXES and sequences.says_lesion(path)


def _session(path):
  entities = bids.parse(path)[0]
  return f"sub-{entities['sub']}", entities.get("ses", "")


def _person(name, subject, rule):
  if rule["grouping"] == "file":
    return name
  return people.by_pattern(name, rule["pattern"]) or subject
