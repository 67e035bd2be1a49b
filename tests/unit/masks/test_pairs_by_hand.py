"""Pairs of images and masks: which mask belongs, what counts as lesion, which images keep the expert's."""

import csv
import logging
import types

import numpy as np
from PIL import Image
import pytest

from data_pipelines import fields
from data_pipelines.datasets import segmentation
from data_pipelines.errors import UserError
from data_pipelines.masks import images, label_noise
from tests.image_files import tiff


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(array)).save(path)
  return path


def marked(*box, shape=(20, 24), value=255):
  mask = np.zeros(shape, np.uint8)
  mask[slice(*box[:2]), slice(*box[2:])] = value
  return mask


# ------------------------------------------------------------------------------------------------ files
@pytest.mark.parametrize("dtype, values, lesion", [
    (np.uint8, (0, 0), (0, 0)), (np.uint8, (255, 255), (1, 1)), (np.uint8, (1, 1), (1, 1)),
    (np.uint8, (0, 1), (0, 1)), (np.uint8, (255, 0), (1, 0)), (np.uint16, (0, 0), (0, 0)),
    (np.uint16, (0, 65535), (0, 1)), (np.uint16, (65535, 65535), (1, 1)), (np.uint16, (255, 0), (1, 0))])
@pytest.mark.parametrize("soft", [False, True])
def test_masks_of_one_value_are_whole_or_empty(tmp_path, dtype, values, lesion, soft):
  """An empty one is no mistake, and one that fills its image neither."""
  save(tmp_path / "m.png", np.array([values] * 2, dtype))
  found = images.read_mask(tmp_path / "m.png", soft)
  assert found.dtype == np.float32 and found.tolist() == [list(lesion)] * 2


@pytest.mark.parametrize("shape, said", [((20, 24), ""), ((20, 23), "23x20"), ((19, 24), "24x19"),
                                         ((24, 20), "20x24"), ((40, 48), "48x40")])
def test_a_mask_has_both_sides_of_its_image(tmp_path, shape, said):
  image, mask = save(tmp_path / "i.png", marked(0, 5, 0, 5, value=9)), tmp_path / "m.png"
  save(mask, np.zeros(shape, np.uint8))
  if not said:
    assert images.check_pair(image, mask).shape == shape
    return
  with pytest.raises(UserError, match=f"i.png is 24x20 and its mask .*m.png is {said} pixels"):
    images.check_pair(image, mask)


