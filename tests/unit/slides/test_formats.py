"""Slides in the form of scanners: which library opens them, levels, resolution, pixels, damage."""

import pathlib
import struct

import numpy as np
from PIL import Image
import pytest

from data_pipelines.errors import UserError
from data_pipelines.slides import plan, reader
from tests import slide_files

pytest.importorskip("openslide")
pytest.importorskip("imagecodecs")
scanner_files = pytest.importorskip("tests.unit.slides.scanner_files")
# Smooth: on the noise of single pixels JPEG loses much.
IMAGE = np.asarray(Image.fromarray(slide_files.tissue(33, 44)).resize((700, 520)))
FORMS = {
    "aperio.svs": (scanner_files.svs, {}, "aperio", 0.499, 20),
    "aperio_j2k_rgb.svs": (scanner_files.svs, {"compression": scanner_files.J2K_RGB}, "aperio", 0.499, 20),
    "aperio_j2k_ycc.svs": (scanner_files.svs, {"compression": scanner_files.J2K_YCC}, "aperio", 0.499, 20),
    "philips.tiff": (scanner_files.philips, {}, "philips", 0.25, 40),
    "hamamatsu.ndpi": (scanner_files.ndpi, {}, "hamamatsu", 0.25, 40),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """One slide of every form."""
  root = tmp_path_factory.mktemp("forms")
  for name, (write, options, *_) in FORMS.items():
    write(root / name, IMAGE, **options)
  return root


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_scanners(folder, name):
  *_, vendor, mpp, power = FORMS[name]
  assert plan.is_slide(folder / name)
  with reader.open_slide(folder / name) as slide:
    assert (slide.vendor, slide.engine) == (vendor, "openslide")
    assert slide.mpp == pytest.approx(mpp, abs=1e-4) and slide.magnification == power
    assert (slide.width, slide.height) == ((1024, 1024) if vendor == "philips" else (700, 520))  # whole tiles
    assert {1, 4, 16} <= {round(v.downsample) for v in slide.levels}
    assert _apart(slide.read(0, 301, 57, 280, 300), IMAGE[57:357, 301:581]) < 3
    quarter = IMAGE.reshape(130, 4, 175, 4, 3).mean((1, 3))
    assert _apart(slide.read_scaled(4, 400, 80, 60, 70), quarter[20:90, 100:160]) < 3
    assert (slide.read(0, 690, 500, 40, 40)[25:] >= 250).all()  # beyond the edge


def _apart(found, wanted):
  return np.abs(found.astype(float) - wanted).mean()


def test_a_broken_jpeg_2000_tile_is_made_of_the_finer_level(folder, tmp_path, caplog):
  path = tmp_path / "a.svs"
  path.write_bytes((folder / "aperio_j2k_rgb.svs").read_bytes())
  slide_files.damage(path, 2)  # the first directory is level 0, the second the thumbnail
  with reader.open_slide(path) as slide:
    quarter = IMAGE.reshape(130, 4, 175, 4, 3).mean((1, 3))
    assert _apart(slide.read(1, 0, 0, 175, 130), quarter) < 2
  assert any("level 1 cannot be read at" in r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("name", ["philips.tiff", "hamamatsu.ndpi", "aperio.svs"])
def test_half_a_download_is_one_line(folder, tmp_path, name, caplog):
  content = (folder / name).read_bytes()
  path = tmp_path / name
  path.write_bytes(content[:len(content) // 3])
  with pytest.raises(UserError, match=f"{name} is ") as error, reader.open_slide(path) as slide:
    slide.read(0, 0, 0, 700, 520)
  assert "\n" not in str(error.value) and not [r for r in caplog.records if r.name == "tifffile"]


def test_a_scanner_that_nobody_knows_is_read_as_a_plain_pyramid_or_named(tmp_path):
  path = slide_files.write_slide(pathlib.Path(tmp_path / "new.tif"), IMAGE)
  with reader.open_slide(path) as slide:
    assert slide.vendor == "generic-tiff"
  (tmp_path / "new.mrxs").write_bytes(struct.pack("<I", 7) * 100)  # its folder of data is missing as well
  with pytest.raises(UserError, match=r"new\.mrxs is no slide that can be read"):
    reader.open_slide(tmp_path / "new.mrxs")
