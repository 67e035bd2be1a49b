"""Sets of test images alone: another hospital's, which nothing is trained on. They were refused."""

import numpy as np
import pytest

from data_pipelines import fields, scored_alone
from data_pipelines.datasets import annotations, nih, own_folder, paired, segmentation
from data_pipelines.errors import UserError
from tests.unit.masks.test_own_images import save

PICTURE = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)


SMALL = {"crop_size": 32, "resize": 16}


def write(root, head, row):
  (root / "labels.csv").write_text("\n".join([head, *map(row.format, range(3))]) + "\n")


def own(root):
  for i in range(3):
    save(root / "abnormal" / f"a{i}.png", PICTURE)
  return own_folder, {"dir": str(root)}, "there is nothing to train on"


def two_normals(root):
  save(root / "normal/n0.png", PICTURE), save(root / "normal/n1.png", PICTURE.T)
  save(root / "abnormal/a0.png", PICTURE)
  return own_folder, {"dir": str(root)}, "2 normal scans, .* are too few to train"


def table(root):
  for i in range(3):
    save(root / f"i{i}.png", PICTURE), save(root / f"m{i}.png", np.where(PICTURE > 99, 255, PICTURE * 0))
  write(root, "image,mask,split", "i{0}.png,m{0}.png,test")
  return segmentation, {"dir": str(root), "noise": "box"}, "of the 0 training images"


def masks_in_a_column(root):
  table(root)
  text = (root / "labels.csv").read_text().replace("split\n", "split,clean\n").replace("test\n", "test,1\n")
  (root / "labels.csv").write_text(text)
  return segmentation, {"dir": str(root), "noise": "box"}, "no noisy training image is left"


def frames(root, module=paired):
  for i in range(3):
    save(root / "clean" / f"P{i}.png", PICTURE), save(root / "annotated" / f"P{i}.png", PICTURE | 15)
  write(root, "file,split", "P{}.png,test")
  return module, {"dir": str(root)}, "no frame is left for training"


def drawn_on(root):
  return frames(root, annotations)


def labelled(root):
  for i in range(3):
    save(root / f"x{i}.png", PICTURE)
  write(root, "file,split,label", "x{}.png,test,pneumonia")
  return nih, {"root": str(root), "layout": "folder", **SMALL}, "no image in train"


def folders(root):
  for i in range(3):
    save(root / "test/normal" / f"x{i}.png", PICTURE)
  return nih, {"root": str(root), "layout": "folder", **SMALL}, "nor images in train/normal"


@pytest.mark.parametrize("made", [
    own, two_normals, table, masks_in_a_column, frames, drawn_on, labelled, folders])
def test_a_set_of_test_images_alone_is_scored_and_not_trained_on(tmp_path, made):
  module, given, said = made(tmp_path)
  build = lambda: module.build(fields.changed(module.defaults(), **given), 0)
  with pytest.raises((UserError, FileNotFoundError), match=said):
    build()
  with scored_alone.opened():
    found = build()
  source = found.split("test")
  assert len(source) == 3 and np.isfinite(source.read_one(0)["image"]).all()
  with pytest.raises((UserError, FileNotFoundError), match=said):  # again
    build()


def test_a_set_that_could_be_trained_on_is_split_as_ever(tmp_path):
  for i in range(12):
    save(tmp_path / "normal" / f"p{i:02d}.png", PICTURE + np.uint8(i))
  given = fields.changed(own_folder.defaults(), dir=str(tmp_path))
  with scored_alone.opened():
    alone = own_folder.build(given, 0)
  assert {s: len(m) for s, m in alone.parts.items()} == {
      s: len(m) for s, m in own_folder.build(given, 0).parts.items()} == {"train": 6, "val": 3, "test": 3}


def test_an_empty_list_is_refused_all_the_same(tmp_path):
  save(tmp_path / "x.png", PICTURE)
  (tmp_path / "labels.csv").write_text("file,split,label\nx.png,unused,normal\n")
  with scored_alone.opened(), pytest.raises(UserError, match="no image in train"):
    nih.build(fields.changed(nih.defaults(), root=str(tmp_path), layout="folder"), 0)


@pytest.mark.parametrize("names", [("masks/a.png",), ("normal/masks/a.png", "abnormal/masks/a.png")])
def test_masks_alone_are_nothing_to_score(tmp_path, names, caplog):
  caplog.set_level("INFO")
  for name in names:
    save(tmp_path / name, PICTURE)
  given = fields.changed(own_folder.defaults(), dir=str(tmp_path))
  with scored_alone.opened(), pytest.raises(UserError, match="no scan in normal/ or abnormal/"):
    own_folder.build(given, 0)
  with pytest.raises(UserError, match="there is nothing to train on"):
    own_folder.build(given, 0)
  assert "taken for normal" not in caplog.text  # all of its 0 scans
