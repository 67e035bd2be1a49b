"""What the folders of one's own images say: which side a file is on, and what they may say that is not read.

What they may say and nothing reads is refused, or said in one warning: a split, names of abnormal images in a
folder that knows no sides, thumbnails, one picture on both sides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
import logging
import pathlib
import re
from typing import Any

from data_pipelines.errors import UserError
from data_pipelines.intake import copies, find as finder, foreign, mask_words, vocabulary
from data_pipelines.intake.tables import same

NO_SIDE = "lies in no folder normal, abnormal or masks"
IMAGES = ("image", "images", "img", "imgs", "imagestr", "imagests")
# Of folders alone, beside vocabulary.SIDE_WORDS: in a column these may be no label.
MORE = {"control": 0, "controls": 0, "ok": 0, "patients": 1, "bad": 1, "nok": 1, "ungood": 1}
EVERY = {**vocabulary.SIDE_WORDS, **MORE}  # {word: 0 or 1}
_SMALL = {"thumb", "thumbs", "thumbnail", "thumbnails", "preview", "previews"}
_RESULTS = {"overlay", "overlays", "heatmap", "heatmaps", "pred", "preds", "prediction", "predictions", "cam",
            "gradcam", "result", "results", "output", "outputs", "viz", "visualization", "visualisation",
            *mask_words.ANNOTATED}
# Of what somebody has put aside, inside a folder of a side.
_ASIDE = {"trash", "excluded", "exclude", "rejected", "reject", "discarded", "unusable", "ignored", "ignore",
          "deleted", "removed", "corrupt", "corrupted", "damaged", "quality", "borderline", "suspicious",
          "uncertain", "unsure", "unknown", "unlabeled", "unlabelled", "doubtful", "duplicates", "duplicate",
          "backup"}
_HERE = pathlib.PurePath(".")
_FEW = 6  # folders that can be kinds; there are more of patients
_CLASSES = 24  # ... where all are words: patients have numbers
_PERSONS = {"sub", "subject", "patient", "pat", "case", "ses", "session", "visit"}
_WORKBOOKS = (".xlsx", ".xls", ".ods")
_NOTES = {"readme", "license", "licence", "changelog", "changes", "citation", "notes"}  # list nothing
_TURNED = {"no", "non", "not", "without", "ohne", "yes", "with", "mit"}  # of folders: no_tumor, yes


def denies(folder: str) -> bool:
  """Whether a word for a finding is denied, or a word for normal said, in a name: no_pneumonia, notumor,
  uninfected, normal-lung; abnormal and unhealthy are words of their own."""
  name, words = same(folder), _words(folder)
  plain = {w for w in vocabulary.NORMAL_WORDS if not w.isdigit()}
  more = ("finding", "findings", "infected", "affected")
  ill = "|".join(re.escape(w) for w in (*vocabulary.ANOMALY_WORDS, *more))
  return name not in vocabulary.SIDE_WORDS and bool(
      words & plain or re.fullmatch(rf"(?:no|non|not|without|un)[\W_]*(?:{ill})s?", name))


def say_lateral(names: Iterable[str], root) -> None:
  """Warns where some files are lateral views by their names, and others frontal ones: CheXpert's."""
  names = list(names)
  views = [_words(finder.stem_of(name)) for name in names]
  odd = [name for name, words in zip(names, views) if "lateral" in words]
  if odd and any("frontal" in words for words in views):
    logging.warning("%s: %d of %d images are lateral views by their names, the first %s, and count as the "
                    "others do: take them out, or train on them alone", root, len(odd), len(names), odd[0])


def side(folders: Sequence[str], words: Sequence[Collection[str]]):
  """0, 1, "mask" or None by the first folder with a known name, or "mask" where one below it holds masks."""
  names = list(map(same, folders))
  for at, folder in enumerate(names):
    if folder in mask_words.FOLDERS:
      return "mask"
    found = EVERY.get(folder)
    if folder in words[0] or folder in words[1]:
      found = int(folder in words[1])
    if found is not None:
      return "mask" if set(names[at:]) & set(mask_words.FOLDERS) else found
  return None


