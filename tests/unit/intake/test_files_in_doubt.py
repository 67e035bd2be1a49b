"""Files beside the images that would be taken for others, or for missing: one line before training."""

import os

import numpy as np
from PIL import Image
import pytest

from data_pipelines import fields
from data_pipelines.datasets import _own_images, chest_xray, paired
from data_pipelines.errors import UserError
from data_pipelines.intake import patients, sides, tables
from data_pipelines.masks import images as mask_images
from tests.unit.intake.test_sides import image, opened, twelve_normals


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)
  return path


@pytest.mark.parametrize("values, said", [
    (np.nan, "or NaN"), (120.0, "divide it by 255"), (-3.0, "beyond 0 ... 1"), (1j, "holds complex128"),
    ("a", "holds <U1"), (True, "holds bool")])
def test_a_mean_image_that_is_none(tmp_path, values, said):
  """All but the text were subtracted from every image, the imaginary part and the sign in silence."""
  np.save(tmp_path / "mean.npy", np.full((4, 4, 3), values))
  with pytest.raises(UserError, match=f"config.data.mean_image=.*{said}"):
    mask_images.read_mean_image(tmp_path / "mean.npy")


@pytest.mark.parametrize("value", [np.float32(np.nan), np.uint16(5), np.float32(0.5)])
def test_a_deep_mask_of_one_value_is_named(tmp_path, value):
  with pytest.raises(UserError, match="mask .*a.tif (has more than 8 bits|holds)"):
    mask_images.read_mask(save(tmp_path / "a.tif", np.full((4, 5), value)))


def test_frames_that_are_all_their_clean_ones(tmp_path):
  for i in range(3):
    for side in ("clean", "annotated"):
      save(tmp_path / side / f"{i}.png", np.full((40, 40), i, np.uint8))
  with pytest.raises(UserError, match="all 3 files of .*annotated are those of .*clean, byte for byte"):
    paired.build(fields.changed(paired.defaults(), dir=str(tmp_path)), 0)


def radiographs(root):
  for i in range(4):
    for name in (f"train/good/a{i}", f"test/good/b{i}", f"test/plaque/c{i}"):
      save(root / f"{name}.png", np.full((20, 16), 90, np.uint8))
  return root


def build(root):
  return chest_xray.build(fields.changed(chest_xray.defaults(), root=str(root), image_size=8), 0)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
@pytest.mark.parametrize("name", ["boxes.csv", "labels.csv"])
def test_a_table_that_is_no_file_is_not_taken_for_missing(tmp_path, name, make):
  make(radiographs(tmp_path) / name)
  with pytest.raises(UserError, match=f"table .*{name} is (a|no file)"):
    build(tmp_path)


def test_a_mask_of_other_proportions_is_not_stretched(tmp_path):
  marked = np.zeros((40, 32), np.uint8)
  marked[:8] = 255
  save(radiographs(tmp_path) / "ground_truth/plaque/c0_mask.png", marked)  # finer, of the same proportions
  assert build(tmp_path).split("test").read_one(4)["mask"].any()
  save(tmp_path / "ground_truth/plaque/c1_mask.png", marked[:20])
  with pytest.raises(UserError, match="c1_mask.png is 32x20 pixels, its image 16x20: not of its proportions"):
    build(tmp_path).split("test").read_one(5)


def test_numbers_of_labels_beside_normal_images(tmp_path):
  """GlaS: train_1_anno.bmp has a number for each gland; what is no mask of 0 and 255 was no mask at all."""
  normals = twelve_normals(tmp_path)
  image(normals / "normal/p00_anno.bmp", 0)
  opened(normals)
  image(normals / "normal/p00_anno.bmp", 0, mark=slice(3, 5))
  pixels = np.asarray(Image.open(normals / "normal/p00_anno.bmp")) // 85
  Image.fromarray(pixels).save(normals / "normal/p00_anno.bmp")
  with pytest.raises(UserError, match="p00_anno.bmp marks something, and its image counts as normal"):
    opened(normals)


@pytest.mark.parametrize("folders, said", [
    ([f"{d}/P{i}" for d in ("AD", "CN") for i in range(4)], "AD, CN"),
    (["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"], "ADI, BACK"),
    (["AD/x", "P1/x"], ""), ([f"sub-{a}" for a in "abcdefg"], ""), (["a"], "")])
def test_folders_of_kinds_are_said_wherever_they_lie(tmp_path, caplog, folders, said):
  """Those of ADNI above patients, and the nine tissues of NCT-CRC-HE: cancer was normal, without a word."""
  for folder in folders:
    image(tmp_path / folder / "a.png")
  sides.look(tmp_path)
  assert ("where these are kinds" in caplog.text) == bool(said)
  assert said in caplog.text


@pytest.mark.parametrize("name, text, said", [
    ("train.json", '[{"name": "train/a.png", "label_A": 1}]', True), ("a.json", '{"Modality": "OP"}', False),
    ("others.json", '["train/b.png"]', False), ("grades.xlsx", "PK", True)])
def test_lists_of_labels_in_other_forms_are_said(tmp_path, caplog, name, text, said):
  """Chaoyang's labels lie in train.json."""
  image(tmp_path / "a.png")
  (tmp_path / name).write_text(text)
  sides.look(tmp_path)
  assert (f"{name} is not read, and all scans" in caplog.text) == said


def test_a_pipe_beside_images_is_not_read(tmp_path, caplog):
  """Who looked into labels.json for the names of the images waited for ever."""
  image(tmp_path / "a.png")
  os.mkfifo(tmp_path / "labels.json")
  assert len(sides.look(tmp_path).members) == 1 and "labels.json is not read" not in caplog.text


def test_a_photograph_beside_a_normal_image_marks_nothing(tmp_path):
  """As few colours as labels have on a grid of every eighth pixel, or many: of the whole it is asked."""
  pixels = np.zeros((64, 64, 3), np.uint8)
  pixels[1, :, 0] = np.arange(64)
  pixels[2, :, 1] = np.arange(64)
  assert not _own_images._marks(save(tmp_path / "a.png", pixels))
  pixels[2] = 0
  assert _own_images._marks(save(tmp_path / "a.png", pixels))
  assert not _own_images._marks(save(tmp_path / "a.png", np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)))


def test_black_and_white_in_three_channels_is_a_mask(tmp_path):
  """Masks of Kvasir and others are stored as colour; a photograph is none."""
  mark = np.zeros((8, 9, 3), np.uint8)
  mark[2:4, 3:5] = 255
  np.testing.assert_array_equal(mask_images.read_mask(save(tmp_path / "a.png", mark)), mark[..., 0] > 0)
  grey = np.repeat(np.arange(72, dtype=np.uint8).reshape(8, 9, 1), 3, -1)
  mark[0, 0, 0] = 9
  for pixels in (grey, mark):
    with pytest.raises(UserError, match="has colours"):
      mask_images.read_mask(save(tmp_path / "a.png", pixels), soft=True)


@pytest.mark.parametrize("nobody", ["", "nan", "N/A", "None", "?", "unknown"])
def test_a_word_for_nobody_is_no_patient(nobody, tmp_path):
  """All rows without a patient were of one, NaN, and no split was right."""
  (tmp_path / "t.csv").write_text(f"file,patient\na_1.png,{nobody}\nb_1.png,{nobody}\nc.png,P7\n")
  rows = tables.read_table(tmp_path / "t.csv").rows
  assert patients.of_rows(rows, [row["file"] for row in rows]) == ["a", "b", "P7"]