@pytest.mark.parametrize("top, fine", [(15, False), (16, True), (255, True)])
def test_soft_masks_reach_beyond_numbers_of_labels(tmp_path, top, fine):
  grey = np.maximum(marked(2, 5, 2, 5, value=top), marked(3, 9, 3, 9, value=top // 2))
  path = save(tmp_path / "a.png", grey)
  if fine:
    assert images.read_mask(path, soft=True).max() == pytest.approx(top / 255)
  else:
    with pytest.raises(UserError, match="no value above 15"):
      images.read_mask(path, soft=True)


@pytest.mark.parametrize("kinds, said", [("in", False), ("iin", True), ("ccc", False), ("nnn", False)])
def test_most_masks_must_look_inverted_to_be_called_so(tmp_path, caplog, kinds, said):
  """i: everything but a box; n: a box; c: the four corners alone."""
  corners = np.zeros((20, 24), np.uint8)
  corners[np.ix_((0, -1), (0, -1))] = 255
  made = {"i": 255 - marked(5, 9, 5, 9), "n": marked(5, 9, 5, 9), "c": corners}
  pairs = [(save(tmp_path / "i" / f"{k}.png", np.zeros((20, 24, 3), np.uint8)),
            save(tmp_path / "m" / f"{k}.png", made[kind])) for k, kind in enumerate(kinds)]
  with caplog.at_level(logging.WARNING):
    images.check_pairs(pairs)
  assert ("are they inverted" in caplog.text) == said


@pytest.mark.parametrize("turn, of_mask, shape, said", [
    (3, 1, (20, 24), True), (2, 1, (20, 24), True), (6, 1, (24, 24), True), (1, 1, (20, 24), False),
    (3, 3, (20, 24), False), (6, 1, (24, 20), False)])  # the last fits the turned picture alone
def test_a_mask_that_fits_a_turned_image_either_way_is_said(tmp_path, caplog, turn, of_mask, shape, said):
  def turned(name, array, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(tmp_path / name, exif=exif)
    return tmp_path / name
  stored = (shape[1], shape[0]) if turn > 4 else shape
  image = turned("a.jpg", np.zeros((*stored, 3), np.uint8), turn)
  with caplog.at_level(logging.WARNING):
    images.check_pairs([(image, turned("a.png", marked(2, 5, 2, 5, shape=shape), of_mask))])
  assert ("1 of 1 images are turned or mirrored by their EXIF" in caplog.text) == said


@pytest.mark.parametrize("kind, said", [(0, True), (1, False)])
def test_masks_whose_white_is_zero_are_said(tmp_path, caplog, kind, said):
  """tifffile writes arrays of bool so; viewers show True black."""
  image = save(tmp_path / "i.png", np.zeros((20, 24), np.uint8))
  mask = tiff(tmp_path / "m.tif", marked(5, 9, 5, 9), photometric=kind)
  with caplog.at_level(logging.WARNING):
    images.check_pairs([(image, mask)])
  assert ("1 of 1 masks are TIFF files whose white is zero" in caplog.text) == said
  caplog.clear()
  indexed = Image.fromarray(marked(5, 9, 5, 9) // 255, "P")
  indexed.putpalette([255, 255, 255, 0, 0, 0] if said else [0, 0, 0, 255, 255, 255])
  indexed.save(tmp_path / "p.png")
  with caplog.at_level(logging.WARNING):
    images.check_pairs([(image, tmp_path / "p.png")])
  assert ("1 of 1 masks have a palette whose colour 0 is brighter" in caplog.text) == said
  assert images.read_mask(tmp_path / "p.png")[5, 5] == (not said)  # as a viewer shows it


def test_negative_marks_are_refused(tmp_path):
  """They marked nothing."""
  path = tiff(tmp_path / "m.tif", -marked(5, 9, 5, 9, value=1).astype(np.int16))
  with pytest.raises(UserError, match="holds negative values"):
    images.read_marks(path)


def test_a_mask_may_end_in_segmentation_and_an_image_is_called_as_it_is(tmp_path):
  for name in ("i/a.png", "i/b_segmentation.png", "i/P1/a.jpg", "m/a_segmentation.png", "m/P1/a.tif",
               "m/b_segmentation_segmentation.png"):
    save(tmp_path / name, marked(1, 2, 1, 2))
  found = images.pair(tmp_path / "i", tmp_path / "m")
  assert {name: (i.name, m.name) for name, i, m in found} == {
      "P1/a": ("a.jpg", "a.tif"), "a": ("a.png", "a_segmentation.png"),
      "b_segmentation": ("b_segmentation.png", "b_segmentation_segmentation.png")}
  save(tmp_path / "i" / "a.tif", marked(1, 2, 1, 2))
  with pytest.raises(UserError, match="a.png and .*a.tif differ only in their ending"):
    images.pair(tmp_path / "i", tmp_path / "m")


# ------------------------------------------------------------------------------------------------ examples
def item(name, level=0, group="", mask=None, truth=None):
  return images.Item(name, lambda: np.full((4, 4, 3), level, np.uint8),
                     lambda: np.zeros((4, 4), np.float32) if mask is None else mask, truth, "", group)


def test_pairs_at_their_own_size_and_places_in_the_noisy_set():
  soft = np.array([[0.4, 0.6]] * 2, np.float32)
  pairs = images.Pairs([item("a", mask=soft, truth=lambda: 1 - soft, group="P1"), item("b"), item("c")], 2,
                       first_sample=0, noisy=2, soft=True)
  native = pairs.native(0)
  assert native["mask"].tolist() == [[False, True]] * 2 and native["truth"].tolist() == [[True, False]] * 2
  assert pairs.native(1)["truth"] is None
  assert [int(pairs.read_one(i)["sample"]) for i in range(3)] == [0, 1, -1]
  assert [pairs.meta(i)["group"] for i in range(3)] == ["P1", "b", "c"]
  assert [int(images.Pairs([item("a")], 2, noisy=1).read_one(0)["sample"])] == [-1]


def test_the_noise_of_the_first_images_is_theirs_alone():
  """2 * 8 / (8 + 16) of a half mask, 1 of a whole one; an image without an expert's mask is skipped."""
  whole, half = np.ones((4, 4), np.float32), np.repeat(np.float32([[1, 1, 0, 0]]), 4, 0)
  noisy = [item("a", mask=whole, truth=lambda: whole), item("b", mask=whole),
           item("c", mask=half, truth=lambda: whole)]
  data = segmentation.Segmentation(types.SimpleNamespace(mean_image=""), {"noisy": noisy}, "set")
  assert [data.noise_dice(n) for n in (1, 2, 3, None)] == [1, 1, round(5 / 6, 4), round(5 / 6, 4)]


def test_the_mean_image_is_that_of_all_and_fits_every_size(tmp_path):
  source = images.Pairs([item("a", 51), item("b", 102), item("c", 153)], 4)
  images.write_mean_image(source, tmp_path / "mean.npy")
  mean = images.read_mean_image(tmp_path / "mean.npy")
  np.testing.assert_allclose(mean, np.full((4, 4, 3), 0.4), atol=1e-6)
  ramp = np.repeat(np.linspace(0, 1, 8, dtype=np.float32)[:, None, None], 8, 1) * np.ones(3, np.float32)
  found = images.to_network(np.full((6, 6, 3), 255, np.uint8), 2, ramp)
  assert found.shape == (2, 2, 3) and found[0, 0, 0] - found[1, 0, 0] == pytest.approx(0.5, abs=0.15)
  for wrong in (-0.1, 1.1, np.nan):
    np.save(tmp_path / "wrong.npy", np.where(np.arange(48).reshape(4, 4, 3) == 5, wrong, 0.5))
    with pytest.raises(UserError, match="values beyond 0 ... 1"):
      images.read_mean_image(tmp_path / "wrong.npy")


# ------------------------------------------------------------------------------------------------ tables
@pytest.fixture(name="root")
def table(tmp_path):
  """Six training images and one of each other split, with an expert's and another mask."""
  rows = [("image", "mask", "split", "noisy_mask", "clean", "image_id")]
  for k in range(8):
    split = ("train",) * 6 + ("val", "test")
    rows.append((f"i/{k}.png", f"m/{k}.png", split[k], f"o/{k}.png", "yes" if k in (1, 4) else "", f"id{k}"))
    save(tmp_path / f"i/{k}.png", np.full((20, 24, 3), 20 * k, np.uint8))
    save(tmp_path / f"m/{k}.png", marked(4, 9 + k, 4, 12))
    save(tmp_path / f"o/{k}.png", marked(1, 15, 1, 15))
  with (tmp_path / "labels.csv").open("w", newline="") as file:
    csv.writer(file).writerows(rows)
  return tmp_path


def parts(root, **given):
  cfg = fields.changed(segmentation.defaults(), dir=str(root), image_size=8, clean=2, **given)
  return segmentation.build(cfg, 0).parts


def columns(root, *kept):
  with (root / "labels.csv").open(newline="") as file:
    rows = list(csv.DictReader(file))
  with (root / "labels.csv").open("w", newline="") as file:
    out = csv.DictWriter(file, kept, extrasaction="ignore")
    out.writeheader()
    out.writerows(rows)


def test_a_table_says_which_images_have_the_experts_mask(root):
  found = parts(root)
  assert {part: [i.id for i in items] for part, items in found.items()} == {
      "clean": ["id1", "id4"], "noisy": ["id0", "id2", "id3", "id5"], "val": ["id6"], "test": ["id7"]}
  for one in found["clean"]:
    assert one.mask().sum() == (5 + int(one.id[2:])) * 8
  for one in found["noisy"]:
    assert one.mask().sum() == 14 * 14 and one.truth().sum() == (5 + int(one.id[2:])) * 8
  assert [i.id for i in parts(root, limit=2)["noisy"]] == ["id0", "id2"]
  assert len(parts(root, limit=1)["clean"]) == 2


def test_noise_is_made_of_the_experts_mask_with_its_own_seed(root):
  for seed in (1, 2):
    for one in parts(root, noise="shift:0.5", noise_seed=seed)["noisy"]:
      truth = one.truth() > 0.5
      np.testing.assert_array_equal(one.mask() > 0.5, label_noise.apply(truth, "shift:0.5", seed, one.id))


def test_without_a_column_the_clean_images_are_drawn_by_their_seed(root):
  columns(root, "image", "mask", "split", "noisy_mask")
  drawn = [{i.id for i in parts(root, clean_seed=seed)["clean"]} for seed in range(6)]
  assert all(len(d) == 2 for d in drawn) and len({tuple(sorted(d)) for d in drawn}) > 2
  assert drawn[0] == {i.id for i in parts(root)["clean"]}
  columns(root, "image", "mask", "split")
  with pytest.raises(UserError, match="no column 'noisy_mask': add one, or set config.data.noise"):
    parts(root)


def test_the_window_of_deep_images_holds_when_they_are_checked(root):
  save(root / "i/3.png", np.full((20, 24), 900, np.uint16))
  with pytest.raises(UserError, match="i/3.png has 16-bit pixels, but no value above"):
    parts(root)
  assert parts(root, window=(0, 1000))["noisy"][2].image()[0, 0, 0] == 230


def test_folders_in_capitals_and_clean_images_held_out_by_their_seed(root):
  for part, numbers in (("noisy", (0, 1)), ("clean", (2, 3, 4, 5)), ("test", (7,))):
    place = root / "set" / ("" if part == "test" else "Training") / part
    for k in numbers:
      for kind, folder in (("img", "i"), ("gt", "m")):
        target = place.with_name(f"{part}_{kind}") / f"{k}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / folder / f"{k}.png").read_bytes())
  held = [[i.id for i in parts(root / "set", layout="folders", grouping="file", val_from_clean=2,
                               clean_seed=seed)["val"]] for seed in range(5)]
  assert all(len(h) == 2 for h in held) and len({tuple(sorted(h)) for h in held}) > 1


def test_clean_synthetic_images_keep_the_experts_mask():
  cfg = fields.changed(segmentation.defaults(), layout="synthetic", synthetic_counts=(6, 1, 1), clean=2,
                       noise="whole", image_size=8)
  found = segmentation.build(cfg, 0).parts
  assert all(np.array_equal(i.mask(), i.truth()) for i in found["clean"]) and len(found["clean"]) == 2
  assert all(label_noise.whole((72, 96)).sum() == i.mask().sum() for i in found["noisy"])


def test_a_folder_that_the_layout_does_not_read_is_said():
  """Training went on with drawn images."""
  cfg = fields.changed(segmentation.defaults(), layout="synthetic", dir="mine")
  with pytest.raises(UserError, match="dir='mine' is not read by config.data.layout=synthetic"):
    segmentation.build(cfg, 0)


def test_a_pattern_says_whose_an_image_is_in_a_table_and_in_folders(root):
  """One that makes all of them one patient, who is on two sides then."""
  columns(root, "image", "mask", "split", "noisy_mask")
  parts(root)
  with pytest.raises(UserError, match="labels.csv: .* i in "):
    parts(root, group_pattern="(i)/")
  for part, numbers in (("noisy", (0, 1)), ("clean", (2, 3)), ("test", (7,))):
    for k in numbers:
      for kind, folder in (("img", "i"), ("gt", "m")):
        target = root / "set" / f"{part}_{kind}" / f"{k}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / folder / f"{k}.png").read_bytes())
  parts(root / "set", layout="folders")
  with pytest.raises(UserError, match=" img in "):
    parts(root / "set", layout="folders", group_pattern="(img)/")


@pytest.mark.parametrize("kind, said", [
    ("filled", ""), ("line", "2 of 2 masks are lines around what is meant"), ("ring", ""),
    ("nothing", "none of 2 masks marks anything")])
def test_masks_of_lines_or_of_nothing_are_said(tmp_path, caplog, kind, said):
  """An outline was a lesion as thin as its line; a set could be trained on masks of nothing."""
  mask = np.zeros((60, 80), np.uint8)
  if kind != "nothing":
    mask[10:50, 10:60] = 255
  if kind in ("line", "ring"):
    inset = 1 if kind == "line" else 12
    mask[10 + inset:50 - inset, 10 + inset:60 - inset] = 0
  for image, truth in (pairs := [(tmp_path / f"{i}.png", tmp_path / f"{i}_m.png") for i in range(2)]):
    Image.fromarray(mask // 2 + 9).save(image)
    Image.fromarray(mask).save(truth)
  images.check_pairs(pairs)
  assert (said in caplog.text) if said else not caplog.text
