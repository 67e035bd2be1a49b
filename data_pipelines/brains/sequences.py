"""Which modality the name of a file, a folder or a DICOM series tells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import logging
import pathlib
import re
from typing import Any

from data_pipelines.intake import counts, find as finder, processed, visits, words_of_volumes as vocab
from data_pipelines.intake.mask_words import BESIDE as LABEL
from data_pipelines.intake.words_of_volumes import LABEL_ENDINGS

# The newer BraTS releases' names of the modalities, after a "-" instead of a "_".
NEW_NAMES = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}
ANY = "image"  # the modality of one's own volumes whose names tell none
KNOWN = tuple(k for k in NEW_NAMES if k != "seg")
UNUSED = "is of a sequence that the model does not use"

# What scanners and hospitals call them besides.
_ALIASES = {"t1w": "t1", "t1gd": "t1ce", "t1post": "t1ce", "tirm": "flair", "darkfluid": "flair",
            **dict.fromkeys(vocab.T1_READOUTS, "t1")}
NAMES = {**{n: k for k in KNOWN for n in (k, NEW_NAMES[k])}, **_ALIASES}  # {word: what it is}
# The end of a file's name. Before "t1" no "post" and no "c": they can be a visit or part of the scan's name.
_AGENT = "gd|gad|gado|gadolinium|ce|km|contrast|postcontrast"
_CE = rf"t1w?[-_ ]?(?:{_AGENT}|c|post|enhanced|c?\+(?:c|gd)?)"
_PLANE = "(?:[23]d|ax|sag|cor|tra)?"  # written together with the sequence: 3DFLAIR, AXT1PRE
_BEFORE = rf"(?:(?P<scan>.+?)[-_ .])??{_PLANE}"
_TOLD = {known: re.compile(f"{_BEFORE}(?:{names})", re.IGNORECASE) for known, names in {
    "flair": r"(?:t2)?flair|t2f|tirm|dark[-_ ]?fluid",
    "t1ce": rf"{_CE}|(?:ce-[a-z0-9]+|{_AGENT})[-_ ]t1w?|(?:c|ce|gd|km)t1w?",  # CT1: LUMIERE, HD-GLIO
    "t1": r"t1[wn]?(?:[-_ ]?(?:pre|native|nativ))?",
    "t2": r"t2w?"}.items()}
# "P01_t1_to_flair" is none of the two for sure, nor "P01_flair_t1"; "P01_T1_flair" can be the first visit.
_SEVERAL = re.compile(rf"(?:.*[-_ .])?(?:(?:t1|t1w|t2|t2w)[-_ ]?(?:to|2|in|on|co-?reg\w*|reg\w*)|"
                      rf"(?:flair|t2f|{_CE})(?:[-_ .].*)?)", re.IGNORECASE)
# A word of them with more around it: T1WKS, FLAIRbet, Philips' sT1W, T2TSE.
_READOUT = "[23]d|tse|fse|se|ffe|tfe|fl|gre|haste|vol|mpr|mprage|space|cube|vista|spin|ir|tra|sag|cor|ax"
_GLUED = re.compile(rf"(?:{_PLANE}|[se])(?:(flair|t[12]w)[a-z0-9]*|(t[12])(?:{_READOUT}))")


def split_name(path: pathlib.Path, modalities: Sequence[str]) -> tuple[str, str]:
  """("BraTS2021_00000", "flair") of BraTS2021_00000_flair.nii.gz; (stem, "") where nothing fits.

  The ending tells it, or the whole name: P01/FLAIR.nii.gz is the flair of P01. Brain modalities have the
  names of _TOLD as well: P01_T2_FLAIR, P01_T1w, P01_t1_gd and (BIDS) P01_ce-gd_T1w.
  """
  path = pathlib.Path(path)
  stem = finder.stem_of(path)
  if of_brains(modalities):
    prefix, known = _told(path)
    for modality in modalities:
      if modality.lower() == known:
        return prefix, modality
    if known or prefix:  # none of these, but perhaps a name of the user's own, such as "t1w"
      modalities = [m for m in modalities if m.lower() not in KNOWN]
  for modality in sorted(modalities, key=len, reverse=True):
    for name in (modality.lower(), NEW_NAMES.get(modality.lower(), modality.lower())):
      if stem.lower() == name:
        return path.parent.name, modality
      if stem.lower().endswith((f"_{name}", f"-{name}")):
        return stem[:-len(name) - 1] or path.parent.name, modality
  return stem, ""


def elsewhere(folder: pathlib.Path, modality: str, there: Iterable[pathlib.Path],
              deeper: Iterable[pathlib.Path]) -> str:
  """What to do about the modality that a scan folder lacks, where a volume seems to be it; else "".

  Args:
    there: volumes of the folder; deeper: those of folders in it.
  """
  def seems(path):
    plain = path.with_name(processed.core(finder.stem_of(path)))  # P1_flair of P1_flair_brain
    return split_name(path, (modality,))[1] or split_name(plain, (modality,))[1]
  if found := next(filter(seems, there), None):
    return f"{found.name} is there: call it {folder.name}_{modality}.nii.gz, by its folder"
  if found := next(filter(seems, deeper), None):
    return (f"{counts.shown(found, folder.parent)} lies a folder deeper: put the volumes of a scan into its "
            "folder, or list them in manifest.csv")
  return ""


def say_columns(columns: Iterable[tuple[str, Any]]) -> None:
  """One warning where files of a table lie in the column of another sequence than their names tell.

  Args:
    columns: (column, its file, or the files of a series) of all rows.
  """
  columns = [(c.lower(), pathlib.Path(f)) for c, f in columns if isinstance(f, (str, pathlib.Path))]
  asked = {c for c, _ in columns}
  odd = [(c, f) for c, f in columns if c in KNOWN and (told := _told(f)[1]) in asked and told != c]
  if odd:
    logging.warning("%d files are listed in the column of another sequence than their names tell, the first "
                    "in column %s %s: are columns exchanged? The table is followed", len(odd), *odd[0])


def scans_of_label(path) -> list[str]:
  """Names that the scan of a label may have, where its own name has words besides: P01_tumor_seg and
  P01_flair_lesion are of P01 (or of P01_tumor, P01_flair). [] for what is no label by its name."""
  stem, ending = split_name(path, (*LABEL_ENDINGS, *vocab.FINDINGS))
  if not ending or not like_label(path):
    return []
  found = [stem]
  while True:
    rest, mark, last = re.fullmatch(r"(?:(.+)([-_ .]))?(.*)", found[-1]).groups()
    if not mark or not (last.lower() in vocab.BETWEEN or last.lower() in NAMES):
      return found
    found.append(rest)


def like_label(path) -> bool:
  """Whether a name has a word of labels, and is no mask of the brain by it."""
  words, own = _parts(finder.stem_of(path)), _own_words(path)
  if marks_no_lesion(path):
    return False
  numbered = {w.rstrip("0123456789") for w in own} | {w.rstrip("s") for w in own}
  looks = numbered & vocab.MARKED or says_lesion(path) or any(map(vocab.DRAWN.fullmatch, own))
  return bool(words & vocab.LIKE_LABELS or (looks and not _told(pathlib.Path(path))[1]))


def marks_no_lesion(path) -> bool:
  """Whether a name speaks of the brain, its tissues or parts, and of no lesion."""
  words = _parts(finder.stem_of(path))
  return bool(words & vocab.NO_LESION) and not (words & vocab.FINDINGS or says_lesion(path))


def ends_as_label(path) -> bool:
  """Whether a name ends as one of labels does, or has a word of maps of them alone: fseg, aseg."""
  words = [w.rstrip("0123456789") for w in re.split(r"[-_ .]+", finder.stem_of(path).lower())]
  ends = words[-1] in vocab.NOT_INPUT or vocab.ENDS_AS_LABEL.fullmatch(words[-1])
  return bool(ends or vocab.MAPS & set(words))


def says_lesion(path) -> bool:
  """Whether a word of a name, behind that of its scan, is one of lesions: T1lesion and WMHs as well."""
  return any(vocab.WITHIN.search(word) for word in _own_words(path))


def _own_words(path):
  """Words of a name without those of its scan: of the folder it lies in, of BIDS' subject and session."""
  stem, folder = finder.stem_of(path).lower(), pathlib.Path(path).parent.name.lower()
  stem = stem.removeprefix(folder) if folder and len(stem) > len(folder) else stem
  return _parts(re.sub("(?:^|_)(?:sub|ses)-[0-9a-z+]+", "", stem))


