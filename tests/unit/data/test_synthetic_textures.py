"""The synthetic textures: what they promise about kinds, masks, ranges and repeatability."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.datasets import synthetic_textures

CONFIG = dict(image_size=32, channels=1, n_train=6, n_val=8, n_test=24, data_seed=3)


def test_splits_labels_and_masks():
  data = synthetic_textures.build(CONFIG, seed=0)
  assert data.synthetic and "synthetic" in data.name
  assert data.train().read(np.arange(6))["image"].shape == (6, 32, 32, 1)
  for name, kinds in (("val", {"normal", "scale"}), ("test", {"normal", *synthetic_textures.KINDS})):
    source = data.split(name)
    arrays = source.read(np.arange(len(source)))
    np.testing.assert_array_equal(arrays["mask"].any((1, 2, 3)), arrays["label"] == 1)
    assert {source.meta(i)["kind"] for i in range(len(source))} == kinds
    metas = [source.meta(i) for i in range(len(source))]  # drawn alone: intervals are over images
    assert len({m["id"] for m in metas}) == len({m["group"] for m in metas}) == len(metas)
    assert arrays["image"].dtype == np.float32 and np.abs(arrays["image"]).max() <= 1
  np.testing.assert_array_equal(data.validation().read(np.arange(4))["image"],
                                data.split("val").read(np.arange(4))["image"])


def test_the_seed_of_the_run_does_not_change_the_data():
  a, b = (synthetic_textures.build(CONFIG, seed=s).train().read(np.arange(6)) for s in (0, 1))
  np.testing.assert_array_equal(a["image"], b["image"])
  other = synthetic_textures.build({**CONFIG, "data_seed": 4}, 0).train().read(np.arange(6))
  assert np.any(other["image"] != a["image"])


def test_pixel_values_alone_say_little():
  """Mean and contrast of the images do not tell anomalies with a foreign texture from normal ones."""
  data = synthetic_textures.build({**CONFIG, "n_val": 80}, 0).split("val")
  arrays = data.read(np.arange(len(data)))
  for score in (arrays["image"].mean((1, 2, 3)), arrays["image"].std((1, 2, 3))):
    normal, odd = score[arrays["label"] == 0], score[arrays["label"] == 1]
    auroc = np.mean(odd[:, None] > normal[None])
    assert 0.3 < auroc < 0.7


def test_bad_fields():
  with pytest.raises(ValueError, match="channels=2"):
    synthetic_textures.build({**CONFIG, "channels": 2}, 0)
  with pytest.raises(ValueError, match="n_test=1"):
    synthetic_textures.build({**CONFIG, "n_test": 1}, 0)
  with pytest.raises(ValueError, match="no split 'train'"):
    synthetic_textures.build(CONFIG, 0).split("train")


def test_a_file_is_prepared_like_the_data(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
  Image.fromarray(picture).save(tmp_path / "a.png")
  found = synthetic_textures.read_example(tmp_path / "a.png", CONFIG)
  assert found.shape == (32, 32, 1) and found.dtype == np.float32
  assert -1 <= found.min() < 0 < found.max() <= 1
