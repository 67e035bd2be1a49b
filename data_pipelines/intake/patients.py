r"""Whose is a file: the one rule that names the patient, for every data set.

In this order, the first that says something:
  column   `group`, `patient` or `subject` of the user's table (`patient_column`);
  pattern  config.data.group_pattern, first group of a regular expression, searched in the path below
           the data folder where the pattern has a "/", else in the file's name without suffix;
  header   PatientID of a DICOM file, where not all files have the same;
  set      names of public sets that hide the person (person_names.py: MIAS, INbreast, BreaKHis ...);
  folder   the first folder named as a person (P01, patient 7, case_12, sub-01), else the first folder
           below the data folder that is no common word ("train", "normal", "images", ...) and not shared
           by all files;
  name     its first part where that is named as a person, or one behind a view or finding (OD_101); else what
           stands before the last "_" or "-" (LUM00054_2 -> LUM00054) and before words of views, dates and
           findings (0012_L_CC -> 0012), where it is no common word, no data set, not shared by all files;
  file     else a file is its own patient, but copies by their names ("n01 (1)", n01_1_) are n01's.
Names are compared without regard to case. A rule that takes too much together keeps a patient on one side
all the same; `group_pattern` says it better where the guess is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import concurrent.futures
import logging
import pathlib
import re

from data_pipelines.errors import UserError
from data_pipelines.formats import dicom_head
from data_pipelines.intake import find, folder_words, person_names, processed, visits, vocabulary
from data_pipelines.intake.tables import Row, same

COLUMNS = ("group", "patient", "subject", *(f"{who}{mark}{word}" for mark in ("_", " ", "-", "") for who in (
    "patient", "subject", "participant", "person", "case", "lesion", "individual", "donor")
    for word in ("id", "number", "no", "no.", "nr")), *(f"patient{mark}name" for mark in ("_", " ", "")),
           "participant", "person", "individual", "donor", "mrn", "pid")
REMEDY = ("put all files of a patient into one split; where names mislead, set config.data.group_pattern, or "
          "config.data.grouping=file")
PATTERN_FIELD = "config.data.group_pattern"
# Folders and prefixes that name a kind of thing, not a person.
_WORDS = {*processed.FOLDERS, *folder_words.MORE, "benign",
          *vocabulary.SPLIT_WORDS, *vocabulary.SIDE_WORDS,
          "images", "image", "img", "imgs", "im", "frames", "frame", "pictures", "picture", "pic", "photo",
          "photos", "scans", "scan", "slices", "slice", "series", "study", "studies", "data", "dataset",
          "all", "clean", "annotated", "masks", "mask", "labels", "label", "noisy", "png", "jpg", "jpeg",
          "tif", "tiff", "bmp", "dicom", "dcm", "nifti", "nii", "raw", "rawdata", "derivatives", "hgg", "lgg",
          *(f"{kind}{part}" for kind in ("images", "labels") for part in ("tr", "ts", "val")), "volumes",
          "original", "originals", "patient", "subjects", "subject", "cases", "case", "file", "files", "anat",
          "func", "isic", "us", "mr", "mri", "ct", "xr", "cr", "dx", "left", "right",
          *(f"{part}_{kind}" for part in ("noisy", "clean", *vocabulary.SPLITS) for kind in ("img", "gt"))}
_PERSON = re.compile(r"(p|pt|pat|patient|case|person|subj|subject|sub|pid|mrn)[-_ ]?\d\w*|sub-[a-z0-9]+",
                     re.IGNORECASE)
# Parts of a name that say which picture of a patient it is.
_DETAIL = re.compile(r"(s|ses|session|v|visit|t|tp|time|timepoint|scan|study|series|frame|slice|view|fu|"
                     r"followup|baseline)\d*|l|r|lt|rt|left|right|od|os|cc|mlo|ap|pa|lat|lateral|ax|sag|cor|"
                     r"axial|sagittal|coronal|pre|post|(19|20)\d{6}|[xy]\d*|(row|col|tile|patch|crop)\d*|"
                     r"flair|t1ce|t1gd|t[12][cnwf]|dwi|adc|swi|dti|mra|"
                     + processed.AUGMENTED,
                     re.IGNORECASE)
_FINDINGS = {*vocabulary.SIDE_WORDS, "benign"} - {"0", "1"}
# Names of data sets, with a year and words, are not those of people; nor is a month.
_SETS = re.compile(r"(brats|isic|brisc|busi|busbra|kvasir|cvc|ddsm|mias|chexpert|mimic|padchest|vindr)[-_]?"
                   r"((20)?\d\d)?([-_][a-z]+)*|(19|20)\d\d[-_.](0[1-9]|1[0-2])", re.IGNORECASE)


def patient_column(row: Row) -> str:
  """What a row's patient column says, "" without one."""
  return next((row[c] for c in COLUMNS if person_names.says(row, c)), "")


