"""Whose is a file by what its name says elsewhere than in its first words.

Names of public sets; a person behind a view or a finding (OD_101, normal_P01_2); a side written together with
a number (RET002OD); blanks and brackets as separators (P01 slice 3, Patient 1 (12)).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
import logging
import pathlib
import re

from data_pipelines.intake.tables import same

# What programs and people write into a cell where they know nobody.
_NOBODY = {"nan", "n/a", "#n/a", "<na>", "null", "none", "unknown", "not available", "missing", "?", "-"}
# Sets whose names hide the person, and what of a name is one's.
_MIAS = re.compile(r"mdb(\d{3})(?!\d)", re.IGNORECASE)  # films 1 and 2 are of one woman
_PUBLISHED = (
    re.compile(r"\d{8}_([0-9a-f]{16})_MG_[LR]_", re.IGNORECASE),  # INbreast: image, patient
    re.compile(r"SOB_[BM]_[A-Z]+-\d\d-(\d+)[A-Z]*-\d+-", re.IGNORECASE),  # BreaKHis: slide, magnification
    re.compile(r"(?:CNV|DME|DRUSEN|NORMAL)-(\d{3,})-\d+"),  # OCT2017: disease, patient, image
    re.compile(r"([A-Z]_\d{4}_\d)\.(?:LEFT|RIGHT)", re.IGNORECASE),  # DDSM
    re.compile(r"(?:.*[-_])?(\d{3}_S_\d{4})(?!\d)"),  # ADNI
    re.compile(r"(?:Mass|Calc)-(?:Training|Test)_(P_\d{5})_(?:LEFT|RIGHT)"),  # CBIS-DDSM, PatientID too
    re.compile(r"(OAS[12]_\d{4}|OAS3\d{4})_MR"),  # OASIS: acquisitions and visits
    re.compile(r"(BraTS-[A-Z]+-\d{5}|BraTS2021_\d{5}|BraTS\d\d_(?:Training|Validation)_\d{3})(?=[-_])"),
    re.compile(r"file_brain_[A-Z0-9]+_\d{3}_(\d{7})"),  # fastMRI: before it the sequence and the scanner
    re.compile(r"(\d\dB\d{7})_Block"), re.compile(r"[0-9A-F]{4,5}_(CRC-Prim-HE-\d\d)_"),  # SICAPv2, Kather's
    # Patches of a slide by their places: Camelyon16's tumor_001_12_33, slide07_x3_y4.
    re.compile(r"((?:tumor|normal|test)_\d{3})(?=_.*\d[^\d].*\d)", re.IGNORECASE),
    re.compile(r"((?:slide|wsi|biopsy|specimen)[-_ ]?\d+)(?=[-_ .(].*\d[^\d].*\d)", re.IGNORECASE),
    re.compile(r"(?:.*[-_])?(TCGA[-_.][A-Z0-9]{2}[-_.][A-Z0-9]{4})(?![A-Z0-9])"))
_LONG = "patient|person|subject|subj|case|pat|pt|pid|mrn"
_SPACED = re.compile(rf"((?:p|sub|{_LONG})[-_ ]?\d+)(?=[ .(\[])|"
                     "((?:patient|person|subject)[-_ ]?\\d+)(?=[a-z])", re.IGNORECASE)
_PERSON = re.compile(rf"(?:(?:{_LONG})\d+|p\d\d+|sub-[a-z0-9]+)", re.IGNORECASE)
_VIEW = r"l|r|lt|rt|left|right|od|os|cc|mlo|ap|pa|lat|lateral"
_OF_VIEW = re.compile(rf"(?:{_VIEW})[-_ ](\d+)(?![^-_ .])", re.IGNORECASE)
# What browsers, file managers and clouds call a second copy of a file.
_COPY = re.compile(r"(?:(?:copy of|kopie von|copie de|copia di|copia de) +(.+)|"
                   r"(.+?)(?:[ _-]?\(\d{1,2}\)|_\d_|\.\d|[ (_-]+.*conflicted copy.*|"
                   r" ?[-\u2013_]? ?(?:copy|kopie|copie|copia)(?: ?\(?\d+\)?)?))")
_COUNTED, _LEAST = re.compile(r"(?!(?:19|20)\d\d )(\d{2,}) \(?\d{1,3}\)?"), 3
_LETTER = re.compile(r"(.*\d)([a-d])", re.IGNORECASE)
_SIDE = re.compile(r"(.*\d)(?:l|r|lt|rt|od|os)", re.IGNORECASE)
_DOTTED = re.compile(r"^([^.]*\d)\.(\d{1,4})$")
# Sequences, planes and views, of which each person may have pictures: folders and first words of names.
_PICTURES = re.compile(r"(?:[23]d)?(?:t[12](?:[wcnf]|ce|gd|flair)?|t2star|flair|pdw?|dwi|adc|swi|dti|mra|"
                       rf"mprage|stir)|ax(?:ial)?|cor(?:onal)?|sag(?:ittal)?|transvers(?:e|al)|frontal|{_VIEW}",
                       re.IGNORECASE)
# Words that may stand before a person: of views, kinds, dates and sequences, and numbers.
_BEFORE = re.compile(rf"(?:{_VIEW}|t1|t2|t1ce|t1w|t2w|flair|adc|dwi|ax|sag|cor|slice|frame|img|image|scan|"
                     r"view)?\d*|(?:19|20)\d\d[-.]?\d\d[-.]?\d\d", re.IGNORECASE)
_OF_PEOPLE = re.compile(r"patient|subject|person|participant|individual|donor|lesion|animal|volunteer|\bcase|"
                        r"\bexam|accession|study")
# A number, not a year or a day, before three words more: 0001_1297860395_01_WRI-L1_M014.
_NUMBERED = re.compile(r"(?!(?:19|20)\d\d(?:\d{4})?[-_])(\d{3,})[-_][^-_]+[-_][^-_]+[-_].+")


def of_pictures(names: Collection[str]) -> set[pathlib.PurePosixPath]:
  """Folders of files that are called as sequences, planes or views, as are all beside them: T1, T2 and FLAIR,
  IXI-T1 and IXI-PD. T1, T2 and T3 are people, and so are P01_T1 and P02_T1."""
  beside: dict[pathlib.PurePosixPath, set[str]] = {}
  lowest = {name.rpartition("/")[0] for name in names} - {""}
  for folder in {f for low in map(pathlib.PurePosixPath, lowest) for f in (low, *low.parents) if f.name}:
    beside.setdefault(folder.parent, set()).add(folder.name)
  found = set()
  for parent, folders in beside.items():
    told = [re.fullmatch(r"(?:([^\d]*)[-_ ])?(.+?)", f) for f in folders]
    heads = {(m[1] or "").lower() for m in told if m and _PICTURES.fullmatch(m[2])}
    every = all(m and _PICTURES.fullmatch(m[2]) for m in told)
    if every and len(heads) == 1 and (len(folders) > 1 or heads == {""}):
      found |= {parent / f for f in folders}
  kinds = sorted({f.name for f in found})
  if len(kinds) > 1:
    logging.warning("folders %s are named as sequences, planes or views: they tell no patients (files of one "
                    "name in them are of one), and pictures in all of them count alike; where one kind is "
                    "meant, give it alone", ", ".join(kinds[:6]))
  return found


def without_pictures(names: Collection[str], pictures: Collection[pathlib.PurePosixPath]
                     ) -> dict[str, str]:
  """{name: it without folders `of_pictures`, and without a first word of the kind where all have one, or a
  folder of theirs is called so}: P1_10 of t1/t1_P1_10 and of flair/flair_P1_10."""
  first = {name: re.match(r"([^-_ ]+)[-_ ](?=.)", name.rpartition("/")[2]) for name in names}
  words = {m[1].lower() if m else "" for m in first.values()}
  begin = len(words) > 1 and all(map(_PICTURES.fullmatch, words)) and not words <= {"t1", "t2", "l", "r"}
  found = {name: name for name in names}
  for name in names if pictures or begin else ():
    path, word = pathlib.PurePosixPath(name), first[name]
    folders = [f.name for f in reversed(path.parents) if f.name and f not in pictures]
    kinds = {f.name.lower() for f in path.parents if f in pictures}
    told = word and (begin or word[1].lower() in kinds)
    found[name] = "/".join([*folders, path.name[word.end():] if told else path.name])
  return found


def says(row: Mapping[str, str], column: str) -> bool:
  """Whether a cell of a row names somebody: not empty, and no word for nobody."""
  return bool(row.get(column)) and same(row[column]) not in _NOBODY


def published(stem: str) -> str:
  """The person of a name as public sets have them, "" of others; of MIAS a name for both films of a woman."""
  if film := _MIAS.match(stem):
    return f"mdb pair {(int(film[1]) + 1) // 2}"
  return next((found[1] for pattern in _PUBLISHED if (found := pattern.match(stem))), "")


def telling(ids: Mapping[str, str]) -> dict[str, str]:
  """{file: whose its PatientID is}, {} where all of them say the same: that names nobody."""
  several = len(set(map(same, ids.values()))) > 1
  return {name: published(said) or said for name, said in ids.items()} if several else {}


def elsewhere(stem: str, kinds) -> str:
  """The person that a name tells behind other words or before a blank, "" where it does not.

  Args:
    kinds: further words, in small letters, that may stand before a person: findings, splits.
  """
  if found := _SPACED.match(stem):
    return found[1] or found[2]
  if found := _OF_VIEW.match(stem):
    return found[1]
  for at in re.finditer(r"(?<=[-_ ])[a-z]", stem, re.IGNORECASE):
    found = _PERSON.match(stem, at.start())
    before = filter(None, re.split(r"[-_ ]", stem[:at.start()].lower()))
    if found and not stem[found.end():found.end() + 1].isalnum() and all(
        word in kinds or _BEFORE.fullmatch(word) for word in before):
      return found[0]
  found = _NUMBERED.fullmatch(stem)
  return found[1] if found else ""


def dotted(stem: str) -> str:
  """CT_012_3 of CT_012.3, which programs call the slices of a stack; other names as they are."""
  return _DOTTED.sub(r"\1_\2", stem)


def without_side(stem: str) -> str:
  """RET002 of RET002OD and RET002OS, 9000099 of 9000099L; other names as they are."""
  found = _SIDE.fullmatch(stem)
  return found[1] if found else stem


def lettered(patients: Mapping[str, str]) -> dict[str, str]:
  """{file: patient} where P01A and P01B are both there and are P01; what has no twin stays."""
  letters: dict[str, set[str]] = {}
  told = {name: _LETTER.fullmatch(patient) for name, patient in patients.items()}
  for found in filter(None, told.values()):
    letters.setdefault(found[1].lower(), set()).add(found[2].lower())
  return {name: found[1] if (found := told[name]) and len(letters[found[1].lower()]) > 1 else patient
          for name, patient in patients.items()}


def copied(patients: Mapping[str, str], plain: Mapping[str, str]) -> dict[str, str]:
  """{file: patient} where "n01 (1)", n01_1_ and "Copy of n01" are files of whom n01 is, where n01 is there.

  Args:
    plain: {file: its path without ending} of the files of which nothing but their names says whose they are.
  """
  whose = {path.lower(): patients[name] for name, path in plain.items()}
  found = dict(patients)
  for name, path in plain.items():
    folder, slash, stem = path.lower().rpartition("/")
    if copy := _COPY.fullmatch(stem):
      found[name] = whose.get(folder + slash + (copy[1] or copy[2]), found[name])
  return _numbered(found, plain)


def _numbered(patients: Mapping[str, str], plain: Mapping[str, str]) -> dict[str, str]:
  """{file: patient} where "0012 1" and "0012 (2)" are of 0012, as three numbers or more have such files; one
  number before all of them, or years, are nobody's. `plain`: as of `copied`."""
  stems = {name: path.rpartition("/")[2] for name, path in plain.items()}
  told = {name: m[1] for name, stem in stems.items() if (m := _COUNTED.fullmatch(stem))}
  if len(set(told.values())) < _LEAST:
    return dict(patients)
  return {name: told.get(name) or (stem if (stem := stems.get(name, "")) in told.values() else patient)
          for name, patient in patients.items()}


