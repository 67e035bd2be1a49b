"""Names of what programs make of a scan: other forms of it (skull-stripped, corrected, resampled), which are
no scans of other people, and the volumes that FreeSurfer and FSL leave in their folders."""

from __future__ import annotations

from collections.abc import Iterable
import pathlib
import re

from data_pipelines.errors import UserError
from data_pipelines.intake import find

# Words at the end of a name: what was done to the scan.
_STEPS = {"bet", "brain", "stripped", "skullstripped", "skullstrip", "stripping", "skull", "ss", "hdbet",
          "synthstrip", "n4", "n4itk", "n3", "bias", "biascorr", "biascorrected", "corr", "corrected",
          "correction", "reg", "registered", "coreg", "coregistered", "aligned", "realigned", "resampled",
          "resample", "resliced", "res", "iso", "1mm", "resized", "norm", "normalised", "normalized",
          "znorm", "zscore", "denoised", "denoise", "preproc", "preprocessed", "pp", "processed", "defaced",
          "deface", "cropped", "warped", "mni", "mni152", "std", "restore", "restored", "smoothed",
          "clahe", "equalized", "equalised", "copy", "kopie", "synthsr", "voided", "inpainted"}
# What augmentation calls its copies, before a name or at its end.
AUGMENTED = r"aug(?:mented|mentation)?\d*|[hv]?flip(?:ped)?(?:lr|ud|[hv])?|rot(?:ated?)?\d*|mirror(?:ed)?"
_AUGMENTED = re.compile(AUGMENTED, re.IGNORECASE)
_COPY_OF = re.compile(rf"(?:{AUGMENTED})[-_ .]+(?=.)", re.IGNORECASE)
# Folders of forms of the images that lie elsewhere under the same names, and of the sides of the body.
FOLDERS = {"original", "originals", "raw", "enhanced", "augmented", "augmentation", "augmentations", "aug",
           "processed", "preprocessed", "cropped", "crops", "crop", "resized", "clahe", "equalized",
           "normalized", "filtered", "denoised", "segmented", "overlay", "overlays", "left", "right"}
_OF_BIDS = re.compile(r"_(?:desc|space|res|den)-[a-z0-9]+", re.IGNORECASE)  # entities of derivatives
_DERIVED = re.compile(r"(?:^|(?<=/))derivatives/[^/]+/", re.IGNORECASE)
# Before a name: SPM's smoothed, warped, bias-corrected, realigned, dcm2nii's cropped and reoriented, all in
# small letters (MCI101 is no form of CI101); other programs' with a "_".
_BEFORE = re.compile(r"s\d{0,2}w?[mr]{0,2}|w?[mr]{1,2}|w|c?o|(?i:(?:bet|brain|n4|reg|norm)_)")
_LETTERS = 6  # of those at most
_OF_WORDS = re.compile(r"s.*|c?o")  # ... that may begin a word as well
# Whole names: of FreeSurfer's mri/ and of FSL's anat folders, all made of a T1.
_PROGRAMS = {"orig", "orig_nu", "rawavg", "nu", "norm", "brain_restore", "brain.finalsurfs", "antsdn.brain",
             "t1_biascorr", "t1_biascorr_brain", "t1_fast_restore", "t1w_restore", "t1w_restore_brain"}
_CHANNEL = re.compile(r"(.+)_(00\d\d)")  # of nnU-Net: case_000_0000, case_000_0001
# Maps of lesions of LST, deformations of ANTs and what they bring of the other image.
_LESIONS = re.compile(r"r?[bp]les_(?:l[pg]a|\d).+", re.IGNORECASE)
_WARPS = re.compile(r".+(?:inversewarp(?:ed)?|\dwarp)", re.IGNORECASE)
# Before a name: tissues, deformations and fields of SPM and CAT12.
_OF_SPM = re.compile(r"(?:s\d{0,2})?(?:m0?w|w|r)?[cp][0-6]|(?:i?y|wj|u)_(?:rc\d)?|BiasField_")
_OF_CAT12 = ("mri", "surf")  # folders beside the scan in which they lie
_BESIDE = {"brain", "t1", "filled", "wm", "ctrl_pts"}  # where one of these lies beside