def numbered(paths: Iterable[pathlib.PurePath]) -> dict[pathlib.PurePath, str]:
  """{folder: a number} of those in which folders are called by numbers, 0 and 1 not alone: of patients or of
  classes, not normal and abnormal."""
  return {above.parent: above.name for path in paths for above in path.parents
          if above.name.isdecimal() and above.name not in ("0", "1")}


def sides(files: Collection[pathlib.Path], root: pathlib.Path, words: Sequence[Collection[str]]
          ) -> dict[pathlib.Path, Any]:
  """{file: its `side` by the folders below the root}: folders 0 and 1 beside a folder 2 say none.

  Args:
    words: of `side`; numbers among them are meant so.

  Raises:
    UserError: such folders lie in the root itself, where they may be classes as well as patients.
  """
  below = {p: p.relative_to(root) for p in files}
  counted = {} if {"0", "1"} & set().union(*words) else numbered(below.values())
  tops = sorted({p.parts[0] for p in below.values()} & {"0", "1"})
  if tops and _HERE in counted:
    raise UserError(f"{root / tops[0]} and {root / counted[_HERE]}: are numbers patients or classes? Put "
                    "patients into a folder normal or abnormal; of classes say which are normal "
                    "(--config.data.normal_words='(\"0\",)') and which abnormal (anomaly_words)")
  said = lambda path: [a.name for a in reversed(path.parents) if a.name and not (
      a.name in ("0", "1") and a.parent in counted)]
  return {path: side(said(short), words) for path, short in below.items()}


def without_masks(folders: Sequence[str]) -> list[str]:
  """Folders but for the first that holds masks."""
  at = next((i for i, folder in enumerate(folders) if same(folder) in mask_words.FOLDERS), len(folders))
  return [*folders[:at], *folders[at + 1:]]


def without_splits(path: str) -> str:
  """bottle/crack/1 of bottle/test/crack/1."""
  *folders, name = path.split("/")
  return "/".join([*(f for f in folders if f not in vocabulary.SPLIT_WORDS), name])


def check_no_sides(files: Iterable[pathlib.Path], root: pathlib.Path) -> None:
  """Refuses a folder without sides whose names speak of some: all would be taken for normal.

  Raises:
    UserError: with the first folder or file.
  """
  files = list(files)
  both = {w for w in (*vocabulary.NORMAL_WORDS, *vocabulary.ANOMALY_WORDS) if not w.isdigit()}
  folders = dict.fromkeys(f for path in files for f in path.relative_to(root).parts[:-1])
  if odd := [f for f in folders if _words(f) & (both | _TURNED)]:
    raise UserError(f"{root} has no folder normal or abnormal, and its folder {odd[0]} speaks of one: say "
                    "which folders hold normal images by config.data.normal_words, which abnormal ones by "
                    f"anomaly_words; where all are normal, put them into {root}/normal")
  if odd := [f for f in folders if mask_words.holds_masks(f)]:
    raise UserError(f"{root}/.../{odd[0]} is named as a folder of masks, and its files would be taken for "
                    "normal images: call it masks, or take it away")
  ill = [p for p in files if _words(finder.stem_of(p)) & set(vocabulary.ANOMALY_WORDS)]
  if ill and (len(ill) < len(files) or any("abnormal" in _words(finder.stem_of(p)) for p in ill)):
    marks = [p for p in ill if any(map(mask_words.is_mark, _words(finder.stem_of(p))))]  # ..._T1lesion_mask
    what, into = ("masks of abnormal ones", f"{root}/masks, by the names of their images, these into ") if (
        marks) else ("abnormal ones", "")
    raise UserError(f"{root} has no folder normal or abnormal, and {len(marks or ill)} of {len(files)} files "
                    f"are named as {what}, the first {(marks or ill)[0].name}: put them into {into}"
                    f"{root}/abnormal, the others into {root}/normal")


