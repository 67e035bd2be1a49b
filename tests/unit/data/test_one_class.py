"""One-class data sets: lists, folds without leaks, transforms, reading, errors."""

import gzip
import pathlib

import ml_collections
import numpy as np
from PIL import Image
import pytest

from data_pipelines import stream
from data_pipelines.datasets import camelyon, natural, nih
from data_pipelines.formats import images
from data_pipelines.one_class import folds, lists as one_class, transforms
from data_pipelines.ops import augment
from tests.golden_cases import shared_data

RNG = np.random.default_rng(0)


def _cfg(**fields):
  return ml_collections.ConfigDict(fields)


def _npz(folder, n=120, size=32):
  y = np.arange(n) % 10
  x = RNG.integers(0, 256, (n, size, size, 3), np.uint8)
  x[:, 0, 0, 0] = np.arange(n)  # an image tells its own index
  np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:40], y_test=y[:40])
  return x, y


# ------------------------------------------------------------------------------------------ rules
def test_group_folds_do_not_leak():
  normal = [f"p{i // 3}" for i in range(60)]
  anomalous = [f"q{i // 2}" for i in range(20)] + ["p0", "p1"]  # two groups have both
  made = folds.group_folds(normal, anomalous, seed=3)
  assert sorted(np.concatenate([f["test_normal"] for f in made])) == list(range(60))
  for fold in made:
    groups = {part: {normal[i] for i in fold[part]} for part in ("train", "val", "test_normal")}
    tested = {anomalous[i] for i in fold["test_anomaly"]}
    seen = groups["train"] | groups["val"]
    assert tested and not seen & (groups["test_normal"] | tested)
    assert not groups["train"] & groups["val"] and groups["val"]
  again = folds.group_folds(normal, anomalous, seed=3)
  other = folds.group_folds(normal, anomalous, seed=4)
  same = lambda a, b: all(np.array_equal(a[k]["train"], b[k]["train"]) for k in range(3))
  assert same(made, again) and not same(made, other)


def test_group_folds_need_groups():
  with pytest.raises(ValueError, match="2 groups"):
    folds.group_folds(["a", "b"], ["c"], 0)


def test_leaks_are_refused():
  item = lambda name, group: one_class.Item(name, group)
  lists = {"train": [item("a", "g")], "test_normal": [item("b", "g")],
           "test_anomaly": [item("c", "h")]}
  load = lambda it: np.zeros((4, 4, 1), np.uint8)
  with pytest.raises(ValueError, match="share groups {'test_normal': 1}"):
    one_class.OneClassDataSet("x", lists, load)
  kept = one_class.OneClassDataSet("x", lists, load, allow_leaks=True)
  assert kept.describe()["groups_shared_with_train"]["test_normal"] == 1
  with pytest.raises(ValueError, match="no image in test_anomaly"):
    one_class.OneClassDataSet("x", {**lists, "test_anomaly": []}, load)


# ------------------------------------------------------------------------------------- transforms
def test_equalize_batch_is_pillow():
  images = RNG.integers(0, 256, (5, 24, 24, 3)).astype(np.uint8)
  images[0] //= 8  # a narrow histogram
  images[1] = 77  # one level: unchanged
  images[2, :, :, 1] = np.where(images[2, :, :, 1] < 3, 10, 200)  # two levels, step 0
  expected = np.stack([transforms.equalize(i) for i in images])
  seed = np.zeros(2, np.int32)
  ours = transforms.equalize_batch()({"image": images}, seed, 0, 5, 5)["image"]
  np.testing.assert_array_equal(ours, expected)


def test_random_ops_are_stateless_and_split_over_hosts():
  import tensorflow as tf  # pylint: disable=import-outside-toplevel
  images = RNG.integers(0, 256, (8, 20, 20, 3)).astype(np.uint8)
  def run(lo, hi, seed):
    batch = {"image": tf.constant(images[lo:hi])}
    for op in (augment.random_crop(12), transforms.equalize_batch(), augment.random_flip(),
               transforms.normalize_batch()):
      batch = op(batch, tf.constant(seed, tf.int32), lo, hi, 8)
    return batch["image"].numpy()
  whole = run(0, 8, [1, 5])
  np.testing.assert_array_equal(whole, np.concatenate([run(0, 4, [1, 5]), run(4, 8, [1, 5])]))
  assert whole.shape == (8, 12, 12, 3) and whole.dtype == np.float32
  assert np.any(whole != run(0, 8, [1, 6])) and np.any(whole != run(0, 8, [2, 5]))


