"""Every reader of a user's table or folders x every rule of the door: none is missing."""

import dataclasses
import pathlib
import random

import pytest

from data_pipelines.errors import UserError
from tests import small_sets
from tests.small_sets import FOLDERS, TABLES, UNSPLIT, Picture, write_table

PICTURES = [Picture(f"p{i:02d}ä", ("train", "val", "test")[(i > 5) + (i > 8)], f"g{i}",
                    "pneumonia" if i > 5 and i % 2 else "normal") for i in range(12)]
EXPECTED = {s: sorted(p.name for p in PICTURES if p.split == s) for s in ("train", "val", "test")}


def column(cells, name):
  return cells[0].index(name)


def words(cells):
  """Capitals, blanks and other words for the same splits and sides."""
  said = {"train": ("Train", " TRAINING"), "val": ("valid", "Validation "), "test": ("TEST", "testing"),
          "normal": ("Normal ", "HEALTHY"), "pneumonia": ("Pneumonia", "abnormal")}
  for name in {"split", "label"} & set(cells[0]):
    for k, row in enumerate(cells[1:]):
      row[column(cells, name)] = said[row[column(cells, name)]][k % 2]


def each(function):
  def change(cells):
    for row in cells:
      row[:] = [function(c) for c in row]
  return change


def shuffle_columns(cells):
  for row in cells:
    row[:] = ["note"[:len(row[0])], *row[::-1]]


ACCEPTED = {
    "plain": {}, "bom": {"encoding": "utf-8-sig"}, "utf-16": {"encoding": "utf-16"},
    "utf-16 without mark": {"encoding": "utf-16-le"}, "utf-32": {"encoding": "utf-32"},
    "crlf": {"end": "\r\n"}, "cr": {"end": "\r"}, "semicolon": {"separator": ";"}, "tab": {"separator": "\t"},
    "bar": {"separator": "|"}, "blanks": {"separator": " ,  "}, "blanks, semicolon": {"separator": " ; "},
    "quoted": {"change": each(lambda c: f'"{c}"')}, "quoted, blanks": {"change": each(lambda c: f' "{c} " ')},
    "capitals": {"change": lambda cells: cells.__setitem__(0, [c.upper() for c in cells[0]])},
    "words": {"change": words}, "empty lines": {"end": "\n\n ,,\n"},
    "more columns": {"change": shuffle_columns},
    "spreadsheet": {"separator": ";", "encoding": "utf-8-sig", "end": ";;\r\n", "change": words},
    "backslashes": {"change": each(lambda c: c.replace("/", "\\"))}}


@pytest.mark.parametrize("rule", ACCEPTED)
@pytest.mark.parametrize("reader", TABLES)
def test_tables_are_read_alike(tmp_path, reader, rule):
  small = TABLES[reader]
  write_table(small, tmp_path, PICTURES, **ACCEPTED[rule])
  expected = EXPECTED if small.splits else {"train": sorted(p.name for p in PICTURES), "val": [], "test": []}
  assert small.read(tmp_path) == expected


def put(line, name, text):
  """Writes `text` into a column of a line of the file (the header is line 1)."""
  def change(cells):
    cells[line - 1][column(cells, name)] = text
  return change


KEY = {"segmentation": "image", "brats": "patient", "predict": "patient"}  # else "file"


def first(reader):
  return KEY.get(reader, "file")


