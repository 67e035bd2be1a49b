"""The one reader of tables: what spreadsheets write is read alike, what is damaged is refused by line."""

import codecs
import gzip
import pathlib
import re

import pytest

from data_pipelines.errors import UserError
from data_pipelines.intake import tables, vocabulary

TEXT = "image,mask,split\na b.png,m/ä.png,Train\nc.png,d.png,test\n"
CELLS = [{"image": "a b.png", "mask": "m/ä.png", "split": "Train"},
         {"image": "c.png", "mask": "d.png", "split": "test"}]
READ = {
    "plain": TEXT.encode(),
    "bom": TEXT.encode("utf-8-sig"),
    "crlf": TEXT.replace("\n", "\r\n").encode(),
    "cr": TEXT.replace("\n", "\r").encode(),
    "no last line end": TEXT.strip().encode(),
    "utf16": TEXT.encode("utf-16"),
    "utf16 big end": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "utf16 without mark": TEXT.replace("ä", "a").encode("utf-16-le"),
    "utf16 big end without mark": TEXT.encode("utf-16-be"),
    "utf32": TEXT.encode("utf-32"),
    "semicolon": TEXT.replace(",", ";").encode(),
    "tab": TEXT.replace(",", "\t").encode(),
    "bar": TEXT.replace(",", "|").encode(),
    "excel's sep": ("sep=;\r\n" + TEXT.replace(",", ";").replace("\n", "\r\n")).encode(),
    "blanks": TEXT.replace(",", " , ").replace("\n", " \n ").encode(),
    "non-breaking blanks": TEXT.replace(",", "\xa0,\u200b").encode(),
    "capitals": TEXT.replace("image,mask", "Image,MASK").encode(),
    "quoted": ("\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in
                         TEXT.strip().split("\n"))).encode(),
    "quoted, blanks outside": ("\n".join(" , ".join(f'"{c}"' for c in line.split(",")) + "  " for line in
                                        TEXT.strip().split("\n"))).encode(),
    "empty lines": ("\n\n" + TEXT.replace("\n", "\n\n ,, \n")).encode(),
    "trailing separators": TEXT.replace("\n", ",,\n").encode(),
    "trailing separators of rows": TEXT.replace("Train", "Train,,").encode(),
    "trailing separators of columns": TEXT.replace("split", "split,,").encode(),
    "a column with commas": ("image;mask;split;a,b,c,d,e\na b.png;m/ä.png;Train;1\n"
                             "c.png;d.png;test;\n").encode(),
    "tab, quoted after an empty cell": ("note\timage\tmask\tsplit\n\t\"a b.png\"\tm/ä.png\tTrain\n"
                                        "\tc.png\t\"d.png\"\ttest\n").encode(),
    "another column": "note;image;mask;split\nx,y;a b.png;m/ä.png;Train\n;c.png;d.png;test\n".encode(),
}
REFUSED = {
    "empty": (b"", "is empty"),
    "blank": (b" \r\n\n\t\n", "is empty"),
    "header only": (b"image,mask,split\n", "lists nothing"),
    "bom only": (codecs.BOM_UTF8, "is empty"),
    "latin-1": (TEXT.encode("latin-1"), r"line 2 is not UTF-8 \(byte e4\)"),
    "cut utf-16": (TEXT.encode("utf-16")[:-1], "is not UTF-16"),
    "NUL": (TEXT.encode().replace(b"c.png", b"c\0.png"), "line 3 holds a NUL byte"),
    "short row": (TEXT.encode().replace(b",test", b""), "line 3 has 2 cells, the header has 3"),
    "long row": (TEXT.encode().replace(b"test", b"test,x"), "line 3 has 4 cells, the header has 3"),
    "column twice": (b"image,mask,split, Image\na,b,c,d\n", "names the column 'image' twice"),
    "no column": (b"image,truth,split\na,b,c\n", "no column 'mask'; .* image, truth, split"),
    "one column": (b"image\na\n", "no column 'mask', 'split'"),
    "open quote": (b'image,mask,split\n"a,b,train\nc,d,test\n', "line 2: unexpected end of data"),
    "text after a quote": (b'image,mask,split\n"a"b,c,train\n', "line 2: "),
    "huge cell": (b"image,mask,split\n" + b"a" * 200_000 + b",b,train\n", "line 2"),
    "large cell": (b"image,mask,split\n" + b"a" * 70_000 + b",b,train\n",
                   "line 2 has a cell of more than 65536"),
    "workbook": (b"PK\3\4" + bytes(30), "workbook"),
    "a note of Git LFS": (b"version https://git-lfs.github.com/spec/v1\nsize 5", "run git lfs pull"),
    "a web page": (b"<!DOCTYPE html>", "is no table .it is a web page"),
    "old workbook": (b"\xd0\xcf\x11\xe0" + bytes(30), "workbook"),
    "space-separated": (b"image mask split\na b train\n", "no column"),
    "line break in a cell": (b'image,mask,split\n"a\nb",c,train\nd,e\n', "line 4 has 2 cells"),
}