def test_random_crop_reaches_every_offset_and_flips_are_fair():
  import tensorflow as tf  # pylint: disable=import-outside-toplevel
  image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
  batch = {"image": tf.constant(np.repeat(image, 600, 0))}
  crops = augment.random_crop(3)(batch, tf.constant([0, 0]), 0, 600, 600)["image"].numpy()
  assert {int(c[0, 0, 0]) for c in crops} == {0, 1, 4, 5}
  flips = augment.random_flip()(batch, tf.constant([0, 0]), 0, 600, 600)["image"].numpy()
  corners, counts = np.unique(flips[:, 0, 0, 0], return_counts=True)
  assert set(corners) == {0, 3, 12, 15} and counts.min() > 100


def test_center_crop_refuses_small_images():
  with pytest.raises(ValueError, match="crop_size=768 exceeds"):
    transforms.center_crop(np.zeros((300, 300, 1), np.uint8), 768)


# ---------------------------------------------------------------------------------------- natural
def test_natural_official_split(tmp_path):
  x, y = _npz(tmp_path)
  data = natural.build(_cfg(dataset="cifar10", root=str(tmp_path), normal_class=3), 0)
  assert data.splits == ("test",) and data.validation() is None
  train = data.train()
  read = train.read(np.arange(len(train)))
  assert set(read) == {"image"} and len(train) == (y == 3).sum()
  np.testing.assert_array_equal(read["image"], transforms.normalize(x[y == 3]))
  assert read["image"].min() == -1 and read["image"].max() == 1
  test = data.split("test")
  labels = test.read(np.arange(len(test)))["label"]
  assert labels.dtype == np.int32 and labels.sum() == 36 and len(labels) == 40
  assert test.meta(0)["kind"] == "cat" and test.meta(39)["kind"] != "cat"
  with pytest.raises(ValueError, match="no split 'val'"):
    data.split("val")


def test_natural_validation_and_transforms(tmp_path):
  x, y = _npz(tmp_path)
  cfg = _cfg(dataset="svhn", root=str(tmp_path / "data.npz"), normal_class=1, val_fraction=0.25,
             val_anomalies=5, to_grayscale=True, equalize_hist=True)
  data = natural.build(cfg, 0)
  assert data.splits == ("val", "test")
  val = data.split("val").read(np.arange(len(data.split("val"))))
  assert val["image"].shape == (8, 32, 32, 1) and list(val["label"]) == [0] * 3 + [1] * 5
  assert {data.split("val").meta(i)["kind"] for i in range(3, 8)} == {"9"}  # the published pair
  item = data.split("test").items[0]
  expected = transforms.equalize(images.grey(x[item.place]))
  np.testing.assert_array_equal(data.split("test").read_one(0)["image"],
                                transforms.normalize(expected))
  assert len(data.train()) + 3 == (y == 1).sum()


def test_natural_folds(tmp_path):
  _npz(tmp_path)
  cfg = _cfg(dataset="cifar10", root=str(tmp_path), normal_class=0, fold=1)
  data = natural.build(cfg, 0)
  assert data.describe()["groups_shared_with_train"]["test_normal"] == 0
  kinds = {data.split("test").meta(i)["kind"] for i in range(len(data.split("test")))}
  assert kinds == {"airplane", "horse"}
  for bad, text in ((dict(fold=3), "fold=3"), (dict(folds="published"), "lists_root"),
                    (dict(normal_class=10), "normal_class=10"), (dict(dataset="x"), "dataset='x'"),
                    (dict(val_class=0), "is the normal class")):
    with pytest.raises(ValueError, match=text):
      natural.build(_cfg(**{**cfg.to_dict(), **bad}), 0)
  chosen = natural.build(_cfg(**cfg.to_dict(), val_from_test=True), 0)
  assert [chosen.split("val").meta(i) for i in range(len(chosen.split("val")))] == [
      chosen.split("test").meta(i) for i in range(len(chosen.split("test")))]
  with pytest.raises(ValueError, match="val_from_test is for folds"):
    natural.build(_cfg(**{**cfg.to_dict(), "fold": -1, "val_from_test": True}), 0)
  with pytest.raises(ValueError, match="published folds index the 50000"):
    natural.build(_cfg(**{**cfg.to_dict(), "folds": "published",
                         "lists_root": str(shared_data("folds"))}), 0)


