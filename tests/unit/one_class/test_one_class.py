"""One-class data sets: rules of the folds, transforms, CIFAR-10 and SVHN."""

import numpy as np
import pytest

from data_pipelines.datasets import _natural_files, natural
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.one_class import folds, lists as one_class, transforms
from data_pipelines.ops import augment
from tests.golden_cases import shared_data
from tests.one_class_folders import RNG, cfg_of, npz


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
  for fold in folds.group_folds(normal, normal, seed=3):  # every anomaly has normals of its group
    seen = {normal[i] for part in ("train", "val") for i in fold[part]}
    assert not seen & {normal[i] for i in fold["test_anomaly"]}
  again = folds.group_folds(normal, anomalous, seed=3)
  other = folds.group_folds(normal, anomalous, seed=4)
  same = lambda a, b: all(np.array_equal(a[k]["train"], b[k]["train"]) for k in range(3))
  assert same(made, again) and not same(made, other)


def test_group_folds_need_groups():
  with pytest.raises(ValueError, match="2 groups"):
    folds.group_folds(["a", "b"], ["c"], 0)


def test_leaks_are_refused():
  item = one_class.Item
  lists = {"train": [item("a", "g")], "test_normal": [item("b", "g")],
           "test_anomaly": [item("c", "h")]}
  load = lambda it: np.zeros((4, 4, 1), np.uint8)
  with pytest.raises(ValueError, match="x: 1 patient is on two sides of the split: g in train and test"):
    one_class.OneClassDataSet("x", lists, load)
  kept = one_class.OneClassDataSet("x", lists, load, allow_leaks=True)
  assert kept.describe()["groups_shared_with_train"]["test_normal"] == 1
  assert "finding" not in kept.split("test").meta(0)  # kinds are findings where a data set says so
  with pytest.raises(ValueError, match="no image in test_anomaly"):
    one_class.OneClassDataSet("x", {**lists, "test_anomaly": []}, load)


def test_a_list_is_described_by_its_images_and_by_their_groups():
  item = one_class.Item
  lists = {"train": [item("a", "g"), item("b", "g"), item("c", "h")], "test_normal": [item("d", "i")],
           "test_anomaly": [item("e", "j"), item("f", "j")]}
  load = lambda it: np.zeros((4, 4, 1), np.uint8)
  data = one_class.OneClassDataSet("x", lists, load, notes={"of": "mine"})
  found = data.describe()
  assert {k: (v["images"], v["groups"]) for k, v in found["lists"].items() if v["images"]} == {
      "train": (3, 2), "test_normal": (1, 1), "test_anomaly": (2, 1)}
  assert found["name"] == "x" and found["of"] == "mine" and not found["synthetic"]
  assert found["lists"]["train"]["sha256_16"] == folds.checksum(["a", "b", "c"])


# ------------------------------------------------------------------------------------- transforms
def test_equalize_batch_is_pillow():
  images = RNG.integers(0, 256, (5, 24, 20, 3)).astype(np.uint8)
  images[0] //= 8  # a narrow histogram
  images[1] = 77  # one level: unchanged
  images[2, :, :, 1] = np.where(images[2, :, :, 1] < 3, 10, 200)  # two levels, step 0
  expected = np.stack([transforms.equalize(i) for i in images])
  seed = np.zeros(2, np.int32)
  ours = transforms.equalize_batch()({"image": images}, seed, 0, 5, 5)["image"]
  np.testing.assert_array_equal(ours, expected)


def test_random_ops_are_stateless_and_split_over_hosts():
  from data_pipelines.tf import tf
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
  from data_pipelines.tf import tf
  image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
  batch = {"image": tf.constant(np.repeat(image, 600, 0))}
  crops = augment.random_crop(3)(batch, tf.constant([0, 0]), 0, 600, 600)["image"].numpy()
  assert {int(c[0, 0, 0]) for c in crops} == {0, 1, 4, 5}
  wide = {"image": tf.constant(np.repeat(np.arange(18, dtype=np.uint8).reshape(1, 3, 6, 1), 600, 0))}
  crops = augment.random_crop(2)(wide, tf.constant([0, 0]), 0, 600, 600)["image"].numpy()
  assert {int(c[0, 0, 0]) for c in crops} == {6 * i + j for i in range(2) for j in range(5)}
  flips = augment.random_flip()(batch, tf.constant([0, 0]), 0, 600, 600)["image"].numpy()
  corners, counts = np.unique(flips[:, 0, 0, 0], return_counts=True)
  assert set(corners) == {0, 3, 12, 15} and counts.min() > 100


def test_center_crop_refuses_small_images():
  with pytest.raises(ValueError, match="crop_size=768 exceeds"):
    transforms.center_crop(np.zeros((300, 300, 1), np.uint8), 768)


