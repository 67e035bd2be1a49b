"""Patches straight from slides: cells, random places, stains, lesions, what is kept."""

import os
import types

import numpy as np
from PIL import Image
import pytest

from data_pipelines import fields, stream
from data_pipelines.datasets import slides
from data_pipelines.errors import UserError
from data_pipelines.slides import lesions, patches, plan, stain
from tests import slide_files

IMAGE = slide_files.tissue(320, 400)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp("root")
  rows = ["file,split,label,group"]
  for i, (split, label) in enumerate([("train", "normal"), ("train", "normal"), ("val", "normal"),
                                      ("test", "normal"), ("test", "tumour")]):
    slide_files.write_slide(folder / f"s{i}.tif", slide_files.tissue(320, 400, i), downsamples=(1, 2))
    rows.append(f"s{i}.tif,{split},{label},p{i}")
  (folder / "labels.csv").write_text("\n".join(rows) + "\n")
  mask = np.zeros((32, 40), np.uint8)
  mask[12:20, 20:30] = 9
  masks = tmp_path_factory.mktemp("masks")
  Image.fromarray(mask).save(masks / "s4.png")
  (folder / "where").write_text(str(masks))
  return folder


def build(root, **given):
  return slides.build(fields.changed(slides.defaults(), root=str(root), crop_size=16, magnification=20,
                                     jitter=8, **given), 0)


