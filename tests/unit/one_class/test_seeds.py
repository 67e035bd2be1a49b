"""A seed of the data decides who is where: every one that a config names reaches what is drawn."""

import types

import numpy as np
import pytest

from data_pipelines.datasets import camelyon, natural, synthetic_textures
from data_pipelines.one_class import folds, lists
from data_pipelines.one_class.lists import Item
from tests.one_class_folders import cfg_of

ITEMS = [Item(f"n{k}", f"g{k}", "normal") for k in range(30)]
ILL = [Item(f"a{k}", f"h{k}", "ill") for k in range(12)]


def test_generated_folds_follow_their_seed():
  labels = np.arange(300) % 10
  make = lambda seed: natural._fold(natural.resolve(cfg_of(
      dataset="cifar10", normal_class=2, fold=1, folds="generated", fold_seed=seed)), "cifar10", 2, 5,
                                      labels, 1)
  (one, said), (same, _), (other, _) = make(6), make(6), make(7)
  assert one["train"].tolist() == same["train"].tolist() != other["train"].tolist()
  assert said == "generated with seed 6"
  want = folds.index_folds(labels, 2, 5, np.random.RandomState(6002), 3)[1]
  assert {k: list(v) for k, v in one.items()} == {k: list(v) for k, v in want.items()}


def test_frozen_crops_follow_the_seed_of_the_folds(monkeypatch):
  seen = []
  monkeypatch.setattr(camelyon, "file_lists", lambda *args: ("x", {"train": ["a"]}, {}))
  monkeypatch.setattr(camelyon, "OneClassDataSet", lambda *args, **more: types.SimpleNamespace())
  monkeypatch.setattr(camelyon, "_frozen", lambda read, items, seed, *more: seen.append((items, seed)))
  camelyon.build(cfg_of(layout="folder", root="x", freeze_augmentation=True, fold_seed=6), 0)
  assert seen == [(["a"], 6)]


def test_textures_follow_their_own_seed_and_not_that_of_the_training(monkeypatch):
  seen = []
  monkeypatch.setattr(synthetic_textures, "Textures", lambda *args: seen.append(args[3]))
  for seed in (0, 9):
    synthetic_textures.build(cfg_of(data_seed=6), seed)
  assert seen == [6, 6]


@pytest.mark.parametrize("drawn", [
    lambda seed: lists.regrouped(ITEMS, ILL, {"fold": 0, "n_folds": 3, "fold_seed": seed}),
    lambda seed: lists.hold_out(ITEMS, {"val_fraction": 0.3, "fold_seed": seed})], ids=["folds", "held out"])
def test_groups_are_divided_by_the_seed_of_the_folds(drawn):
  assert str(drawn(6)) == str(drawn(6)) != str(drawn(7))
