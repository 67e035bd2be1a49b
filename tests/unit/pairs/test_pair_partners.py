"""Annotated and clean frames whose files have other endings."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.datasets import paired
from tests.unit.data.test_paired import open_pairs, write_pairs


def test_partners_of_other_endings(tmp_path):
  """A pair where it is unambiguous, called as its clean file; refused where a third file has the name."""
  corners = write_pairs(tmp_path, names=("a_1", "b_1"))
  (tmp_path / "annotated" / "b_1.png").rename(tmp_path / "annotated" / "b_1.PNG")
  image = Image.open(tmp_path / "annotated" / "a_1.png")
  image.save(tmp_path / "annotated" / "a_1.tif")
  (tmp_path / "annotated" / "a_1.png").unlink()
  train = open_pairs(tmp_path, val_share=0.0, test_share=0.0).train()
  for i, name in enumerate(("a_1", "b_1")):
    example = train.read_one(i)
    assert train.meta(i)["id"] == name + ".png" and example["mask"].sum() == 24
    assert example["mask"][corners[name]].any() and np.all(example["image"][example["mask"] > 0] == 1)
  image.save(tmp_path / "annotated" / "a_1.bmp")
  with pytest.raises(ValueError, match=r"annotated/a_1.bmp has no partner: several files .*; clean/a_1.png"):
    open_pairs(tmp_path)
  assert paired.partners(["a.png", "a.jpg"], ["a.png", "a.tif"])[0] == {"a.png": "a.png"}