def _parts(text):
  return set(filter(None, re.split(r"[-_ .]+", text.lower())))


def of_scan_beside(files: Iterable[pathlib.Path], modalities: Sequence[str]
                   ) -> dict[pathlib.Path, pathlib.Path]:
  """{file that tells no sequence: the one of `modalities` beside it, of the scan that its name begins with};
  P1_STIR beside P1_flair, and STIR beside FLAIR. Another visit, P1_2, is none."""
  told: dict[tuple[pathlib.Path, str], pathlib.Path] = {}
  loose, plain = [], lambda path: path.with_name(processed.core(finder.stem_of(path)))
  # By their own names first, then FLAIR_preprocessed.
  for path in sorted(files, key=lambda p: not split_name(p, modalities)[1]) if of_brains(modalities) else ():
    prefix, known = split_name(path, modalities)
    if not known:
      prefix, known = split_name(plain(path), modalities)
    if known:
      told.setdefault((path.parent, prefix.lower()), path)
      if _told(plain(path)) == (path.parent.name, known) and not finder.stem_of(path).lower().startswith(
          path.parent.name.lower()):
        told.setdefault((path.parent, ""), path)  # FLAIR: the folder is of one scan
    else:
      loose.append(path)
  found = {}
  for path in loose:
    stem = finder.stem_of(path)
    words = re.split(r"[-_ .]+", stem.lower())
    if not {known for w in words if (known := NAMES.get(w) or _glued(w))} & {m.lower() for m in modalities}:
      starts = [stem[:m.start()].lower() for m in re.finditer("[-_ .]", stem)]
      scan = next((s for s in reversed(starts) if (path.parent, s) in told), "")
      own, rest = told.get((path.parent, scan)), stem[len(scan):]
      if own and not re.fullmatch(r"[-_ .]?\d+", rest) and visits.person(stem) == stem:
        found[path] = own
  return found


