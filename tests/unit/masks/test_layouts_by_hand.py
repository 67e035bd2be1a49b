"""Layouts of a segmentation set by hand: names, what older runs read, noise that looks at the image."""

import types

import numpy as np
import pytest

from data_pipelines.errors import UserError
from data_pipelines.masks import images, label_noise, layouts
from tests.unit.masks import test_pairs_by_hand as pairs

root = pairs.table  # the fixture: six training images in a table


def test_two_images_of_one_name_are_refused(root):
  text = (root / "labels.csv").read_text()
  (root / "labels.csv").write_text(text.replace(",id5", ",id2"))
  with pytest.raises(UserError, match="id2"):
    pairs.parts(root)


def test_no_clean_image_is_held_out_where_none_is_asked_for_and_older_runs_open(root):
  for part, numbers in (("noisy", (0, 1)), ("clean", (2, 3, 4)), ("test", (7,))):
    for k in numbers:
      for kind, folder in (("img", "i"), ("gt", "m")):
        target = root / "set" / f"{part}_{kind}" / f"{k}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / folder / f"{k}.png").read_bytes())
  for grouping in ("file", "legacy"):
    found = pairs.parts(root / "set", layout="folders", grouping=grouping)
    assert {p: [i.id for i in items] for p, items in found.items()} == {
        "noisy": ["0", "1"], "clean": ["2", "3", "4"], "test": ["7"]}
  assert {i.group for items in found.values() for i in items} == {""}


def test_noise_by_brightness_is_that_of_the_image(root):
  dark = np.full((20, 24, 3), 200, np.uint8)
  dark[6:16, 6:16] = 30  # beside the mask of rows 4 ... 8
  pairs.save(root / "i/0.png", dark)
  one = pairs.parts(root, noise="threshold", noise_seed=3)["noisy"][0]
  want = label_noise.apply(one.truth() > 0.5, "threshold", 3, "id0", dark)
  np.testing.assert_array_equal(one.mask() > 0.5, want)
  assert want.any() and (want != (one.truth() > 0.5)).any()


@pytest.mark.parametrize("ending", ["_mask", "_Seg", "_segmentation", "-gt", "_lesion_mask", ""])
def test_masks_of_folders_may_end_as_those_of_ones_own_folder(tmp_path, ending):
  for name in ("P1", "P2_mask"):
    pairs.save(tmp_path / "img" / f"{name}.png", np.zeros((9, 9, 3), np.uint8))
  for name in (f"P1{ending}", "P2_mask"):  # an image of such a name is its mask's whole name
    pairs.save(tmp_path / "gt" / f"{name}.png", pairs.marked(2, 5, 2, 5, shape=(9, 9)))
  found = images.pair(tmp_path / "img", tmp_path / "gt")
  assert [(name, mask.stem) for name, _, mask in found] == [("P1", f"P1{ending}"), ("P2_mask", "P2_mask")]


@pytest.mark.parametrize("name, said", [("P{}", True), ("patient{}", True), ("{}", False), ("IMG_{}", False)])
def test_scored_images_called_as_training_images_are_said(root, caplog, name, said):
  """P0 in noisy_img and P0 in test_img were two patients."""
  for part, numbers in (("noisy", (0, 1)), ("clean", (2, 3, 4)), ("test", (7,))):
    for i, k in enumerate(numbers):
      for kind, folder in (("img", "i"), ("gt", "m")):
        target = root / "set" / f"{part}_{kind}" / f"{name.format(i)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / folder / f"{k}.png").read_bytes())
  pairs.parts(root / "set", layout="folders", grouping="file")
  assert ("1 images of val and test have the names of training images" in caplog.text) == said


def test_which_clean_images_are_held_out_is_drawn_with_the_seed():
  parts = {"noisy": [], "clean": [types.SimpleNamespace(id=str(i), group="") for i in range(9)]}
  held = {seed: layouts._held_out(parts, types.SimpleNamespace(clean_seed=seed, val_from_clean=2))
          for seed in range(5)}
  names = {seed: tuple(i.id for i in val) for seed, (val, _) in held.items()}
  assert len(set(names.values())) > 2
  assert {(len(val), len(clean)) for val, clean in held.values()} == {(2, 7)}


def test_people_of_a_table_beside_the_list_are_said(root, caplog):
  """HAM10000_metadata.csv beside labels.csv: one lesion was in train and in test."""
  names = [line.split(",")[0] for line in (root / "labels.csv").read_text().splitlines()[1:]]
  rows = "\n".join(f"{name.rpartition('/')[2].partition('.')[0]},L1" for name in names)
  (root / "HAM_metadata.csv").write_text(f"image_id,lesion_id\n{rows}")
  pairs.parts(root)
  assert "HAM_metadata.csv is not read, and by its column 'lesion_id' 1 of 1 people" in caplog.text
  assert "keep those of each in one split; a column patient of labels.csv tells them" in caplog.text
