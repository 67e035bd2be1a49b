"""The one reader of tables and lists that people make: spreadsheets' CSV files and lists of names.

What is read: UTF-8 with or without byte order mark, UTF-16 and UTF-32; comma, semicolon, tab or bar
between the cells; quoted cells, CRLF, Excel's line `sep=;`; blanks around names and values; column
names in any case. What is ambiguous or damaged is refused with the file and the line: other encodings
(Latin-1 has no mark that tells it from others), rows of another length, a column twice, NUL bytes.
Wholly empty lines are no rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
import csv
import dataclasses
import gzip
import io
import pathlib
import posixpath
import re
import unicodedata
import zlib

from data_pipelines.errors import UserError
from data_pipelines.intake import foreign

LIMIT = 1 << 28  # bytes of a table; a list of all images of the largest sets has a tenth
_CELL = 1 << 16  # characters of a cell; a file name or a word has far fewer
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
          (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_BINARY = ((b"PK\3\4", "an Excel or OpenDocument workbook"), (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
           (b"%PDF", "a PDF file"), (b"\x89PNG", "an image"))


class Row(dict[str, str]):
  """One row: {lower-case column: text without blanks around it}.

  Attributes:
    line: number of its first line in the file, 1 = the first; where: "FILE line N", for messages.
  """

  def __init__(self, cells, path: pathlib.Path, line: int):
    super().__init__(cells)
    self.line, self.where = line, f"{path} line {line}"

  def need(self, column: str) -> str:
    """The text of a column.

    Raises:
      UserError: it is empty.
    """
    if not self.get(column):
      raise UserError(f"{self.where}: column {column!r} is empty")
    return self[column]

  def file(self, column: str) -> str:
    """A path as the table gives it, with "/" between folders and without "." and "..", where it can.

    Raises:
      UserError: it is empty.
    """
    return posixpath.normpath(self.need(column).replace("\\", "/"))


@dataclasses.dataclass(frozen=True)
class Table:
  """A table: its file, its lower-case column names in order, its rows (at least one)."""

  path: pathlib.Path
  columns: tuple[str, ...]
  rows: list[Row]

  def first(self, *names: str) -> str:
    """The first of the names that is a column, "" where none is."""
    return next((n for n in names if n in self.columns), "")

  def unique(self, column: str, file: bool = False) -> None:
    """Refuses an empty cell, and two rows that say the same in a column.

    Args:
      file: the column holds paths, where capitals count; else they do not.

    Raises:
      UserError: with both line numbers.
    """
    seen: dict[str, Row] = {}
    below = lambda name: posixpath.normpath(posixpath.join(self.path.parent.as_posix(), name))  # or absolute
    for row in self.rows:
      key = below(row.file(column)) if file else same(row.need(column))
      if key in seen:
        raise UserError(f"{row.where}: {column} {row[column]!r} is listed twice, first in line "
                        f"{seen[key].line}")
      seen[key] = row


def refuse_twice(row: Row, file, seen: dict, shown: str) -> None:
  """Notes a file that a row names; raises UserError where the table has named it before."""
  if file in seen:
    raise UserError(f"{row.where}: {shown} is listed twice, first in line {seen[file]}")
  seen[file] = row.line


def same(text: str) -> str:
  """The form in which two names are compared: accents composed, no case, single blanks, inside alone."""
  return unicodedata.normalize("NFC", " ".join(text.split())).casefold()


def column_name(name: str) -> str:
  """A column's name as rows have it: lower case, single blanks."""
  return unicodedata.normalize("NFC", " ".join(_clean(name).split())).lower()


def place(folder, name: str) -> pathlib.Path:
  """The table `name` of a folder in any capitals; in those of `name` where there is none, or several."""
  folder = pathlib.Path(folder)
  if not (folder / name).exists() and folder.is_dir() and pathlib.PurePath(name).name == name:
    alike = [p for p in folder.iterdir() if p.name.lower() == name.lower() and p.is_file()]
    if len(alike) == 1:
      return alike[0]
  return folder / name


def read_table(path, required: Collection[str] = (), optional: Collection[str] = (), remedy: str = ""
               ) -> Table:
  """Reads a table with a header line.

  Args:
    required: columns that must be there (their cells may be empty: `Row.need`).
    optional: others that the caller knows; they help to tell the separator.
    remedy: what to do about a column that is missing.

  Raises:
    FileNotFoundError: no such file. UserError: everything else that is wrong, with file and line.
  """
  path = pathlib.Path(path)
  text = read_text(path)
  lines = re.split("\r\n|\r|\n", text)
  known = {column_name(c) for c in (*required, *optional)}
  skipped = next((i for i, line in enumerate(lines) if line.strip(" \t,;|")), len(lines))
  if skipped == len(lines):
    raise UserError(f"{path} is empty: give a table with a line of column names")
  declared = re.fullmatch(r"sep=(.)\s*", lines[skipped], re.IGNORECASE)
  separator = declared[1] if declared else _separator(lines[skipped], known)
  records = _records(path, text, separator)
  header_line, header = next(records)
  if declared:
    header_line, header = next(records, (header_line, []))
  columns = [column_name(c) for c in header]
  while columns and not columns[-1]:
    columns.pop()
  _check_columns(path, header_line, columns, required, separator, remedy)
  rows = []
  for line, cells in records:
    cells = [_clean(c) for c in cells]
    if len(cells) < len(columns) or any(cells[len(columns):]):
      raise UserError(f"{path} line {line} has {len(cells)} cells, the header has {len(columns)}: "
                      f"quote cells that hold a {_SEPARATORS.get(separator, 'separator')}, and leave "
                      "none out")
    rows.append(Row({c: v for c, v in zip(columns, cells) if c}, path, line))
  if not rows:
    raise UserError(f"{path} lists nothing: there is no row below the column names")
  return Table(path, tuple(c for c in columns if c), rows)


