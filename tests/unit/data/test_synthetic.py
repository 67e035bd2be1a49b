"""Synthetic brains: seeded, coherent, with lesions that a threshold finds only in part."""


import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from data_pipelines import dataset, when_read
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


@pytest.mark.parametrize("lesions,flair,slices,seg", [
    (True, (0.162154, 0.2049531), [437, 428, 412, 350, 237, 70], [4533, 6, 69]),
    (False, (0.1557362, 0.1981445), [437, 426, 408, 344, 224, 67], [4608])])
def test_a_patient_is_who_he_was_in_the_first_version(lesions, flair, slices, seg):
  """A resumed run must see the brains that it began with."""
  volumes, found = phantom.brain(np.random.default_rng([3, 1]), (32, 24, 6), lesions=lesions)
  image = volumes["flair"].astype(np.float64)
  np.testing.assert_allclose((image.mean(), image.std()), flair, rtol=1e-5)
  assert (volumes["t1"] > 0).sum((0, 1)).tolist() == slices and np.bincount(found.ravel()).tolist() == seg


@pytest.mark.parametrize("shape", [(48, 40, 5), (33, 47, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_the_outline_of_a_brain_is_that_of_the_drawn_one(seed, shape):
  for lesions in (True, False):
    volumes, seg = phantom.brain(np.random.default_rng(seed), shape, ("t1",), lesions)
    inside, marked = phantom.outline(np.random.default_rng(seed), shape, lesions)
    np.testing.assert_array_equal(marked, seg)
    for z in range(shape[2]):
      np.testing.assert_array_equal(inside(z), volumes["t1"][..., z] > 0)


def test_patients_are_drawn_at_the_sides_that_are_asked_for(monkeypatch):
  """Rows first: a patient drawn 32 x 40 and brought to 40 x 32 is a stretched one."""
  drawn, patient = [], synthetic.patient
  monkeypatch.setattr(synthetic, "patient", lambda cfg, split, number, shape: (
      drawn.append(shape) or patient(cfg, split, number, shape)))
  dataset.open_dataset({**SMALL, "n_patients": (1, 1, 1)}, 0).split("test").read_one(0)
  assert set(drawn) == {(40, 32, 6)}


def test_patients_are_drawn_when_their_slices_are_read(monkeypatch):
  drawn, draw = [], phantom.brain
  monkeypatch.setattr(phantom, "brain", lambda *args: drawn.append(args) or draw(*args))
  found = dataset.open_dataset({**SMALL, "image_size": 64, "n_patients": (4, 1, 1), "n_slices": 5}, 0)
  described = found.describe()["splits"]
  early = len(drawn)  # those whose last slices are small
  scans = [s for split in found.scans.values() for s in split if isinstance(s.image, when_read.WhenRead)]
  assert early + len(scans) == 6 and len(scans) >= 3
  train = found.train()
  train.read(np.arange(2))
  assert len(drawn) <= early + 2
  for name in ("val", "test"):
    found.split(name).read(np.arange(len(found.split(name))))
  train.read(np.arange(len(train)))
  train.read(np.arange(len(train)))
  assert len(drawn) == 6
  cfg = synthetic.resolve({**SMALL, "image_size": 64, "n_patients": (4, 1, 1), "n_slices": 5})
  for scan in scans:
    split, number = scan.patient.split("_")[1:]
    image, mask, slices, lesion_px = synthetic._drawn(cfg, split, int(number))
    np.testing.assert_array_equal(np.asarray(scan.image), image)
    np.testing.assert_array_equal(np.asarray(scan.mask), mask)
    np.testing.assert_array_equal(scan.slices, slices)
    np.testing.assert_array_equal(scan.lesion_px, lesion_px)
    assert (scan.image.shape, scan.image.dtype) == (image.shape, image.dtype)
    assert (scan.mask.shape, scan.mask.dtype) == (mask.shape, mask.dtype)
  assert described["test"]["lesion_pixels"] == sum(int(s.mask[:].sum()) for s in found.scans["test"])


def test_an_outline_that_the_drawing_contradicts_is_a_fault_of_the_program(monkeypatch):
  found = dataset.open_dataset({**SMALL, "image_size": 64, "n_slices": 1}, 0)
  monkeypatch.setattr(synthetic, "_drawn", lambda *_: (None, None, np.arange(2), np.zeros(2)))
  with pytest.raises(RuntimeError, match="outline"):
    found.split("test").read(np.arange(1))


@pytest.mark.parametrize("first, last, told", [(100, 100, True), (99, 500, False), (500, 99, False)])
def test_an_outline_tells_the_slices_where_its_ends_hold_enough_of_the_brain(monkeypatch, first, last, told):
  """Those of little brain may be dropped when they are drawn."""
  counts = [0, first, 3, last, 0]
  inside = lambda z: np.arange(600) < counts[z]
  seg = np.zeros((2, 2, 5), np.uint8)
  seg[:, 0, 2] = 4
  monkeypatch.setattr(phantom, "outline", lambda *_: (inside, seg))
  cfg = fields.resolve({**SMALL, "n_slices": 5, "placement": "scan"})
  found = synthetic._outline(cfg, "train", 0)
  assert (found is not None) == told
  if told:
    assert [a.tolist() for a in found] == [[1, 2, 3], [0, 2, 0]]


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


def test_brats_without_folder_is_synthetic_and_called_so():
  """Training and results say so of every set that is."""
  found = dataset.open_dataset({**SMALL, "name": "brats", "dir": ""}, 0)
  assert found.synthetic and "synthetic" in found.name


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