def core(stem: str) -> str:
  """A name without the words that tell what was done: P1_FLAIR of P1_FLAIR_brain_n4 and of aug_P1_FLAIR.

  Of BIDS sub-01_T1w of sub-01_space-MNI_desc-preproc_T1w.
  """
  stem = _OF_BIDS.sub("", stem) if stem.lower().startswith("sub-") else stem
  while (found := re.fullmatch(r"(.+)[-_ .](.+)", stem)) and (
      found[2].lower() in _STEPS or _AUGMENTED.fullmatch(found[2])):
    stem = found[1].rstrip("-_ .") or found[1]
  while found := _COPY_OF.match(stem):
    stem = stem[found.end():]
  return stem


def without_folders(path: str) -> str:
  """A path without FOLDERS: normal/a of normal/enhanced/a and of augmented/normal/a."""
  *folders, name = path.split("/")
  return "/".join([*(f for f in folders if f.lower() not in FOLDERS), name])


def forms(files: Iterable[pathlib.Path]) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """(a file, another form of it) of files that lie in one folder (or in CAT12's below the scan) and differ in
  words of processing alone."""
  files = list(files)
  stems = {p: find.stem_of(p).lower() for p in files}
  first, there, found = dict[tuple, pathlib.Path](), {(p.parent, stems[p]): p for p in files}, []
  for path in sorted(files, key=lambda p: len(stems[p])):
    key = path.parent, core(stems[path])
    other = first.setdefault(key, path)
    if other == path:
      other = next((there[place, rest] for rest in _without_letters(find.stem_of(path))
                    for place in _places(path) if (place, rest) in there), path)
    if stems[other] != stems[path]:  # a.nii and a.nii.gz are another matter
      found.append((other, path))
  return found


def _places(path):
  """Folders where the scan lies that a file is made of."""
  return [path.parent, path.parent.parent] if path.parent.name in _OF_CAT12 else [path.parent]


def _without_letters(stem: str) -> list[str]:
  """Names in small letters that `stem` may be a form of, by what programs write before them: t1 of mT1."""
  found = []
  for at in range(1, min(_LETTERS, len(stem) - 2) + 1):
    letters, rest = stem[:at], stem[at:].lower()
    told = re.fullmatch(r"[a-z]\d", rest) or len(rest) > 2  # P1, T1; ed and red are people
    if _BEFORE.fullmatch(letters) and told and (not _OF_WORDS.fullmatch(letters) or re.search(
        r"[a-z].*\d|\d.*[a-z]", rest)):
      found.append(rest)
  return found


def made(files: Iterable[pathlib.Path]) -> set[pathlib.Path]:
  """Files that a program has made of a scan beside them, by their names: `forms` and `maps`."""
  files = list(files)
  return {path for _, path in forms(files)} | set(maps(files))


def refuse_forms(files: Iterable[pathlib.Path]) -> None:
  """Raises UserError, with the first, where files are several forms of one scan: it would count twice."""
  files = list(files)
  if found := forms(files):
    raise UserError(f"{found[0][0]} and {found[0][1].name} are forms of one scan by their names ("
                    f"{len(found)} such files): keep the one that the model is for, move the others away")
  made = [p for p in files if of_program(p, files)]
  if len(folders := [p.parent for p in made]) > len(set(folders)):
    raise UserError(f"{made[0]} lies in a folder as FreeSurfer or FSL fill it, of several forms of one scan: "
                    "copy the one that is meant to <scan>.nii.gz, and leave the others out")


