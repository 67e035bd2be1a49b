"""Places and scales of slides by a stand-in for the library: a picture whose colours are its coordinates."""

import types

import numpy as np
import pytest

from data_pipelines.errors import UserError
from data_pipelines.slides import engines, plan as plans, reader, tissue


class Engine:
  """Levels at 1, 4 and 16 of a slide whose red is the column and green the row, in units of four pixels."""

  name, vendor = "stand-in", "none"

  def __init__(self, sizes=((512, 384), (128, 96), (32, 24)), properties=None, broken=()):
    self.sizes, self.properties, self.broken = list(sizes), properties or {}, broken
    self.downsamples = [sizes[0][0] / w for w, _ in sizes]

  def read(self, x, y, level, width, height):
    if level in self.broken:
      raise engines.Broken("a tile")
    step = self.downsamples[level]
    rows, columns = np.mgrid[:height, :width]
    at = [np.minimum((n + offset * step) // 4, 255) for n, offset in ((x, columns), (y, rows))]
    return np.stack([*at, np.full(rows.shape, 7)], -1).astype(np.uint8)

  def close(self):
    pass


def slide(**given):
  mpp = given.pop("mpp", None)
  return reader.Slide("s.svs", Engine(**given), 8, mpp)


def test_the_coarsest_level_that_is_fine_enough_is_read():
  one = slide()
  assert [one.level_of(d) for d in (1, 3.9, 3.97, 4, 15, 16, 100)] == [0, 0, 1, 1, 1, 2, 2]
  found = one.read_scaled(8, 64, 32, 12, 10)
  assert found.shape == (10, 12, 3)
  np.testing.assert_allclose(found[..., 0], np.broadcast_to(17 + 2 * np.arange(12) - 0.5, (10, 12)), atol=1)
  np.testing.assert_allclose(found[..., 1].T, np.broadcast_to(9 + 2 * np.arange(10) - 0.5, (12, 10)), atol=1)
  assert one.overview(16).shape == (24, 32, 3)


def test_a_level_is_chosen_by_what_it_covers_wherever_it_stands():
  one = slide(sizes=((512, 384), (32, 24), (128, 96)))
  assert [one.level_of(d) for d in (1, 4, 8, 16, 20)] == [0, 2, 2, 1, 1]


@pytest.mark.parametrize("downsample", [8, 6, 8.2, 5])
def test_strips_of_any_level_lie_where_the_whole_does(monkeypatch, downsample):
  """Also where no pixel of the finer level begins one: a ratio that is nearly whole drifts apart."""
  one = slide()
  whole = one.read_scaled(downsample, 64, 32, 50, 40)
  columns, rows = ((a + (np.arange(n) + 0.5) * downsample) / 4 - 0.5 for a, n in ((64, 50), (32, 40)))
  np.testing.assert_allclose(whole[..., 0], np.broadcast_to(columns, (40, 50)), atol=1)
  np.testing.assert_allclose(whole[..., 1].T, np.broadcast_to(rows, (50, 40)), atol=1)
  monkeypatch.setattr(reader, "_STRIP", 4000)
  np.testing.assert_allclose(one.read_scaled(downsample, 64, 32, 50, 40).astype(int), whole, atol=1)


def test_a_broken_tile_is_made_of_whatever_finer_level_there_is():
  one = slide(sizes=((512, 384), (128, 96), (64, 48), (32, 24)), broken=(1, 2, 3))
  assert one.read(3, 0, 0, 4, 4).shape == (4, 4, 3)


@pytest.mark.parametrize("value, refused", [(16383, True), (16640, False)])
def test_14_bits_in_16_are_refused(value, refused):
  engine = Engine(sizes=((40, 30),))
  engine.read = lambda x, y, level, width, height: np.full((height, width, 3), value, np.uint16)
  one = reader.Slide("s.tif", engine, 16, None)
  if not refused:
    return reader._check_depth(one)
  with pytest.raises(UserError, match="16-bit pixels of which none reaches a quarter"):
    reader._check_depth(one)


@pytest.mark.parametrize("levels, taken", [((1, 1), 0), ((1, 2), 1), ((2, 3), 0)])
def test_the_second_library_is_taken_where_it_sees_more_levels(monkeypatch, levels, taken):
  made, closed = [], []

  def library(number):
    def make(path):
      engine = Engine(sizes=((5120, 3840),) * levels[number])
      engine.close = lambda: closed.append(number)
      made.append(engine)
      return engine
    return make
  for number, name in enumerate(("OpenSlide", "TiffSlide")):
    monkeypatch.setattr(engines, name, library(number))
  assert engines.open_engine("s.tif") is made[taken]
  assert closed == [1 - taken] * (len(made) > 1)


def test_what_lies_outside_is_white_on_every_side():
  one = slide()
  for level, step in ((0, 1), (1, 4)):
    box = one.levels[level]
    found = one.read(level, -2 * step, -3 * step, box.width + 5, box.height + 7)
    assert (found[:3] == 255).all() and (found[:, :2] == 255).all()
    assert (found[3 + box.height:] == 255).all() and (found[:, 2 + box.width:] == 255).all()
    inside = found[3:3 + box.height, 2:2 + box.width]
    assert (inside[..., 2] == 7).all() and inside[0, 0, 0] == 0 and inside[-1, -1, 0] == (512 - step) // 4
    assert inside[-1, -1, 1] == (384 - step) // 4


@pytest.mark.parametrize("broken", [(2,), (1, 2)])
def test_a_level_that_cannot_be_read_is_made_of_a_finer_one(broken):
  whole, damaged = slide().read(2, 64, 64, 8, 8), slide(broken=broken).read(2, 64, 64, 8, 8)
  np.testing.assert_allclose(damaged.astype(int)[..., :2] - whole[..., :2], 2 - 0.5, atol=1)
  with pytest.raises(UserError, match="s.svs is damaged: level 0 cannot be read at"):
    slide(broken=(0, 1, 2)).read(2, 0, 0, 4, 4)
  with pytest.raises(UserError, match="has no level 3"):
    slide().read(3, 0, 0, 4, 4)


@pytest.mark.parametrize("unit, dots, mpp", [
    ("micron", ("4", "4"), 0.25), ("um", ("2", "2"), 0.5), (r"\u00B5m", ("4", "4"), 0.25),
    ("mm", ("4e3", "4e3"), 0.25), ("inch", ("50800", "50800"), 0.5), ("pixel", ("4", "4"), None),
    ("", ("4", "4"), None), ("um", ("1", "1"), None), ("um", ("4", ""), None), ("nm", ("4", "4"), None)])
def test_the_unit_of_imagej_is_read(unit, dots, mpp):
  """Such slides were asked for, though they say it; 1 is what programs write that know no resolution."""
  said = {"tiff.ImageDescription": f"ImageJ=1.53t\nimages=1\nunit={unit}\nloop=false\n",
          "tiff.XResolution": dots[0], "tiff.YResolution": dots[1], "tiff.ResolutionUnit": "none"}
  assert slide(properties=said).mpp == (pytest.approx(mpp) if mpp else None)
  assert slide(properties={**said, "openslide.mpp-x": "0.3", "openslide.mpp-y": "0.3"}).mpp == 0.3
  assert slide(properties={**said, "tiff.ImageDescription": f"unit={unit}"}).mpp is None


@pytest.mark.parametrize("said, mpp, magnification", [
    ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}, 0.25, 40),
    ({"openslide.mpp-x": "0.24", "openslide.mpp-y": "0.26"}, 0.25, 40),
    ({"openslide.mpp-x": "0.7", "openslide.mpp-y": "0.7"}, 0.7, 20),  # 14.3: by the ratio
    ({"openslide.mpp-x": "0.49", "openslide.mpp-y": "0.49", "openslide.objective-power": "40"}, 0.49, 40),
    ({"openslide.mpp-x": "353", "openslide.mpp-y": "353"}, None, None),
    ({"openslide.mpp-x": "0.01", "openslide.mpp-y": "0.01"}, None, None),
    ({"openslide.mpp-x": "0.25"}, None, None), ({"openslide.objective-power": "20"}, None, 20)])
