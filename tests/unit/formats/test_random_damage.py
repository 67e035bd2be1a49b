"""Random damage of files of every format: read as something, or refused in one line that names it."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import images
from tests.image_files import dicom, tiff

RNG = np.random.default_rng(11)
GREY = RNG.integers(0, 256, (24, 30)).astype(np.uint8)
COLOUR = np.dstack([GREY, GREY // 2, 255 - GREY])
DEEP = COLOUR.astype(np.uint16) * 257


def damaged(data, kind, rng):
  """`data` cut, with other bytes in its header or anywhere, or with a piece that was exchanged."""
  data = bytearray(data)
  if kind == 0:
    return bytes(data[:int(len(data) * rng.random())])
  if kind < 3:
    for at in rng.integers(0, min(len(data), 600) if kind == 1 else len(data), rng.integers(1, 9)):
      data[at] = rng.integers(256)
    return bytes(data)
  at = int(rng.integers(len(data)))
  data[at:at + int(rng.integers(40))] = rng.integers(0, 256, rng.integers(40)).astype(np.uint8).tobytes()
  return bytes(data)


FILES = {
    "a.png": lambda p: Image.fromarray(COLOUR).save(p), "a.jpg": lambda p: Image.fromarray(COLOUR).save(p),
    "a.bmp": lambda p: Image.fromarray(COLOUR).save(p), "a.jp2": lambda p: Image.fromarray(COLOUR).save(p),
    "lzw.tif": lambda p: Image.fromarray(COLOUR).save(p, compression="tiff_lzw"),
    "tiles.tif": lambda p: tiff(p, DEEP, tile=16, big=True),
    "deflate.tif": lambda p: tiff(p, DEEP, deflate=True),
    "grey.dcm": lambda p: dicom(p, GREY.astype(np.uint16) * 16, stored=12, WindowCenter=9, WindowWidth=99),
    "colour.dcm": lambda p: dicom(p, COLOUR, "RGB")}


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_read_or_refused(tmp_path, name):
  FILES[name](tmp_path / name)
  whole, rng, refused = (tmp_path / name).read_bytes(), np.random.default_rng(len(name)), 0
  for i in range(40):
    path = tmp_path / f"damaged{i}_{name}"
    path.write_bytes(damaged(whole, i % 4, rng))
    try:
      frame = images.read(path)
      assert np.isfinite(frame.unit()).all()
      images.write(frame, frame.pixels, tmp_path / "out", f"{i}")
    except UserError as error:
      assert path.name in str(error) and "\n" not in str(error)
      refused += 1
  assert refused > 5
