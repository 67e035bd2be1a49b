"""NumPy files of users: damage, claims and bombs are one line."""

import os
import zipfile

import numpy as np
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import arrays


def test_arrays_are_read(tmp_path):
  want = np.arange(12).reshape(3, 4)
  np.save(tmp_path / "a.npy", want)
  np.testing.assert_array_equal(arrays.read(tmp_path / "a.npy"), want)
  np.savez_compressed(tmp_path / "b.npz", **{"0/x": want, "y": want + 1})
  assert arrays.names_of(tmp_path / "b.npz") == ["0/x", "y"]
  found = arrays.read_some(tmp_path / "b.npz", ["0/x", "y"])
  np.testing.assert_array_equal(found["0/x"], want)


def test_bad_files_are_one_line(tmp_path, monkeypatch):
  np.savez_compressed(tmp_path / "whole.npz", x=np.random.default_rng(0).normal(size=999))
  np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(10**8, np.uint8))
  whole = (tmp_path / "whole.npz").read_bytes()
  bad = {"cut.npz": whole[:-40], "text.npz": b"x" * 99, "flip.npz": whole[:400] + b"???" + whole[403:]}
  np.save(tmp_path / "whole.npy", np.arange(99))
  bad["cut.npy"] = (tmp_path / "whole.npy").read_bytes()[:-8]
  bad["text.npy"] = b"no array"
  for name, content in bad.items():
    (tmp_path / name).write_bytes(content)
  np.save(tmp_path / "objects.npy", np.array([{}], object))
  with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive, archive.open("x.npy", "w") as member:
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False,
                                                  "shape": (10**13,)})
  os.mkfifo(tmp_path / "pipe.npy")
  for name in (*bad, "objects.npy", "claim.npz", "bomb.npz", "pipe.npy"):
    with pytest.raises(UserError) as error:
      if name.endswith(".npy"):
        arrays.read(tmp_path / name)
      else:
        arrays.read_some(tmp_path / name, ["x"])
    assert name in str(error.value) and "\n" not in str(error.value)
  with pytest.raises(UserError, match="lacks the array y"):
    arrays.read_some(tmp_path / "whole.npz", ["x", "y"])
  with pytest.raises(FileNotFoundError, match="gone"):
    arrays.read(tmp_path / "gone.npy")