def say_named_after(patients: Mapping[str, str], plain: Mapping[str, str]) -> None:
  """Warns of a file whose patient is called as another file is, which is of somebody else.

  IM-0033-0001-0002 is of IM-0033-0001 by its name, and IM-0033-0001 of IM-0033.

  Args:
    plain: {file: its path without ending} of the files whose name alone says whose they are.
  """
  of = {path.lower(): name for name, path in plain.items()}
  odd = []
  for name, path in plain.items():
    folder, slash, _ = path.lower().rpartition("/")
    other = of.get(folder + slash + patients[name].lower(), name)
    odd += [(name, other)] if patients[other].lower() != patients[name].lower() else []
  if odd:
    one, other = odd[0]
    logging.warning("%s counts as one of patient %s, and %s as one of %s, by their names (%d such files): "
                    "where they are one patient's, config.data.group_pattern says so", one, patients[one],
                    other, patients[other], len(odd))


def say_fits(pattern: str, names: Sequence[str], found: Callable[[str, str], str]) -> None:
  """Warns of config.data.group_pattern where it fits none of the names; `found`: patients.by_pattern."""
  if pattern and names and not any(found(name, pattern) for name in names):
    logging.warning("config.data.group_pattern=%r fits none of %d names, the first %s: patients are told by "
                    "folders and names instead", pattern, len(names), names[0])


def say_columns(rows: Sequence[Mapping[str, str]], known: Collection[str]) -> None:
  """Warns of a column that is named as one of people, where the table has none that is read.

  Args:
    known: columns that are read.
  """
  if not rows or any(row.get(column) for row in rows for column in known):
    return
  for column in rows[0]:
    values = [row.get(column, "") for row in rows]
    if _OF_PEOPLE.search(column.lower()) and 2 < len(set(values)) < len(values):
      logging.warning("column %r of the table may say whose an image is (%d values in %d rows), and is not "
                      "read: call it patient", column, len(set(values)), len(values))