REFUSED = {  # rule -> (reader -> options of write_table, message)
    "empty": (lambda r: {"change": list.clear}, "is empty"),
    "header alone": (lambda r: {"change": lambda c: c.__delitem__(slice(1, None))}, "lists nothing"),
    "latin-1": (lambda r: {"encoding": "latin-1"}, "line 2 is not UTF-8"),
    "NUL": (lambda r: {"change": put(3, first(r), "a\0b")}, "line 3 holds a NUL byte"),
    "short row": (lambda r: {"change": lambda c: c[4].pop()}, "line 5 has . cells, the header has"),
    "long row": (lambda r: {"change": lambda c: c[4].append("x")}, "line 5 has . cells, the header has"),
    "column twice": (lambda r: {"change": lambda c: [row.append(row[0]) for row in c]},
                     "line 1 names the column .* twice"),
    "no column": (lambda r: {"change": put(1, first(r), "what")}, "has no column .*; its columns are .*what"),
    "row twice": (lambda r: {"change": lambda c: c.append(list(c[2]))},
                  "line 14: .* is listed twice, first in line 3"),
    "empty name": (lambda r: {"change": put(3, first(r), "")}, "line 3: column .* is empty"),
    "huge cell": (lambda r: {"change": put(3, first(r), "x" * 200_000)}, "line 3"),
    "open quote": (lambda r: {"change": put(3, first(r), '"x')}, "line 3"),
    "workbook": (lambda r: {"change": put(1, first(r), "x"), "binary": b"PK\3\4"}, "workbook"),
}
OF_SPLITS = {
    "unknown split": (lambda r: {"change": put(3, "split", "trian")},
                      "line 3: split 'trian' is not a word that is known; use train"),
    "no split": (lambda r: {"change": put(4, "split", " ")}, "line 4: split '' is not a word that is known"),
    "train and val": (lambda r: {"change": put(8, "group", " G0")}, "g0 in train and val"),
    "train and test": (lambda r: {"change": put(11, "group", "g1")}, "g1 in train and test"),
    "val and test": (lambda r: {"change": put(11, "group", "g6")}, "g6 in val and test"),
    "all three": (lambda r: {"change": lambda c: [put(n, "group", "Q")(c) for n in (2, 8, 11)]},
                  "Q in train, val and test"),
}
OF_LABELS = {
    "unknown label": (lambda r: {"change": put(3, "label", "nromal")}, "line 3: label 'nromal' is not a"),
    "no label": (lambda r: {"change": put(3, "label", "")}, "line 3: label '' is not a word"),
}
CASES = [(reader, rule, *found[rule]) for reader, small in TABLES.items()
         for found, holds in ((REFUSED, True), (OF_SPLITS, small.splits), (OF_LABELS, small.labels)) if holds
         for rule in found]


