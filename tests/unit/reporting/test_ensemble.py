"""The mean of runs that val chooses: what is chosen, by which numbers, and what is refused."""

import csv

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medae_jax.core.errors import UserError
from medae_jax.reporting import ensemble


def write(folder, split, ids, label, score, patient=lambda i: f"p{i // 2}"):
  (folder / "evaluation").mkdir(parents=True, exist_ok=True)
  with open(folder / "evaluation" / f"{split}_images.csv", "w", encoding="utf-8", newline="") as file:
    out = csv.writer(file)
    out.writerow(["id", "patient", "label", "score"])
    out.writerows((i, patient(int(i)), y, s) for i, y, s in zip(ids, label, score))


@pytest.fixture
def runs(tmp_path):
  """Two good runs with independent noise and scales a thousand apart, and one that is wrong."""
  rng, folders, kept = np.random.default_rng(3), {}, {}
  for split, n in (("val", 60), ("test", 80)):
    label = np.arange(n) % 2
    for name, gain, scale in (("a", 1.2, 1.0), ("b", 1.0, 1000.0), ("wrong", -1.2, 1.0)):
      score = scale * (5 + gain * label + rng.standard_normal(n))
      kept[name, split] = label, score
      folders[name] = tmp_path / name
      order = rng.permutation(n)  # files need not have the same order
      write(folders[name], split, order, label[order], score[order])
  return folders, kept


def test_the_mean_of_the_best_is_chosen_on_val_and_measured_on_test(runs):
  folders, kept = runs
  found = ensemble.measure(folders)
  label, z = kept["a", "test"][0], 0
  for name in ("a", "b"):
    normal = kept[name, "val"][1][kept[name, "val"][0] == 0]
    z = z + (kept[name, "test"][1] - normal.mean()) / normal.std(ddof=1)
  assert sorted(found["members"]) == ["a", "b"]
  assert found["image_auroc"] == pytest.approx(roc_auc_score(label, z))
  assert found["ci95"]["image_auroc"][0] < found["image_auroc"] < found["ci95"]["image_auroc"][1]
  assert found["val_auroc"] >= max(roc_auc_score(*kept[n, "val"]) for n in folders)
  assert ensemble.measure({"a": folders["a"]}) is None


def test_test_labels_choose_nothing(runs):
  folders, kept = runs
  before = ensemble.measure(folders)["members"]
  for name, folder in folders.items():
    label, score = kept[name, "test"]
    write(folder, "test", range(len(label)), 1 - label, score)
  assert ensemble.measure(folders)["members"] == before


def test_runs_of_other_images_are_refused(runs):
  folders, kept = runs
  label, score = kept["b", "val"]
  write(folders["b"], "val", range(1, 61), label, score)
  with pytest.raises(UserError, match="val images of .*b are not those of the other runs"):
    ensemble.measure(folders)
  for folder in folders.values():
    write(folder, "val", range(60), np.zeros(60, int), score)
  with pytest.raises(UserError, match="60 of 60 normal"):
    ensemble.measure(folders)


def test_labels_that_differ_are_other_images(runs):
  folders, kept = runs
  label, score = kept["b", "test"]
  write(folders["b"], "test", range(len(label)), np.roll(label, 1), score)
  with pytest.raises(UserError, match="test images of .*b are not those of the other runs"):
    ensemble.measure(folders)


def test_of_equals_the_fewest_are_chosen_and_the_interval_is_over_patients(tmp_path):
  label = np.array([0, 0, 1, 1])
  folders = {name: tmp_path / name for name in "ab"}
  for name, score in (("a", [0, 1, 2, 3]), ("b", [1, 0, 3, 2])):
    write(folders[name], "val", range(4), label, score)
    write(folders[name], "test", range(4), label, [0, 2, 1, 3], patient=lambda i: "the only one")
  found = ensemble.measure(folders)
  assert len(found["members"]) == 1 and found["val_auroc"] == 1
  assert found["image_auroc"] == 0.75 and found["ci95"]["image_auroc"] == [0.75, 0.75]  # nothing to draw from
