"""Files of CIFAR-10 and SVHN that are stored otherwise, or wrongly: the same arrays, or one line."""

import numpy as np
import pytest
import scipy.io

from data_pipelines.datasets import _natural_files as files, natural
from data_pipelines.errors import UserError
from data_pipelines.one_class import folds

X = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
Y = np.arange(20) % 10


def npz(path, x=X, y=Y, **more):
  np.savez(path, **{"x_train": x, "y_train": y, "x_test": X, "y_test": Y, **more})
  return path


@pytest.mark.parametrize("fields", [
    {"x": np.asfortranarray(X)}, {"y": Y[:, None]}, {"y": Y.astype(float)}, {"y": Y.astype(">i2")},
    {"y": Y.astype(str)}, {"other": Y}])
def test_arrays_stored_otherwise_are_the_same(tmp_path, fields):
  found = files.read_arrays("cifar10", npz(tmp_path / "A.NPZ.npz", **fields))
  np.testing.assert_array_equal(found["x_train"], X)
  np.testing.assert_array_equal(found["y_train"], Y)
  assert found["y_train"].dtype == np.int64


@pytest.mark.parametrize("fields, said", [
    ({"y": np.eye(10)[Y]}, "one whole number from 0 to 9 for each of the 20 images, found float64"),
    ({"y": Y + 1}, "found int64 such as 10"), ({"y": Y - 1}, "such as -1"), ({"y": Y + 0.5}, "such as 0.5"),
    ({"y": np.where(Y, Y, np.nan)}, "such as nan"), ({"y": np.array(["cat"] * 20)}, "such as nan"),
    ({"y": Y > 4}, "found bool"), ({"y": np.zeros(())}, "for each of the 20 images"),
    ({"x": X.transpose(0, 3, 1, 2)}, r"uint8 \[n,S,S,3\], found uint8 \(20, 3, 32, 32\)"),
    ({"x": X[:, :31]}, "found uint8"), ({"x": X[:, :, :31]}, "found uint8"),
    ({"x": X[..., :1]}, "found uint8"), ({"x": np.concatenate([X, X], -1)}, "found uint8"),
    ({"x": X / 255}, "found float64"), ({"x": X[:0], "y": Y[:0]}, "found uint8"),
    ({"x_test": X[:, :28, :28]}, "images of train are .32, 32, 3., of test .28, 28, 3.")])
def test_arrays_that_mean_something_else_are_refused(tmp_path, fields, said):
  """One-hot labels, labels from 1 and words were tracebacks; channels first and labels of 0.5 were read."""
  with pytest.raises(UserError, match=f"a.npz: .*{said}"):
    files.read_arrays("cifar10", npz(tmp_path / "a.npz", **fields))


def test_the_side_of_the_images_is_that_of_the_config(tmp_path):
  path = npz(tmp_path / "a.npz", X[:, :28, :28], x_test=X[:, :28, :28])
  with pytest.raises(UserError, match="28 pixels wide, config.data.image_size=32"):
    natural.build({"dataset": "cifar10", "root": str(path)}, 0)


@pytest.mark.parametrize("content, said", [
    ({"X": X, "Y": Y}, "KeyError|'y'"), ({"X": X[..., 0], "y": Y}, "X must be"),
    ({"X": X.transpose(1, 2, 3, 0) / 255, "y": Y}, "found float64"), (b"", "MATLAB 5"),
    (b"hello" * 99, "MATLAB 5"),
    (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(600), "MATLAB 5")])
def test_svhn_that_cannot_be_read_is_one_line(tmp_path, content, said):
  good = {"X": X.transpose(1, 2, 3, 0), "y": Y}
  scipy.io.savemat(tmp_path / "test_32x32.mat", good)
  if isinstance(content, bytes):
    (tmp_path / "train_32x32.mat").write_bytes(content)
  else:
    scipy.io.savemat(tmp_path / "train_32x32.mat", content)
  with pytest.raises(UserError, match=said):
    files.read_arrays("svhn", tmp_path)


def test_published_folds_are_of_the_official_images_alone(tmp_path, monkeypatch):
  """Indices into other images would mix the classes without a word."""
  monkeypatch.setitem(natural.OFFICIAL_TRAIN, "svhn", 6)
  labels = np.array([4, 4, 4, 4, 1, 2])
  parts = {"train": [0, 1], "val": [2], "test_normal": [3], "test_anomaly": [4, 5]}
  (tmp_path / "folds").mkdir()
  np.savez(tmp_path / "folds/svhn.npz", **{f"4/1/{k}": v for k, v in parts.items()})
  cfg = natural.defaults()
  cfg.update(folds="published", lists_root=str(tmp_path))
  fold, source = natural._fold(cfg, "svhn", 4, 1, labels, 1)
  assert {k: v.tolist() for k, v in fold.items()} == parts and source == "published lists"
  for others in (np.append(labels, 3), np.array([4, 1, 4, 4, 1, 2])):
    with pytest.raises(UserError, match="published folds index the 6 training images"):
      natural._fold(cfg, "svhn", 4, 1, others, 1)


