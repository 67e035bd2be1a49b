"""What became of every file that was found: a table of counts that add up, and the names left out."""

from __future__ import annotations

import collections
from collections.abc import Collection, Sequence
import logging
import pathlib

from data_pipelines.errors import UserError
from data_pipelines.intake import folder_words, foreign, mask_words, names as naming, vocabulary
from data_pipelines.intake.find import (
  SUFFIXES,
  WHAT,
  Found,
  LeftOut,
  find,
  holds_results,
  kind_of,
  like,
  stem_of,
)
from data_pipelines.intake.tables import same

NAMED = 20  # names in the log; all of them are in the report that the caller writes
_IN_LINE = 3  # names in an error line
_TEXTS = (".xml", ".txt", ".json")  # of boxes and outlines: VOC, YOLO, labelme, COCO
# In the annotations of many images, of COCO, VIA, CVAT and labelme; how many texts are looked at.
_OUTLINES = (b'"file_name"', b'"annotations"', b'"shapes"', b'"regions"', b'"bbox"', b"<annotations",
             b"<polygon", b"<bndbox")
_LOOKED_AT = 20
# Of notes, tables and programs beside images.
_NOTES = (".md", ".rst", ".csv", ".tsv", ".html", ".htm", ".pdf", ".log", ".sha256", ".md5", ".sha1", ".yaml",
          ".yml", ".ini", ".cfg", ".py", ".ipynb", ".m", ".doc", ".docx", ".xls", ".xlsx",
          ".ods", ".db", ".bib")


class Nothing(UserError):
  """There is no input at all; `found` has the reason of every file."""

  def __init__(self, root, found: Found, kinds: Collection[str]):
    super().__init__(f"{root} holds {nothing(found, kinds)}")
    self.found = found


def shown(path, root) -> str:
  """The path below the root on one line: line ends, marks of direction and what is no character are
  spelt out.
  """
  path, root = pathlib.Path(path), pathlib.Path(root)
  below = path.relative_to(root) if path != root and path.is_relative_to(root) else path
  return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
                 for c in below.as_posix())