def read_list(path) -> list[str]:
  """Names of a list, one a line, without header; `<path>.gz` where `path` is missing.

  Raises:
    FileNotFoundError: neither is there. UserError: it cannot be read, or lists a name twice.
  """
  path = pathlib.Path(path)
  packed = path.with_name(path.name + ".gz")
  if not path.is_file() and packed.is_file():
    path = packed
  seen: dict[str, int] = {}
  for line, text in enumerate(re.split("\r\n|\r|\n", read_text(path)), 1):
    name = _clean(text)
    if name in seen:
      raise UserError(f"{path} line {line}: {name!r} is listed twice, first in line {seen[name]}")
    if name:
      seen[name] = line
  return list(seen)


def read_rows(path) -> list[tuple[int, list[str]]]:
  """(line, cells) of a comma-separated table without header; rows that are wholly empty are left out.

  Raises:
    FileNotFoundError, UserError: as `read_text`; a quote that stays open.
  """
  return [(line, [_clean(c) for c in cells]) for line, cells in _records(path, read_text(path), ",")]


def read_text(path) -> str:
  """The text of a file that a person made; line ends are as they are, the byte order mark is gone.

  Raises:
    FileNotFoundError: no such file. UserError: no text in a known encoding, with the line.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"{path} does not exist, or is no file")
  data = _bytes(path)
  for start, kind in _BINARY:
    if data.startswith(start):
      raise UserError(f"{path} is {kind}, not a text: export it as CSV")
  if other := foreign.in_place(data[:64]):
    raise UserError(f"{path} is no table{other}")
  encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "") or _unmarked(data)
  try:
    text = data.decode(encoding)
  except UnicodeError as e:
    start = getattr(e, "start", 0)
    line = data[:start].count(b"\n") + 1
    raise UserError(f"{path} line {line} is not {encoding.removesuffix('-sig').upper()} (byte "
                    f"{data[start:start + 1].hex() or 'missing'}): save the table as UTF-8") from None
  if "\0" in text:
    line = text[:text.index("\0")].count("\n") + 1
    raise UserError(f"{path} line {line} holds a NUL byte: the file is damaged, or is no text")
  return text


def _bytes(path):
  try:
    size = path.stat().st_size
    if size > LIMIT:
      raise UserError(f"{path} has {size} bytes: a table has at most {LIMIT}")
    if path.suffix.lower() != ".gz":
      return path.read_bytes()
    with gzip.open(path, "rb") as f:
      data = f.read(LIMIT + 1)
  except (EOFError, zlib.error, gzip.BadGzipFile) as e:
    raise UserError(f"{path} is a damaged gzip file ({e})") from None
  except OSError as e:
    raise UserError(f"{path} cannot be read ({e.strerror or e})") from None
  if len(data) > LIMIT:
    raise UserError(f"{path} unpacks to more than {LIMIT} bytes: it is no table")
  return data


def _unmarked(data):
  """Encoding of a text without byte order mark: every second byte of UTF-16 is NUL for plain letters."""
  head = data[:2000]
  if len(head) > 3 and not len(data) % 2:
    if not any(head[::2]) or head[1::2].count(0) > 0.8 * len(head[1::2]):
      return "utf-16-be" if not any(head[::2]) else "utf-16-le"
    if head[::2].count(0) > 0.8 * len(head[::2]):
      return "utf-16-be"
  return "utf-8"


def _clean(text):
  """Without blanks, byte order marks and zero-width characters around it."""
  return text.strip(" \t\r\n\f\v\xa0\ufeff\u200b\u200c\u200d\u2060\u2007\u202f\u3000").strip()


def _separator(header, known):
  """The one that cuts the header into most known columns, then into most columns."""
  def quality(separator):
    try:
      names = {column_name(c) for c in next(csv.reader([header], delimiter=separator), [])}
    except csv.Error:
      return 0, 0
    return len(names & known), len(names)
  return max(_SEPARATORS, key=quality)


def _records(path, text, separator):
  """(line number, cells) of the records that are not wholly empty; the first is the header."""
  # Blanks between a quoted cell and the separators are no part of it.
  mark, blank = re.escape(separator), " " if separator == "\t" else " \t"
  if '"' in text:
    text = re.sub(rf'(\A|[{mark}\r\n])[{blank}]*("(?:[^"]|"")*")[{blank}]*(?=[{mark}\r\n]|\Z)', r"\1\2", text)
  reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True,
                      skipinitialspace=separator != "\t")
  while True:
    line = reader.line_num + 1
    try:
      cells = next(reader)
    except StopIteration:
      return
    except csv.Error as e:
      raise UserError(f"{path} line {line}: {e}; see to the quotes of this line") from None
    if any(len(c) > _CELL for c in cells):
      raise UserError(f"{path} line {line} has a cell of more than {_CELL} characters: is a quote open?")
    if any(_clean(c) for c in cells):
      yield line, cells


def _check_columns(path, line, columns: Sequence[str], required, separator, remedy):
  shown = ", ".join(c or "(empty)" for c in columns) or "none"
  twice = sorted({c for c in columns if c and columns.count(c) > 1})
  if twice:
    raise UserError(f"{path} line {line} names the column {twice[0]!r} twice")
  missing = [c for c in required if column_name(c) not in columns]
  if missing:
    lacking, mark = ", ".join(map(repr, missing)), _SEPARATORS.get(separator, repr(separator))
    raise UserError(f"{path} has no column {lacking}; its columns are {shown} (separated by {mark})"
                    f"{remedy and '. ' + remedy}")
