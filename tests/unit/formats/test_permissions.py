"""What may not be read or written is said in one line: what, where, what to do."""

import errno
import os

import pytest

from data_pipelines.errors import UserError, line_of
from data_pipelines.formats import regular


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
  path = tmp_path / "a.nii.gz"
  path.write_bytes(b"")
  regular.check_regular(path)
  asked = []
  monkeypatch.setattr(os, "access", lambda *a: asked.append(a) or False)  # root may read everything
  with pytest.raises(UserError, match="volume .*a.nii.gz may not be read: change its permissions"):
    regular.check_regular(path, "volume")
  assert asked == [(path, os.R_OK)]


@pytest.mark.parametrize("asked, there", [("K\u00f6rper.png", "Ko\u0308rper.png"), ("a.png", "A.PNG"),
                                          ("a  b.png", "a b.png")])
def test_a_name_that_looks_the_same_is_named(tmp_path, asked, there):
  (tmp_path / there).write_bytes(b"")
  with pytest.raises(FileNotFoundError, match="does not exist; .* is there, of other capitals") as e:
    regular.check_regular(tmp_path / asked)
  assert ascii(there) in str(e.value)
  (tmp_path / "z.png").write_bytes(b"")
  assert all(regular.nearly(tmp_path / n) == "; 'z.png' is there, of another ending" for n in ("z.jpg", "z"))
  assert not regular.nearly(tmp_path / "other.png") and not regular.nearly(tmp_path / "no" / "a.png")


@pytest.mark.parametrize("number, words", [
    (errno.EACCES, "change its permissions"), (errno.ENOSPC, "make room there"),
    (errno.EROFS, "give another --workdir"), (errno.ENOENT, "give another --workdir"),
    (errno.ENAMETOOLONG, "shorter")])
def test_errors_of_the_system_come_with_what_to_do(number, words):
  line = line_of(OSError(number, os.strerror(number), "/runs/w"))
  assert line.startswith(f"/runs/w: {os.strerror(number)}; ") and words in line
  assert line_of(OSError(number, "what")).startswith("what; ")  # a write names no file
  assert line_of(OSError("the disk\n is full")) == "the disk is full" and line_of(OSError()) == "OSError"
  assert line_of(FileNotFoundError("/x does not exist")) == "/x does not exist"
