"""The reader of slides: levels, scales, what is white, what is refused."""

import numpy as np
import pytest

from data_pipelines.errors import UserError
from data_pipelines.slides import engines, reader
from tests import slide_files

IMAGE = slide_files.tissue(520, 700)
ENGINES = (engines.OpenSlide, engines.TiffSlide)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  return slide_files.write_slide(tmp_path_factory.mktemp("slides") / "a.tif", IMAGE)


def open_with(path, engine, monkeypatch):
  """The slide as one library reads it; skipped where that is not installed."""
  pytest.importorskip(engine.name)
  monkeypatch.setattr(engines, "open_engine", engine)
  return reader.open_slide(path)


@pytest.mark.parametrize("engine", ENGINES)
def test_levels_sizes_and_pixels(path, engine, monkeypatch):
  with open_with(path, engine, monkeypatch) as slide:
    assert [(v.width, v.height) for v in slide.levels] == [(700, 520), (175, 130), (44, 33)]
    assert (slide.vendor, slide.mpp, slide.magnification) == ("generic-tiff", 0.25, 40)
    np.testing.assert_array_equal(slide.read(0, 301, 57, 280, 300), IMAGE[57:357, 301:581])
    quarter = IMAGE.reshape(130, 4, 175, 4, 3).mean((1, 3))
    found = slide.read(1, 400, 80, 60, 70)
    assert np.abs(found - quarter[20:90, 100:160]).max() <= 1  # rounded twice


@pytest.mark.parametrize("engine", ENGINES)
def test_outside_is_white(path, engine, monkeypatch):
  with open_with(path, engine, monkeypatch) as slide:
    found = slide.read(0, -10, 510, 30, 40)
    np.testing.assert_array_equal(found[:10, 10:], IMAGE[510:, :20])
    assert (found[:, :10] == 255).all() and (found[10:] == 255).all()
    assert (slide.read(1, 5000, 0, 8, 8) == 255).all()
    assert (slide.read(1, -400, -400, 8, 8) == 255).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_transparent_is_white(tmp_path, engine, monkeypatch):
  file = slide_files.write_slide(tmp_path / "a.tif", slide_files.with_alpha(IMAGE))
  with open_with(file, engine, monkeypatch) as slide:
    assert (slide.read(0, 0, 0, 70, 520) == 255).all()
    np.testing.assert_array_equal(slide.read(0, 70, 0, 630, 520), IMAGE[:, 70:])


@pytest.mark.parametrize("engine", ENGINES)
def test_sixteen_bits_are_scaled_or_refused(tmp_path, engine, monkeypatch):
  deep = slide_files.write_slide(tmp_path / "a.tif", IMAGE, deep=16)
  with open_with(deep, engine, monkeypatch) as slide:
    np.testing.assert_array_equal(slide.read(0, 0, 0, 700, 520), IMAGE)
  twelve = slide_files.write_slide(tmp_path / "b.tif", IMAGE, deep=12)
  with pytest.raises(UserError, match=r"b\.tif has 16-bit pixels .* 10, 12 or 14 bits"):
    open_with(twelve, engine, monkeypatch)


def test_a_scale_comes_from_the_nearest_finer_level(path, monkeypatch):
  with reader.open_slide(path) as slide:
    assert [slide.level_of(d) for d in (1, 3.9, 3.99, 4, 15, 16, 300)] == [0, 0, 1, 1, 1, 2, 2]
    halves = IMAGE.reshape(260, 2, 350, 2, 3).mean((1, 3))
    found = slide.read_scaled(2, 100, 40, 90, 80)
    assert np.abs(found - halves[20:100, 50:140]).max() <= 0.5
    np.testing.assert_array_equal(slide.read_scaled(4.004, 0, 0, 175, 130), slide.read(1, 0, 0, 175, 130))
    read, seen = slide.read, []
    monkeypatch.setattr(slide, "read", lambda level, *box: seen.append((level, *box)) or read(level, *box))
    assert slide.read_scaled(8, 0, 0, 20, 20).shape == (20, 20, 3)
    assert seen == [(1, 0, 0, 40, 40)]
    assert slide.overview(13.7).shape == (37, 51, 3)


def test_strips_change_nothing(path, monkeypatch):
  with reader.open_slide(path) as slide:
    whole, odd = slide.overview(2), slide.overview(2.7).astype(int)
    monkeypatch.setattr(reader, "_STRIP", 40_000)
    np.testing.assert_array_equal(slide.overview(2), whole)
    assert np.abs(slide.overview(2.7) - odd).max() <= 1  # strips begin between two pixels: rounding


def test_resolutions(tmp_path):
  file = slide_files.write_slide(tmp_path / "a.tif", IMAGE[:100, :100], mpp=0.5)
  with reader.open_slide(file) as slide:
    assert slide.magnification == 20
    assert slide.downsample_of(mpp=1) == 2 and slide.downsample_of(magnification=5) == 4
    assert slide.downsample_of(mpp=0.49) == 1
    with pytest.raises(UserError, match=r"0\.5 micrometres a pixel at most: coarser than the 0\.25"):
      slide.downsample_of(mpp=0.25)
    with pytest.raises(UserError, match="20 x at most: coarser than the 40"):
      slide.downsample_of(magnification=40)