def say_no_sides(files: Iterable[pathlib.Path], found: finder.Found) -> None:
  """Warns where all files count as normal and tables or folders beside them may say otherwise.

  Args:
    found: whose `left_out` has the tables.
  """
  files = list(files)
  images: dict[bytes, list[bytes]] = {}  # names by their endings
  for path in files:
    if finder.kind_of(path, False) == "image":
      images.setdefault(_stored(path.suffix), []).append(_stored(path.name))
  table = next((item.path.name for item in found.left_out if finder.kind_of(item.path, False) == "table" or
                item.path.suffix.lower() in _WORKBOOKS or _lists_images(item.path, images) or
                (item.path.suffix.lower() == ".txt" and not _words(item.path.stem) & _NOTES)), "")  # of MIAS
  if table:
    logging.warning("%s is not read, and all scans of %s are taken for normal: where it says which are not, "
                    "put them into abnormal/", table, found.root)
  say_numbered_sides(files, found.root)
  say_lettered_sides(files, found.root)
  if kinds := _kinds([p.relative_to(found.root).parts[:-1] for p in files]):
    logging.warning("all scans of %s are taken for normal, in folders %s alike: where these are kinds, say "
                    "which are normal by config.data.normal_words, which abnormal by anomaly_words",
                    found.root, ", ".join(kinds))


def _kinds(folders: Sequence[Sequence[str]]) -> list[str]:
  """Folders that can be kinds of images, of those of each file: a few that hold them, else all of the first
  that differ (AD and CN above patients, nine tissues)."""
  inner = sorted({parts[-1] for parts in folders if parts and _is_kind(parts[-1])})
  if 1 < len(inner) <= _FEW:
    return inner
  depth = min(map(len, folders), default=0)
  level = next((at for at in range(depth) if len({parts[at] for parts in folders}) > 1), -1)
  first = sorted({parts[level] for parts in folders}) if level >= 0 else []
  return first if len(first) <= _CLASSES and all(map(_is_kind, first)) else []


def _lists_images(path, images: Mapping[bytes, Sequence[bytes]]) -> bool:
  """Whether a JSON file names one of these images: a list of labels, perhaps.

  Args:
    images: names by their endings, which most of thousands of files beside images lack.
  """
  if path.suffix.lower() not in (".json", ".jsonl") or not images:
    return False
  text = foreign.start_of(path)
  return any(ending in text and any(name in text for name in names) for ending, names in images.items())


def _stored(name: str) -> bytes:
  return name.encode("utf-8", "surrogateescape")


def say_numbered_sides(files: Iterable[pathlib.Path], root: pathlib.Path) -> None:
  """Warns where the names of all files, which count as normal, end in 0 or 1, as labels do: CHNCXR_0001_1."""
  last = [re.search(r"\d[-_]([01])$", finder.stem_of(p)) for p in files]
  if len(last) > 2 and all(last) and len({m[1] for m in last if m}) == 2:
    logging.warning("the names of all files of %s end in 0 or 1, and all are taken for normal: where 1 means "
                    "abnormal, put those into abnormal/", root)


def say_lettered_sides(files: Iterable[pathlib.Path], root: pathlib.Path) -> None:
  """Warns where all files, which count as normal, are one of a few words and a number: JPCLN001, JPCNN001."""
  told = [re.fullmatch(r"([^\W\d_]+)[-_]?(\d+)", finder.stem_of(p)) for p in files]
  numbers: dict[str, set[str]] = {}
  for found in told:
    numbers.setdefault(found[1] if found else "", set()).add(found[2] if found else "")
  if "" not in numbers and 1 < len(numbers) <= _FEW and set.intersection(*numbers.values()):
    logging.warning("the names of all files of %s begin with one of %s, and all are taken for normal: where "
                    "one of these means abnormal, put those into abnormal/", root, ", ".join(sorted(numbers)))


def of_no_side(files: Collection[pathlib.Path], root: pathlib.Path) -> dict[pathlib.Path, str]:
  """{file: why it is left out} of those without a folder that says a side, where others' do; says them."""
  masks = [p for p in files if any(map(mask_words.holds_masks, p.relative_to(root).parts[:-1]))]
  for some, remedy in ((masks, "where they are masks of the others, call the folder masks"), (
      [p for p in files if p not in set(masks)],
      "name such folders in config.data.normal_words or anomaly_words")):
    if some:
      folders = sorted({path.relative_to(root).parts[0] for path in some if path.parent != root})
      logging.warning("%d files of %s lie in no folder that says a side, and are left out%s: %s", len(some),
                      root, f" ({', '.join(folders[:3])}{' ...' if folders[3:] else ''})" if folders else "",
                      remedy)
  return dict.fromkeys(files, NO_SIDE)