# ---------------------------------------------------------------------------------------- natural
def test_natural_official_split(tmp_path):
  x, y = npz(tmp_path)
  data = natural.build(cfg_of(dataset="cifar10", root=str(tmp_path), normal_class=3), 0)
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
  x, y = npz(tmp_path)
  cfg = cfg_of(dataset="svhn", root=str(tmp_path / "data.npz"), normal_class=1, val_fraction=0.25,
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
  npz(tmp_path)
  cfg = cfg_of(dataset="cifar10", root=str(tmp_path), normal_class=0, fold=1)
  data = natural.build(cfg, 0)
  assert data.describe()["groups_shared_with_train"]["test_normal"] == 0
  kinds = {data.split("test").meta(i)["kind"] for i in range(len(data.split("test")))}
  assert kinds == {"airplane", "horse"}
  for bad, text in ((dict(fold=3), "fold=3"), (dict(folds="published"), "lists_root"),
                    (dict(normal_class=10), "normal_class=10"), (dict(dataset="x"), "dataset='x'"),
                    (dict(val_class=0), "is the normal class")):
    with pytest.raises(ValueError, match=text):
      natural.build(cfg_of(**{**cfg.to_dict(), **bad}), 0)
  chosen = natural.build(cfg_of(**cfg.to_dict(), val_from_test=True), 0)
  assert [chosen.split("val").meta(i) for i in range(len(chosen.split("val")))] == [
      chosen.split("test").meta(i) for i in range(len(chosen.split("test")))]
  with pytest.raises(ValueError, match="val_from_test is for folds"):
    natural.build(cfg_of(**{**cfg.to_dict(), "fold": -1, "val_from_test": True}), 0)
  with pytest.raises(ValueError, match="published folds index the 50000"):
    natural.build(cfg_of(**{**cfg.to_dict(), "folds": "published",
                         "lists_root": str(shared_data("folds"))}), 0)


def test_natural_forms_agree(tmp_path):
  """The same images as .npz, official binary files, .mat files and a prepared TFDS folder."""
  import scipy.io
  import tensorflow_datasets as tfds

  from data_pipelines.tf import tf
  x, y = npz(tmp_path, n=50)
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
  wanted = _natural_files.read_arrays("cifar10", tmp_path / "data.npz")
  for kind, root in (("cifar10", tmp_path / "bin"), ("svhn", mat), ("cifar10", tmp_path / "tfds")):
    found = _natural_files.read_arrays(kind, root)
    for key, value in wanted.items():
      np.testing.assert_array_equal(found[key], value, err_msg=f"{root} {key}")


def test_natural_bad_files(tmp_path):
  with pytest.raises(FileNotFoundError, match="config.data.root needs"):
    _natural_files.read_arrays("cifar10", tmp_path / "nothing")
  with pytest.raises(FileNotFoundError, match="holds no svhn"):
    _natural_files.read_arrays("svhn", tmp_path)
  (tmp_path / "a.npz").write_bytes(b"PK no archive")
  with pytest.raises(ValueError, match="not a readable .npz"):
    _natural_files.read_arrays("cifar10", tmp_path / "a.npz")
  np.savez(tmp_path / "b.npz", x_train=np.zeros(3))
  with pytest.raises(ValueError, match="lacks the array x_test, y_test, y_train"):
    _natural_files.read_arrays("cifar10", tmp_path / "b.npz")
  (tmp_path / "data_batch_1.bin").write_bytes(b"123")
  for i in range(2, 6):
    (tmp_path / f"data_batch_{i}.bin").write_bytes(b"")
  with pytest.raises(ValueError, match="multiple of 3073"):
    _natural_files.read_arrays("cifar10", tmp_path)
  (tmp_path / "data_batch_3.bin").unlink()
  (tmp_path / "data_batch_3.bin").mkdir()  # one look for whatever is no file: a pipe would be waited for
  with pytest.raises(UserError, match="data_batch_3.bin is a folder"):
    _natural_files.read_arrays("cifar10", tmp_path)


def test_cifar10_subset():
  data = natural.build(cfg_of(dataset="cifar10", root=str(shared_data("cifar10_subset")),
                           normal_class=8), 0)
  assert len(data.train()) == 500 and len(data.split("test")) == 2000


@pytest.mark.parametrize("cache", [False, True])
def test_training_alone_sees_images_prepared_for_training(cache):
  """Validation and what is fitted see them as scoring does, also where images are kept."""
  of = lambda part: [one_class.Item(f"{part}{i}", f"{part}{i}", place=i) for i in range(2)]
  items = {part: of(part) for part in one_class.LISTS}
  load = lambda value: lambda item: np.full((2, 3, 1), value, np.float32)
  data = one_class.OneClassDataSet("x", items, load(1), load_train=load(2), to_float=None, cache=cache)
  for _ in range(2):
    seen = {name: source.read_one(0)["image"].max() for name, source in (
        ("train", data.train()), ("validation", data.validation()), ("fitting", data.fitting()),
        ("val", data.split("val")), ("test", data.split("test")))}
    assert seen == {"train": 2, "validation": 1, "fitting": 1, "val": 1, "test": 1}
