"""What lies beside images and is not used: images that a table does not list, and tables that say whose an
image is, on which side, or where the finding is."""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterable, Sequence
import dataclasses
import logging
import pathlib
import posixpath
import re

from data_pipelines.errors import UserError
from data_pipelines.intake import find, patients, person_names, tables, vocabulary
from data_pipelines.intake.counts import shown
from data_pipelines.intake.tables import same

TOGETHER = "put those of each into a folder patient_<number>, or name the splits in config.data.split_table"
_LARGEST = 1 << 24  # bytes of a table that is looked at: its rows take some twenty times as much memory
_TABLES, _SAMPLE = 20, 500  # tables, and rows of each by which the column of images is told
_BOXES = ({"x", "y", "width", "height"}, {"x", "y", "w", "h"}, {"x", "y", "radius"}, {"xmin", "ymin"},
          {"x1", "y1", "x2", "y2"}, {"x0", "y0", "x1", "y1"})
_OUTLINES = re.compile("bbox|boundingbox|encodedpixels|^rle|rle$|polygon|segmentation|contour")
_ENDING = re.compile(rf"(?:{'|'.join(re.escape(end) for known in find.SUFFIXES.values() for end in known)})$")
_NOTHING = {"", "-1", "nan", "none", "null", "n/a", "[]"}  # where nothing is marked
_NUMBERS = {"0", "1", "0.0", "1.0"}
_NAMES = re.compile("image|file|name|path|scan|slice|frame|(^|_| )id$|id$")  # of columns of numbers


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image that is used: its path below the root, its split, 0 = normal and 1 = abnormal."""
  name: str
  split: str
  label: int


def say(table_path, root: pathlib.Path, listed: Collection[str], kinds: Collection[str],
        elsewhere: Collection[str] = ()) -> int:
  """Logs how many files of some kinds below the data folder are not listed; returns the number.

  Args:
    root: the data folder. listed: paths below it, as `Row.file` gives them.
    kinds: as of `find.find`.
    elsewhere: first folders, in lower case, whose files are found otherwise than by the table: masks.
  """
  known = {posixpath.normpath(posixpath.join(root.as_posix(), name)) for name in listed}  # or absolute ones
  below = [(p, p.relative_to(root)) for p in find.find(root, kinds).files]
  rest = [p for p, name in below if posixpath.normpath(p.as_posix()) not in known and not (
      name.parts[1:] and name.parts[0].lower() in elsewhere)]
  if rest:
    logging.warning("%s does not list %d images below %s, the first %s: they are not used", table_path,
                    len(rest), root, shown(rest[0], root))
  return len(rest)


def tables_of(found: find.Found, read: str = "") -> list[pathlib.Path]:
  """Tables that a search has left out, but for the one that is read."""
  own = pathlib.Path(read).expanduser().resolve() if read else None
  every = (item.path for item in found.left_out)
  return [p for p in every if find.kind_of(p, False) == "table" and p != own]


def beside(root, *but: str) -> list[pathlib.Path]:
  """Tables in a folder and in those in it, but for some names in small letters."""
  every = find.like(root, "*.[cCtT][sS][vV]", "*/*.[cCtT][sS][vV]")
  return sorted(p for p in every if p.name.lower() not in but)


def say_tables(paths: Iterable[pathlib.Path], pictures: Sequence[Picture], root, remedy: str) -> None:
  """Warns of tables that are not read and say otherwise whose images are, or on which side.

  Args:
    remedy: how to keep the images of a person together.
  """
  for table, column, of in _telling(paths, pictures):
    _say_torn(table, column, of, root, remedy)
    if any(p.label for p in pictures):
      _say_sides(table, of, root)


def say_boxes(paths: Iterable[pathlib.Path], pictures: Sequence[Picture], remedy: str) -> None:
  """Warns of tables that hold boxes or outlines of images, which are not read; `remedy`: what to do."""
  for table, column, of in _telling(paths, pictures):
    plain = {re.sub(r"[\W_]+", "", c): c for c in table.columns if c != column}
    named = next((sorted(plain[w] for w in words) for words in _BOXES if words <= plain.keys()), []) or [
        c for word, c in plain.items() if _OUTLINES.search(word)]
    marked = {p.name for row, p in of if any(same(row[c]) not in _NOTHING for c in named[:1])}
    if marked:
      logging.warning("%s: its columns (%s) seem to hold boxes or outlines of %d images, the first %s, and "
                      "are not read: %s", table.path, ", ".join(named), len(marked), min(marked), remedy)


def _telling(paths, pictures):
  """(table, its column of images, [(row, picture)]) of the tables that list pictures."""
  index = _by_path(pictures)
  for path in list(paths)[:_TABLES]:
    try:
      if path.stat().st_size > _LARGEST:
        continue
      table = tables.read_table(path)
    except (UserError, OSError):  # nobody asked for it
      continue
    column = _column(table, index, len(pictures))
    of = [(row, found) for row in table.rows if column and (found := _found(row[column], index))]
    if of:
      yield table, column, of


def _by_path(pictures):
  """{end of the path without ending, in small letters: picture}; of ends that several share, None."""
  index: dict[str, Picture | None] = {}
  for picture in pictures:
    parts = _parts(picture.name)
    for at in range(len(parts)):
      key = "/".join(parts[at:])
      index[key] = picture if key not in index else None
  return index


def _parts(name):
  """Folders and the name without its ending, in small letters."""
  return _ENDING.sub("", name.lower()).split("/")


def _found(cell, index):
  """The picture that a cell names, by as much of its path as fits; None."""
  parts = _parts(cell.replace("\\", "/")) if cell else []
  return next((index[key] for at in range(len(parts)) if (key := "/".join(parts[at:])) in index), None)


def _column(table, index, count) -> str:
  """The column that names pictures in half of the rows, or half of the pictures; ""."""
  rows = table.rows[::max(1, len(table.rows) // _SAMPLE)]
  best, most = "", 0
  for column in table.columns:
    hits = [p for row in rows if (p := _found(row[column], index))]
    numbers = all(row[column].isdecimal() for row in rows)
    different = len({p.name for p in hits})
    if different > most and (2 * len(hits) >= len(rows) or 2 * different >= count) and (
        not numbers or _NAMES.search(column)):
      best, most = column, different
  return best


def _say_torn(table, column, of, root, remedy):
  """Warns where the images of one person, by a column of people, are in several splits."""
  for who in (c for c in patients.COLUMNS if c in table.columns and c != column):
    splits = collections.defaultdict[str, dict[str, str]](dict)
    for row, picture in of:
      if person_names.says(row, who):
        splits[same(row[who])].setdefault(picture.split, picture.name)
    torn = [names for names in splits.values() if len(names) > 1]
    if torn:
      first, second = sorted(torn[0].items())[:2]
      logging.warning("%s is not read, and by its column %r %d of %d people have images in several splits, "
                      "the first %s (%s) and %s (%s): %s", shown(table.path, root), who, len(torn),
                      len(splits), first[1], first[0], second[1], second[0], remedy)
      return


def _say_sides(table, of, root):
  """Warns where a column answers otherwise than the folders on which side images are."""
  for column in filter(vocabulary.answers, table.columns):
    words = {same(row[column]) for row, _ in of} - {""}
    told: dict[Picture, set[int]] = {}
    for row, picture in of if not any(map(str.isdecimal, words)) or words <= _NUMBERS else ():
      if (side := vocabulary.side_of(row[column])) is not None:
        told.setdefault(picture, set()).add(side)
    odd = [picture for picture, sides in told.items() if picture.label not in sides]
    if odd:
      logging.warning("%s is not read, and by its column %r %d of %d images are on the other side than here, "
                      "the first %s: see which is right", shown(table.path, root), column, len(odd),
                      len(told), odd[0].name)