def too_few(root, normal: Sequence[str], patients: Sequence[str]) -> str:
  """Why normal scans, by their paths below the root, and their patients are too few; and what to do."""
  folders = {pathlib.PurePosixPath(name).parts[0] for name in normal}
  sides = ("where these folders are kinds of scans and no patients, name them in config.data.normal_words "
           "and anomaly_words; " if len(patients) > 1 and set(patients) <= folders else "")
  return (f"{root}: {len(normal)} normal scans, by their names of {len(patients)} patient(s) without "
          f"anything abnormal ({', '.join(patients[:3])}), are too few to train, choose thresholds and test: "
          f"3 patients are the least; {sides}where each file is a patient of its own, "
          "--config.data.grouping=file")


def unsaid(found: finder.Found) -> str:
  """What to do about a folder of which nothing says whether it is normal; "" where there is none."""
  path = next((item.path for item in found.left_out if item.reason == NO_SIDE), None)
  return "" if path is None else (
      f"; no folder of {path.relative_to(found.root).as_posix()} says a side that is known: name the one "
      "that does in config.data.normal_words or anomaly_words")


def _is_kind(folder: str) -> bool:
  """Whether it can be the name of a kind of images: no number, no split."""
  others = (*vocabulary.SPLIT_WORDS, *IMAGES, "anat")
  person = re.split("[-_ ]", same(folder))[0] in _PERSONS
  return re.sub("[-_ ]", "", folder).isalpha() and not person and same(folder) not in others


def _words(name: str) -> set[str]:
  return set(re.findall(r"[^\W\d_]+", same(name)))


def thumbnails(files: Collection[pathlib.Path]) -> dict[pathlib.Path, str]:
  """{file: reason} of those in a folder of thumbnails or of results beside the images of the same names."""
  there = {(p.parent, finder.stem_of(p)) for p in files}
  found = {}
  for path in files:
    small, above = same(path.parent.name) in _SMALL, path.parent.parent
    if small or same(path.parent.name) in _RESULTS:
      stem = finder.stem_of(path)
      if (above, stem) in there or any((above / name, stem) in there for name in IMAGES):
        found[path] = f"is a {'thumbnail' if small else 'result'} by its folder"
  return found


def say_aside(files: Collection[pathlib.Path], root: pathlib.Path) -> None:
  """Warns where folders of a side hold one of what somebody has put aside; `files`: of both sides."""
  aside = {folder for folder in {p.parent for p in files}
           if any(_words(part) & _ASIDE for part in folder.relative_to(root).parts)}
  odd = [p for p in files if p.parent in aside]
  if odd:
    logging.warning("%s and %d more files lie in folders that speak of what was put aside, and count like "
                    "the others: take them out where they are not meant", odd[0], len(odd) - 1)


def say_splits(files: Iterable[pathlib.Path], root: pathlib.Path, field: str = "split_table") -> None:
  """Warns where folders are named as splits, which a run makes itself; its table is config.data.`field`."""
  folders = {f for p in files for f in p.relative_to(root).parts[:-1]}
  named = sorted(f for f in folders if same(f) in vocabulary.SPLIT_WORDS)
  if len({vocabulary.SPLIT_WORDS[same(f)] for f in named}) > 1:
    logging.warning("%s has folders called %s, which are no splits here: patients are split anew; a table of "
                    "files and splits, config.data.%s, says it otherwise", root, " and ".join(named), field)


def say_both_sides(sides: Mapping[pathlib.Path, int]) -> None:
  """Warns where one picture, byte for byte, is normal and abnormal."""
  found = copies.find({word: [str(p) for p, side in sides.items() if side == label]
                       for label, word in enumerate(("normal", "abnormal"))})
  if found:
    logging.warning("%s and %s are one file, byte for byte, and count as normal and as abnormal (%d such): "
                    "take one of them away", found[0][0], found[0][2], len(found))
