"""Masks of files with 4 bits or fewer: their numbers count, not the greys that a viewer spreads them over."""

import zlib

import numpy as np
from PIL import Image
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import images as formats
from data_pipelines.masks import images
from tests.image_files import tiff


def png(path, rows, bits):
  """A grey PNG of 2 or 4 bits, which Pillow does not write; rows fill whole bytes."""
  single = np.unpackbits(np.uint8(rows)[..., None], axis=-1)[..., -bits:]
  packed = np.packbits(single.reshape(len(rows), -1), axis=-1)
  chunk = lambda kind, data: (len(data).to_bytes(4, "big") + kind + data
                              + zlib.crc32(kind + data).to_bytes(4, "big"))
  header = len(rows[0]).to_bytes(4, "big") + len(rows).to_bytes(4, "big") + bytes([bits, 0, 0, 0, 0])
  body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def pgm(path, rows, most, plain=False):
  head = f"P{2 if plain else 5}\n{len(rows[0])} {len(rows)}\n{most}\n".encode()
  flat = np.ravel(rows).tolist()
  path.write_bytes(head + (" ".join(map(str, flat)).encode() + b"\n" if plain else bytes(flat)))


def write(folder, form, rows):
  """The same numbers in a form of few levels."""
  path = folder / f"m.{form[:3]}"
  if form.startswith("png"):
    png(path, rows, int(form[3:]))
  elif form.startswith("pgm"):
    pgm(path, rows, int(form[3:].rstrip("t")), form.endswith("t"))
  else:
    tiff(path, np.uint8(rows), bits=int(form[3:]))
  return path


FORMS = ("png2", "png4", "pgm3", "pgm15", "pgm3t", "tif4")


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_number_one_is_a_lesion(tmp_path, form, soft):
  path = write(tmp_path, form, [[0, 1, 1, 0], [0, 0, 1, 0]])
  np.testing.assert_array_equal(images.read_mask(path, soft), [[0, 1, 1, 0], [0, 0, 1, 0]])
  assert set(np.unique(np.asarray(Image.open(path)))) == {0, 255 // (3 if "3" in form or "2" in form else 15)}


@pytest.mark.parametrize("form, top", [("png2", 3), ("png4", 15), ("pgm3", 3), ("pgm15", 15)])
def test_white_is_a_lesion_and_numbers_between_are_labels(tmp_path, form, top):
  path = write(tmp_path, form, [[0, top, top, 0]] * 2)
  np.testing.assert_array_equal(images.read_mask(path, True), [[0, 1, 1, 0]] * 2)
  path = write(tmp_path, form, [[0, 1, 2, top]] * 2)
  with pytest.raises(UserError, match=f"no value above {top}: .* these are labels"):
    images.read_mask(path, True)
  with pytest.raises(UserError, match="values such as 1 besides 0 and 255"):
    images.read_mask(path)


@pytest.mark.parametrize("bits", [2, 4])
def test_numbers_of_a_file_whose_white_is_zero_are_as_shown(tmp_path, bits):
  top = 2**bits - 1
  tiff(tmp_path / "m.tif", np.uint8([[top, top - 1, top - 1, top]] * 2), bits=bits, photometric=0)
  np.testing.assert_array_equal(images.read_mask(tmp_path / "m.tif", True), [[0, 1, 1, 0]] * 2)


def test_per_cent_stay_shares_of_white(tmp_path):
  """A soft mask of 0 to 100; and pictures are shown as ever."""
  pgm(tmp_path / "m.pgm", [[0, 25, 50, 100]] * 2, 100)
  np.testing.assert_allclose(images.read_mask(tmp_path / "m.pgm", True)[0], [0, .25, .5, 1], atol=3e-3)
  pgm(tmp_path / "p.pgm", [[0, 1, 2, 3]] * 2, 3)
  np.testing.assert_allclose(formats.read_unit(tmp_path / "p.pgm")[0, :, 0], [0, 1 / 3, 2 / 3, 1], atol=1e-6)