def refuse_scans(scans: Iterable[str], where) -> None:
  """Raises UserError where names of scans (or of their folders) differ in words of processing alone."""
  first: dict[str, str] = {}
  twice = [(first[key], name) for name in sorted(scans, key=len)
           if first.setdefault(key := core(_DERIVED.sub("", name)).lower(), name) != name]
  if twice:
    raise UserError(f"{where}: {twice[0][0]} and {twice[0][1]} are forms of one scan by their names ("
                    f"{len(twice)} such): keep the one that the model is for, move the others away")


def channels(files: Iterable[pathlib.Path]) -> dict[pathlib.Path, str]:
  """{file: its case} of those that nnU-Net names as channels of one case, where it has several."""
  told = {p: m for p in files if (m := _CHANNEL.fullmatch(find.stem_of(p)))}
  cases = set.intersection(*({(p.parent, m[1]) for p, m in told.items() if m[2] == number}
                             for number in ("0000", "0001")))
  return {p: m[1] for p, m in told.items() if (p.parent, m[1]) in cases}


def of_label(label: pathlib.Path, files: Iterable[pathlib.Path]) -> str:
  """"; ..." for a label case_1 where nnU-Net's case_1_0000 is among the files, what to do; else ""."""
  stem = find.stem_of(label)
  mine = next((p for p in files if (m := _CHANNEL.fullmatch(find.stem_of(p))) and m[1] == stem), None)
  return "" if mine is None else (f"; by nnU-Net's names it is that of {mine.name}: call the two alike, or "
                                  "list them in a table")


def refuse_channels(files: Iterable[pathlib.Path]) -> None:
  """Raises UserError, with the first, where `channels` finds any: each would be a scan of its own."""
  if found := channels(files):
    path, case = next(iter(found.items()))
    numbers = sorted({find.stem_of(p)[-4:] for p in found})
    asked = ",".join(f'"{n}"' for n in numbers)
    raise UserError(f"{path} is a channel of {case} by nnU-Net's names ({len(found)} such files), no scan of "
                    "its own: with --config.data.modalities="
                    f"'({asked})' those of a case are one scan; or call them {case}_flair ...")


def maps(files: Iterable[pathlib.Path]) -> dict[pathlib.Path, str]:
  """{file: why it is no scan} of those named as maps that SPM, LST and ANTs make of the scan beside them."""
  files = list(files)
  stems = {p: find.stem_of(p).lower() for p in files}
  there = {(p.parent, stem) for p, stem in stems.items()}

  def of_spm(path):
    stem = find.stem_of(path)
    found = _OF_SPM.match(stem)
    rest = stem[found.end():] if found else ""
    if rest[:1].isdigit():  # c12 beside 2 may be somebody: SPM makes three tissues of each
      return all((path.parent, f"c{k}{rest}".lower()) in there for k in (1, 2, 3))
    names = {rest.lower(), *_without_letters(rest), re.sub("_template(_.*)?$", "", rest.lower())}
    return len(rest) > 1 and any((place, name) in there for place in _places(path) for name in names)
  kinds = (("a map of lesions (LST)", lambda p: _LESIONS.fullmatch(stems[p])),
           ("a deformation, or the other image (ANTs)", lambda p: _WARPS.fullmatch(stems[p])),
           ("tissues or a deformation (SPM)", of_spm))
  return {p: f"is named as {what}, which a program has made of a scan" for p in files
          for what, is_one in kinds if is_one(p)}


def refuse_maps(files: Iterable[pathlib.Path]) -> None:
  """Raises UserError, with the first, where `maps` finds any: each would be a scan of its own."""
  if found := maps(files):
    path, reason = next(iter(found.items()))
    raise UserError(f"{path} {reason} ({len(found)} such files): take them away")


def of_program(path: pathlib.Path, files: Iterable[pathlib.Path]) -> bool:
  """Whether a file is named as FreeSurfer or FSL name what they make, whatever scan it is of.

  Args:
    files: that lie beside it, among others.
  """
  stem = find.stem_of(path).lower()
  return stem in _PROGRAMS or (stem in _BESIDE and any(
      p.parent == path.parent and find.stem_of(p).lower() in _PROGRAMS for p in files))
