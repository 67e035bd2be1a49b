"""Crops, mirrors and brightness of patches, by a picture whose colours are its rows and columns."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.datasets import camelyon, natural, nih
from data_pipelines.one_class import transforms
from data_pipelines.one_class.lists import Item
from data_pipelines.ops import resize
from tests.one_class_folders import RNG, cfg_of, npz

ROWS, COLUMNS = np.mgrid[:20, :30]
PLACES = np.stack([ROWS, COLUMNS, ROWS + COLUMNS], -1).astype(np.uint8)
ITEMS = [Item(f"i{k}", "p", "normal") for k in range(300)]


def test_frozen_crops_reach_every_place_and_every_mirror():
  load = camelyon._frozen(lambda item: PLACES, ITEMS, 3, 16, True, True, False)
  places, mirrors = set(), set()
  for item in ITEMS:
    shown = load(item)
    rows, columns = shown[:, 0, 0].astype(int), shown[0, :, 1].astype(int)
    assert set(np.diff(rows)) in ({1}, {-1}) and set(np.diff(columns)) in ({1}, {-1})
    np.testing.assert_array_equal(shown[..., 2], rows[:, None] + columns)
    places.add((rows.min(), columns.min()))
    mirrors.add((rows[0] > rows[1], columns[0] > columns[1]))
  assert {r for r, _ in places} == set(range(5)) and {c for _, c in places} == set(range(15))
  assert len(places) > 50 and len(mirrors) == 4
  np.testing.assert_array_equal(load(ITEMS[7]), load(ITEMS[7]))
  other = camelyon._frozen(lambda item: PLACES, ITEMS, 4, 16, True, True, False)
  assert any(not np.array_equal(load(i), other(i)) for i in ITEMS[:5])
  plain = camelyon._frozen(lambda item: PLACES, ITEMS, 3, 16, False, False, True)(ITEMS[0])
  np.testing.assert_array_equal(plain, transforms.equalize(PLACES[2:18, 7:23]))


@pytest.mark.parametrize("side, equal", [(0, False), (24, False), (0, True), (24, True)])
def test_a_patch_is_resized_cropped_and_then_equalised(tmp_path, side, equal):
  image = RNG.integers(0, 200, (20, 20, 3)).astype(np.uint8)
  Image.fromarray(image).save(tmp_path / "a.png")
  cfg = cfg_of(crop_size=16, resize=side, equalize_hist=equal)
  want = transforms.center_crop(resize.antialiased(image, side) if side else image, 16)
  want = transforms.normalize(transforms.equalize(want) if equal else want)
  np.testing.assert_array_equal(camelyon.read_example(tmp_path / "a.png", cfg), want)
  example, place = camelyon.of_pixels(cfg)
  np.testing.assert_array_equal(example(image), want)
  covered = place(np.ones((16, 16)), (20, 20))  # 16 of 24, or of 20
  assert covered.mean() == pytest.approx((16 / (side or 20)) ** 2, abs=0.02) and covered[10, 10] == 1


@pytest.mark.parametrize("given, want", [
    (dict(random_crop=True, random_flip=True, equalize_hist=True),
     ["random_crop", "equalize_batch", "random_flip", "normalize_batch"]),
    (dict(random_flip=True, equalize_hist=True), ["random_flip", "normalize_batch"]),
    (dict(random_crop=True), ["random_crop", "normalize_batch"])])
def test_brightness_is_spread_once_and_behind_the_crop(tmp_path, given, want):
  for place in ("train/normal", "test/normal", "test/anomaly"):
    (tmp_path / place).mkdir(parents=True)
    Image.fromarray(PLACES * 5).save(tmp_path / place / f"{place.replace('/', '_')}.png")
  data = camelyon.build(cfg_of(layout="folder", root=str(tmp_path), crop_size=16, **given), 0)
  assert [op.__qualname__.partition(".")[0] for op in data.train().batch_ops] == want
  equal = given.get("equalize_hist", False)
  shown = data.split("test").read_one(0)["image"]
  crop = transforms.center_crop(PLACES * 5, 16)
  np.testing.assert_array_equal(shown, transforms.normalize(transforms.equalize(crop) if equal else crop))


def test_a_limit_of_training_images_holds_for_arrays_too(tmp_path):
  npz(tmp_path)
  cfg = dict(dataset="svhn", root=str(tmp_path), normal_class=3)
  every, few = (natural.build(cfg_of(**cfg, **more), 0).lists["train"] for more in ({}, {"train_limit": 3}))
  assert few == every[:3] and len(every) == 12


@pytest.mark.parametrize("normal", [0, 3])
def test_drawn_folds_of_a_class_are_its_own(normal):
  """Every image of the class is tested on once, and no other class is trained on."""
  labels = np.arange(600) % 10
  cfg = natural.resolve(cfg_of(dataset="cifar10", normal_class=normal, fold=0, folds="generated"))
  made = [natural._fold(cfg, "cifar10", normal, 7, labels, k)[0] for k in range(3)]
  assert sorted(np.concatenate([f["test_normal"] for f in made])) == np.flatnonzero(labels == normal).tolist()
  assert all((labels[f[part]] == normal).all() for f in made for part in ("train", "val"))
  both = {"train": labels, "test": labels}
  lists, notes = natural._lists(cfg, "cifar10", normal, both, lambda *item: item)
  assert notes["protocol"] == "fold 0 of the training split, generated with seed 0"
  assert lists["test_normal"] == [("train", i) for i in made[0]["test_normal"]]
  places = lambda c, f: (np.asarray(f["train"]) - c) // 10
  other = natural._fold(natural.resolve(cfg_of(dataset="cifar10", normal_class=1, fold=0, folds="generated")),
                        "cifar10", 1, 7, labels, 0)[0]
  assert set(places(normal, made[0])) != set(places(1, other))  # drawn for each class by itself


def test_equalised_in_the_test_alone_or_in_both(tmp_path):
  image = RNG.integers(0, 99, (30, 30)).astype(np.uint8)
  Image.fromarray(image).save(tmp_path / "a.png")
  shown = lambda **given: nih.read_example(tmp_path / "a.png", cfg_of(
      layout="folder", root="x", crop_size=20, resize=20, **given))
  plain = transforms.normalize(image[5:25, 5:25, None])
  np.testing.assert_array_equal(shown(), plain)
  np.testing.assert_array_equal(shown(equalize_hist=True, equalize_hist_test=False), plain)
  for given in ({"equalize_hist": True}, {"equalize_hist_test": True}):
    np.testing.assert_array_equal(shown(**given), transforms.normalize(
        transforms.equalize(image[5:25, 5:25, None])))


def test_a_radiograph_is_cropped_then_equalised_then_resized(tmp_path):
  """Columns of 10 and 20 in turn, 512 pixels each, and a white frame that the crop takes away.

  Pillow's equalisation: steps of (1024 - 512) // 255 = 2, so that 10 becomes 0 and 20 becomes 255; a resize
  by one half mixes them to 127.5. Resized first there is one grey, with the frame 20 becomes 128.
  """
  image = np.full((40, 40), 255, np.uint8)
  image[4:36, 4:36] = np.where(np.arange(32) % 2, 20, 10)
  Image.fromarray(image).save(tmp_path / "a.png")
  shown = nih.read_example(tmp_path / "a.png", cfg_of(layout="folder", root="x", crop_size=32, resize=16,
                                                      equalize_hist=True))
  np.testing.assert_allclose(shown[:, 1:-1], 0, atol=1.01 / 127.5)


@pytest.mark.parametrize("shape", [(9, 12), (10, 11), (11, 8), (13, 15)])
def test_a_map_goes_back_where_its_crop_was_taken(shape):
  image = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
  part = transforms.center_crop(image, 8)
  back = transforms.uncrop(part, 8, shape, shape)
  np.testing.assert_allclose(back, np.where(np.isin(image, part), image, 0), atol=1e-9)