def group_column(row: Row) -> str:
  """What a row's column group (or subject) says, where the column patient names a scan; else ""."""
  return next((row[c] for c in COLUMNS if not c.startswith("patient") and person_names.says(row, c)), "")


def patient_of(path, root, pattern: str | None = None) -> str:
  """The patient of one file by pattern, folder, name or itself (see the module).

  Args:
    path: the file. root: the data folder above it. pattern: config.data.group_pattern, "" or None = none.

  Raises:
    UserError: the pattern is no regular expression with a group.
  """
  name = pathlib.PurePath(path).relative_to(root).as_posix()
  return name_patients([name], pattern or "")[name]


def name_patients(names: Sequence[str], pattern: str = "", root=None, ids: Mapping[str, str] | None = None,
                  kinds: Collection[str] = ()) -> dict[str, str]:
  """{name: patient} of the files of a data set by pattern, header, folder, name or themselves.

  Args:
    names: paths below the data folder, with "/". pattern: config.data.group_pattern.
    root: the data folder, for the headers of DICOM files; None = without them.
    ids: {name: PatientID} of names whose headers have been read: folders of DICOM series.
    kinds: further names of folders that are no patients': those that were said to be normal or abnormal.

  Raises:
    UserError: the pattern is no regular expression with a group.
  """
  headers = person_names.telling(ids if ids else _headers(names, root) if root is not None else {})
  plain = person_names.without_pictures(names, person_names.of_pictures(names))
  counted = folder_words.numbered(map(pathlib.PurePosixPath, plain.values()))
  others = {same(k) for k in kinds}
  folders_of = {n: [f for f in _folders(plain[n], counted) if same(f) not in others] for n in names}
  shared_folders = _shared(list(folders_of.values()))
  several = any(re.match(r"([2-9]|\d\d+)([-_]|\.\d)", pathlib.PurePosixPath(n).name) for n in names)
  prefixes = {n: _prefix(plain[n], several) for n in names}
  by_name = len(names) == 1 or len({same(p) for p in prefixes.values()}) > 1
  known = {same(p): p for p in prefixes.values() if p} if by_name else {}
  found, by_folder, guessed = {}, dict[str, str](), []
  for name in names:
    folders = [f for f in folders_of[name] if same(f) not in shared_folders]
    person = ""
    for below in filter(_PERSON.fullmatch, folders_of[name]):
      if not person or re.fullmatch(re.escape(person) + r"\d{3,}", below):  # p10/p10000032: p10 is a bin
        person = below
    own = processed.without_folders(find.without_ending(plain[name]))
    folder = _of_scan(person or next(iter(folders), ""))
    stem = own.rpartition("/")[2]
    said = by_pattern(name, pattern) or headers.get(name) or person_names.published(stem) or folder
    found[name] = said or (prefixes[name] if by_name else "") or known.get(same(stem)) or own
    guessed += [] if said else [name]
    if folders and found[name] == folder and not person:
      by_folder[name] = folder
  _say_torn(by_folder, prefixes, found)
  return person_names.lettered(person_names.copied(found, {n: find.without_ending(n) for n in guessed}))