@pytest.mark.parametrize("name", READ)
def test_what_spreadsheets_write_is_read_alike(tmp_path, name):
  (tmp_path / "t.csv").write_bytes(READ[name])
  table = tables.read_table(tmp_path / "t.csv", ("image", "mask", "split"), ("group",))
  expected = CELLS
  if name == "utf16 without mark":
    expected = [{**CELLS[0], "mask": "m/a.png"}, CELLS[1]]
  assert [{k: r[k] for k in ("image", "mask", "split")} for r in table.rows] == expected


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_damaged_is_one_line_with_file_and_line(tmp_path, name):
  content, message = REFUSED[name]
  (tmp_path / "t.csv").write_bytes(content)
  with pytest.raises(UserError, match=message) as caught:
    tables.read_table(tmp_path / "t.csv", ("image", "mask", "split"))
  assert "\n" not in str(caught.value) and "t.csv" in str(caught.value)


def test_lines_are_those_of_the_file(tmp_path):
  (tmp_path / "t.csv").write_text('file,split\n\n"a\nb",train\n\nc,val\n')
  rows = tables.read_table(tmp_path / "t.csv", ("file",)).rows
  assert [r.line for r in rows] == [3, 6] and rows[1].where.endswith("t.csv line 6")


def test_what_is_no_file(tmp_path):
  for path in (tmp_path, tmp_path / "none.csv"):
    with pytest.raises(FileNotFoundError, match="is no file"):
      tables.read_table(path)


def test_a_name_twice_is_named_with_both_lines(tmp_path):
  (tmp_path / "t.csv").write_text("file,split\nA.png,train\nb.png,train\na.png ,test\n")
  table = tables.read_table(tmp_path / "t.csv", ("file",))
  with pytest.raises(UserError, match="line 4: file 'a.png' is listed twice, first in line 2"):
    table.unique("file")
  table.unique("file", file=True)  # two files, where capitals count
  (tmp_path / "t.csv").write_text("file,split\ni/a.png,train\n.\\i\\a.png ,test\n")
  with pytest.raises(UserError, match="line 3: file .* is listed twice, first in line 2"):
    tables.read_table(tmp_path / "t.csv", ("file",)).unique("file", file=True)
  (tmp_path / "t.csv").write_text(f"file,split\ni/a.png,train\n{tmp_path}/i/a.png,test\n")
  with pytest.raises(UserError, match="line 3: file .* is listed twice, first in line 2"):  # an absolute path
    tables.read_table(tmp_path / "t.csv", ("file",)).unique("file", file=True)
  (tmp_path / "t.csv").write_text("file,split\n,train\n")
  with pytest.raises(UserError, match="line 2: column 'file' is empty"):
    tables.read_table(tmp_path / "t.csv", ("file",)).unique("file")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_and_with_letters_beyond_latin(tmp_path, encoding):
  (tmp_path / "t.csv").write_bytes("file,split\nżółw.png,train\nb.png,test\n".encode(encoding))
  assert [r["file"] for r in tables.read_table(tmp_path / "t.csv", ("file",)).rows] == ["żółw.png", "b.png"]


def test_a_packed_list_that_is_too_large_is_not_cut_off(tmp_path, monkeypatch):
  with gzip.open(tmp_path / "l.gz", "wb") as f:
    f.write(b"0123456\n" * 12)
  monkeypatch.setattr(tables, "LIMIT", 95)
  with pytest.raises(UserError, match="unpacks to more than 95 bytes"):
    tables.read_list(tmp_path / "l")


def test_a_table_is_found_in_any_capitals_where_one_alone_comes_into_question(tmp_path):
  (tmp_path / "LABELS.csv").touch()
  assert tables.place(tmp_path, "labels.csv").name == "LABELS.csv"
  (tmp_path / "Labels.csv").touch()
  assert tables.place(tmp_path, "labels.csv").name == "labels.csv"
  assert tables.same("Straße  3") == tables.same("STRASSE 3 ") and tables.same("a b") != tables.same("ab")


