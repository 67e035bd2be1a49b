"""Which voxels of a label volume are lesion; labels that cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import pathlib
import re

import numpy as np

from data_pipelines.brains import sequences
from data_pipelines.brains.normalise import BadScan
from data_pipelines.errors import UserError
from data_pipelines.intake import (
  counts as files_of,
  find as finder,
  foreign,
  processed,
  words_of_volumes as vocab,
)

BRATS = (0, 1, 2, 3, 4)  # every value above 0 is a part of the lesion, in all years' numbering
BINARY = (0, 255)        # a mask as image programs write it
_ROUNDED = 1e-3          # what a scale factor of the header leaves of a whole number
_NAMED = 6               # values in an error line
_WORD_FIRST = re.compile(r"([a-z]+)[-_ .]*(?=.*\d)")  # of a name in small letters, before a number


def check_foreign(folder, left_out: Iterable[finder.LeftOut]) -> None:
  """Refuses labels in a format that is not read, or still in a cloud, in a folder of which none was taken for
  one: lesions would pass as healthy.

  Raises:
    UserError: with the first of them.
  """
  plain = lambda path: foreign.without_ending(path.name) if foreign.may_be_label(path.name) else (
      foreign.not_here(path.name)[0])
  odd = [item for item in left_out if (name := plain(item.path)) and sequences.like_label(
      item.path.with_name(name))]
  if odd:
    raise UserError(f"{folder} holds no label that is read, and {len(odd)} files named as labels, the first: "
                    f"{odd[0].path.relative_to(folder)} {odd[0].reason}; where all scans are normal, take it "
                    "away")


def check_unnamed_labels(folder, files: Iterable[pathlib.Path]) -> None:
  """Refuses files that look like labels in a folder of which none was taken for one: lesions would pass as
  healthy.

  Raises:
    UserError: with the first of them.
  """
  files = list(files)
  like = [f for f in files if sequences.like_label(f)]
  made = processed.made(files) if like else ()  # wT1 beside T1 is no whole tumour
  if like := [f for f in like if f not in made]:
    raise UserError(f"{folder} holds no label by its name, and {len(like)} files that look like labels, the "
                    f"first {files_of.shown(like[0], folder)}: call it <scan>_seg.nii.gz, or list it in "
                    "column seg of manifest.csv; where all scans are normal, take it away")


def marks_beside(files: Iterable[pathlib.Path], modalities: Sequence[str]
                 ) -> dict[pathlib.Path, pathlib.Path]:
  """{file that looks like a label: the scan beside it whose name it begins with}.

  P01_tumorMask is of P01_brain_t1c as well: what stands before a word of labels begins the scan's name. And
  P01_lesion_flair, which tells a sequence, is of P01_flair; segmentation-0, a word of labels first, of
  volume-0 and of 0.
  """
  files = list(files)
  told = {p: sequences.split_name(p, modalities) for p in files}
  odd = {p for p, (_, known) in told.items() if not known and (
      sequences.like_label(p) or sequences.other_kind(finder.stem_of(p), sequences.KNOWN) == sequences.LABEL)}
  names: dict[tuple[pathlib.Path, str], pathlib.Path] = {}
  begins: dict[tuple[pathlib.Path, str], pathlib.Path] = {}
  ends: dict[tuple[pathlib.Path, str], pathlib.Path] = {}
  for path in (p for p in files if p not in odd):
    stem = finder.stem_of(path).lower()
    for end in (stem, _WORD_FIRST.sub("", stem, count=1)):
      ends.setdefault((path.parent, end), path)
    for name in (stem, told[path][0].lower()):
      names.setdefault((path.parent, name), path)
    for at in re.finditer("[-_ .]", stem):
      begins.setdefault((path.parent, stem[:at.start()]), path)
  scans = {(p.parent, prefix.lower(), known): p for p, (prefix, known) in told.items() if known}
  found = {}
  for path, (prefix, known) in told.items():
    parts = re.fullmatch(r"(.+)[-_ .](.+)", prefix.lower())
    if known and parts and parts[2] in vocab.FINDINGS and (path.parent, parts[1], known) in scans:
      found[path] = scans[path.parent, parts[1], known]
  for path in sorted(odd):
    stem = finder.stem_of(path).lower()
    before = re.fullmatch(r"(.*\d.*)[-_ .].+", stem)
    if before and vocab.marks_last(stem) and (path.parent, before[1]) in begins:
      found[path] = begins[path.parent, before[1]]
    word = _WORD_FIRST.match(stem)
    if word and vocab.marks_last(word[1]) and (path.parent, stem[word.end():]) in ends:
      found[path] = ends[path.parent, stem[word.end():]]  # segmentation-0 beside volume-0
    if not re.search(r"\d", stem) and vocab.marks_last(re.split("[-_ .]", stem)[0]) and (
        own := next((p for p in told if p not in odd and p.parent == path.parent), None)):
      found[path] = own  # mask_flair
    while shorter := re.fullmatch(r"(.+)[-_ .].*", stem):
      stem = shorter[1]
      if (path.parent, stem) in names:
        found[path] = names[path.parent, stem]
        break
  return found


def refuse_marks(files: Iterable[pathlib.Path], modalities: Sequence[str]) -> None:
  """Raises UserError, with the first, where files are named as labels among others that are not: they would
  be scans of their own."""
  files = list(files)
  if found := marks_beside(files, modalities):
    path, scan = next(iter(found.items()))
    raise UserError(f"{path} is named as a label of {scan.name}, and is not taken for one ({len(found)} such "
                    f"files): {remedy(path)}")
  odd = [p for p in files if sequences.ends_as_label(p) and not sequences.split_name(p, modalities)[1]]
  if odd and len(odd) < len(files):
    raise UserError(f"{odd[0]} is named as a label, and would be a scan ({len(odd)} such files): "
                    f"{remedy(odd[0])}")


def remedy(path, place: str = ", one a scan (of several raters their consensus)") -> str:
  """What to do about a file that is named as a label and is not read as one; `place`: where one stands."""
  if sequences.marks_no_lesion(path):  # who called it <scan>_seg would have marked the whole brain
    return "by its name it marks no lesion: take it away"
  return f"call the label <scan>_seg.nii.gz{place}, or take it away"


def lesions(seg: np.ndarray, values: Sequence[int] = ()) -> np.ndarray:
  """uint8 [H,W,Z], 1 = lesion, of a label volume of any dtype.

  Args:
    values: config.data.lesion_values: the values that are lesion, all others are not. () = whatever is
      above 0, where the volume's values are those of BRATS or of BINARY, and 0 at one corner at least.

  Raises:
    BadScan: values that are no whole numbers (probabilities, an interpolated mask); without `values`,
      such as are no lesion for sure.
  """
  found = np.unique(np.asarray(seg)[seg != 0]).astype(np.float64)
  if not np.isfinite(found).all():
    raise BadScan("seg holds NaN or infinite voxels")
  whole = np.rint(found)
  broken = found[np.abs(found - whole) > _ROUNDED]
  if broken.size:
    raise BadScan(f"seg holds values that are no whole numbers ({_shown(broken)}), as probabilities and "
                  "interpolated masks have: give a mask of whole numbers, 0 outside the lesion")
  marked = np.rint(seg) != 0  # after the check: what resampling leaves of 0, 1e-5, is none
  whole = whole[whole != 0]
  if len(values):
    return (np.isin(np.rint(seg), list(values)) & marked).astype(np.uint8)
  odd = [v for v in whole if v not in BRATS]
  if odd and not set(whole) <= set(BINARY):
    every = tuple(map(int, whole[:_NAMED]))
    raise BadScan(f"seg holds the values {_shown(whole)}; known are 0 to 4 as in BraTS, and 0 and 255: say "
                  f"which are lesion, all of them: --config.data.lesion_values='{every}'")
  if marked.ndim == 3 and marked[np.ix_(*[(0, -1)] * 3)].all():  # a mask turned round, or 1 = background
    raise BadScan(f"seg holds {_shown(whole)} at all eight corners, where a lesion never is: is it inverted, "
                  "or is background not 0? Say which values are lesion by --config.data.lesion_values")
  return marked.astype(np.uint8)


def counts(seg: np.ndarray) -> dict[str, int]:
  """{value: voxels} of a label that `lesions` takes, without 0."""
  found, voxels = np.unique(np.rint(seg[seg != 0]).astype(np.int64), return_counts=True)
  return {str(v): int(n) for v, n in zip(found, voxels) if v}


def described(scans: Sequence[Mapping[str, int]], values: Sequence[int] = ()) -> str:
  """Which values of a set's labels were taken for lesion, with their scans and voxels.

  Args:
    scans: `counts` of each label. values: config.data.lesion_values.
  """
  every = sorted({int(v) for scan in scans for v in scan})
  def each(chosen):
    of = {v: [scan[str(v)] for scan in scans if str(v) in scan] for v in chosen}
    return ", ".join(f"{v} (in {len(n)} scans, {sum(n)} voxels)" for v, n in of.items()) or "none"
  taken, left = ([v for v in every if (not values or v in values) == wanted] for wanted in (True, False))
  return f"values taken for lesion: {each(taken)}" + (f"; not: {each(left)}" if left else "")


def _shown(values):
  more = f" and {len(values) - _NAMED} more" if len(values) > _NAMED else ""
  return ", ".join(f"{v:.4g}" for v in values[:_NAMED]) + more
