"""One-class data sets of image files: lists of NIH and Camelyon16, labelled folders, single images."""

import gzip
import pathlib

import numpy as np
from PIL import Image
import pytest

from data_pipelines import stream
from data_pipelines.datasets import camelyon, natural, nih
from data_pipelines.one_class import transforms
from tests.golden_cases import shared_data
from tests.one_class_folders import RNG, cfg_of, npz


# -------------------------------------------------------------------------------- nih and camelyon
def _write_lists(root: pathlib.Path, lists):
  for name, names in lists.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(root / f"{name}.gz", "wt") as f:
      f.writelines(f"{n}\n" for n in names)


def _nih(tmp_path):
  """Published layout in small: 24 patients, two images each, the folds of the subset identical."""
  images = tmp_path / "nih_300"
  images.mkdir()
  names = [f"{p:08d}_{k:03d}.png" for p in range(24) for k in range(2)]
  for n in names:
    Image.fromarray(RNG.integers(0, 256, (300, 300), np.uint8)).save(images / n)
  normal, anomaly = names[:32], names[32:]
  final, fold = "train_test_split/nih/subset/", "folds/nih/subset/{}/"
  lists = {final + "normal/train": normal[:20], final + "normal/test": normal[20:24],
           final + "anomaly/test": anomaly[:4]}
  for k in range(3):
    at = fold.format(k)
    lists.update({at + "normal/train": normal[:20], at + "normal/val": normal[24:32],
                  at + "normal/test": normal[24:32], at + "anomaly/test": anomaly[4:]})
  _write_lists(tmp_path / "lists", lists)
  return cfg_of(view="subset", image_root=str(images), lists_root=str(tmp_path / "lists"))


def test_nih_lists(tmp_path):
  cfg = _nih(tmp_path)
  data = nih.build(cfg, 0)
  assert data.splits == ("test",) and len(data.train()) == 20 and len(data.split("test")) == 8
  item = data.train().items[3]
  raw = np.asarray(Image.open(item.path))[38:262, 38:262]  # centre crop 224 of 300
  expected = np.asarray(Image.fromarray(raw).resize((64, 64), Image.Resampling.BILINEAR))
  np.testing.assert_array_equal(data.train().read_one(3)["image"][..., 0],
                                transforms.normalize(expected))
  assert data.train().meta(3)["group"] == item.name[:8]
  few = nih.build(cfg_of(**cfg.to_dict(), train_limit=3), 0)
  assert [i.name for i in few.train().items] == [i.name for i in data.train().items[:3]]
  with_val = nih.build(cfg_of(**cfg.to_dict(), val_fraction=0.2, val_anomalies=3), 0)
  assert with_val.splits == ("val", "test") and len(with_val.split("val")) == 4 + 3


def test_nih_validation_anomalies_are_of_nobody_who_is_trained_on(tmp_path):
  """Patient 0 is trained on: an image of theirs on the list of anomalies does not come to val."""
  cfg = _nih(tmp_path)
  anomalies = ["00000000_001.png", *[f"{p:08d}_000.png" for p in (20, 21)]]
  _write_lists(tmp_path / "lists", {f"folds/nih/subset/{k}/anomaly/test": anomalies for k in range(3)})
  data = nih.build(cfg_of(**cfg.to_dict(), val_fraction=0.2, val_anomalies=3), 0)
  names = [data.split("val").meta(i)["id"] for i in range(len(data.split("val")))]
  assert len(names) == 4 + 2 and not [n for n in names if n.startswith("00000000") and "_001" in n]


def test_nih_subset_folds_leak_only_when_published(tmp_path):
  cfg = _nih(tmp_path).to_dict()
  tests = []
  for k in range(3):
    data = nih.build(cfg_of(**cfg, fold=k), 0)
    shared = data.describe()["groups_shared_with_train"]
    assert not any(shared.values())
    names = lambda part, data=data: {i.name for i in data.lists[part]}
    assert not names("val_normal") & names("test_normal")
    tests.append(names("test_normal"))
  assert not tests[0] & tests[1] and len(set.union(*tests)) == 28
  published = nih.build(cfg_of(**cfg, fold=0, folds="published"), 0)
  assert published.lists["val_normal"] == published.lists["test_normal"]


def test_nih_equalise_only_in_the_test(tmp_path):
  cfg = _nih(tmp_path)
  cfg.equalize_hist_test = True
  data = nih.build(cfg, 0)
  plain = nih.build(_nih_same(cfg, equalize_hist_test=False), 0)
  np.testing.assert_array_equal(data.train().read_one(0)["image"],
                                plain.train().read_one(0)["image"])
  assert np.any(data.split("test").read_one(0)["image"]
                != plain.split("test").read_one(0)["image"])