def test_lists_with_and_without_gzip(tmp_path):
  with gzip.open(tmp_path / "train.gz", "wb") as f:
    f.write("\ufeffa.png \r\n\r\n \t\r\n b.png".encode())
  assert tables.read_list(tmp_path / "train") == ["a.png", "b.png"]
  (tmp_path / "twice").write_text("a.png\n\na.png\n")
  with pytest.raises(UserError, match="twice line 3: 'a.png' is listed twice, first in line 1"):
    tables.read_list(tmp_path / "twice")
  (tmp_path / "cut.gz").write_bytes((tmp_path / "train.gz").read_bytes()[:-6])
  with pytest.raises(UserError, match="damaged gzip"):
    tables.read_list(tmp_path / "cut")
  (tmp_path / "bad.gz").write_bytes(b"no gzip at all")
  with pytest.raises(UserError, match="damaged gzip"):
    tables.read_list(tmp_path / "bad")
  packed = bytearray((tmp_path / "train.gz").read_bytes())
  packed[packed.index(b"train") + 6] |= 0b110  # a block of the kind that does not exist: zlib's own error
  (tmp_path / "block.gz").write_bytes(packed)
  with pytest.raises(UserError, match="block.gz is a damaged gzip file"):
    tables.read_list(tmp_path / "block")


def test_a_folder_in_place_of_a_table_is_one_line(tmp_path):
  for name in ("labels.csv", "list.gz"):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name} cannot be read .Is a directory"):
      tables._bytes(tmp_path / name)


@pytest.mark.parametrize("text, split", [("Train", "train"), (" TRAINING ", "train"), ("valid", "val"),
                                         ("Validation", "val"), ("test\xa0", "test"), ("Testing", "test")])
def test_split_words(text, split):
  assert vocabulary.split_word(text, "t.csv line 2") == split


@pytest.mark.parametrize("text", ["", "trian", "tst", "trainval", "dev", "0", "train,", "unused"])
def test_unknown_split_words(text):
  with pytest.raises(UserError, match="t.csv line 2: split .* is not a word that is known; use train"):
    vocabulary.split_word(text, "t.csv line 2")


@pytest.mark.parametrize("text, label", [
    ("Normal", 0), ("normal ", 0), ("HEALTHY", 0), ("No Finding", 0), ("0", 0), ("Pneumonia", 1),
    ("TUMOUR", 1), ("anomaly", 1), ("1", 1)])
def test_label_words(text, label):
  assert vocabulary.label_word(text, "t.csv line 2") == label


@pytest.mark.parametrize("text", ["", "nromal", "norm", "not normal", "benign", "n", "?", "normal/abnormal"])
def test_unknown_label_words_are_never_anomalies(text):
  with pytest.raises(UserError, match="t.csv line 2: label .* is not a word that is known; use normal"):
    vocabulary.label_word(text, "t.csv line 2")


def test_the_documentation_lists_every_word():
  text = (pathlib.Path(__file__).parents[3] / "docs" / "tables.md").read_text().replace("\n", " ")
  words = {*vocabulary.SPLIT_WORDS, *vocabulary.NORMAL_WORDS, *vocabulary.ANOMALY_WORDS,
           *vocabulary.OTHER_LANGUAGES}
  assert not [w for w in words if not re.search(rf"[,;|:] {re.escape(w)} ?[,;|.]", text)]


def test_first_of_several_columns(tmp_path):
  (tmp_path / "t.csv").write_text("file,mask,site\na.png,m.png,x\n")
  table = tables.read_table(tmp_path / "t.csv", ("file",), ("mask", "seg", "site"))
  assert table.first("seg", "mask") == "mask" and table.first("site", "mask") == "site"
  assert table.first("seg", "group") == ""


def test_own_words_go_first():
  assert vocabulary.label_word("Benign", "x", normal=("benign",)) == 0
  assert vocabulary.label_word("grade 3", "x", anomaly=("Grade 3",)) == 1
  assert vocabulary.label_word("cyst", "x", normal=("cyst",)) == 0
  assert [vocabulary.label_word(w, "x") for w in ("0.0", "1.0", "1.")] == [0, 1, 1]
  assert vocabulary.label_word("1.0", "x", normal=("1.0",)) == 0


def test_a_table_is_found_in_any_capitals_and_a_folder_is_none(tmp_path):
  (tmp_path / "LABELS.CSV").mkdir()
  assert tables.place(tmp_path, "labels.csv") == tmp_path / "labels.csv"
  (tmp_path / "Labels.csv").touch()
  assert tables.place(tmp_path, "labels.csv") == tmp_path / "Labels.csv"
  (tmp_path / "LABELS.csv").touch()  # one of two is nobody's choice
  assert tables.place(tmp_path, "labels.csv") == tmp_path / "labels.csv"
