"""Files beside the images that would be taken for others, or for missing: one line before training."""

import os

import numpy as np
from PIL import Image
import pytest

from data_pipelines import fields
from data_pipelines.datasets import _own_images, chest_xray, paired
from data_pipelines.errors import UserError
from data_pipelines.intake import mask_words, patients, sides, tables
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


# ------------------------------------------------------------------------- tables that are not read
def own_set(root, mask=False):
  """Twelve normal images and four abnormal ones of noise, perhaps with masks."""
  pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 16), np.uint8)
  for i, array in enumerate(pixels):
    save(root / ("normal" if i < 12 else "abnormal") / f"IMG_{i:07}.png", array)
  for i in range(12, 16 if mask else 12):
    save(root / f"masks/abnormal/IMG_{i:07}.png", np.where(pixels[i] > 200, 255, 0).astype(np.uint8))
  return root


def opened_own(root, table="", name="metadata.csv"):
  (root / name).write_text(table)
  return opened(root)


@pytest.mark.parametrize("name", ["IMG_{:07}", "folder/IMG_{:07}.jpg", "normal/IMG_{:07}.png"])
def test_people_that_a_table_beside_an_own_folder_tears_apart_are_said(tmp_path, caplog, name):
  """HAM10000's lesion_id, sorted into folders: images of one mole were in train and in test, in silence."""
  rows = [f"{name.format(i)},HAM_{i % 3},{i}" for i in range(16)]
  opened_own(own_set(tmp_path / "s"), "\n".join(["image_id,lesion_id,age", *rows]))
  assert "metadata.csv is not read, and by its column 'lesion_id' 3 of 3 people have images in" in caplog.text
  assert "config.data.split_table" in caplog.text


@pytest.mark.parametrize("who, more", [
    (lambda i: f"P{i}", ""), (lambda i: "unknown", ""), (lambda i: f"P{i % 3}", '"'), (lambda i: i % 3, "x")])
def test_tables_that_tear_nobody_apart_are_no_matter(tmp_path, caplog, who, more):
  """Each image somebody's own, nobody named, a table that cannot be read, one of other images."""
  rows = [f"{more}IMG_{i:07},{who(i)}" for i in range(16)]
  opened_own(own_set(tmp_path / "s"), "\n".join(["image_id,patient_id", *rows]))
  assert "is not read, and by its column" not in caplog.text


@pytest.mark.parametrize("header, abnormal, normal, masks, said", [
    ("image_id,class_name,x_min,y_min,x_max,y_max", "Mass,3,4,9,9", "No finding,,,,", False, True),
    ("ImageId,EncodedPixels", "12 4 30 5", "-1", False, True),
    ("ImageId,EncodedPixels", "12 4 30 5", "-1", True, False), ("file,x,y", "1,2", "3,4", False, False),
    ("file,bbox", "[1 2 3 4]", "", False, True), ("file,bbox", "", "", False, False)])
def test_boxes_and_run_lengths_in_a_table_are_said(tmp_path, caplog, header, abnormal, normal, masks, said):
  """SIIM's run lengths and VinDr's boxes were not read, and nothing said why there were no pixel metrics."""
  rows = [f"IMG_{i:07},{normal if i < 12 else abnormal}" for i in range(16)]
  opened_own(own_set(tmp_path / "s", masks), "\n".join([header, *rows]))
  told = "seem to hold boxes or outlines of 4 images, the first abnormal/IMG_0000012.png"
  assert (told in caplog.text) == said


@pytest.mark.parametrize("column, value, said", [
    ("label", lambda i: int(i < 6), True), ("dx", lambda i: "nevus" if i < 12 else "healthy", True),
    ("label", lambda i: int(i >= 12), False), ("class", lambda i: i % 7, False),
    ("age", lambda i: int(i < 6), False)])
def test_answers_of_a_table_that_contradict_the_folders_are_said(tmp_path, caplog, column, value, said):
  rows = [f"IMG_{i:07}.png,{value(i)}" for i in range(16)]
  opened_own(own_set(tmp_path / "s"), "\n".join([f"file,{column}", *rows]))
  assert ("images are on the other side than here" in caplog.text) == said


