"""Annotated and clean frames whose files have other endings."""

import re

import numpy as np
from PIL import Image
import pytest

from data_pipelines import dataset
from data_pipelines.datasets import annotations, paired
from tests.unit.data.test_paired import config, open_pairs, save, write_pairs


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


def _with_masks(root, mask_of):
  """Pairs with drawn masks: {name: (row, rows) of the mask's square}, None for one of zeros."""
  corners = write_pairs(root, size=(40, 48))
  for name, top in corners.items():
    mask = np.zeros((40, 48))
    rows, columns = mask_of(name, top)
    mask[rows, columns] = 1
    save(root / "mask" / f"{name}.png", mask)


def test_a_mask_marks_what_differs(tmp_path, caplog):
  _with_masks(tmp_path / "right", lambda name, top: (slice(top, top + 4), slice(6, 12)))
  assert not open_pairs(tmp_path / "right").problems and not caplog.text
  for folder, mask_of, said in (
      ("other", lambda name, top: (slice(30 if name == "p2_1" else top, 34 if name == "p2_1" else top + 4),
                                   slice(6, 12)), "1 of 5 masks leave out .*p2_1.png .100 %.: are they"),
      ("none", lambda name, top: (slice(0, 0), slice(0, 0)), "5 of 5 masks leave out more than half of what"),
      ("half", lambda name, top: (slice(top, top + 1), slice(6, 12)), "5 of 5 masks .*p1_1.png .75 %.")):
    caplog.clear()
    _with_masks(tmp_path / folder, mask_of)
    assert not open_pairs(tmp_path / folder).problems  # a mask is followed, whatever differs
    assert re.search(said, caplog.text)


@pytest.mark.parametrize("other", ["a{}_mask.png", "masks/a{}.png", "annotated/a{}.png", "Marked/a{}.png",
                                   "annotations/a{}.png"])
def test_masks_and_annotated_frames_are_no_clean_ones(tmp_path, other):
  for i in range(6):
    frame = np.random.default_rng(i).uniform(0.1, 0.5, (20, 20))
    save(tmp_path / f"us/a{i}.png", frame)
    save(tmp_path / "us" / other.format(i), np.round(frame))
  found = dataset.open_dataset(config(tmp_path / "us", annotations.defaults), 0).describe()
  assert sum(split["frames"] for split in found["splits"].values()) == 6


def test_the_folders_of_pairs_have_any_capitals(tmp_path):
  write_pairs(tmp_path)
  (tmp_path / "clean").rename(tmp_path / "Clean")
  (tmp_path / "annotated").rename(tmp_path / "ANNOTATED")
  assert sum(len(open_pairs(tmp_path).split(s)) for s in ("train", "val", "test")) == 5
  assert sum(split["frames"] for split in dataset.open_dataset(
      config(tmp_path, annotations.defaults), 0).describe()["splits"].values()) == 5


def test_folders_named_as_splits_are_said(tmp_path, caplog):
  for i in range(6):
    frame = np.random.default_rng(i).uniform(0.1, 0.5, (20, 20))
    save(tmp_path / f"{('train', 'test')[i % 2]}/a{i}.png", frame)
  dataset.open_dataset(config(tmp_path, annotations.defaults), 0)
  assert "folders called test and train, which are no splits here" in caplog.text
  assert "config.data.table, says it otherwise" in caplog.text


def test_masks_that_are_not_read_are_said(tmp_path, caplog):
  """masks/ beside mask/, and masks saved as GIF: what differs counted as drawn, without a word."""
  (tmp_path / "masks").mkdir()
  paired._say_other_masks(tmp_path, [tmp_path / "mask"])
  assert "masks is named as a folder of masks, and is not read" in caplog.text
  caplog.clear()
  paired._say_other_masks(tmp_path, [tmp_path / "masks"])
  (tmp_path / "masks/a.gif").write_bytes(b"x")
  assert not caplog.text and paired.masks_of(["a.png"], tmp_path / "masks") == ({}, [])
  assert "1 files in folders of masks are in a form that is not read" in caplog.text


def test_a_folder_of_masks_that_is_named_and_not_there_is_said(tmp_path):
  """What differs counted as drawn, though masks had been asked for."""
  write_pairs(tmp_path)
  open_pairs(tmp_path)
  with pytest.raises(FileNotFoundError, match="config.data.mask_dir='mraks': there is no .*mraks; leave"):
    open_pairs(tmp_path, mask_dir="mraks")