def test_natural_forms_agree(tmp_path):
  """The same images as .npz, official binary files, .mat files and a prepared TFDS folder."""
  import scipy.io  # pylint: disable=import-outside-toplevel
  import tensorflow as tf  # pylint: disable=import-outside-toplevel
  import tensorflow_datasets as tfds  # pylint: disable=import-outside-toplevel
  x, y = _npz(tmp_path, n=50)
  binary = tmp_path / "bin" / "cifar-10-batches-bin"
  binary.mkdir(parents=True)
  rows = np.concatenate([y[:, None].astype(np.uint8), x.transpose(0, 3, 1, 2).reshape(50, -1)], 1)
  for i in range(5):
    rows[i * 10:(i + 1) * 10].tofile(binary / f"data_batch_{i + 1}.bin")
  rows[:40].tofile(binary / "test_batch.bin")
  mat = tmp_path / "mat"
  mat.mkdir()
  for split, n in (("train", 50), ("test", 40)):
    scipy.io.savemat(mat / f"{split}_32x32.mat", {"X": x[:n].transpose(1, 2, 3, 0),
                                                  "y": np.where(y == 0, 10, y)[:n, None]})
  order = RNG.permutation(50)  # TFDS shuffles when it prepares
  def dataset(split, which):
    return tf.data.Dataset.from_tensor_slices({
        "image": x[which], "label": y[which],
        "id": np.array([f"{split}_{i:05d}".encode() for i in which])})
  features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(32, 32, 3)),
                                         "label": tfds.features.ClassLabel(num_classes=10),
                                         "id": tfds.features.Text()})
  tfds.dataset_builders.store_as_tfds_dataset(
      name="cifar10", version="3.0.2", data_dir=str(tmp_path / "tfds"), features=features,
      split_datasets={"train": dataset("train", order), "test": dataset("test", order[order < 40])})
  wanted = natural.read_arrays("cifar10", tmp_path / "data.npz")
  for kind, root in (("cifar10", tmp_path / "bin"), ("svhn", mat), ("cifar10", tmp_path / "tfds")):
    found = natural.read_arrays(kind, root)
    for key, value in wanted.items():
      np.testing.assert_array_equal(found[key], value, err_msg=f"{root} {key}")


def test_natural_bad_files(tmp_path):
  with pytest.raises(FileNotFoundError, match="config.data.root needs"):
    natural.read_arrays("cifar10", tmp_path / "nothing")
  with pytest.raises(FileNotFoundError, match="holds no svhn"):
    natural.read_arrays("svhn", tmp_path)
  (tmp_path / "a.npz").write_bytes(b"PK no archive")
  with pytest.raises(ValueError, match="not a readable .npz"):
    natural.read_arrays("cifar10", tmp_path / "a.npz")
  np.savez(tmp_path / "b.npz", x_train=np.zeros(3))
  with pytest.raises(ValueError, match="lacks the array x_test, y_test, y_train"):
    natural.read_arrays("cifar10", tmp_path / "b.npz")
  (tmp_path / "data_batch_1.bin").write_bytes(b"123")
  for i in range(2, 6):
    (tmp_path / f"data_batch_{i}.bin").write_bytes(b"")
  with pytest.raises(ValueError, match="multiple of 3073"):
    natural.read_arrays("cifar10", tmp_path)


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
  return _cfg(view="subset", image_root=str(images), lists_root=str(tmp_path / "lists"))


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
  with_val = nih.build(_cfg(**cfg.to_dict(), val_fraction=0.2, val_anomalies=3), 0)
  assert with_val.splits == ("val", "test") and len(with_val.split("val")) == 4 + 3


