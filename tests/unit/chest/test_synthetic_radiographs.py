"""The synthetic radiographs: what they promise about findings, masks, ranges, anatomy and repeatability."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.chest import phantom
from data_pipelines.datasets import synthetic_radiographs

CONFIG = dict(image_size=32, n_train=3, n_val=8, n_test=8, data_seed=3)


@pytest.fixture(scope="module")
def data():
  return synthetic_radiographs.build(CONFIG, seed=0)


def test_splits_labels_masks_and_findings(data):
  assert data.synthetic and "synthetic" in data.name
  assert data.train().read(np.arange(3))["image"].shape == (3, 32, 32, 1)
  for name in data.splits:
    source = data.split(name)
    arrays = source.read(np.arange(len(source)))
    np.testing.assert_array_equal(arrays["mask"].any((1, 2, 3)), arrays["label"] == 1)
    found = [source.meta(i)["finding"] for i in range(len(source))]
    assert found == ["normal"] * 4 + list(phantom.FINDINGS)
    assert arrays["image"].dtype == np.float32 and arrays["image"].min() >= 0 and arrays["image"].max() <= 1
    assert len({source.meta(i)["patient"] for i in range(len(source))}) == len(source)
  assert len(data.validation()) == 4
  np.testing.assert_array_equal(data.validation().read(np.arange(4))["image"],
                                data.split("val").read(np.arange(4))["image"])


def test_a_finding_is_brighter_than_the_same_lung_without_it_and_lies_in_it():
  for seed, finding in enumerate(phantom.FINDINGS):
    ill, well = (phantom.radiograph(np.random.default_rng(seed), 48, f) for f in (finding, ""))
    np.testing.assert_array_equal(ill["lungs"], well["lungs"])
    outside = ~ill["mask"]
    brighter = ill["image"] - well["image"]
    assert brighter[ill["mask"]].mean() > 0.05 > np.abs(brighter[outside]).mean()
    assert not (ill["mask"] & ~ill["lungs"]).any()


def test_lungs_are_darker_than_the_rest_of_the_body_at_every_size():
  for size in (16, 64):
    drawn = phantom.radiograph(np.random.default_rng(1), size)
    image, lungs = drawn["image"], drawn["lungs"]
    assert 0.15 < lungs.mean() < 0.45
    assert image[lungs].mean() + 0.15 < image[~lungs & (image > 0.1)].mean()
  small, large = (phantom.radiograph(np.random.default_rng(1), s)["lungs"] for s in (32, 64))
  means = large.reshape(32, 2, 32, 2).mean((1, 3))
  assert np.mean((means > 0.5) != small) < 0.02  # one anatomy whatever the size


def test_an_image_depends_on_its_place_and_data_seed_alone(data):
  more = synthetic_radiographs.build({**CONFIG, "n_train": 5}, seed=9).train().read(np.arange(3))
  np.testing.assert_array_equal(more["image"], data.train().read(np.arange(3))["image"])
  other = synthetic_radiographs.build({**CONFIG, "data_seed": 4}, 0).train().read(np.arange(3))
  assert np.any(other["image"] != more["image"])


@pytest.mark.parametrize("fields,words", [
    (dict(channels=3), "channels=3 must be 1"), (dict(n_test=1), "n_test=1"),
    (dict(findings=("fracture",)), "fracture.*opacity, nodule"),
    (dict(findings=[[1]]), r"config.data.findings=\[\[1\]\]: use names in parentheses, not \[1\]")])
def test_bad_fields(fields, words):
  with pytest.raises(ValueError, match=words):
    synthetic_radiographs.build({**CONFIG, **fields}, 0)


def test_no_third_split(data):
  with pytest.raises(ValueError, match="no split 'train'"):
    data.split("train")


def test_a_file_is_prepared_like_the_data(tmp_path):
  Image.fromarray(np.full((50, 40), 51, np.uint8)).save(tmp_path / "a.png")
  found = synthetic_radiographs.read_example(tmp_path / "a.png", CONFIG)
  np.testing.assert_allclose(found, np.full((32, 32, 1), 0.2, np.float32), atol=1e-6)