def files(folder, kinds: Collection[str], strict: bool = True, clean: bool = False) -> list[pathlib.Path]:
  """The files of a data set's folder; what is left out is said in the log.

  Args:
    strict: False leaves out, with a warning, what would have been an input but cannot be read.
    clean: leaves out masks and annotated frames, by their names and folders (names.marked).

  Raises:
    FileNotFoundError: no folder, or nothing of these kinds in it. UserError: a link to nothing, a
      folder that may not be read, ..., where `strict`.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise FileNotFoundError(f"folder {folder} does not exist; see config.data.dir and layout")
  found = find(folder, kinds)
  found.leave_out(folder_words.thumbnails(found.files))
  if clean:
    found.leave_out(naming.marked(found.files, folder))
  say(found)
  if strict:
    refuse_broken(found)
  if not found.files:
    raise FileNotFoundError(f"folder {folder} holds {nothing(found, kinds)}")
  return found.files


def refuse_broken(found: Found) -> None:
  """Raises UserError where something would be an input, could it be read; where predict has written into a
  folder of a side, all of which is left out as results."""
  for item in found.left_out:
    side = same(item.path.name) in vocabulary.SIDE_WORDS and not item.path.name.isdigit()
    if side and holds_results(item.path):
      raise UserError(f"{item.path} {item.reason}, and what else lies there would be left out with them: "
                      "move the results away")
  if found.broken:
    first, more = found.broken[0], len(found.broken) - 1
    raise UserError(f"{shown(first.path, first.path)} {first.reason}"
                    f"{f' (and {more} more)' if more else ''}: mend it or take it away")


def nothing(found: Found, kinds: Collection[str]) -> str:
  """ "no image (.png, ...); left out: ...": what to say where no file is usable."""
  endings = ", ".join(e for kind in SUFFIXES if kind in kinds for e in SUFFIXES[kind])
  what = " or ".join(WHAT[kind] for kind in SUFFIXES if kind in kinds)
  return "; ".join([f"no {what} ({endings})", *names(found)[:_IN_LINE]])


def table(found: Found) -> str:
  """Lines "number  what": files used, left out by reason, system files; the last line is the sum."""
  reasons: dict[str, list[LeftOut]] = {}
  for item in found.left_out:
    reasons.setdefault(_kind(item.reason), []).append(item)
  lines = [(len(found.files), "used")]
  lines += [(len(items), "left out: " + reason) for reason, items in reasons.items()]
  if found.ignored:
    lines.append((found.ignored, "ignored: hidden and system files"))
  lines.append((sum(n for n, _ in lines), f"found in {shown(found.root, found.root)}"))
  width = len(str(lines[-1][0]))
  return "\n".join(f"  {number:{width}}  {what}" for number, what in lines)


def say(found: Found, always: bool = False) -> None:
  """Logs the table, and the names of what is left out.

  Args:
    always: also where every file is used.
  """
  if not found.left_out and not always:
    return
  logging.info("Files:\n%s", table(found))
  for line in names(found):
    (logging.warning if found.broken else logging.info)("%s", line)
  say_unread(found)


def say_unread(found: Found, masks: bool = False) -> None:
  """Warns of masks, images and volumes in forms that are not read, and of boxes or outlines as text.

  Args:
    masks: all files are masks, wherever they lie.
  """
  odd = [item.path for item in found.left_out if item.reason.startswith("is no ")]
  images = [p for p in found.files if kind_of(p, False) == "image"]
  stems, folders = {stem_of(p) for p in images}, {p.parent for p in images}
  texts = [p for p in odd if p.suffix.lower() in _TEXTS and p.stem in stems]
  if len(texts) > 1:
    logging.warning("%d texts have the names of images, the first %s: where they hold boxes or outlines, "
                    "these are not read; draw them as masks, masks/a.png", len(texts),
                    shown(texts[0], found.root))
  lists = [p for p in odd if p.suffix.lower() in (".json", ".xml") and p.stem not in stems]
  if outlines := next((p for p in lists[:_LOOKED_AT] if images and _lists_outlines(p)), None):
    logging.warning("%s lists boxes or outlines of images, which are not read; draw them as masks, "
                    "masks/a.png", shown(outlines, found.root))
  passed = (*_TEXTS, *_NOTES, "")
  odd = [p for p in odd if p.suffix.lower() not in passed and not foreign.is_archive(p.name)]
  of_masks = [p for p in odd if masks or any(
      same(f) in mask_words.FOLDERS for f in p.relative_to(found.root).parts[:-1])]
  if of_masks:
    logging.warning("%d files in folders of masks are in a form that is not read, the first %s: they are no "
                    "masks to this program; save them as PNG, of volumes as .nii.gz", len(of_masks),
                    shown(of_masks[0], found.root))
  kinds = {kind_of(p, False) for p in found.files}
  endings = collections.Counter(p.suffix for p in odd)
  alone = lambda p: foreign.advice(p.name, kinds) and not foreign.is_array(p.name)  # mean.npy lists no images
  other = [p for p in odd if p not in of_masks and (alone(p) or (
      p.parent in folders and endings[p.suffix] > 1))]
  if other:
    logging.warning("%d files are in a form that is not read, and are not used, the first %s%s", len(other),
                    shown(other[0], found.root), foreign.advice(other[0].name, kinds))


def _lists_outlines(path) -> bool:
  """Whether a text looks like the annotations of many images."""
  start = foreign.start_of(path)
  return any(word in start for word in _OUTLINES)


def subfolder(root, name: str) -> pathlib.Path:
  """The folder `name` of the root; where there is none, the one that differs in capitals alone."""
  root = pathlib.Path(root)
  alike = [p for p in like(root, "*") if p.is_dir() and p.name.lower() == name.lower()]
  return alike[0] if len(alike) == 1 and not (root / name).exists() else root / name


def names(found: Found) -> list[str]:
  """One line for each file left out, at most NAMED and the number of the others."""
  lines = [f"left out: {shown(item.path, found.root)} {item.reason}"
           for item in found.left_out[:NAMED]]
  if len(found.left_out) > NAMED:
    lines.append(f"left out: {len(found.left_out) - NAMED} more")
  return lines


def rows(found: Found) -> Sequence[dict[str, str]]:
  """What is left out as rows of a table: columns file, reason."""
  return [{"file": shown(item.path, found.root), "reason": item.reason} for item in found.left_out]


def _kind(reason):
  """The reason without the names in it, so that alike ones are counted together."""
  for start in ("is a link", "cannot be read", "is searched already"):
    if reason.startswith(start):
      return "cannot be followed" if start == "is a link" and "does not exist" in reason else start
  return reason
