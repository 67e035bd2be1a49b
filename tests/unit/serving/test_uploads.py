"""Files of a request in a folder: names that collide, limits of a .zip, what is no file of the user."""

import io
import zipfile

import pytest

from medae_jax.serving import uploads
from medae_jax.serving.problems import Problem

DICOM = bytes(128) + b"DICM"


def save(folder, *files, most=10_000):
  saved = uploads.save([(n, io.BytesIO(c)) for n, c in files], folder, most)
  return [(p.name, p.read_bytes()) for p in saved]


def packed(*files):
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w") as out:
    for name, content in files:
      out.writestr(name, content)
  return data.getvalue()


@pytest.mark.parametrize("names, saved", [
    (["a/x", "b/x", "c/X"], ["x", "1_x", "2_X"]),
    (["2_x", "a/x", "b/x"], ["2_x", "x", "3_x"]),  # a name that a number made before
    (["a/x", "2_X", "b/X"], ["x", "2_X", "3_X"]),
    (["a/x", "1_x", "b/x", "c/1_x"], ["x", "1_x", "2_x", "3_1_x"])])
def test_dicom_files_of_one_name_are_all_kept(tmp_path, names, saved):
  found = save(tmp_path, *((n, DICOM + bytes([i])) for i, n in enumerate(names)))
  assert found == [(n, DICOM + bytes([i])) for i, n in enumerate(saved)]


@pytest.mark.parametrize("content", [b"1", bytes(128) + b"DICX", bytes(200)])
def test_other_files_of_one_name_are_refused(tmp_path, content):
  with pytest.raises(Problem, match="two files are called a.png") as error:
    save(tmp_path, ("x/a.png", content), ("y/a.png", content))
  assert error.value.status == 400


def test_a_zip_is_measured_by_all_it_holds(tmp_path, monkeypatch):
  (tmp_path / "again").mkdir()
  three = packed(*((f"{i}.png", bytes(400)) for i in range(3)))
  assert len(save(tmp_path, ("a.ZIP", three), most=1200)) == 3
  for limit, files in ((1199, 5000), (1200, 2)):
    monkeypatch.setattr(uploads, "MOST_FILES", files)
    with pytest.raises(Problem, match="holds 3 files") as error:
      save(tmp_path, ("a.zip", three), most=limit)
    assert error.value.status == 413
  monkeypatch.setattr(uploads, "MOST_FILES", 3)
  assert len(save(tmp_path / "again", ("a.zip", three))) == 3


def test_a_zip_with_a_password_is_said_to_be_no_use(tmp_path):
  data = bytearray(packed(("a.png", b"1")))
  for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flag of encryption, at both places
    data[data.index(mark) + place] |= 1
  with pytest.raises(Problem, match="a.zip cannot be unpacked .*encrypted.*: send its files") as error:
    save(tmp_path, ("a.zip", bytes(data)))
  assert error.value.status == 422


def test_a_series_of_thousands_is_taken():
  assert uploads.MOST_FILES >= 5000


def test_files_of_a_system_are_left_out_and_dots_of_a_path_are_none(tmp_path):
  found = save(tmp_path, ("a.zip", packed(("./b/c.png", b"1"), ("__MACOSX/._c.png", b"2"), (".git/x", b"3"))))
  assert found == [("c.png", b"1")]


@pytest.mark.parametrize("name", ["\u0000a.png", "a\u202eb.png", "\u00e4" * 101, " ", ".."])
def test_names_that_no_file_system_takes_are_refused(name):
  with pytest.raises(Problem, match="is no name of a file"):
    uploads.plain_name(name)
  assert uploads.plain_name("\u00e4" * 100) == "\u00e4" * 100  # bytes count, not characters


def test_folders_of_a_zip_are_no_files_and_nothing_is_written_over(tmp_path):
  assert save(tmp_path, ("a.zip", packed(("b/", b""), ("b/c.png", b"1")))) == [("c.png", b"1")]
  with pytest.raises(FileExistsError):
    save(tmp_path, ("c.png", b"2"))
  assert (tmp_path / "c.png").read_bytes() == b"1"
  assert uploads.plain_name("C:\\scans\\a.png") == uploads.plain_name("/scans/a.png") == "a.png"


def test_a_member_whose_packed_bytes_are_damaged_is_said(tmp_path):
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as out:
    out.writestr("a.png", bytes(range(256)) * 8)
  damaged = bytearray(data.getvalue())
  damaged[35] = 0xff  # of the stream itself, whose kind of block then is none
  with pytest.raises(Problem, match="a.png is damaged in its .zip .*block type"):
    save(tmp_path, ("a.zip", bytes(damaged)))


def test_a_zip_is_as_large_as_its_files_will_be(tmp_path):
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as out:
    out.writestr("a.png", bytes(2**20))
  with pytest.raises(Problem, match="a.zip holds 1 files of 1 MiB: at most") as error:
    save(tmp_path, ("a.zip", data.getvalue()))
  assert error.value.status == 413 and len(data.getvalue()) < 10_000 and not list(tmp_path.iterdir())