def test_nih_subset_folds_leak_only_when_published(tmp_path):
  cfg = _nih(tmp_path).to_dict()
  tests = []
  for k in range(3):
    data = nih.build(_cfg(**cfg, fold=k), 0)
    shared = data.describe()["groups_shared_with_train"]
    assert not any(shared.values())
    names = lambda part, data=data: {i.name for i in data.lists[part]}
    assert not names("val_normal") & names("test_normal")
    tests.append(names("test_normal"))
  assert not tests[0] & tests[1] and len(set.union(*tests)) == 28
  published = nih.build(_cfg(**cfg, fold=0, folds="published"), 0)
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
  return _cfg(**{**cfg.to_dict(), **changes})


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
  return _cfg(image_root=str(images), lists_root=str(tmp_path / "lists"), crop_size=32)


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
  cfg = _cfg(layout="folder", root=str(tmp_path), crop_size=64, resize=32)
  data = nih.build(cfg, 0)
  assert len(data.train()) == 4 and len(data.split("test")) == 8
  assert data.split("test").read_one(5)["label"] == 1
  with pytest.raises(ValueError, match="needs validation anomalies"):
    nih.build(_nih_same(cfg, fold=0), 0)


def test_labels_need_columns(tmp_path):
  (tmp_path / "labels.csv").write_text("file,label\na.png,normal\n")
  with pytest.raises(ValueError, match="lacks the column split"):
    nih.build(_cfg(layout="folder", root=str(tmp_path)), 0)


def test_chest_xray_folder():
  cfg = _cfg(layout="folder", root=str(shared_data("chest_xray")), crop_size=224, resize=32,
             val_kind="virus")
  data = nih.build(cfg, 0)
  assert (len(data.train()), len(data.split("val")), len(data.split("test"))) == (500, 90, 300)
  assert data.split("test").read_one(0)["image"].shape == (32, 32, 1)
  fold = nih.build(_nih_same(cfg, fold=0), 0)
  assert not any(fold.describe()["groups_shared_with_train"].values())


def test_histopathology_folder():
  cfg = _cfg(layout="folder", root=str(shared_data("histopathology_lung")), crop_size=64, resize=96)
  data = camelyon.build(cfg, 0)
  assert len(data.train()) == 257 and len(data.split("test")) == 43 + 58 + 67
  assert data.split("test").meta(50)["kind"] in ("adenocarcinoma", "squamous")


def test_cifar10_subset():
  data = natural.build(_cfg(dataset="cifar10", root=str(shared_data("cifar10_subset")),
                           normal_class=8), 0)
  assert len(data.train()) == 500 and len(data.split("test")) == 2000


# ------------------------------------------------------------------------------------- single images
def test_read_example_is_the_test_transform(tmp_path):
  cfg = _nih(tmp_path)
  data = nih.build(cfg, 0)
  np.testing.assert_array_equal(nih.read_example(data.split("test").items[2].path, cfg),
                                data.split("test").read_one(2)["image"])
  cfg = _camelyon(tmp_path / "c")
  data = camelyon.build(_nih_same(cfg, random_crop=True), 0)
  np.testing.assert_array_equal(camelyon.read_example(data.split("test").items[0].path, cfg),
                                data.split("test").read_one(0)["image"])
  x, _ = _npz(tmp_path)
  Image.fromarray(x[0]).save(tmp_path / "a.png")
  cfg = _cfg(dataset="svhn", root=str(tmp_path), normal_class=0, to_grayscale=True)
  np.testing.assert_array_equal(natural.read_example(tmp_path / "a.png", cfg),
                                natural.build(cfg, 0).split("test").read_one(0)["image"])


def test_maps_go_back_to_the_place_of_the_crop(tmp_path):
  cfg = _nih(tmp_path)
  placed = nih.place_map(np.ones((64, 64)), (300, 300), cfg)
  assert placed[38:262, 38:262].min() == 1 and placed.sum() == 224 * 224
  assert nih.place_map(np.ones((64, 64)), (1024, 1024), cfg).shape == (1024, 1024)
  point = np.zeros((32, 32))
  point[16, 16] = 1  # near the middle of the crop, hence of the patch
  placed = camelyon.place_map(point, (48, 48), _cfg(crop_size=32))
  assert placed[24, 24] == 1 and placed.sum() == 1