def _nih_same(cfg, **changes):
  return cfg_of(**{**cfg.to_dict(), **changes})


def test_nih_errors(tmp_path):
  cfg = _nih(tmp_path)
  for change, error, text in (
      (dict(view="AP"), FileNotFoundError, "no list"), (dict(view="XX"), ValueError, "view='XX'"),
      (dict(image_root="/nowhere"), FileNotFoundError, "image_root"),
      (dict(fold=7), ValueError, "fold=7"), (dict(folds="x"), ValueError, "folds='x'"),
      (dict(layout="folder", root="/nowhere"), FileNotFoundError, "no folder '/nowhere'")):
    with pytest.raises(error, match=text):
      nih.build(_nih_same(cfg, **change), 0)
  data = nih.build(cfg, 0)
  pathlib.Path(data.train().items[0].path).unlink()
  with pytest.raises(FileNotFoundError, match="image .* does not exist"):
    data.train().read_one(0)
  with pytest.raises(FileNotFoundError, match="1 of 28 listed images are not there"):
    nih.build(cfg, 0)  # before training, whatever list it is on
  pathlib.Path(data.train().items[1].path).write_bytes(b"\x89PNG broken")
  with pytest.raises(ValueError, match="not a readable image"):
    data.train().read_one(1)


def _camelyon(tmp_path):
  images, n = tmp_path / "x10", 0
  images.mkdir(parents=True)
  def patch(slide):
    nonlocal n
    n += 1
    kind = slide.split("_")[0]
    name = f"{slide}_{kind}_x_{768 * n}_y_768_w_768_h_768.jpg"
    Image.fromarray(RNG.integers(0, 256, (48, 48, 3), np.uint8)).save(images / name)
    return name
  train = [patch(f"normal_{s:03d}") for _ in range(3) for s in range(9)]
  tumor = [patch(f"tumor_{s:03d}") for s in range(4) for _ in range(2)]
  lists = {"train_test_split/camelyon16/healthy/normal/train": train,
           "train_test_split/camelyon16/healthy/normal/test": [patch("test_1"), patch("test_2")],
           "train_test_split/camelyon16/healthy/anomaly/test": [patch("test_3")]}
  for k in range(3):
    at = f"folds/camelyon16/healthy/{k}/"
    lists.update({at + "normal/train": train[:20], at + "normal/val": train[20:],
                  at + "normal/test": train, at + "anomaly/test": tumor[2 * k:2 * k + 4]})
  _write_lists(tmp_path / "lists", lists)
  return cfg_of(image_root=str(images), lists_root=str(tmp_path / "lists"), crop_size=32)


def test_camelyon_folds(tmp_path):
  cfg = _camelyon(tmp_path)
  for k in range(3):
    data = camelyon.build(_nih_same(cfg, fold=k), 0)
    slides = lambda part, data=data: {i.group for i in data.lists[part]}
    assert not slides("train") & (slides("test_normal") | slides("val_normal"))
    assert data.lists["test_anomaly"]
  leaky = camelyon.build(_nih_same(cfg, fold=0, folds="published"), 0)
  assert leaky.describe()["groups_shared_with_train"]["test_normal"] == 9
  assert "test on training images" in leaky.describe()["protocol"]
  assert not {i.name for i in leaky.lists["val_normal"]} & {i.name for i in leaky.lists["train"]}
  assert len(leaky.lists["val_normal"]) == 7


def test_camelyon_augmentation_is_fresh_unless_frozen(tmp_path):
  cfg = _camelyon(tmp_path)
  def first(step, **changes):
    data = camelyon.build(_nih_same(cfg, **changes), 0)
    batch = next(stream.train_stream(data, {}, batch_size=27, first_step=step, seed=0))
    return batch["image"]
  augment = dict(random_crop=True, random_flip=True)
  plain = first(0)
  assert plain.shape == (27, 32, 32, 3) and plain.dtype == np.float32
  sort = lambda a: sorted(float(i.sum()) for i in a)
  assert sort(plain) == sort(first(1))  # an epoch each: the same centre crops
  assert sort(first(0, **augment)) != sort(first(1, **augment))
  np.testing.assert_array_equal(first(1, **augment), first(1, **augment))
  frozen = dict(**augment, freeze_augmentation=True)
  assert sort(first(0, **frozen)) == sort(first(1, **frozen)) != sort(plain)
  test = camelyon.build(_nih_same(cfg, **augment), 0).split("test").read_one(0)["image"]
  assert test.shape == (32, 32, 3) and test.dtype == np.float32
  with pytest.raises(ValueError, match="resident cannot draw crops"):
    camelyon.build(_nih_same(cfg, **augment), 0).resident_arrays()