def _say_torn(by_folder, prefixes, found) -> None:
  """Warns where a file is its folder's, and its name is that of a person who has files elsewhere."""
  whose: dict[str, tuple[str, str]] = {}
  for name, prefix in prefixes.items():
    if _PERSON.fullmatch(prefix):
      other, patient = whose.setdefault(same(prefix), (name, found[name]))
      if same(patient) != same(found[name]) and (name in by_folder or other in by_folder):
        logging.warning("%s counts as one of patient %s and %s as one of %s, by their folders: where they are"
                        " one patient's, %s says so", other, patient, name, found[name], PATTERN_FIELD)
        return


def of_rows(rows: Sequence[Row], names: Sequence[str], pattern: str = "", grouping: str = "patient",
            root=None, ids: Mapping[str, str] | None = None, kinds: Collection[str] = ()) -> list[str]:
  """The patient of each row of a table: its column where that says something, else `name_patients`.

  Args:
    names: paths of the rows' files below the data folder.
    pattern: config.data.group_pattern, for rows whose column is empty. root, ids, kinds: of `name_patients`.
    grouping: config.data.grouping; "file" leaves the column aside, "legacy" the names.
  """
  if grouping == "legacy":
    return unified([r.get("group") or r.get("patient") or n for r, n in zip(rows, names)])
  by_name = grouping == "patient"
  guessed = name_patients(names, pattern, root, ids, kinds) if by_name else {n: n for n in names}
  person_names.say_columns(rows, COLUMNS)
  column = _joined(rows) if by_name else [""] * len(rows)
  if by_name:
    alone = {n: find.without_ending(n) for c, n in zip(column, names) if not c}
    person_names.say_fits(pattern, list(alone), by_pattern)
    person_names.say_named_after(guessed, alone)
  return unified([c or guessed[n] for c, n in zip(column, names)])


def _joined(rows):
  """What the patient columns say of each row: rows that share the group or the patient are together."""
  leader: dict[tuple[str, str], tuple[str, str]] = {}

  def lead(key):
    leader.setdefault(key, key)
    while leader[key] != key:
      leader[key] = key = leader[leader[key]]  # halves the path, so that long chains cost little
    return key
  keys = [[(c, same(row[c])) for c in COLUMNS if person_names.says(row, c)] for row in rows]
  for found in keys:
    for key in found[1:]:
      leader[lead(key)] = lead(found[0])
  said: dict[tuple[str, str], str] = {}
  return [said.setdefault(lead(found[0]), patient_column(row)) if found else ""
          for row, found in zip(rows, keys)]


def of_files(names: Sequence[str], pattern: str = "", grouping: str = "patient", root=None,
             ids: Mapping[str, str] | None = None, kinds: Collection[str] = ()) -> list[str]:
  """The patient of each file without a table; see `of_rows`."""
  return of_rows([Row({}, pathlib.Path(), 0)] * len(names), names, pattern, grouping, root, ids, kinds)


def unified(patients: Sequence[str]) -> list[str]:
  """The names in their first spelling: "P01" and "p01" are one patient."""
  first: dict[str, str] = {}
  return [first.setdefault(same(p), p) for p in patients]


def of_scans(names: Sequence[str], pattern: str = "", grouping: str = "patient") -> dict[str, str]:
  """{scan: patient} of scans known by a name of their own, where a patient may have been scanned twice.

  By the pattern, or by what the name says of a time (visits.py): sub-01_ses-02, OAS1_0061_MR2.
  """
  one = lambda name: (by_pattern(name, pattern) or _of_scan(name)) if grouping == "patient" else name
  person_names.say_fits(pattern if grouping == "patient" else "", names, by_pattern)
  return dict(zip(names, unified(list(map(one, names)))))


