"""Stains, tissue, shares and names by hand: what the golden vectors do not reach."""

import contextlib
import itertools
import types

import numpy as np
import pytest

from data_pipelines.errors import UserError
from data_pipelines.slides import annotations, cells, lesions, reduced, stain, stain_matrix, tissue
from data_pipelines.slides.camelyon import colours, settings as fields, source, steps
from data_pipelines.slides.camelyon.source import Entry


@pytest.mark.parametrize("shape", [(3, 3, 3), (1, 2, 3), (8, 5, 3)])
def test_brightness_is_numpys_percentile(shape):
  for seed in range(20):
    image = np.random.default_rng(seed).integers(3, 256, shape).astype(np.uint8)
    wanted = np.clip(image * 255.0 / np.percentile(image, 90), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(stain.standardize(image), wanted)


@pytest.mark.parametrize("value,words", [(0, "black"), (255, "0 pixels of tissue")])
def test_images_without_stains_say_so(value, words):
  with pytest.raises(stain.NoStain, match=words):
    stain.find_stains(np.full((16, 16, 3), value, np.uint8))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), np.uint8),
                                   np.zeros((4, 4, 3))])
def test_other_forms_are_refused(image):
  with pytest.raises(UserError, match="uint8"):
    stain.standardize(image)


def test_mixed_stains_are_found_again_whatever_the_sample():
  rng = np.random.default_rng(0)
  wanted = stain_matrix.unit(np.array([[.6, .75, .29], [.1, .95, .2]]))
  amounts = rng.exponential(0.5, (256, 256, 2)) * (rng.random((256, 256, 2)) < 0.6)
  image = np.clip(255 * np.exp(-amounts @ wanted), 1, 255).astype(np.uint8)
  for parity in (False, True):
    found = stain.find_stains(image, parity).matrix
    assert (found * wanted).sum(1).min() > np.cos(np.radians(3))