@pytest.mark.parametrize("mpp", [None, 353])
def test_an_unknown_resolution_is_asked_for(tmp_path, mpp):
  file = slide_files.write_slide(tmp_path / "a.tif", IMAGE[:100, :100], mpp=mpp)
  with reader.open_slide(file) as slide:
    assert slide.mpp is None and slide.magnification is None
    with pytest.raises(UserError, match=r"a\.tif does not say how many micrometres"):
      slide.downsample_of(mpp=1)
  with reader.open_slide(file, mpp=0.25) as slide:
    assert slide.downsample_of(magnification=10) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_a_damaged_level_falls_back_to_the_finer_one(tmp_path, engine, monkeypatch, caplog):
  good = slide_files.write_slide(tmp_path / "good.tif", IMAGE)
  bad = slide_files.write_slide(tmp_path / "bad.tif", IMAGE, bad_levels=(1, 2))
  with open_with(good, engine, monkeypatch) as slide:
    wanted = slide.read(1, 40, 80, 60, 70)
  with open_with(bad, engine, monkeypatch) as slide:
    assert np.abs(slide.read(1, 40, 80, 60, 70).astype(int) - wanted).max() <= 1
    assert slide.read(2, 0, 0, 44, 33).shape == (33, 44, 3)
    slide.read(2, 16, 0, 4, 4)
    np.testing.assert_array_equal(slide.read(0, 0, 0, 30, 30), IMAGE[:30, :30])
  said = [r.getMessage() for r in caplog.records]
  assert [s.count("cannot be read at (") for s in said] == [1, 1] and "level 2" in said[1]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_damaged_tile_costs_its_region_alone(tmp_path, engine, monkeypatch):
  file = slide_files.write_slide(tmp_path / "a.tif", IMAGE, downsamples=(1,), bad_levels=(0,), bad_tile=1)
  with open_with(file, engine, monkeypatch) as slide:
    np.testing.assert_array_equal(slide.read(0, 0, 0, 250, 250), IMAGE[:250, :250])
    with pytest.raises(UserError, match=r"a\.tif is damaged: level 0 cannot be read at \(300, 10\)"):
      slide.read(0, 300, 10, 50, 50)
    np.testing.assert_array_equal(slide.read(0, 0, 0, 250, 250), IMAGE[:250, :250])


def test_refusals(path, tmp_path, monkeypatch):
  with pytest.raises(FileNotFoundError, match=r"slide .*none\.svs does not exist"):
    reader.open_slide(tmp_path / "none.svs")
  (tmp_path / "a.svs").write_bytes(b"no slide at all")
  with pytest.raises(UserError, match=r"a\.svs is no slide that can be read \(openslide: unknown vendor"):
    reader.open_slide(tmp_path / "a.svs")
  with (reader.open_slide(path) as slide,
        pytest.raises(UserError, match=r"a\.tif has no level 3: its levels are 0 to 2")):
    slide.read(3, 0, 0, 1, 1)

  def missing(_):
    raise ModuleNotFoundError
  for engine in ENGINES:
    monkeypatch.setattr(engine, "__init__", lambda self, path: missing(path))
  with pytest.raises(UserError, match="slides need openslide-python and openslide-bin, or tiffslide: pip"):
    reader.open_slide(path)


def test_ome_tiff_has_its_levels(tmp_path, monkeypatch):
  pytest.importorskip("tiffslide")
  from data_pipelines.slides import writer
  monkeypatch.setattr(engines, "_MANY", 256)
  small = writer.halved(IMAGE, np.empty((260, 350, 3), np.uint8))
  writer.write_pyramid(tmp_path / "a.ome.tif", [IMAGE, small], mpp=0.5, ome=True)
  with reader.open_slide(tmp_path / "a.ome.tif") as slide:
    assert (slide.engine, len(slide.levels), slide.mpp) == ("tiffslide", 2, 0.5)
    np.testing.assert_array_equal(slide.read(1, 40, 20, 30, 30), small[10:40, 20:50])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("said, mpp, words", [
    ({"PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}, 0.25, ""), ({"PhysicalSizeY": 0.25}, 0.25, ""),
    ({"PhysicalSizeX": 0.00025, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 0.25}, 0.25, ""),
    ({"PhysicalSizeX": 0.4, "PhysicalSizeXUnit": "pixel"}, 0.5, "0.4 pixel, which is no length"),
    ({"PhysicalSizeX": 0.25}, 0.25, "0.25 micrometres by its OME header, which is taken, and 0.5 by TIFF's"),
    ({"PhysicalSizeX": 2.5e-5}, None, "which no slide has"), ({}, 0.5, "")])
def test_the_size_of_a_pixel_by_ome(tmp_path, engine, said, mpp, words, monkeypatch, caplog):
  """Slides that said it there alone had to be given one, and TIFF's own resolution went before it."""
  tifffile = pytest.importorskip("tifffile")
  options = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"} if words or not said else {}
  path = tmp_path / "a.ome.tif"
  tifffile.imwrite(path, IMAGE[:128, :128], tile=(64, 64), photometric="rgb", metadata=said, ome=True,
                   **options)
  with open_with(path, engine, monkeypatch) as slide:
    assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
  assert words in caplog.text and (words or not caplog.text)