def _of_scan(name):
  """Whose a scan or its folder is by its name, without what was done to it and without its time."""
  if known := person_names.published(name):
    return known
  plain = processed.core(name)
  person, rest = _person(re.split(r"([_-])", plain))
  # P01_s2, P01_2, P01_A
  if rest and (_DETAIL.fullmatch(rest[0]) or re.fullmatch(r"\d{1,2}|[a-fA-F]|node", rest[0])):
    return person
  who = visits.person(plain)
  return name if who != plain and _names_nobody(who) else who


def by_pattern(name: str, pattern: str) -> str:
  """First group of `pattern` in a path below the data folder, "" where it does not fit.

  Searched in the path where the pattern has a "/", else in the name; both without suffix.

  Raises:
    UserError: not a regular expression with a group.
  """
  if not pattern:
    return ""
  text = find.without_ending(name)
  if "/" not in pattern:
    text = text.rpartition("/")[2]
  try:
    match = re.search(pattern, text)
    return match.group(1) if match else ""
  except (re.error, IndexError) as error:
    raise UserError(f"{PATTERN_FIELD}={pattern!r} is not a regular expression with one group ({error})"
                    ) from None


def describe(patients: Mapping[str, str], what: str) -> str:
  """A line for the log: how many files of how many patients, with an example."""
  groups = {same(patient) for patient in patients.values()}
  name, patient = next(iter(patients.items()))
  return (f"{what}: {len(patients)} files of {len(groups)} patients, by their folders and names ({name} "
          f"is of {patient}); set {PATTERN_FIELD} where that is wrong")


def _headers(names, root):
  """{name: PatientID} of the DICOM files."""
  files = [n for n in names if find.kind_of(pathlib.Path(root) / n) == "dicom"]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    ids = list(pool.map(lambda n: dicom_head.patient_id(pathlib.Path(root) / n), files))
  return dict(zip(files, ids))


def _folders(name, counted):
  """Folders above a file that may name its patient; 0 and 1 may where another number lies beside them."""
  return [f.name for f in reversed(pathlib.PurePosixPath(name).parents) if f.name and (
      same(f.name) not in _WORDS or (f.name in ("0", "1") and f.parent in counted))]


def _shared(paths):
  """Folders that lead to every file of the set: they name the set."""
  if len(paths) < 2:
    return set()
  return set.intersection(*({same(f) for f in p} for p in paths))


def _person(parts):
  """(what names a person at the start of a name, the words after it); ("", []) where nothing does."""
  for end in (1, 3):  # "P01" and "sub-01"
    if end < len(parts) and _PERSON.fullmatch("".join(parts[:end])):
      return "".join(parts[:end]), parts[end + 1::2]
  return "", []


def _prefix(name, several):
  """What a file's name says of its patient, or "". `several`: names begin with more numbers than 0 and 1."""
  whole = find.without_ending(name).rpartition("/")[2]
  stem = person_names.dotted(visits.compact(processed.core(whole)))  # P1_FLAIR_bet is a form of P1_FLAIR
  parts = re.split(r"([_-])", stem)  # words at even places, separators between them
  if person := _person(parts)[0] or person_names.elsewhere(stem, _WORDS):
    return person
  last = len(parts) - 1
  is_detail = lambda word: _DETAIL.fullmatch(word) or same(word) in _FINDINGS
  end = next((i for i in range(2, last, 2) if is_detail(parts[i])), last)
  prefix = "".join(parts[:end - 1]).rstrip("_-") if last else ""
  if find.kind_of(name, False) == "nifti" and prefix:  # of a flat folder: UPENN-GBM-00001_11_FLAIR
    prefix = _of_scan(prefix)
  if several and prefix in ("0", "1"):
    return prefix
  if _names_nobody(prefix) and stem != whole:  # but it is a form of another file
    prefix = stem
  prefix = prefix if last and not _names_nobody(prefix) else person_names.without_side(stem)
  return "" if prefix == whole or _names_nobody(prefix) else prefix


def _names_nobody(text):
  return not text or same(text) in _WORDS or _SETS.fullmatch(text)