def test_what_a_file_says_of_its_resolution(said, mpp, magnification):
  one = slide(properties=said)
  assert (one.mpp, one.magnification) == (pytest.approx(mpp) if mpp else None, magnification)


def test_downsamples_of_a_resolution():
  one = slide(mpp=0.25)
  assert one.downsample_of(mpp=1.0) == 4 and one.downsample_of(magnification=10) == 4
  assert one.downsample_of(mpp=0.24) == 1  # 4 % finer than there is: as it is
  with pytest.raises(UserError, match="has 0.25 micrometres a pixel at most: coarser"):
    one.downsample_of(mpp=0.2)
  with pytest.raises(UserError, match="does not say how many micrometres"):
    slide().downsample_of(mpp=1.0)


def test_a_quarter_of_a_metre_is_the_longest_side():
  assert slide(sizes=((2**20, 2**19),)).width == 2**20
  for sizes in (((2**20 + 1, 2**19),), ((2**19, 2**20 + 1),)):
    with pytest.raises(UserError, match="no slide has more than 1048576 on a side"):
      slide(sizes=sizes)


def test_pages_of_other_proportions_are_no_levels():
  found = slide(sizes=((512, 384), (128, 96), (64, 60), (33, 24)))
  assert [(v.width, v.height) for v in found.levels] == [(512, 384), (128, 96), (33, 24)]
  assert found.read(2, 0, 0, 2, 2).shape == (2, 2, 3)