# --------------------------------------------------------------------------------- labelled folders
def test_folders_without_labels(tmp_path):
  for split in ("train", "test"):
    for side in ("normal", "anomaly"):
      (tmp_path / split / side).mkdir(parents=True)
      for i in range(4):
        Image.fromarray(RNG.integers(0, 256, (70, 70), np.uint8)).save(
            tmp_path / split / side / f"{i}.png")
  cfg = cfg_of(layout="folder", root=str(tmp_path), crop_size=64, resize=32)
  data = nih.build(cfg, 0)
  assert len(data.train()) == 4 and len(data.split("test")) == 8
  assert data.split("test").read_one(5)["label"] == 1
  with pytest.raises(ValueError, match="needs validation anomalies"):
    nih.build(_nih_same(cfg, fold=0), 0)


def test_labels_need_columns(tmp_path):
  (tmp_path / "labels.csv").write_text("file,label\na.png,normal\n")
  with pytest.raises(ValueError, match="has no column .split."):
    nih.build(cfg_of(layout="folder", root=str(tmp_path)), 0)


def test_chest_xray_folder():
  cfg = cfg_of(layout="folder", root=str(shared_data("chest_xray")), crop_size=224, resize=32,
             val_kind="virus")
  data = nih.build(cfg, 0)
  assert (len(data.train()), len(data.split("val")), len(data.split("test"))) == (500, 90, 300)
  assert data.split("test").read_one(0)["image"].shape == (32, 32, 1)
  fold = nih.build(_nih_same(cfg, fold=0), 0)
  assert not any(fold.describe()["groups_shared_with_train"].values())


def test_histopathology_folder():
  cfg = cfg_of(layout="folder", root=str(shared_data("histopathology_lung")), crop_size=64, resize=96)
  data = camelyon.build(cfg, 0)
  assert len(data.train()) == 257 and len(data.split("test")) == 43 + 58 + 67
  assert data.split("test").meta(50)["kind"] in ("adenocarcinoma", "squamous")


# ------------------------------------------------------------------------------------- single images
def test_read_example_is_the_test_transform(tmp_path):
  cfg = _nih(tmp_path)
  data = nih.build(cfg, 0)
  np.testing.assert_array_equal(nih.read_example(data.split("test").items[2].path, cfg),
                                data.split("test").read_one(2)["image"])
  original = RNG.integers(0, 256, (700, 640), np.uint8)  # is scaled to the 300 pixels of the lists first
  Image.fromarray(original).save(tmp_path / "original.png")
  Image.fromarray(original).resize((300, 300), Image.Resampling.BILINEAR).save(tmp_path / "scaled.png")
  np.testing.assert_array_equal(nih.read_example(tmp_path / "original.png", cfg),
                                nih.read_example(tmp_path / "scaled.png", cfg))
  cfg = _camelyon(tmp_path / "c")
  data = camelyon.build(_nih_same(cfg, random_crop=True), 0)
  np.testing.assert_array_equal(camelyon.read_example(data.split("test").items[0].path, cfg),
                                data.split("test").read_one(0)["image"])
  x, _ = npz(tmp_path)
  Image.fromarray(x[0]).save(tmp_path / "a.png")
  cfg = cfg_of(dataset="svhn", root=str(tmp_path), normal_class=0, to_grayscale=True)
  np.testing.assert_array_equal(natural.read_example(tmp_path / "a.png", cfg),
                                natural.build(cfg, 0).split("test").read_one(0)["image"])


def test_maps_go_back_to_the_place_of_the_crop(tmp_path):
  cfg = _nih(tmp_path)
  placed = nih.place_map(np.ones((64, 64)), (300, 300), cfg)
  assert placed[38:262, 38:262].min() == 1 and placed.sum() == 224 * 224
  full = nih.place_map(np.ones((64, 64)), (1024, 1024), cfg)  # an original: scaled to 300 before the crop
  assert full.shape == (1024, 1024) and full.mean() == pytest.approx((224 / 300) ** 2, abs=0.002)
  point = np.zeros((32, 32))
  point[16, 16] = 1  # near the middle of the crop, hence of the patch
  placed = camelyon.place_map(point, (48, 48), cfg_of(crop_size=32))
  assert placed[24, 24] == 1 and placed.sum() == 1