def test_cells_lie_where_their_names_say(root):
  data = build(root)
  source = data.fitting()
  for i in (0, len(source) // 2, len(source) - 1):
    meta = data.lists["train"][i]
    number, x, y = (int(meta.name.replace(".tif", "").split("_")[k].lstrip("s")) for k in (0, 2, 4))
    half = slide_files.tissue(320, 400, number).reshape(160, 2, 200, 2, 3).mean((1, 3))
    patch = (source.read_one(i)["image"] + 1) * 127.5
    assert np.abs(patch - half[y:y + 16, x:x + 16]).max() < 1


def test_masks_say_which_cells_are_lesions(root):
  lists = build(root, masks_dir=(root / "where").read_text()).lists
  ill = {i.name.partition("_")[2] for i in lists["test_anomaly"]}
  assert ill and all("s4" in i.name for i in lists["test_anomaly"])
  for name in ill:  # the mask covers rows 120 to 200, columns 200 to 300 of level 0
    x, y = (int(v) * 2 for v in name.split("_")[1::2])
    assert 184 <= x <= 288 and 104 <= y <= 184
  assert any("s4" in i.name for i in lists["test_normal"])


def test_the_stream_is_a_function_of_the_step(root):
  batches = lambda data, first: stream.train_stream(data, {}, batch_size=4, first_step=first, seed=3)
  whole = batches(build(root), 0)
  taken = [next(whole)["image"] for _ in range(4)]
  again = next(batches(build(root), 3))
  np.testing.assert_array_equal(taken[3], again["image"])
  assert set(again) == {"image", "index"} and again["image"].shape == (4, 16, 16, 3)
  assert again["image"].min() >= -1 and again["image"].max() <= 1
  varied = next(batches(build(root, stain=0.3), 3))["image"]
  plain = next(batches(build(root, stain=0.0), 3))["image"]
  assert 0.005 < np.abs(varied - plain).mean() < 0.3


def test_stain_augmentation_moves_amounts_and_keeps_glass():
  from data_pipelines.ops.stain import stain_jitter
  from data_pipelines.tf import tf
  patch = IMAGE[100:164, 200:264]
  matrix = stain.find_stains(np.ascontiguousarray(patch)).matrix.astype(np.float32)
  image = np.stack([patch, np.full_like(patch, 255), patch])
  stains = np.stack([matrix, matrix, np.zeros_like(matrix)])
  op = lambda lo, hi: stain_jitter(0.3)({"image": tf.constant(image[lo:hi]), "stains": stains[lo:hi]},
                                        tf.constant([0, 7]), lo, hi, 3)["image"].numpy()
  found = op(0, 3)
  np.testing.assert_array_equal(found[1:], image[1:])
  assert np.abs(found[0].astype(int) - patch).mean() > 1
  np.testing.assert_array_equal(found[:1], op(0, 1))  # rows do not depend on who else is in the batch
  change = np.log(np.maximum(found[0], 1) / 255.0) - np.log(np.maximum(patch, 1) / 255.0)
  bright = (found[0] > 40).all(-1) & (patch > 40).all(-1)
  normal = np.cross(matrix[0], matrix[1])
  assert np.abs(change[bright] @ (normal / np.linalg.norm(normal))).mean() < 0.01  # in their plane
  amounts = -np.log(np.maximum(patch, 1) / 255.0)[bright] @ np.linalg.pinv(matrix)
  moved, both = -change[bright] @ np.linalg.pinv(matrix), np.minimum(amounts.sum(1), 1)
  for stain_number in range(2):  # (1 + a) c + b min(1, c1 + c2): two draws, of which neither is the other
    known = np.stack([amounts[:, stain_number], both], 1)[amounts.min(1) > 0.02]
    (a, b), rest, *_ = np.linalg.lstsq(known, moved[:, stain_number][amounts.min(1) > 0.02])
    assert max(abs(a), abs(b)) < 0.31 and abs(a - b) > 0.02 and rest[0] / len(known) < 1e-3


def test_plans_are_kept(root, tmp_path, monkeypatch):
  names = lambda data: [i.name for i in data.lists["train"]]
  first = names(build(root, tissue_dir=str(tmp_path)))
  assert len(list(tmp_path.glob("*.npz"))) == 5
  monkeypatch.setattr(plan, "make", None)
  assert names(build(root, tissue_dir=str(tmp_path))) == first
  kept = next(iter(tmp_path.glob("*.npz")))
  for damaged in (b"half", kept.read_bytes()[:300]):  # the second begins as a zip archive
    kept.write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged .*: delete it, it is made again"):
      build(root, tissue_dir=str(tmp_path))


def library(root, **given):
  cfg = fields.changed(slides.defaults(), root=str(root), crop_size=16, **given)
  return patches.Library(slides.resolve(cfg))


@pytest.mark.parametrize("given, downsample", [
    ({}, 4), ({"magnification": 20.0}, 2), ({"mpp": 1.0}, 4), ({"mpp": 0.75}, 3), ({"own_mpp": 0.5}, 2),
    ({"mpp": 1.0, "own_mpp": 0.5}, 2)])
def test_the_resolution_that_is_asked_for(root, given, downsample):
  """Micrometres before magnification, and what the user says of a slide before what its file says."""
  assert library(root, **given).plan(str(root / "s0.tif")).downsample == pytest.approx(downsample)


def test_a_window_has_its_cell_in_the_middle(root):
  found, path = library(root, magnification=20.0), str(root / "s0.tif")
  for cell in (0, len(found.plan(path).places) // 2):
    np.testing.assert_array_equal(found.patch(path, cell, 8)[4:-4, 4:-4], found.patch(path, cell))


def test_sixteen_slides_are_open_at_most_and_the_longest_unused_is_closed(monkeypatch):
  """File handles are few; a slide that is used all the time stays open."""
  opened = []
  monkeypatch.setattr(patches.reader, "open_slide", lambda path, mpp: opened.append(path) or path)
  library = patches.Library({"own_mpp": 0.0})
  for k in range(20):
    assert library._slide(f"s{k}") == f"s{k}" and library._slide("s0") == "s0"
    assert len(library._open) <= 16
  assert opened == [f"s{k}" for k in range(20)] and "s1" not in library._open
  assert library._slide("s1") == "s1" and opened[-1] == "s1"


def test_what_is_kept_is_of_one_slide_at_one_resolution(root, tmp_path):
  """Another field or another file of that name: another plan. The stains are kept with it."""
  path = tmp_path / "s.tif"
  slide_files.write_slide(path, IMAGE, downsamples=(1, 2))
  changes = ({}, {"mpp": 0.5}, {"magnification": 20.0}, {"own_mpp": 0.2}, {"crop_size": 32}, {"tissue": 0.4})
  kept = set()
  for number, change in enumerate(changes, 1):
    given = {"tissue_dir": str(tmp_path / "kept"), "crop_size": 16, **change}
    first = patches.Library(slides.resolve(fields.changed(slides.defaults(), root=str(tmp_path), **given)))
    stains = first.stains(str(path))
    kept |= {p.name for p in (tmp_path / "kept").iterdir()}
    assert len(kept) == number and stains.any()
    again = patches.Library(first._cfg)
    np.testing.assert_array_equal(again.stains(str(path)), stains)
  os.utime(path, (1, 1))
  patches.Library(first._cfg).plan(str(path))
  assert len(list((tmp_path / "kept").iterdir())) == len(changes) + 1


@pytest.mark.parametrize("n, most, want", [
    (10, 4, [0, 2, 5, 7]), (4, 0, range(4)), (3, 5, range(3)), (0, 4, [])])
def test_cells_are_spread_over_the_slide(n, most, want):
  assert patches.spread(n, most).tolist() == list(want)


@pytest.fixture(scope="module")
def marked(root, tmp_path_factory):
  """The slides with a training tumour beside them, a half marked lesion, and a mask of a normal slide."""
  folder = tmp_path_factory.mktemp("marked")
  table = (root / "labels.csv").read_text() + "s5.tif,train,tumour,p5\n"
  for i in range(6):
    os.link(root / f"s{min(i, 4)}.tif", folder / f"s{i}.tif")
  (folder / "labels.csv").write_text(table)
  masks = folder.parent / f"{folder.name}_masks"
  masks.mkdir()
  mask = np.zeros((40, 50), np.uint8)
  mask[:, 26:] = 1
  for i in (3, 4):
    Image.fromarray(mask).save(masks / f"s{i}.png")
  return folder, masks


def test_cells_that_are_partly_lesion_are_neither(marked):
  """16 pixels at half the resolution, 32 of level 0. The lesion begins at column 208, amid a cell."""
  folder, masks = marked
  data = build(folder, masks_dir=str(masks), tissue=0.0, scored_per_slide=0)
  column = lambda item: int(item.name.split("_")[2]) * 2
  of = lambda part: [i for i in data.lists[part] if "s4" in i.name]
  assert {column(i) for i in of("test_normal")} == set(range(0, 192, 32))
  assert {column(i) for i in of("test_anomaly")} == set(range(192, 400, 32))  # 192: half of it is marked
  kinds = [{i.kind for i in of(part)} for part in ("test_normal", "test_anomaly")]
  assert kinds == [{"normal"}, {"tumour"}]
  assert not [i for i in data.lists["test_anomaly"] if "s3" in i.name]  # a normal slide, mask or not
  assert {i.group for i in data.lists["train"]} == {"p0", "p1"}  # anomalies of training are not trained on
  less = build(folder, masks_dir=str(masks), tissue=0.0, per_slide=7, scored_per_slide=3).lists
  assert [len(less[part]) for part in ("train", "test_normal", "test_anomaly")] == [14, 6, 3]


def test_masks_that_fit_no_slide_are_refused_and_lacking_ones_said(marked, tmp_path, caplog):
  """All cells of the slide would count as lesions, or those of another picture, without a word."""
  folder, masks = marked
  with pytest.raises(FileNotFoundError, match="masks_dir='.*nowhere'"):
    build(folder, masks_dir=str(tmp_path / "nowhere"))
  Image.open(masks / "s4.png").save(tmp_path / "s4_mask.png")
  with pytest.raises(UserError, match="holds no mask of an abnormal slide, such as s4.png"):
    build(folder, masks_dir=str(tmp_path))
  Image.open(masks / "s4.png").transpose(Image.Transpose.ROTATE_90).save(tmp_path / "s4.png")
  with pytest.raises(UserError, match="s4.png is 40x50 pixels and .*s4.tif 400x320: not of its proportions"):
    build(folder, masks_dir=str(tmp_path))
  item = lambda path: slides.Item(path, path, "tumour", path)
  assert list(slides._masks([item("a/s4.tif"), item("a/s9.tif")], str(masks))) == ["a/s4.tif"]
  assert "1 of 2 abnormal slides have no mask, all their cells count as abnormal: s9.tif" in caplog.text
  with pytest.raises(UserError, match="s4.png fits a/s4.tif and b/s4.tif"):
    slides._masks([item("a/s4.tif"), item("b/s4.tif")], str(masks))


@pytest.mark.parametrize("jitter, flip, stains, want", [
    (8, True, 0.1, ["random_crop", "random_flip", "stain_jitter", "normalize_batch"]),
    (0, True, 0.0, ["random_flip", "normalize_batch"]), (8, False, 0.0, ["random_crop", "normalize_batch"])])
def test_fields_say_what_is_varied(root, jitter, flip, stains, want):
  cfg = slides.resolve(fields.changed(slides.defaults(), jitter=jitter, random_flip=flip, stain=stains))
  lists = {part: [slides.Item(part, part, "", str(root / "s0.tif"), 0)]
           for part in ("train", "test_normal", "test_anomaly")}
  ops = slides.SlidePatches(cfg, lists, None, "x").train().batch_ops
  assert [op.__qualname__.partition(".")[0] for op in ops] == want


def test_a_patch_file_is_shown_by_its_middle():
  pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)
  shown = slides.of_pixels(fields.changed(slides.defaults(), crop_size=16))[0](pixels)
  np.testing.assert_allclose(shown, pixels[4:20, 2:18] / 127.5 - 1, atol=1e-6)


def test_limits_and_refusals(root):
  assert len(build(root, per_slide=5).lists["train"]) == 10
  with pytest.raises(UserError, match="coarser than the 80"):
    slides.build(fields.changed(slides.defaults(), root=str(root), magnification=80), 0)
  with pytest.raises(UserError, match="stain=1.5 below 1"):
    build(root, stain=1.5)
  with pytest.raises(UserError, match="cut when they are asked for"):
    build(root).resident_arrays()


@pytest.mark.parametrize("size, fits", [((32, 40), True), ((33, 40), True), ((36, 40), False),
                                        ((32, 45), False)])
def test_a_mask_of_any_colour_marks_the_cells_below_it(tmp_path, monkeypatch, size, fits):
  """A slide of 800 x 640 in cells of 160; the mask is a twentieth of it, its size rounded."""
  cells = types.SimpleNamespace(tile=80, downsample=2.0, shape=(4, 5),
                                places=np.array([[0, 0], [1, 2], [3, 4]]))
  library = patches.Library({})
  monkeypatch.setattr(library, "_slide", lambda path: types.SimpleNamespace(width=800, height=640))
  monkeypatch.setattr(library, "plan", lambda path: cells)
  mask = np.zeros((*size, 3), np.uint8)
  mask[8:16, 16:20, 2] = 200  # blue: half of the cell in row 1, column 2
  Image.fromarray(mask).save(tmp_path / "m.png")
  if fits:
    np.testing.assert_allclose(library.lesion_shares("s.tif", tmp_path / "m.png"), [0, 0.5, 0], atol=0.05)
  else:
    with pytest.raises(UserError, match="not of its proportions"):
      library.lesion_shares("s.tif", tmp_path / "m.png")


def test_a_window_comes_with_the_stains_of_its_own_slide():
  made = types.SimpleNamespace(patch=lambda path, place, jitter: np.full((2, 2, 3), 51 * place, np.uint8),
                               stains=lambda path: f"stains of {path}")
  items = [slides.Item(f"{k}", "g", "normal", f"s{k}.tif", k) for k in range(3)]
  for stains in (True, False):
    source = slides._Windows(items, made, 0, (), stains)
    found = [source.read_one(i) for i in range(3)]
    np.testing.assert_allclose([f["image"].flat[0] for f in found], [-1, -0.6, -0.2], rtol=1e-5)
    assert [f.get("stains") for f in found] == [f"stains of s{k}.tif" if stains else None for k in range(3)]


def test_masks_of_glass_and_lesions_beside_the_tissue(tmp_path, caplog):
  """An inverted mask made nearly all tissue normal; one of another level marked none."""
  tissue, lesion = np.zeros((8, 10), bool), np.zeros((8, 10))
  tissue[2:, 2:8], lesion[4:6, 4:7] = True, 1
  lesions.check_on_tissue("m.png", lesion, tissue)
  lesions.check_on_tissue("m.png", lesion[:7], tissue)  # sides are rounded
  lesions.check_on_tissue("m.png", 1 - lesion, tissue | True)  # no glass is known
  lesions.check_on_tissue("m.png", 0 * lesion, tissue)
  assert not caplog.text
  with pytest.raises(UserError, match="m.png marks 100% of what is no tissue of its slide: is it inverted"):
    lesions.check_on_tissue("m.png", 1 - lesion, tissue)
  lesions.check_on_tissue("m.png", np.roll(lesion, 4, 1), tissue)
  assert "m.png: 100 % of its lesion lies beside the tissue" in caplog.text


def test_a_mask_over_the_whole_of_a_slide_is_inverted(tmp_path):
  image = slide_files.tissue(320, 400)
  image[:, 200:] = 250
  slide_files.write_slide(tmp_path / "s.tif", image, downsamples=(1, 2))
  mask = np.full((32, 40), 255, np.uint8)
  mask[12:20, 5:12] = 0
  Image.fromarray(mask).save(tmp_path / "s.png")
  with pytest.raises(UserError, match="s.png marks 96% of what is no tissue"):
    library(tmp_path, magnification=20.0).lesion_shares(str(tmp_path / "s.tif"), tmp_path / "s.png")
