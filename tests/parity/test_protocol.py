"""Folds, lists, ROC AUC and transforms of the benchmark against its golden vectors and lists.

Everything here is integers, names or file contents: exact, without tolerance. Only ROC AUC is a
float (1e-12).
"""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_pipelines.datasets import camelyon, nih
from data_pipelines.fields import changed
from data_pipelines.formats import images
from data_pipelines.one_class import folds
from data_pipelines.ops import resize
from medae_jax.metrics import detection
from tests.golden_cases import golden_files, shared_data


def _archives():
  """(file, arrays) of every archive of folds by index."""
  return [(f, np.load(f, allow_pickle=False)) for f in golden_files("protocol", "folds_index*.npz")]


def _datasets(golden):
  return sorted({k.split("/")[0] for k in golden.files if k.endswith("/labels")})


def _texts():
  """(file, lists, seed): a file of lists has the seed of the archive of the same name."""
  found = []
  for file in golden_files("protocol", "folds_text*.json"):
    archive = file.with_name(file.name.replace("text", "index")).with_suffix(".npz")
    found.append((file, json.loads(file.read_text()), int(np.load(archive)["seed"])))
  return found


def test_index_folds():
  """One generator a data set: validation classes first, then a shuffle per class and fold."""
  for _, golden in _archives():
    for dataset in _datasets(golden):
      labels, valid = golden[f"{dataset}/labels"], golden[f"{dataset}/valid_class"]
      rng, n = np.random.RandomState(int(golden["seed"])), int(golden["n_folds"])
      classes = folds.validation_classes(rng, len(valid))
      np.testing.assert_array_equal(classes, valid)
      for c in range(len(valid)):
        for k, fold in enumerate(folds.index_folds(labels, c, classes[c], rng, n)):
          for part in folds.PARTS:
            np.testing.assert_array_equal(fold[part], golden[f"{dataset}/{c}/{k}/{part}"],
                                          err_msg=f"{dataset} class {c} fold {k} {part}")


def test_validation_class_files():
  """The pairs written to CSV are those drawn."""
  for file, golden in _archives():
    suffix = file.stem.removeprefix("folds_index")
    for dataset in _datasets(golden):
      rows = list(csv.DictReader(
          file.with_name(f"validation_classes_{dataset}{suffix}.csv").open()))
      assert [int(r["valid_class"]) for r in rows] == list(golden[f"{dataset}/valid_class"])


def test_auc():
  """Scores with ties; label 1 = normal, as the file has it, and turned round."""
  for _, golden in _archives():
    scores, normal = golden["auc/scores"], golden["auc/labels_normal_is_1"]
    assert roc_auc_score(normal, scores) == pytest.approx(float(golden["auc/roc_auc"]), abs=1e-12)
    assert detection.auroc(detection.sorted_counts(-scores, 1 - normal)) == pytest.approx(
        float(golden["auc/roc_auc"]), abs=1e-12)


def test_camelyon_rule_leaks_as_published():
  for file, golden, seed in _texts():
    c = golden["camelyon16"]
    slides, made = folds.patch_folds_published(
        c["normal_train_list"], c["tumor_train_list"], np.random.RandomState(seed),
        folds=len(c["folds"]), valid_slides=len(c["valid_slides"]))
    assert slides == c["valid_slides"], file
    for k, fold in enumerate(made):
      _same_names(fold, c["folds"][str(k)], f"{file} camelyon16 fold {k}")
      assert set(fold["test_normal"]) & set(fold["train"] + fold["val"]), "it is known to leak"


def _data_entry(file):
  """The metadata beside a file of lists: of the same suffix, else the only one."""
  suffix = file.stem.removeprefix("folds_text")
  entries = sorted(file.parent.glob(f"nih_data_entry*{suffix}.csv"))
  assert entries, f"no nih_data_entry*.csv beside {file.name}"
  return entries[0]


def test_nih_rule():
  for file, golden, seed in _texts():
    n, rng = golden["nih"], np.random.RandomState(seed)
    rows = folds.read_data_entry(_data_entry(file))
    for view, expected in n["folds"].items():
      of_view = [r for r in rows if r["view"] == view]
      made = folds.patient_folds(of_view, n["train_val_list"], rng, set(n["valid_labels"]),
                                 len(expected))
      for k, fold in enumerate(made):
        _same_names(fold, expected[str(k)], f"{file} {view} fold {k}")
      lists = folds.train_test_lists(of_view, n["train_val_list"], n["test_list"])
      for name, names in n["train_test_split"][view].items():
        assert lists[name] == names, f"{file} {view} {name}"


