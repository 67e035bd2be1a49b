r"""Whose is a file: the one rule that names the patient, for every data set.

In this order, the first that says something:
  column   `group`, `patient` or `subject` of the user's table (`patient_column`);
  pattern  config.data.group_pattern, first group of a regular expression, searched in the path below
           the data folder where the pattern has a "/", else in the file's name without suffix;
  folder   the folder with a name of a person's form `sub-01`, else the first folder below the data
           folder that is no common word ("train", "normal", "images", ...) and not shared by all files;
  name     what stands before the last "_" or "-" of the name (LUM00054_2 -> LUM00054), where it has
           a digit or is an initial, is no common word, and not shared by all files;
  file     else a file is its own patient.
Names are compared without regard to case. A rule that takes too much together keeps a patient on one
side all the same; `group_pattern` says it better where the guess is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import pathlib
import re

from data_pipelines.errors import UserError
from data_pipelines.intake import vocabulary
from data_pipelines.intake.tables import Row, same

COLUMNS = ("group", "patient", "subject", "patient_id", "subject_id", "patient id", "subject id")
PATTERN_FIELD = "config.data.group_pattern"
LEGACY_PATTERN = r"^(.*)_[^_]*$"
# Folders and prefixes that name a kind of thing, not a person.
_WORDS = {*vocabulary.SPLIT_WORDS, *vocabulary.NORMAL_WORDS, *vocabulary.ANOMALY_WORDS, "benign",
          "images", "image", "img", "imgs", "im", "frames", "frame", "pictures", "picture", "pic", "photo",
          "photos", "scans", "scan", "slices", "slice", "series", "study", "studies", "data", "dataset",
          "all", "clean", "annotated", "masks", "mask", "labels", "label", "noisy", "png", "jpg", "jpeg",
          "tif", "tiff", "bmp", "dicom", "dcm", "nifti", "nii", "raw", "original", "originals", "patients",
          "patient", "subjects", "subject", "cases", "case", "file", "files", "anat", "func", "isic", "us",
          "mr", "mri", "ct", "xr", "cr", "dx", "left", "right"}
_BIDS = re.compile(r"(sub|subject|patient|pat)[-_]?\w*\d\w*", re.IGNORECASE)
_SEPARATOR = re.compile(r"[_-](?=[^_-]*$)")


def patient_column(row: Row) -> str:
  """What a row's patient column says, "" without one."""
  return next((row[c] for c in COLUMNS if row.get(c)), "")


def patient_of(path, root, pattern: str | None = None) -> str:
  """The patient of one file by pattern, folder, name or itself (see the module).

  Args:
    path: the file. root: the data folder above it. pattern: config.data.group_pattern, "" or None = none.

  Raises:
    UserError: the pattern is no regular expression with a group.
  """
  name = pathlib.PurePath(path).relative_to(root).as_posix()
  return name_patients([name], pattern or "")[name]


def name_patients(names: Sequence[str], pattern: str = "") -> dict[str, str]:
  """{name: patient} of the files of a data set by pattern, folder, name or themselves.

  Args:
    names: paths below the data folder, with "/".
    pattern: config.data.group_pattern.

  Raises:
    UserError: the pattern is no regular expression with a group.
  """
  shared_folders = _shared([_folders(n) for n in names])
  prefixes = {n: _prefix(n) for n in names}
  by_name = len(names) == 1 or len({same(p) for p in prefixes.values()}) > 1
  found = {}
  for name in names:
    folders = [f for f in _folders(name) if same(f) not in shared_folders]
    person = next((f for f in _folders(name) if _BIDS.fullmatch(f)), "")
    found[name] = (_by_pattern(name, pattern) or person or next(iter(folders), "")
                   or (prefixes[name] if by_name else "") or _without_suffix(name))
  return found


def describe(patients: Mapping[str, str], what: str) -> str:
  """A line for the log: how many files of how many patients, with an example."""
  groups: dict[str, list[str]] = {}
  for name, patient in patients.items():
    groups.setdefault(same(patient), []).append(name)
  name, patient = next(iter(patients.items()))
  return (f"{what}: {len(patients)} files of {len(groups)} patients, by their folders and names ({name} "
          f"is of {patient}); set {PATTERN_FIELD} where that is wrong")


def _by_pattern(name, pattern):
  if not pattern:
    return ""
  text = _without_suffix(name)
  if "/" not in pattern:
    text = text.rpartition("/")[2]
  try:
    match = re.search(pattern, text)
    return match.group(1) if match else ""
  except (re.error, IndexError) as error:
    raise UserError(f"{PATTERN_FIELD}={pattern!r} is not a regular expression with one group ({error})"
                    ) from None


def _without_suffix(name):
  path = pathlib.PurePosixPath(name)
  stem = path.name
  while (suffix := pathlib.PurePosixPath(stem).suffix) and suffix[1:].lower() in _SUFFIXES:
    stem = stem.removesuffix(suffix)
  return (path.parent / stem).as_posix()


_SUFFIXES = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "dcm", "nii", "gz", "jp2", "npy", "dicom")


def _folders(name):
  """Folders above a file that may name its patient."""
  return [f for f in pathlib.PurePosixPath(name).parts[:-1] if same(f) not in _WORDS]


def _shared(paths):
  """Folders that lead to every file of the set: they name the set."""
  if len(paths) < 2:
    return set()
  return set.intersection(*({same(f) for f in p} for p in paths))


def _prefix(name):
  """What stands before the last separator of a file's name, "" where that names no patient."""
  stem = _without_suffix(name).rpartition("/")[2]
  prefix = _SEPARATOR.split(stem)[0]
  if prefix == stem or same(prefix) in _WORDS:
    return ""
  return prefix if any(c.isdigit() for c in prefix) or len(prefix) <= 2 else ""