def _told(path):
  """("P01", "t1ce") of the end of a name, the name of the folder for a name without beginning.

  ("", "") where it tells none of KNOWN, (stem, "") where it tells of several, or what was drawn on one: of
  P01_LesionSeg_FLAIR.
  """
  stem, folder = finder.stem_of(path), path.parent.name
  for known, pattern in _TOLD.items():
    found = pattern.fullmatch(stem)
    scan = found["scan"] or "" if found else ""
    if _SEVERAL.fullmatch(scan) or vocab.marks_last(scan):
      return stem, ""
    second = re.fullmatch(r"(?:(.+)[-_ .])?t2w?", scan, re.IGNORECASE) if known == "flair" else None
    if second and (second[1] or folder).lower() == folder.lower():  # else T2 can be the second visit
      scan = second[1] or ""
    if found:
      return scan or folder, known
  return "", ""


def of_brains(modalities: Sequence[str]) -> bool:
  """Whether any of them is a sequence of KNOWN, whose names are guarded."""
  return any(m.lower() in KNOWN for m in modalities)


def other_kind(stem: str, modalities: Sequence[str] = ()) -> str:
  """Why a file or folder of that name, which tells no modality of the model, is no input; or "".

  Args:
    modalities: of the model; where it is one of brains any word of the name counts.
  """
  words = re.split(r"[-_ .]+", stem.lower())
  plain = {w.rstrip("0123456789") for w in words} if of_brains(modalities) else set()
  last = words[-1].rstrip("0123456789")
  marks = plain - {""} and (last in vocab.TISSUES or plain <= vocab.ALONE or
                            any(map(vocab.WRITTEN_TOGETHER.fullmatch, plain)))
  if marks or words[-1] in vocab.NOT_INPUT or plain & vocab.MAPS or last in vocab.FINDINGS & plain:
    return LABEL
  if not of_brains(modalities):
    return UNUSED if words[-1] in (*NEW_NAMES, *NEW_NAMES.values()) else ""
  own = {m.lower() for m in modalities}
  known = {**NAMES, **{m: m for m in own}}
  tells = [known.get(w) or known.get(w.rstrip("0123456789")) or _glued(w) for w in words]
  said = ({*tells, _told(pathlib.Path(stem))[1]} - {""}) or {"t1" for w in words if w in vocab.GRADIENT} or (
      {"t1"} if vocab.T1_OF_ADNI.fullmatch(stem.lower()) else set())
  if "t1" in tells and vocab.has_agent(words, tells.index("t1")):
    said.add("t1ce")
  for general, special in (("t2", "flair"), ("t1", "t1ce")):  # T2 FLAIR; T1 with an agent
    said -= {general} if special in said else set()
  if not said:
    last = re.split(r"[-_ .]+", processed.core(stem).lower())[-1]
    others = {*vocab.OTHER_NAMES, *NEW_NAMES, *NEW_NAMES.values()}
    other = last in others or words[-1] in others or vocab.CLEAR_OTHERS & set(words)
    return UNUSED if other else vocab.readout([last] if "space-" not in stem.lower() else ())  # of BIDS
  if words[-1] in vocab.AFTER:
    return UNUSED
  if len(said) > 1:
    return f"names several sequences ({', '.join(sorted(said))}): rename it <scan>_<sequence>"
  return "" if said & own else UNUSED