@pytest.mark.parametrize("pixels, shown", [
    (np.array([[[300]]], np.uint16), [1, 1, 1]),
    (np.array([[[65535, 0, 257 * 128 + 128]]], np.uint16), [255, 0, 128]),
    (np.array([[[10, 20, 30, 0]]], np.uint8), [255] * 3),
    (np.array([[[40]]], np.uint8), [40] * 3), (np.array([[[40, 0]]], np.uint8), [255] * 3),
    (np.array([[[10, 20, 30, 255]]], np.uint8), [10, 20, 30]),
    (np.array([[[0, 100, 255, 128]]], np.uint8), [127, 177, 255])])
def test_depth_grey_and_transparency(pixels, shown):
  assert reader._rgb(pixels)[0, 0].tolist() == shown
  mixed = np.concatenate([pixels, pixels], 1)
  if pixels.shape[-1] in (2, 4):
    mixed[0, 1, -1] = 255
    assert reader._rgb(mixed)[0, 0].tolist() == shown


# ------------------------------------------------------------------------------------------------ plans
def test_shares_of_cells_that_are_no_whole_number_of_pixels():
  mask = np.zeros((5, 7), bool)
  mask[:2, :3] = True
  np.testing.assert_allclose(plans.shares(mask, 2.5, (2, 3)), [[1, 1 / 3, 0], [0, 0, 0]])
  np.testing.assert_allclose(plans.shares(mask, 2.0, (3, 4)), [[1, 0.5, 0, 0], [0] * 4, [0] * 4])


def test_tiles_their_cores_and_their_places():
  one, made = slide(), plans.Plan(2.0, 40, 4, (6, 8), np.array([[0, 0], [2, 3]], np.int32), np.ones(2), 1.0)
  assert made.core == 32 and made.box(1) == (192, 128, 64, 64)
  tile = made.read(one, 1)
  assert tile.shape == (40, 40, 3) and abs(int(tile[4, 4, 0]) - 48) <= 1 and abs(int(tile[4, 4, 1]) - 32) <= 1
  assert (made.read(one, 0)[:4] == 255).all() and (made.read(one, 0)[4:, 4:, 2] == 7).all()


def picture(*greys):
  return np.repeat(np.array(greys, np.uint8)[:, None, None], 40, 1).repeat(8, 0) * np.ones(3, np.uint8)


@pytest.mark.parametrize("greys, share", [
    ((240, 120), 0.5), ((150, 90), 1.0), ((242, 235), 0.0), ((120, 120), 1.0), ((240, 240), 0.0),
    ((205, 90), 1.0), ((215, 90), 0.5), ((240, 228), 0.0), ((240, 220), 0.5)])
def test_tissue_is_darker_than_glass_where_there_is_both(greys, share):
  """All tissue, all glass (two greys of it, too): Otsu alone would cut each of them into halves."""
  assert plans.seen_tissue(picture(*greys)).mean() == share
  speck = picture(*greys)
  speck[2, 5] = 90  # of one pixel no tissue is made
  assert plans.seen_tissue(speck)[2, 5] == (share == 1)