def test_known_stains_decide_the_order_where_red_does_not():
  atoms = stain_matrix.unit(np.array([[.40, .60, .70], [.41, .90, .05]]))
  assert not np.array_equal(stain_matrix.ordered(atoms, True), stain_matrix.ordered(atoms, False))
  np.testing.assert_array_equal(stain_matrix.ordered(atoms[::-1], False), atoms)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_reduced_ramp_is_the_ramp_at_the_middles_of_its_squares(factor):
  rows, columns = np.mgrid[:64, :48]
  image = (2 * rows[..., None] + columns[..., None] + [0, 10, 20]).astype(np.uint8)
  found = reduced.reduced(image, factor)
  assert found.shape == (64 // factor, 48 // factor, 3)
  row, column = (factor * at + (factor - 1) / 2 for at in np.mgrid[:64 // factor, :48 // factor])
  wanted = 2 * row[..., None] + column[..., None] + [0, 10, 20]
  assert np.abs(found - wanted)[3:-3, 3:-3].max() <= 0.5 + 1e-9


def test_vertices_kept_are_whole_numbers(tmp_path):
  kept = {"tumor": [{"name": "a", "vertices": [[1, 2], [3, 4], [5, 6]]}], "normal": []}
  annotations.write_json(tmp_path / "a.json", kept)
  assert annotations.read_json(tmp_path / "a.json") == kept
  for axis, wrong in itertools.product((0, 1), (2.5, "2", None)):
    kept["tumor"][0]["vertices"][1][axis] = wrong
    annotations.write_json(tmp_path / "a.json", kept)
    with pytest.raises(UserError, match="a.json holds no polygons"):
      annotations.read_json(tmp_path / "a.json")
    kept["tumor"][0]["vertices"][1] = [3, 4]


def test_a_partial_cell_is_no_whole_one():
  mask = np.ones((4, 6), bool)
  np.testing.assert_array_equal(tissue.whole_cells(mask), [[True, True], [False, False]])
  assert tissue.cell_means(mask)[1, 0] == pytest.approx(1 / 3)
  assert not tissue.dark(np.full((5, 5, 3), 200, np.uint8)).any()


def test_shares_of_a_field_count_the_parts_of_pixels():
  values = np.zeros((9, 9))
  values[3:6, 3:6] = 1
  assert cells.share(values, cells.Patch("s", "tumor", 768, 768)) == 1
  assert cells.share(values, cells.Patch("s", "tumor", 768 + 64, 768)) == pytest.approx(1 - 64 / 768)
  assert cells.share(values, cells.Patch("s", "tumor", 9 * 256, 0)) == 0
  values = np.zeros((3, 9))
  values[:, 3:6] = 1  # left, then top
  places = ((768, 0), (0, 0), (0, 768))
  assert [cells.share(values, cells.Patch("s", "tumor", *at)) for at in places] == [1, 0, 0]


def test_share_of_a_rectangle_and_of_its_hole():
  box = lambda a, b: {"name": "", "vertices": [[a, a], [b, a], [b, b], [a, b]]}
  found = lesions.shares({"tumor": [box(128, 640)], "normal": [box(256, 512)]}, 1024, 768)
  np.testing.assert_allclose(found, [[.25, .5, .25, 0], [.5, 0, .5, 0], [.25, .5, .25, 0]])


def test_a_hole_beside_a_tumour_is_no_lesion():
  box = lambda a, b: {"name": "", "vertices": [[a, 0], [b, 0], [b, 700], [a, 700]]}
  found = lesions.shares({"tumor": [box(0, 512)], "normal": [box(256, 1024)]}, 1000, 700)
  np.testing.assert_allclose(found, [[1, 0, 0]] * 2)  # whole pixels of the slide: 2 x 3


@pytest.mark.parametrize("least, want", [(0.5, [True, True, False]), (0.75, [True, False, False]),
                                         (1.0, [True, False, False]), (0.0, [True, True, False])])
def test_cells_of_lesion_lie_in_the_tissue(least, want):
  share = np.repeat([[1.0, 0.5, 1.0]], 3, 1).repeat(3, 0)
  np.testing.assert_array_equal(cells.lesion_cells(share, np.array([[True, True, False]]), least), [want])


@pytest.mark.parametrize("kind", cells.KINDS)
@pytest.mark.parametrize("place, fine", [((990, 790), True), ((1015, 790), False), ((990, 815), False),
                                         ((-5, -4), True), ((-15, 5), False), ((5, -15), False)])
def test_outlines_lie_on_their_slide_in_both_directions(kind, place, fine):
  found = {**dict.fromkeys(cells.KINDS, ()), kind: [{"name": "A", "vertices": [[5, 5], [*place]]}]}
  if fine:
    return annotations.check_inside(found, 1000, 800, "a.xml")
  with pytest.raises(UserError, match=f"'A' reaches .{place[0]}, {place[1]}."):
    annotations.check_inside(found, 1000, 800, "a.xml")


def test_stains_come_from_all_of_the_tissue_and_from_enough_of_it():
  """The first 20,000 pixels have one stain alone; 99 pixels say nothing, but to the published form."""
  rng = np.random.default_rng(0)
  wanted = stain_matrix.unit(np.array([[.6, .75, .29], [.1, .95, .2]]))
  amounts = rng.exponential(0.8, (300, 300, 2)) * (rng.random((300, 300, 2)) < 0.7)
  amounts[:180, :, 1] = 0
  image = np.clip(255 * np.exp(-amounts @ wanted), 1, 255).astype(np.uint8)
  assert (stain.find_stains(image).matrix * wanted).sum(1).min() > np.cos(np.radians(3))
  few = np.full((40, 40, 3), 255, np.uint8)
  few[:9, :11] = image[250:259, 50:61].clip(0, 120)
  assert stain.tissue_pixels(stain.standardize(few)).sum() == 99
  with pytest.raises(stain.NoStain, match="99 pixels of tissue"):
    stain.find_stains(few)
  assert stain.find_stains(few, parity=True).matrix.shape == (2, 3)


# ---------------------------------------------------------------------------- steps of a preparation
class Records:
  """A store that holds records alone."""

  def __init__(self, **keys):
    self.keys = keys

  def record(self, name, step, key=None):
    return {"key": self.keys[step]} if step in self.keys else None


def step_slide(tmp_path, name="tumor_001", records=None, **given):
  settings = fields.resolve(fields.Settings(str(tmp_path), str(tmp_path / "out"), border=0, **given))
  entry = Entry(name, "train", name.partition("_")[0], "a.tif", "a.xml")
  found = steps.Slide(entry, settings, records or Records())
  found.pixels = types.SimpleNamespace(width=12 * cells.SIDE, height=10 * cells.SIDE)
  if not (tmp_path / "a.tif").exists():  # of another time the keys are others
    (tmp_path / "a.tif").touch()
  return found


def test_steps_are_done_again_when_what_they_are_made_of_changes(tmp_path):
  """Patches of a corrected outline; patches in the stains of another target; and what follows from them."""
  key = lambda step, **keys: step(step_slide(tmp_path, records=Records(**keys)))[0]
  for step, needed in ((steps.mask, ("annotations",)), (steps.cut, ("masks",)),
                       (colours.normalise, ("cut", "target")), (colours.merge, ("stain",)),
                       (colours.resize, ("merge", "cut"))):
    keys = dict.fromkeys(needed, "before")
    first = key(step, **keys)
    assert first == key(step, **keys)
    for name in needed[:1] if step is colours.resize else needed:
      assert key(step, **{**keys, name: "after"}) != first, (step, name)


def test_cells_are_drawn_for_every_slide_by_its_name_and_its_lesion(tmp_path, monkeypatch):
  monkeypatch.setattr(tissue, "cells", lambda thumbnail, border: np.ones((10, 12), bool))

  def places(name, lesion=None, **given):
    drawn = steps._drawn(step_slide(tmp_path, name, **given), None, lesion)
    return [(p.left // cells.SIDE, p.top // cells.SIDE) for p in drawn]
  assert places("normal_001") == places("normal_001") and len(set(places("normal_001"))) == 50
  assert places("normal_001") != places("normal_002") and places("normal_001") != places("normal_001", seed=1)
  lesion = np.zeros((30, 36), np.uint8)
  lesion[:3, :3], lesion[3:6, 3:6] = 255, 153  # all of a cell, and 0.6 of another
  assert places("tumor_001", lesion) == [(0, 0)]
  assert sorted(places("tumor_001", lesion, least_lesion=0.5)) == [(0, 0), (1, 1)]


def test_listed_patches_are_of_this_slide_and_of_its_kind(tmp_path):
  slide = step_slide(tmp_path)
  patch = lambda kind, left, top: cells.Patch("tumor_001", kind, left, top)
  steps._check(slide, patch("tumor", 11 * cells.SIDE, 9 * cells.SIDE))
  for wrong, said in ((patch("normal", 0, 0), "is listed as normal"),
                      (patch("tumor", 11 * cells.SIDE + 1, 0), "outside"),
                      (patch("tumor", 0, 9 * cells.SIDE + 1), "outside")):
    with pytest.raises(UserError, match=said):
      steps._check(slide, wrong)


def test_slides_that_are_listed_and_those_that_are_there(tmp_path, monkeypatch):
  """Leftovers of other systems are no slides; what is cut is not said to be missing."""
  for name in ("normal/n1.tif", "normal/._n2.tif", "normal/n3.tif", "tumor/t1.TIF", "tumor/t1.xml"):
    path = tmp_path / "training" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  make = lambda **given: fields.Settings(str(tmp_path), "", **given)
  entries, reasons = source.find(make(left_out=("n3",)))
  assert [(e.name, e.kind, e.names) for e in entries] == [("n1", "normal", None), ("t1", "tumor", None)]
  assert not reasons
  monkeypatch.setattr(source, "published", lambda folder: {"n3": ["a", "b"], "t1": ["c"], "gone": ["d"]})
  entries, reasons = source.find(make(left_out=("n3",), names="lists"))
  assert [(e.name, e.names) for e in entries] == [("n3", ("a", "b")), ("t1", ("c",))]
  assert reasons == {"gone": "its patches are listed, the slide is not there"}


def test_names_that_are_none_are_refused():
  for name in ("a.jpg", "a_normal_x_1_y_2_w_0_h_768.jpg", "a_other_x_1_y_2_w_768_h_768.jpg"):
    with pytest.raises(UserError):
      cells.parse(name)
  with pytest.raises(UserError, match="cannot be reduced by 4"):
    reduced.reduced(np.zeros((6, 8, 3), np.uint8), 4)


@pytest.mark.parametrize("left, top, fits", [(50, 10, True), (60, 40, True), (61, 40, False), (60, 41, False),
                                             (-1, 0, False), (0, -1, False)])
def test_the_target_of_the_stains_is_cut_where_the_settings_say(tmp_path, monkeypatch, left, top, fits):
  """Columns from the left, rows from the top, inside the slide of 80 x 60."""
  image = np.stack([*np.mgrid[:60, :80], np.zeros((60, 80), int)], -1).astype(np.uint8)
  read = lambda level, x, y, w, h: image[y:y + h, x:x + w]
  monkeypatch.setattr(colours.reader, "open_slide", lambda path: contextlib.nullcontext(
      types.SimpleNamespace(width=80, height=60, read=read)))
  monkeypatch.setattr(colours.stores, "key", lambda *_: "key")
  monkeypatch.setattr(colours.stain, "find_stains", lambda pixels, _: types.SimpleNamespace(matrix=pixels))
  kept = {}
  store = types.SimpleNamespace(
      record=lambda *_: None, folder=tmp_path, write_record=lambda *given: kept.update(given[-1]),
      write=lambda file, data: (tmp_path / file).write_bytes(data) and {"file": file})
  settings = types.SimpleNamespace(source="s", target_slide="n", target_left=left, target_top=top,
                                   target_side=20, ending=".png", parity=False)
  if not fits:
    with pytest.raises(UserError, match="lies outside of"):
      colours.target(Entry("n", "train", "normal", "a.tif", ""), settings, store)
    return
  found = colours.target(Entry("n", "train", "normal", "a.tif", ""), settings, store)
  assert found == kept and found["matrix"] == image[top:top + 20, left:left + 20].tolist()


def test_the_published_target_and_number_of_patches_are_what_is_taken_where_nothing_is_said():
  found = fields.Settings("a", "b")
  assert (found.target_slide, found.target_left, found.target_top, found.target_side) == (
      "normal_056", 23808, 120832, 2816)
  assert found.per_slide == 50 and len(found.left_out) == 7


def test_slides_of_which_nobody_says_whether_they_are_normal_are_named_and_not_missed(tmp_path):
  """A download of testing/ alone with an older table: the folder does hold slides."""
  images = tmp_path / "testing" / "images"
  images.mkdir(parents=True)
  (images / "test_009.tif").write_bytes(b"")
  (tmp_path / "testing" / "reference.csv").write_text("test_001,Normal,None,None\n")
  settings = fields.Settings(str(tmp_path), str(tmp_path / "out"))
  assert source.find(settings) == (
      [], {"test_009": "testing/reference.csv does not say whether it is normal"})
  (images / "test_009.tif").unlink()
  with pytest.raises(UserError, match="holds no slides in training/normal"):
    source.find(settings)


@pytest.mark.parametrize("bicubic", [False, True])
def test_the_published_mask_has_the_proportions_of_its_slide(bicubic):
  """A slide of 1024 x 512 pixels whose left quarter is tumour: four columns, two rows."""
  left = {"name": "", "vertices": [(-9, -9), (255, -9), (255, 600), (-9, 600)]}
  polygons = {"tumor": [left], "normal": []}
  found = lesions.published(polygons, 1024, 512, bicubic=bicubic)
  assert found.shape == (2, 4) and (found[:, 0] > 100).all() and (found[:, 2:] == 0).all(), found


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_otsus_threshold_leaves_the_least_variance_on_both_sides(share):
  rng = np.random.default_rng(0)
  dark = rng.random(4000) < share
  values = np.where(dark, rng.normal(0.3, 0.08, 4000), rng.normal(0.8, 0.03, 4000))
  values.sort()
  edges = np.linspace(values[0], values[-1], 257)
  within = lambda e: sum(part.size * part.var() for part in (values[values < e], values[values >= e]))
  found = within(tissue.otsu(values) + (edges[1] - edges[0]) / 2)
  assert found < 1.001 * min(map(within, edges[1:-1]))


def test_light_is_cut_to_whole_numbers_as_it_was_published(monkeypatch):
  monkeypatch.setattr(stain, "_stains_of", lambda pixels, parity: None)
  codes = np.float32([[0.5], [0.25]])
  monkeypatch.setattr(stain, "_codes", lambda block, _: codes * np.ones(len(block), np.float32))
  target = stain.Stains(np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]))
  found = stain.normalize(np.full((2, 3, 3), 200, np.uint8), target)
  exact = 255 * np.exp(-0.5 * target.matrix[0] - 0.25 * target.matrix[1])
  assert (exact % 1 > 0.5).any()
  np.testing.assert_array_equal(found, np.broadcast_to(np.floor(exact), found.shape))