def _same_names(fold, expected, what):
  names = {"normal/train": "train", "normal/val": "val", "normal/test": "test_normal",
           "anomaly/test": "test_anomaly"}
  assert set(expected) == set(names)
  for path, part in names.items():
    assert list(fold[part]) == expected[path], f"{what} {path}"


# ------------------------------------------------------------------------------- published lists
COUNTS = {  # lengths of the lists that the public code of Shvetsova et al. (2021) ships
    "camelyon16/healthy": {"normal/train": 7612, "normal/test": 4000, "anomaly/train": 2169,
                           "anomaly/test": 817},
    "nih/AP": {"normal/train": 16003, "normal/test": 5056, "anomaly/test": 9444},
    "nih/PA": {"normal/train": 34497, "normal/test": 4805, "anomaly/test": 6291},
    "nih/subset": {"normal/train": 4261, "normal/test": 677, "anomaly/test": 667}}


@pytest.mark.parametrize("where", sorted(COUNTS))
def test_published_lists(where):
  root = shared_data("folds") / "train_test_split" / where
  for name, count in COUNTS[where].items():
    names = folds.read_list(root / name)
    assert len(names) == len(set(names)) == count, name
  group = folds.slide_of if where.startswith("camelyon") else lambda n: n[:8]
  train = {group(n) for n in folds.read_list(root / "normal/train")}
  for name in ("normal/test", "anomaly/test"):
    assert not train & {group(n) for n in folds.read_list(root / name)}, f"{name} leaks"


@pytest.mark.parametrize("dataset", ["cifar10", "svhn"])
def test_published_index_folds(dataset):
  """Parts are disjoint, val is a fifth of what is not tested, the tests make up the class."""
  root = shared_data("folds")
  for c in range(10):
    tests = []
    for k in range(3):
      fold = folds.read_index_fold(root, dataset, c, k)
      parts = [set(fold[p].tolist()) for p in folds.PARTS]
      assert len(set.union(*parts)) == sum(map(len, parts))
      assert len(fold["val"]) == int(0.2 * (len(fold["val"]) + len(fold["train"])))
      tests.append(fold["test_normal"])
    tests = np.concatenate(tests)
    assert len(np.unique(tests)) == len(tests)
    assert set(tests.tolist()) >= set(fold["train"].tolist())


def test_normal_is_exactly_no_finding():
  """Whatever stands beside it makes an image an anomaly, of the test list alone."""
  rows = [{"name": n, "findings": set(f.split("|"))} for n, f in (
      ("a", "No Finding"), ("b", "Mass"), ("c", "No Finding|Mass"), ("d", "No Finding"), ("e", "Mass"),
      ("f", "No Finding|Mass"))]
  assert folds.train_test_lists(rows, "abc", "def") == {
      "normal/train": ["a"], "normal/test": ["d"], "anomaly/test": ["e", "f"]}


# ------------------------------------------------------------------------------------ transforms
def test_transforms():
  """Pillow's pixels (uint8, exact with the same library): grey, crop, equalise, resize."""
  for path in golden_files("deep_if", "image_preparation*.npz"):
    _check_transforms(np.load(path, allow_pickle=False))


def _check_transforms(g):
  image, patch = g["nih300"][..., None], g["camelyon_x10_192"]
  scored = lambda equal: camelyon._scored(patch, changed(camelyon.defaults(), equalize_hist=equal))
  expected = {
      "svhn_gray": images.grey(g["svhn_rgb"]),
      "nih_crop224_64": nih._prepare(image, 224, False, 64),
      "nih_crop224_eq_64": nih._prepare(image, 224, True, 64),
      "nih_crop300_eq_64": nih._prepare(image, 300, True, 64),
      "camelyon_crop64": scored(False), "camelyon_crop64_eq": scored(True)}
  for name, ours in expected.items():
    np.testing.assert_array_equal(ours.reshape(g[name].shape), g[name], err_msg=name)
  np.testing.assert_array_equal(resize.antialiased(g["rgb32"], 299)[::13],
                                g["rgb32_resized299_rows0_298_step13"])