@pytest.mark.parametrize("reader, rule, options, message", CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_tables_are_refused_alike(tmp_path, reader, rule, options, message):
  options = options(reader)
  binary = options.pop("binary", b"")
  path = write_table(TABLES[reader], tmp_path, PICTURES, **options)
  path.write_bytes(binary + path.read_bytes() if rule != "empty" else b"")
  with pytest.raises(UserError, match=message) as caught:
    TABLES[reader].read(tmp_path)
  assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_unused_rows_are_in_no_split(tmp_path):
  for reader, small in TABLES.items():
    if small.splits:
      write_table(small, tmp_path / reader, PICTURES, change=put(2, "split", "Unused"))
      assert small.read(tmp_path / reader)["train"] == EXPECTED["train"][1:], reader


@pytest.mark.parametrize("reader", ["segmentation", "nih", "camelyon"])
def test_images_that_a_table_does_not_list_are_counted(tmp_path, caplog, reader):
  write_table(TABLES[reader], tmp_path, PICTURES)
  TABLES[reader].read(tmp_path)
  assert "does not list" not in caplog.text
  small_sets.save(tmp_path / "i" / "extra.png")
  assert TABLES[reader].read(tmp_path) == EXPECTED
  assert f"does not list 1 images below {tmp_path}, the first i/extra.png" in caplog.text


def test_whatever_is_typed_into_a_table_is_read_or_one_line(tmp_path):
  """Random edits of cells and rows: an answer or one line that names the table or a file, nothing else."""
  rng = random.Random(0)
  typed = ["Train", "..", "../../evil", "a" * 300, "%s", "{}", "*", "\u202e", "=1+1", "nan", "-1",
           "C:\\x\\y.png", "", "p00ä", "g1", '"', "normal"]

  def edit(cells):
    for _ in range(rng.randint(1, 3)):
      row = cells[rng.randrange(len(cells))]
      place = rng.randrange(max(len(row), 1))
      row[place:place + rng.randint(0, 2)] = rng.sample(typed, rng.randint(0, 2))
  outcomes = {"read": 0, "refused": 0}
  for reader, small in TABLES.items():
    small.write(tmp_path / reader, PICTURES)
    still = dataclasses.replace(small, write=lambda root, pictures: None)
    for _ in range(60):
      write_table(still, tmp_path / reader, PICTURES, change=edit)
      try:
        still.read(tmp_path / reader)
        outcomes["read"] += 1
      except (UserError, OSError) as error:
        outcomes["refused"] += 1
        assert "\n" not in str(error) and str(tmp_path) in str(error)
  assert outcomes["read"] > 10 and outcomes["refused"] > 100


# ------------------------------------------------------------------------------- patients and splits
def by_names(style):
  """Twelve pictures of four patients, of whom the first is in train and in test."""
  person = [0, 0, 1, 1, 2, 2, 3, 3, 3, 0, 4, 4]
  return [Picture(style.format(p=p, i=i), ("train", "val", "test")[(i > 5) + (i > 8)],
                  label="anomaly" if i > 5 and i % 2 else "normal") for i, p in enumerate(person)]


STYLES = {"folder": "P{p}/{i}", "folder of folders": "P{p}/visit {i}/1", "name": "P{p}_{i}",
          "hyphens": "IM-00{p}-{i}", "initials": ("{p}" "x_{i}"), "bids": "s{i}/sub-0{p}/a",
          "capitals": "p{p}/{i}"}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("reader", FOLDERS)
def test_a_patient_in_two_given_folders_is_refused(tmp_path, reader, style):
  pictures = by_names(STYLES[style])
  FOLDERS[reader].write(tmp_path, pictures)
  with pytest.raises(UserError, match="1 patient is on two sides of the split: .*0.* in train and test"):
    FOLDERS[reader].read(tmp_path)
  assert FOLDERS[reader].read(tmp_path, grouping="file")["test"]
  legacy = FOLDERS[reader].read(tmp_path, grouping="legacy")
  assert legacy == FOLDERS[reader].read(tmp_path, grouping="file")
  assert FOLDERS[reader].read(tmp_path, group_pattern=r"^(.*/.*)$")  # as the user says: each its own


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("reader", [r for r in TABLES if TABLES[r].splits and r != "brats"])
def test_a_patient_in_two_splits_of_a_table_without_groups_is_refused(tmp_path, reader, style):
  write_table(TABLES[reader], tmp_path, by_names(STYLES[style]))
  with pytest.raises(UserError, match="1 patient is on two sides of the split: .*0.* in train and test"):
    TABLES[reader].read(tmp_path)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("reader", UNSPLIT)
def test_a_split_made_here_never_cuts_a_patient(tmp_path, reader, style):
  person = {STYLES[style].format(p=p, i=i): p for p in range(6) for i in range(3)}
  UNSPLIT[reader].write(tmp_path, [Picture(name) for name in person])
  found = UNSPLIT[reader].read(tmp_path, val_share=0.2, test_share=0.2)
  assert {s: len(names) for s, names in found.items()} == {"train": 6, "val": 6, "test": 6}
  assert all(len({person[n] for n in names}) == 2 for names in found.values())


@pytest.mark.parametrize("names", [
    ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001"), ("sub-01_ses-1", "sub-01_ses-2"),
    ("P3_visit1", "p3_visit2"), ("A7-tp1", "A7-tp2"), ("P01_s1", "P01_s2"), ("X_baseline", "X_followup")])
def test_two_scans_of_one_person_are_not_divided(tmp_path, names):
  pictures = [Picture(names[0]), Picture("other1", "val"), Picture(names[1], "test")]
  write_table(TABLES["brats"], tmp_path, pictures)
  with pytest.raises(UserError, match="in train and test"):
    TABLES["brats"].read(tmp_path)
  assert TABLES["brats"].read(tmp_path, grouping="legacy")["test"] == [names[1]]
  many = [Picture(f"n{i:02d}") for i in range(30)]
  write_table(TABLES["brats"], tmp_path, [*pictures, *many],
              change=lambda cells: [row.__delitem__(1) for row in cells])
  found = TABLES["brats"].read(tmp_path)
  assert sum(names[0] in side and names[1] in side for side in found.values()) == 1


def test_words_of_folders(tmp_path):
  """The layout of public sets: train/NORMAL, test/PNEUMONIA; a folder that is no split is named."""
  for name in ("train/NORMAL/a1", "Test/Normal/b1", "Test/PNEUMONIA/c1", "valid/normal/d1"):
    small_sets.save(tmp_path / f"{name}.png")
  (tmp_path / "docs").mkdir()
  assert FOLDERS["nih"].read(tmp_path) == {"train": ["train/NORMAL/a1"], "val": ["valid/normal/d1"],
                                           "test": ["Test/Normal/b1", "Test/PNEUMONIA/c1"]}
  small_sets.save(tmp_path / "vaild" / "normal" / "e1.png")
  with pytest.raises(UserError, match="vaild: split 'vaild' is not a word that is known"):
    FOLDERS["nih"].read(tmp_path)


# --------------------------------------------------------------------------------------- completeness
def test_no_reader_is_missing():
  root = pathlib.Path(small_sets.__file__).parents[1] / "data_pipelines"
  sets = {p.stem for p in (root / "datasets").glob("*.py") if not p.stem.startswith("_")}
  missing = sets - set(TABLES) - small_sets.NO_TABLE
  assert not missing, f"{missing}: add them to tests/small_sets.py, by table and by folder"


def test_one_module_alone_reads_tables():
  """No csv, no lines of text files but in the door."""
  root = pathlib.Path(small_sets.__file__).parents[1] / "data_pipelines"
  bad = [p.relative_to(root).as_posix() for p in root.rglob("*.py") if p.name not in ("tables.py", "nifti.py")
         and any(w in p.read_text() for w in ("csv.reader", "csv.DictReader", "import gzip", "genfromtxt"))]
  assert not bad