@pytest.mark.parametrize("train, said", [
    ([True, False, True], "its train is bool"), ([0.0, 1.5], "its train is float64"),
    ([-1, 2], "its train is int"),
    ([[0, 1]], r"its train is int64 of shape \(1, 2\)"), ([0, 3], "1 images are in two of train, val")])
def test_folds_are_lists_of_places_and_share_no_image(tmp_path, train, said):
  """A mask was taken for images 0 and 1, -1 for the last one, and an image was trained on and tested on."""
  parts = {"train": train, "val": [3], "test_normal": [4], "test_anomaly": [5]}
  single = tmp_path / "folds/cifar10/4/1"
  single.mkdir(parents=True)
  np.savez(tmp_path / "folds/svhn.npz", **{f"4/1/{k}": v for k, v in parts.items()})
  for part, places in parts.items():
    np.save(single / f"{part}.npy", places)
  for dataset in ("svhn", "cifar10"):
    with pytest.raises(UserError, match=said):
      folds.read_index_fold(tmp_path, dataset, 4, 1)


@pytest.mark.parametrize("fields, said", [
    ({"x": (X > 127).astype(np.uint8)}, "x_train holds no value above 1: pixels are 0 to 255"),
    ({"x_test": 0 * X}, "x_test holds no value above 0"),
    ({"x_test": X // 16}, "pixels of train reach 255, of test 15: bring both to 0 ... 255")])
def test_pixels_of_another_scale_are_refused(tmp_path, fields, said):
  with pytest.raises(UserError, match=said):
    files.read_arrays("cifar10", npz(tmp_path / "a.npz", **fields))


def test_copies_among_arrays_are_said(tmp_path, caplog):
  other = np.random.default_rng(1).integers(0, 256, X.shape, np.uint8)
  files.read_arrays("cifar10", npz(tmp_path / "a.npz", x_test=other))
  assert not caplog.text
  files.read_arrays("cifar10", npz(tmp_path / "a.npz", x_test=np.concatenate([X[:3], other[3:]])))
  assert "3 of 20 test images are, byte for byte, training images" in caplog.text
  files.read_arrays("cifar10", npz(tmp_path / "a.npz", x=np.concatenate([X[:15], X[:5]]), x_test=other))
  assert "5 of 20 training images are copies of others" in caplog.text


def test_ten_and_zero_are_not_one_digit(tmp_path):
  for split, labels in (("train", np.where(Y == 0, 10, Y)), ("test", np.where(np.arange(20) == 0, 10, Y))):
    scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": X.transpose(1, 2, 3, 0), "y": labels})
  with pytest.raises(UserError, match="test_32x32.mat: y has both 0 and 10"):
    files.read_arrays("svhn", tmp_path)


def test_a_class_of_validation_is_one_of_ten():
  with pytest.raises(UserError, match="val_class=12: use 0 to 9, or -1"):
    natural.resolve({"val_class": 12})


NAMES = natural.CLASS_NAMES["cifar10"]


@pytest.mark.parametrize("dataset, names, said", [
    ("cifar10", NAMES[::-1], "class 0 'truck', which is number 9 of cifar10"),
    ("svhn", NAMES, "dataset=cifar10"),
    ("cifar10", (*NAMES[:8], "truck", "ship"), "class 8 'truck'"), ("cifar10", ("bird",), "number 2")])
def test_classes_named_in_another_order_are_refused(tmp_path, dataset, names, said):
  """The names lay in the archive and were not read: class 0 was taken for airplanes, whatever it was."""
  for kind in ("U", "S"):
    with pytest.raises(UserError, match=f"a.npz names .*{said}"):
      files.read_arrays(dataset, npz(tmp_path / "a.npz", class_names=np.array(names, kind)))


def test_names_of_classes_that_are_right_or_unknown_pass(tmp_path, caplog):
  for names in (NAMES, ("Plane", "car", *NAMES[2:]), list("0123456789"), np.zeros((3, 3)), np.arange(10)):
    files.read_arrays("cifar10", npz(tmp_path / "a.npz", class_names=np.array(names)))
  assert "names class" not in caplog.text
  files.read_arrays("cifar10", npz(tmp_path / "a.npz", labels=np.array(["Flugzeug", *NAMES[1:]])))
  assert "names class 0 'flugzeug', which is read as 'airplane'" in caplog.text
  (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES[::-1]) + "\n\n")
  with pytest.raises(UserError, match="names class 0 'truck'"):
    files._check_classes("cifar10", tmp_path)


def test_a_side_without_colours_or_with_exchanged_ones_is_said(tmp_path, caplog):
  """Both sides of an archive are prepared alike, mostly."""
  rng = np.random.default_rng(1)
  train, test = (rng.integers(0, (180, 170, 150), (120, 4, 4, 3)).astype(np.uint8) for _ in range(2))
  for other, said in ((test, ""), (test[..., ::-1], "as red as train is blue"), (test[:50, ..., ::-1], ""),
                      (np.repeat(test[..., :1], 3, -1), "all images of test are grey")):
    caplog.clear()
    files._say_colours("a.npz", {"x_train": train, "x_test": other})
    assert said in caplog.text and bool(caplog.text) == bool(said)