def _glued(word):
  """The sequence that a word holds beside other letters, or ""."""
  found = _GLUED.fullmatch(word) if word not in vocab.OTHER_NAMES else None
  return _told(pathlib.Path(word))[1] or (NAMES[found[1] or found[2]] if found else "")


def described(texts: Sequence[str], modalities: Sequence[str]) -> tuple[str, str]:
  """(modality, "") that the first text with such a word names; ("", reason) where it is none of the model's;
  ("", "") where no text says anything.

  Words in any capitals, with the newer BraTS names and those of scanners: "t2_tirm_tra_dark-fluid" and
  "AX T2 FLAIR" are flair, "T1 post GD" is t1ce, "T1 pre GD" t1. "T1 FLAIR" names two, "T2*" something else.

  Args:
    texts: SeriesDescription, ProtocolName.
  """
  own = {n: m for m in modalities for n in (m.lower(), NEW_NAMES.get(m.lower(), m.lower()))}
  brain = of_brains(modalities)
  known = NAMES if brain else {}
  for text in texts:
    words = vocab.words_of(text)
    said = {own.get(w) or known.get(w) or (_glued(w) if brain else "") for w in words} - {""}
    if not said and brain and vocab.other_series(words, own):
      return "", UNUSED
    if not said:
      continue
    other = sorted(words & (vocab.OTHER - set(own))) if brain else []
    found = _one(said, words)
    if not found or other:
      several = " and ".join([*sorted(said), *other])
      return "", f"is of a series whose description names {several}: not one sequence"
    if found.lower() in own:
      return own[found.lower()], ""
    return "", UNUSED
  return "", vocab.readout(set().union(*map(vocab.words_of, texts))) if brain else ""


def _one(said, words):
  """The one sequence among the modalities said, "" where they are several."""
  if "flair" in said:
    said = said - {"t2"}  # T2 FLAIR
  if "t1" in said and words & vocab.CONTRAST and not words & vocab.NO_CONTRAST:
    said = said - {"t1"} | {"t1ce"}
  elif "t1ce" in said:
    said = said - {"t1"}
  return next(iter(said)) if len(said) == 1 else ""
