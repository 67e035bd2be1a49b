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


@pytest.mark.parametrize("number, words", [
    (errno.EACCES, "change its permissions"), (errno.ENOSPC, "make room there"),
    (errno.EROFS, "give another --workdir")])
def test_errors_of_the_system_come_with_what_to_do(number, words):
  line = line_of(OSError(number, os.strerror(number), "/runs/w"))
  assert line.startswith(f"/runs/w: {os.strerror(number)}; ") and words in line
  assert line_of(OSError(number, "what")).startswith("what; ")  # a write names no file
  assert line_of(OSError("the disk\n is full")) == "the disk is full" and line_of(OSError()) == "OSError"
  assert line_of(FileNotFoundError(errno.ENOENT, "No such file", "/x")) == "[Errno 2] No such file: '/x'"