def test_boxes_and_people_beside_radiographs_are_said(tmp_path, caplog):
  """BBox_List_2017.csv of NIH lay beside train/ and test/, and only boxes.csv is read."""
  for i, side in enumerate([*["train/normal"] * 6, *["val/normal", "test/normal", "test/mass"] * 3]):
    save(tmp_path / side / f"{i:08}.png", np.full((16, 16), 9 * i, np.uint8))
  boxes = "\n".join(f"{i:08}.png,mass,1,2,3,4" for i in (8, 11, 14))
  (tmp_path / "BBox_List_2017.csv").write_text(f"Image Index,Finding Label,Bbox [x,y,w,h]\n{boxes}\n")
  people = "\n".join(f"{i:08}.png,{i % 4}" for i in range(15))
  (tmp_path / "Data_Entry_2017.csv").write_text(f"Image Index,Patient ID\n{people}\n")
  cfg = fields.changed(chest_xray.defaults(), root=str(tmp_path), layout="folder", image_size=16)
  chest_xray.build(cfg, 0)
  assert "BBox_List_2017.csv: its columns (bbox [x) seem to hold boxes or outlines of 3 images" in caplog.text
  assert "Data_Entry_2017.csv is not read, and by its column 'patient id' 4 of 4 people" in caplog.text


def test_masks_below_the_folders_of_several_objects_and_splits(tmp_path):
  """MVTec as it is unpacked, with all its objects: bottle/ground_truth/crack is of bottle/test/crack."""
  root = own_set(tmp_path / "s")
  (root / "abnormal").rename(root / "unused")
  for i in range(3):
    image(root / f"bottle/test/crack/{i}.png", 90 + i)
    image(root / f"bottle/ground_truth/crack/{i}_mask.png", 0, mark=(slice(2, 5), slice(2, 5 + i)))
  found = opened(root, anomaly_words=("crack",))
  assert found.has_lesions("test")


def test_a_folder_named_as_one_of_masks_beside_sides_is_not_to_be_named_a_side(tmp_path, caplog):
  """PANDA's train_label_masks: the advice was to name it in config.data.anomaly_words."""
  root = own_set(tmp_path / "s")
  save(root / "train_label_masks/IMG_0000012_mask.png", np.zeros((16, 16), np.uint8))
  sides.look(root)
  assert "(train_label_masks): where they are masks of the others, call the folder masks" in caplog.text


@pytest.mark.parametrize("folder", ["1.000000-ROI mask images-{}", "lesion masks/{}", "Disc_Cup_Masks/{}"])
def test_masks_in_a_folder_of_each_case_are_no_images(tmp_path, folder):
  """CBIS-DDSM: ROI masks were scored as abnormal images, each in a folder of its own number."""
  root = own_set(tmp_path / "s")
  noise = np.random.default_rng(1).integers(0, 255, (60, 16, 16), np.uint8)
  for i, array in enumerate(noise):
    save(root / f"abnormal/{i}/full images-{i}/1-1.png", array)
    mask = save(root / "abnormal" / str(i) / folder.format(i) / "1-1.png", np.uint8(255 * (array > 200)))
  with pytest.raises(UserError, match="1-1.png lies in .*ask.*, which is named as a folder of masks"):
    opened(root)
  declared = [f.name for f in (root / "abnormal").rglob("*") if mask_words.holds_masks(f.name)]
  mask_words.refuse_folders([mask, *root.rglob("IMG*.png")], root, declared)
  mask_words.refuse_folders([mask], root, ())  # what was asked for


@pytest.mark.parametrize("name", ["camelyonpatch_level_2_split_train_x.h5", "0000.npy", "brain.mat"])
def test_what_to_do_about_arrays(tmp_path, name):
  """PatchCamelyon, fastMRI and MRNet: no line said what to do."""
  (tmp_path / name).write_bytes(b"x")
  with pytest.raises(FileNotFoundError, match=f"{name} is no .*: save its images as PNG or TIFF"):
    sides.look(tmp_path)
