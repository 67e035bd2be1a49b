"""Folds, lists, ROC AUC and transforms of the benchmark against its golden vectors and lists.

Everything here is integers, names or file contents: exact, without tolerance. Only ROC AUC is a
float (1e-12).
"""

import csv
import importlib
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_pipelines.formats import images
from data_pipelines.one_class import folds, transforms
from data_pipelines.ops import resize
from medae_jax.losses import perceptual
from medae_jax.metrics import detection
from medae_jax.models import dpa_nets
from tests.golden_cases import golden_files, shared_data
from tests.parity.dpa_golden import LOSSES, OPTIONS


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


# ------------------------------------------------------------------------------------ transforms
def test_transforms():
  """Pillow's pixels (uint8, exact with the same library): grey, crop, equalise, resize."""
  for path in golden_files("deep_if", "image_preparation*.npz"):
    _check_transforms(np.load(path, allow_pickle=False))


def _check_transforms(g):
  nih, eq = g["nih300"][..., None], transforms.equalize
  expected = {
      "svhn_gray": images.grey(g["svhn_rgb"]),
      "nih_crop224_64": resize.antialiased(transforms.center_crop(nih, 224), 64),
      "nih_crop224_eq_64": resize.antialiased(eq(transforms.center_crop(nih, 224)), 64),
      "nih_crop300_eq_64": resize.antialiased(eq(transforms.center_crop(nih, 300)), 64),
      "camelyon_crop64": transforms.center_crop(g["camelyon_x10_192"], 64),
      "camelyon_crop64_eq": eq(transforms.center_crop(g["camelyon_x10_192"], 64))}
  for name, ours in expected.items():
    np.testing.assert_array_equal(ours.reshape(g[name].shape), g[name], err_msg=name)
  np.testing.assert_array_equal(resize.antialiased(g["rgb32"], 299)[::13],
                                g["rgb32_resized299_rows0_298_step13"])


# ------------------------------------------------------------------------- final configurations
def _final(dataset):
  found = {}
  for path in golden_files("protocol", "final_configs*.json"):
    found.update(json.loads(path.read_text()))
  return {k.split("/", 2)[2]: v for k, v in found.items() if k.startswith(f"piad/{dataset}/")}


@pytest.mark.parametrize("dataset", ["cifar10", "svhn", "camelyon16", "nih"])
def test_piad_configs_are_the_published_ones(dataset):
  """Every class, run and experiment of PIAD: 156 runs."""
  module = importlib.import_module(f"configs.piad_{dataset}")
  for exp, found in _final(dataset).items():
    for cls, own in found["per_class"].items():
      for run, seed in enumerate(found["random_seed_by_class_and_run"][cls]):
        which = {"nih": f"view={cls}", "camelyon16": "run=0"}.get(dataset, f"cls={cls}")
        config = module.get_config(f"{which},exp={exp},run={run},mismatch=1" if dataset == "nih"
                                   else f"{which},exp={exp},run={run}")
        assert config.seed == seed
        _same_config(config, {**found["common"], **own}, dataset)


def _same_config(c, ref, dataset):
  m, res = c.model, ref["image_res"]
  assert (m.res, m.channels, m.latent_dim, m.latent_res) == (
      res, ref["image_dim"], ref["latent_dim"], ref["latent_res"])
  blocks = dpa_nets.needed_widths(res, ref["latent_res"])
  used = lambda key, fine_first: tuple(ref[f"{key}.kwargs.inner_dims"][-blocks:] if fine_first
                                       else ref[f"{key}.kwargs.inner_dims"][:blocks])
  assert tuple(m.enc) == used("enc", True) and tuple(m.critic_image) == used("ddis", True)
  assert tuple(m.dec) == used("dec", False)
  assert tuple(m.critic_latent) == tuple(ref["edis.kwargs.inner_dims"])
  layers = {k.rsplit(".", 1)[1]: v for k, v in ref.items() if ".feature_weights." in k}
  assert perceptual.parse_layers(c.method.layers) == {0: layers}
  assert c.method.loss == ref["image_rec_loss.loss_type"]
  assert (c.train.steps, c.train.batch_size) == (ref["iters"], ref["batch_size"])
  assert (c.method.n_critic, c.method.policy.every) == (ref["n_dis"], ref["update_grad_norm_iter"])
  for side in ("image", "latent"):
    ours = c.method[f"adv_{side}"]
    theirs = {k.rsplit(".", 1)[1]: v for k, v in ref.items()
              if k.startswith(f"{side}_adv_loss.loss_kwargs")}
    loss = ref[f"{side}_adv_loss.loss_type"]
    assert ours.name == LOSSES.get(loss, loss)
    assert all(ours[OPTIONS.get(k, k)] == v for k, v in theirs.items())
  o = c.optim
  assert [o.lr, o.lr_critic_image, o.lr_critic_latent] == [
      ref[f"adam_kwargs.{k}.lr"] for k in ("enc_dec", "ddis", "edis")]
  assert [o.b1, o.b2] == ref["adam_kwargs.enc_dec.betas"]
  part = lambda where, key, default: ref.get(f"{where}.transform_kwargs.{key}", default)
  train, test = "train_dataset", "test_datasets.anomaly"
  if dataset in ("cifar10", "svhn"):
    assert c.data.to_grayscale == part(train, "to_grayscale", False)
  else:
    assert c.data.crop_size == part(train, "crop_size", None) == part(test, "crop_size", None)
  if dataset == "nih":
    assert c.data.resize == part(train, "resize", None)
    assert c.data.equalize_hist == part(train, "equalize_hist", False)
    assert c.data.equalize_hist_test == part(test, "equalize_hist", False)
  if dataset == "camelyon16":
    assert not c.data.random_crop and not c.data.random_flip
