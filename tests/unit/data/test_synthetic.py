"""Synthetic brains: seeded, coherent, with lesions that a threshold finds only in part."""

import logging

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from data_pipelines import dataset
from data_pipelines.brains import fields, phantom
from data_pipelines.datasets import synthetic

SMALL = {"name": "synthetic", "image_size": (40, 32), "n_patients": (3, 1, 2), "n_slices": 6}


@pytest.fixture(name="small", scope="module")
def small_fixture():
  return dataset.open_dataset(SMALL, 0)


def test_splits_and_shapes(small):
  assert small.synthetic and small.name == "synthetic_brains" and small.splits == ("val", "test")
  test = small.split("test")
  batch = test.read(np.arange(len(test)))
  assert batch["image"].shape[1:] == (40, 32, 4) and batch["image"].dtype == np.float32
  assert set(np.unique(batch["mask"])) == {0, 1}
  np.testing.assert_array_equal(batch["label"], batch["mask"].max(axis=(1, 2, 3)))
  described = small.describe()
  assert described["synthetic"] and described["splits"]["test"]["patients"] == 2
  assert described["splits"]["test"]["slices"] == len(test)
  assert {test.meta(i)["patient"] for i in range(len(test))} == {
      "synthetic_test_0000", "synthetic_test_0001"}


def test_training_slices_are_healthy(small):
  train = small.train()
  assert len(train) == small.describe()["splits"]["train"]["healthy_slices"] > 0
  assert set(train.read(np.arange(2))) == {"image"}
  assert small.resident_arrays()["image"].shape == (len(train), 40, 32, 4)


def test_same_seed_same_brains(small):
  again = dataset.open_dataset(SMALL, 5)  # config.seed is not the seed of the patients
  other = dataset.open_dataset({**SMALL, "synthetic_seed": 1}, 0)
  read = lambda d: d.split("test").read(np.arange(5))["image"]
  np.testing.assert_array_equal(read(small), read(again))
  assert np.abs(read(small) - read(other)).max() > 0.3


def test_normalised_with_zero_background(small):
  image = small.split("test").read(np.arange(6))["image"]
  assert (image[:, 0, 0] == 0).all() and 0.15 < (image > 0).mean() < 0.8
  assert 1.0 < image.max() < 4  # the unit is the 99th percentile


def test_a_subset_of_modalities_draws_the_same_numbers():
  both = [phantom.brain(np.random.default_rng(1), (24, 24, 4), m)[0]
          for m in (phantom.MODALITIES, ("t2", "flair"))]
  for name in ("t2", "flair"):
    np.testing.assert_array_equal(both[0][name], both[1][name])


def test_volumes_are_coherent_over_slices_and_resolutions():
  fine, _ = phantom.brain(np.random.default_rng(2), (48, 48, 40), ("t1",), lesions=False)
  t1 = fine["t1"]
  step = np.abs(np.diff(t1[..., 10:30], axis=-1)).mean()
  apart = np.abs(t1[..., 10] - t1[..., 29]).mean()
  assert step < 0.6 * apart
  coarse, _ = phantom.brain(np.random.default_rng(2), (24, 24, 40), ("t1",), lesions=False)
  blocks = t1.reshape(24, 2, 24, 2, 40).mean(axis=(1, 3))
  assert np.corrcoef(blocks.ravel(), coarse["t1"].ravel())[0, 1] > 0.9


def test_a_threshold_finds_lesions_only_in_part():
  found = dataset.open_dataset(
      {"name": "synthetic", "image_size": 48, "n_patients": (1, 1, 12), "n_slices": 10}, 0)
  batch = found.split("test").read(np.arange(len(found.split("test"))))
  mask = batch["mask"].ravel() > 0
  flair = average_precision_score(mask, batch["image"][..., 0].ravel())
  mean = average_precision_score(mask, batch["image"].mean(-1).ravel())
  assert 0.15 < flair < 0.5 and mean < 0.5 and 0.002 < mask.mean() < 0.1


def test_brats_without_folder_is_synthetic_and_loud(caplog):
  with caplog.at_level(logging.WARNING):
    found = dataset.open_dataset({**SMALL, "name": "brats", "dir": ""}, 0)
  assert found.synthetic and "SYNTHETIC" in caplog.text


@pytest.mark.parametrize("change,match", [
    ({"modalities": ("flair", "pd")}, "pd"), ({"n_patients": (0, 1, 1)}, "n_patients"),
    ({"image_size": (0, 8)}, "image_size"), ({"modalities": ()}, "modalities"),
    ({"noise_roll": "x"}, "noise_roll"), ({"storage": "int8"}, "storage")])
def test_bad_fields(change, match):
  with pytest.raises(ValueError, match=match):
    synthetic.build({**SMALL, **change}, 0)


def test_noise_on_device_leaves_the_pipeline_without_noise():
  for change in ({"noise_on_device": True}, {"resident": True}):
    assert not fields.batch_ops(fields.resolve({**SMALL, **change}))
  assert len(fields.batch_ops(fields.resolve(SMALL))) == 1