def test_a_plan_covers_the_whole_slide_with_its_cores(monkeypatch):
  seen = []
  everything = lambda rgb: seen.append(rgb.shape) or np.ones(rgb.shape[:2], bool)
  monkeypatch.setattr(plans, "seen_tissue", everything)
  assert plans.make(slide(), 1.0, 100).shape == (4, 6)  # 384 x 512: the last ones are parts
  assert plans.make(slide(), 2.0, 100).shape == (2, 3)
  assert plans.make(slide(), 1.0, 128, margin=32).shape == (6, 8)
  assert plans.make(slide(), 1.0, 128).shape == (3, 4)
  monkeypatch.setattr(plans, "_THUMBNAIL", 400)  # pixels of the overview at most
  plans.make(slide(), 1.0, 16)
  assert seen[0][:2] == (15, 20) and 250 < seen[-1][0] * seen[-1][1] <= 400


def test_a_plan_keeps_cells_with_tissue_enough(monkeypatch):
  mask = np.zeros((12, 16), bool)
  mask[:6, :5] = True
  monkeypatch.setattr(plans, "seen_tissue", lambda rgb: mask)
  made = plans.make(slide(), 1.0, 128, least=0.25)  # cells of 4 x 4 pixels of the overview at 1/32
  assert made.shape == (3, 4) and made.area == 30 * 32 * 32
  assert made.places.tolist() == [[0, 0], [0, 1], [1, 0]] and made.tissue.tolist() == [1, 0.25, 0.5]
  assert len(plans.make(slide(), 1.0, 128, least=0).places) == 12
  mask[:2] = False
  with pytest.raises(UserError, match="has no tissue .no tile of 128 pixels is 90% tissue"):
    plans.make(slide(), 1.0, 128, least=0.9)


def test_values_at_the_threshold_are_tissue_and_the_rim_of_a_picture_counts_as_neither():
  rgb = np.full((9, 9, 3), 200, np.uint8)
  rgb[:4, :4] = 50
  assert tissue.dark(rgb).sum() == 16
  mask = np.zeros((9, 9), bool)
  mask[:2, :2] = True  # at the rim two rows are enough
  mask[5:7, 5:7] = True
  assert tissue.opened(mask).sum() == 4 and tissue.opened(mask)[:2, :2].all()


def test_borders_of_thumbnails():
  """As published: of tall ones another one, without the right side. One that is given counts for all."""
  def cleared(height, border):
    kept = np.argwhere(tissue.without_border(np.ones((height, 300), bool), border))
    (top, left), (bottom, right) = kept.min(0), kept.max(0)
    return [int(n) for n in (top, height - 1 - bottom, left, 299 - right)]
  assert cleared(700, None) == [30] * 4 and cleared(701, None) == [100, 100, 50, 0]
  assert cleared(700, 10) == cleared(701, 10) == [10] * 4 and cleared(701, 0) == [0] * 4
  alpha = np.dstack([rgb := np.arange(48, dtype=np.uint8).reshape(4, 4, 3), np.full((4, 4), 255, np.uint8)])
  np.testing.assert_array_equal(tissue.grey(alpha), tissue.grey(rgb))


# ------------------------------------------------------------------------------------------------ engines
def kind(levels, longest=4000):
  """A library that sees so many levels, none: that is not installed, or knows no such file (0)."""
  def make(path):
    if levels is None:
      raise ModuleNotFoundError
    if not levels:
      raise engines.Broken("unknown")
    closed = []
    return types.SimpleNamespace(sizes=[(longest, 10)] * levels, path=path, closed=closed,
                                 close=lambda: closed.append(1), levels=levels)
  make.name = "x"
  return make


@pytest.mark.parametrize("first, second, longest, taken", [
    (3, 9, 4000, 3), (1, 4, 4000, 4), (1, 4, 2048, 1), (1, 1, 4000, 1), (0, 2, 4000, 2), (None, 2, 4000, 2),
    (2, None, 4000, 2), (1, None, 4000, 1)])
def test_the_library_that_sees_more_levels_is_taken(monkeypatch, first, second, longest, taken):
  monkeypatch.setattr(engines, "OpenSlide", kind(first, longest))
  monkeypatch.setattr(engines, "TiffSlide", kind(second, longest))
  found = engines.open_engine("s.tif")
  assert found.levels == taken and not found.closed
  monkeypatch.setattr(engines, "OpenSlide", kind(0))
  monkeypatch.setattr(engines, "TiffSlide", kind(None))
  with pytest.raises(UserError, match="no slide that can be read .x: unknown"):
    engines.open_engine("s.tif")
