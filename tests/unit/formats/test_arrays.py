"""NumPy files of users: damage, claims and bombs are one line; pixels that are no numbers, in every form."""

import contextlib
import os
import zipfile

import ml_collections
import numpy as np
from PIL import Image
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import arrays, frame, images
from data_pipelines.modules import Module
from tests import dicom_series_files


def test_arrays_are_read(tmp_path):
  want = np.arange(12).reshape(3, 4)
  np.save(tmp_path / "a.npy", want)
  np.testing.assert_array_equal(arrays.read(tmp_path / "a.npy"), want)
  np.savez_compressed(tmp_path / "b.npz", **{"0/x": want, "y": want + 1})
  assert arrays.names_of(tmp_path / "b.npz") == ["0/x", "y"]
  found = arrays.read_some(tmp_path / "b.npz", ["0/x", "y"])
  np.testing.assert_array_equal(found["0/x"], want)
  for version in ((1, 0), (2, 0), (3, 0)):  # 3: names of fields that are no Latin
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive, archive.open("x.npy", "w") as member:
      np.lib.format.write_array(member, want, version)
    np.testing.assert_array_equal(arrays.read_some(tmp_path / "c.npz", ["x"])["x"], want)


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


@pytest.mark.parametrize("shape, kind", [((4, 5), np.uint8), ((4, 5, 1), np.uint8), ((4, 5, 3), np.uint8),
                                         ((4, 5), np.uint16), ((4, 5), np.float32), ((1, 1, 1), np.uint8)])
def test_a_picture_that_is_written_has_all_its_channels(tmp_path, shape, kind):
  want = (np.random.default_rng(3).random(shape) * 250).astype(kind)
  path = tmp_path / ("a.tif" if kind == np.float32 else "a.png")
  images.write_array(path, want)
  found = np.asarray(Image.open(path))
  assert found.dtype == (np.uint8 if kind == np.uint8 else kind)
  np.testing.assert_array_equal(found.reshape(shape), want)
  assert found.ndim == (3 if shape[2:] == (3,) else 2)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32])
def test_values_beyond_what_a_file_can_store_end_at_its_own_limits(kind):
  """Never wrapped, and not at the limits of another type."""
  info = np.iinfo(kind)
  pixels = np.zeros((1, 1, 2, 1), kind)
  wide = frame.Frame("a", pixels, low=2.0 * info.min - 10, high=2.0 * info.max + 10)
  assert wide.stored(np.array([0.0, 1.0])).tolist() == [info.min, info.max]
  own = frame.Frame("a", pixels, low=2.0 * info.min - 10, high=2.0 * info.max + 10, least=3, most=77)
  assert own.stored(np.array([-1.0, 2.0])).tolist() == [3, 77]


@pytest.mark.parametrize("name", ["IM0001", "a.dcm", "a.DCM"])
def test_a_file_is_dicom_by_what_is_in_it(tmp_path, name):
  """Scanners write DICOM without an ending; units are those of the header, whatever it is called."""
  stored = np.arange(12, dtype=np.uint16).reshape(3, 4, 1)
  path = dicom_series_files.write(tmp_path / "s", stored, np.eye(4), slope=2.0, intercept=0.0)[0]
  path = path.rename(tmp_path / name)
  want = np.round(stored[..., 0].T / 2) * 2  # axes of NIfTI
  np.testing.assert_array_equal(images.read_values(path)[..., 0], want)


@pytest.mark.parametrize("asked, size", [((0, 0, 1), (3, 5)), ((6, 0, 1), (6, 5)), ((0, 7, 3), (3, 7))])
def test_a_side_that_a_network_leaves_open_is_that_of_the_file(tmp_path, asked, size):
  images.write_array(tmp_path / "a.png", np.arange(15, dtype=np.uint8).reshape(3, 5))
  found = Module("theirs", object()).read_example(tmp_path / "a.png", ml_collections.ConfigDict(), asked)
  assert found.shape == (*size, asked[2])


@pytest.mark.parametrize("sides, read", [((4, 3), True), ((8, 3), False), ((4, 6), False)])
def test_a_picture_whose_whole_matrix_is_larger_is_a_tile_of_it(tmp_path, sides, read):
  """Rows against rows: where both are the picture's own, it is no tile."""
  fields = {"TotalPixelMatrixRows": sides[0], "TotalPixelMatrixColumns": sides[1]}
  path = dicom_series_files.write(tmp_path / "s", np.ones((3, 4, 1)), np.eye(4), **fields)[0]
  with contextlib.nullcontext() if read else pytest.raises(UserError, match="is a tile store of a whole"):
    assert images.read_values(path).shape == (4, 3, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_single_pixel_that_is_no_number_is_refused_in_units_too(tmp_path, bad):
  values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
  Image.fromarray(values).save(tmp_path / "a.tif")
  np.testing.assert_array_equal(images.read_values(tmp_path / "a.tif")[..., 0], values)
  values[3, 4] = bad
  Image.fromarray(values).save(tmp_path / "b.tif")
  with pytest.raises(UserError, match="b.tif holds NaN or infinite pixels"):
    images.read_values(tmp_path / "b.tif")
