"""RSNA, PadChest, COVID-19 Radiography, folders with boxes and masks: written small, read by chest_xray."""

import json

import numpy as np
from PIL import Image
import pytest

from data_pipelines import fields
from data_pipelines.chest import listing
from data_pipelines.datasets import chest_xray
from data_pipelines.errors import UserError
from tests import image_files

RNG = np.random.default_rng(0)


def save(path, array=None):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(RNG.integers(0, 256, (20, 16), np.uint8) if array is None else array).save(path)


def build(root, **given):
  return chest_xray.build(fields.changed(chest_xray.defaults(), root=str(root), image_size=10, **given), 0)


def metas(data, split):
  source = data.split(split)
  return [source.meta(i) for i in range(len(source))]


def everything(data):
  """{name: finding} of what is trained, validated and tested on."""
  return {i.name: i.kind for items in data.lists.values() for i in items}


# ----------------------------------------------------------------------------------------- boxes
def test_boxes_mark_pixels_whose_centres_they_hold():
  mask = listing.rasterise([(0, 10, 8, 10)], (20, 16), 10)  # left half, lower half of 20 x 16
  expected = np.zeros((10, 10, 1))
  expected[5:, :5] = 1
  np.testing.assert_array_equal(mask, expected)
  assert mask.dtype == np.float32


def test_a_box_never_vanishes_and_never_leaves_the_image():
  tiny = listing.rasterise([(7.2, 3.1, 0.1, 0.1)], (20, 16), 10)
  assert tiny.sum() == 1 and tiny[1, 4, 0] == 1
  edge = listing.rasterise([(15, 19, 5, 5)], (20, 16), 10)
  assert edge.sum() == 1 and edge[9, 9, 0] == 1
  two = listing.rasterise([(0, 0, 4, 4), (0, 0, 4, 4)], (20, 20), 10)
  assert two.sum() == 4


@pytest.mark.parametrize("cells,words", [
    ("a.png,1,2,3", "has 4 cells"), ("a.png,1,2,x,4", "line 2.*four numbers"), ("a.png,1,2,0,4", "no extent"),
    ("a.png,.1,.2,.3,.4", "line 2.*smaller than a pixel"),
    ("a.png,1,,3,4", "'y' is empty"), ("a.png,1,nan,3,4", "no extent")])
def test_bad_boxes_are_refused_with_their_line(tmp_path, cells, words):
  (tmp_path / "boxes.csv").write_text(f"file,x,y,width,height\n{cells}\n")
  with pytest.raises(UserError, match=words):
    listing.read_boxes(tmp_path / "boxes.csv")


# ------------------------------------------------------------------------------------------ RSNA
def rsna(root, mapping=True):
  """12 normal, 6 opaque (two boxes each), 2 not normal; two images of each patient of NIH."""
  labels, classes = ["patientId,x,y,width,height,Target"], ["patientId,class"]
  folder = root / "stage_2_train_images"
  folder.mkdir(parents=True)
  for i in range(20):
    kind = "Normal" if i < 12 else "Lung Opacity" if i < 18 else "No Lung Opacity / Not Normal"
    rows = ["0,10,8,10,1", "8,0,8,2,1"] if kind == "Lung Opacity" else [",,,,0"]
    labels += [f"id{i:02d},{row}" for row in rows]
    classes += [f"id{i:02d},{kind}"] * len(rows)
    image_files.dicom(folder / f"id{i:02d}.dcm", np.full((20, 16), 40, np.uint8), PatientID=f"id{i:02d}")
  (root / "stage_2_train_labels.csv").write_text("\n".join(labels) + "\n")
  (root / "stage_2_detailed_class_info.csv").write_text("\n".join(classes) + "\n")
  if mapping:
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps([
        {"subset_img_id": f"id{i:02d}", "img_id": f"{i // 2:08d}_{i % 2:03d}.png"} for i in range(20)]))
  return root


def test_rsna_is_split_by_patients_of_nih_and_its_boxes_are_masks(tmp_path):
  data = build(rsna(tmp_path), layout="rsna", test_share=0.4, val_share=0.3)
  sides = data.sides()
  assert not set(sides["train"]) & set(sides["test"]) and not set(sides["val"]) & set(sides["test"])
  assert all(g.isdigit() and len(g) == 8 for g in sides["train"])
  assert set(everything(data).values()) == {"normal", "lung opacity"}  # "not normal" only by name
  test = data.split("test")
  arrays = test.read(np.arange(len(test)))
  np.testing.assert_array_equal(arrays["mask"].any((1, 2, 3)), arrays["label"] == 1)
  ill = int(np.flatnonzero(arrays["label"])[0])
  assert test.meta(ill)["finding"] == "lung opacity" and test.meta(0)["finding"] == "normal"
  expected = np.zeros((10, 10))
  expected[5:, :5] = expected[0, 5:] = 1
  np.testing.assert_array_equal(arrays["mask"][ill, ..., 0], expected)
  assert "mask" not in data.train().read_one(0)


def test_rsna_without_the_mapping_says_that_patients_are_not_known(tmp_path, caplog):
  data = build(rsna(tmp_path, mapping=False), layout="rsna", test_share=0.4, val_share=0.3,
               findings=("not normal",))
  assert "NIH has several images of a patient" in caplog.text
  assert "not normal" in everything(data).values() and "lung opacity" not in everything(data).values()


@pytest.mark.parametrize("change,words", [
    (("detailed_class_info.csv", "id00,Normal", "id00,Lung Opacity"), "id00 is lung opacity, but .* 0 boxes"),
    (("detailed_class_info.csv", "id00,Normal", "id00,Well"), "class 'Well'"),
    (("train_labels.csv", "id00,,,,,0", "id00,,,,,2"), "Target '2'"),
    (("train_labels.csv", "id00,,,,,0", "other,,,,,0"), "does not list 1 images .* other"),
    (("detailed_class_info.csv", "id00,Normal", "id01,Lung Opacity"), "id01 is lung opacity")])
def test_tables_of_rsna_that_contradict_each_other_are_refused(tmp_path, change, words):
  root = rsna(tmp_path)
  path = root / f"stage_2_{change[0]}"
  path.write_text(path.read_text().replace(*change[1:]))
  with pytest.raises(UserError, match=words):
    build(root, layout="rsna")


def test_a_mapping_that_is_none(tmp_path):
  root = rsna(tmp_path)
  (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text('{"a": 1}')
  with pytest.raises(UserError, match="not the challenge's mapping"):
    build(root, layout="rsna")


# -------------------------------------------------------------------------------------- PadChest
def padchest(root, rows):
  """`rows`: (ImageID, PatientID, Labels, Projection, photometric, bits, pixels)."""
  lines = ["ImageID,ImageDir,PatientID,Projection,PhotometricInterpretation_DICOM,BitsStored_DICOM,Labels"]
  for name, patient, labels, projection, photometric, bits, pixels in rows:
    lines.append(f'{name},3,{patient},{projection},{photometric},{bits},"{labels}"')
    save(root / "3" / name, pixels)
  (root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text("\n".join(lines) + "\n")
  return root


def deep(value):
  return np.full((20, 16), value, np.uint16)


def test_padchest_reads_labels_projections_patients_depth_and_monochrome1(tmp_path, caplog):
  caplog.set_level("INFO")
  rows = [(f"n{i}.png", f"p{i // 2}", "['normal']", "PA", "MONOCHROME2", 12, deep(60000)) for i in range(12)]
  two = "['pleural effusion', 'cardiomegaly', 'normal']"
  rows += [("dark.png", "q0", two, "PA", "MONOCHROME2", 12, deep(819)),
           ("turned.png", "q1", "['pneumonia']", "PA", "MONOCHROME1", 16, deep(65535 // 5)),
           ("side.png", "q2", "['pneumonia']", "L", "MONOCHROME2", 12, deep(60000)),
           ("bad.png", "q3", "['exclude']", "PA", "MONOCHROME2", 12, deep(60000)),
           ("silent.png", "q4", "['unchanged']", "PA", "MONOCHROME2", 12, deep(60000)),
           ("none.png", "q5", "nan", "PA", "MONOCHROME2", 12, deep(60000))]
  data = build(padchest(tmp_path, rows), layout="padchest", val_share=0.3, test_share=0.3, fold_seed=1)
  names = everything(data)
  assert set(names) == {f"n{i}.png" for i in range(12)} | {"dark.png", "turned.png"}  # findings do not train
  assert "14 images; left out: 1 of other projections, 3 whose labels say nothing" in caplog.text
  table, = tmp_path.glob("*.csv")
  table.rename(tmp_path / "of_mine.csv")  # the one table of the folder is the table, two are none
  assert {r.name for r in _padchest_all(tmp_path)} == set(names)
  (tmp_path / "other.csv").write_text("a,b\n")
  with pytest.raises(FileNotFoundError, match="set config.data.root"):
    _padchest_all(tmp_path)
  (tmp_path / "other.csv").unlink()
  kinds = {r.name: r for r in _padchest_all(tmp_path)}
  assert kinds["dark.png"].finding == "pleural effusion|cardiomegaly"
  np.testing.assert_allclose(listing.read_unit(kinds["dark.png"]), 0.2, atol=1e-4)    # 12 bits in 16
  np.testing.assert_allclose(listing.read_unit(kinds["n0.png"]), 60000 / 65535, atol=1e-4)
  np.testing.assert_allclose(listing.read_unit(kinds["turned.png"]), 0.8, atol=1e-4)
  groups = {i.name: i.group for items in data.lists.values() for i in items}
  assert groups["n0.png"] == groups["n1.png"] == "p0"


@pytest.mark.parametrize("cell, bits", [("12", 12), ("12.0", 12), ("", 0), ("nan", 0), ("120", 0)])
def test_padchest_bits_may_be_written_as_pandas_writes_them(tmp_path, cell, bits):
  padchest(tmp_path, [("a.png", "p", "['normal']", "PA", "MONOCHROME2", cell, deep(819))])
  assert [r.bits for r in _padchest_all(tmp_path)] == [bits]


def _padchest_all(root):
  from data_pipelines.chest import padchest as reader
  return reader.radiographs(root)


def test_padchest_folders_that_are_not_unpacked_are_counted(tmp_path, caplog):
  root = padchest(tmp_path, [("a.png", "p", "['normal']", "PA", "MONOCHROME2", 8, None)])
  table = root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
  table.write_text(table.read_text() + 'b.png,44,q,PA,MONOCHROME2,8,"[\'normal\']"\n')
  assert [r.name for r in _padchest_all(root)] == ["a.png"]
  assert "1 images are left out, their folders are not there" in caplog.text


def test_labels_that_are_no_list(tmp_path):
  with pytest.raises(UserError, match="line 2: Labels"):
    _padchest_all(padchest(tmp_path, [("a.png", "p", "['normal'", "PA", "MONOCHROME2", 8, None)]))


def test_findings_that_no_image_has(tmp_path):
  rows = [(f"n{i}.png", f"p{i}", "['normal']" if i else "['mass']", "PA", "MONOCHROME2", 8, None)
          for i in range(6)]
  with pytest.raises(UserError, match="no 'masss'; it has mass"):
    build(padchest(tmp_path, rows), layout="padchest", findings=("masss",))


# -------------------------------------------------------------------------- COVID-19 Radiography
def test_covid_radiography_has_lungs_and_three_findings(tmp_path):
  lungs = np.zeros((8, 8), np.uint8)
  lungs[:, :4] = 255
  for folder, name, n in (("Normal", "Normal", 9), ("COVID", "COVID", 5), ("Lung_Opacity", "Lung_Opacity", 5),
                          ("Viral Pneumonia", "Viral Pneumonia", 5)):
    for i in range(1, n + 1):
      save(tmp_path / folder / "images" / f"{name}-{i}.png")
      save(tmp_path / folder / "masks" / f"{name}-{i}.png", lungs)
  data = build(tmp_path, layout="covid_radiography", val_share=0.3, test_share=0.4, findings=("covid",))
  assert set(everything(data).values()) == {"normal", "covid"}
  batch = data.split("test").read(np.arange(2))
  assert "mask" not in batch and batch["lungs"][:, :, :5].all() and not batch["lungs"][:, :, 5:].any()
  with pytest.raises(UserError, match="does not hold the images"):
    build(tmp_path / "COVID", layout="covid_radiography")


# ---------------------------------------------------------------------------------------- folders
def folder(root, finding="pleural plaque"):
  for i in range(4):
    save(root / "train/good" / f"a{i}.png")
    save(root / "test/good" / f"b{i}.png")
    save(root / "test" / finding / f"c{i}.png")
  return root


@pytest.mark.parametrize("ending", ["_mask", "_Seg", "_groundtruth", ""])
def test_a_folder_of_any_findings_with_masks(tmp_path, caplog, ending):
  marked = np.zeros((20, 16), np.uint8)
  marked[:2, :2] = 255
  for i in range(4):
    save(tmp_path / "ground_truth/pleural plaque" / f"c{i}{ending}.png", marked)
  data = build(folder(tmp_path))
  assert [m["finding"] for m in metas(data, "test")] == ["normal"] * 4 + ["pleural plaque"] * 4
  mask = data.split("test").read(np.arange(8))["mask"]
  assert not mask[:4].any() and mask[4:, 0, 0].all() and mask[4:].sum() == 4
  assert "neither box nor mask" not in caplog.text


def test_a_folder_with_boxes(tmp_path, caplog):
  folder(tmp_path)
  (tmp_path / "boxes.csv").write_text("file,x,y,width,height\ntest/pleural plaque/c1.png,0,0,8,20\n")
  mask = build(tmp_path).split("test").read(np.arange(8))["mask"]
  assert mask[5, :, :5].all() and mask.sum() == 50
  assert "3 images with findings have neither box nor mask" in caplog.text
  (tmp_path / "boxes.csv").write_text("file,x,y,width,height\nelsewhere.png,0,0,8,20\n")
  with pytest.raises(UserError, match="none of its files is one of the images"):
    build(tmp_path)


@pytest.mark.parametrize("row, words", [
    ("test/pleural plaque/c1.png,10,10,20,20", "c1.png has 16x20 pixels, .*goes beyond"),
    *((f"{name},0,0,8,8", f"1 normal images have boxes, the first {name}")
      for name in ("test/good/b1.png", "train/good/a0.png"))])
def test_boxes_that_do_not_fit_their_image(tmp_path, row, words):
  root = folder(tmp_path)
  (root / "boxes.csv").write_text(f"file,x,y,width,height\n{row}\n")
  with pytest.raises(UserError, match=words):
    build(root)


def test_a_misspelt_normal_is_no_finding_and_findings_can_be_closed(tmp_path):
  with pytest.raises(UserError, match="did you mean normal"):
    build(folder(tmp_path / "a", "normall"))
  with pytest.raises(UserError, match="'pleural plaque' is not a word that is known"):
    build(folder(tmp_path / "b"), any_finding=False)
  assert len(build(folder(tmp_path / "c", "abnormal")).split("test")) == 8


def test_deep_and_inverted_files_of_a_folder_are_right(tmp_path):
  folder(tmp_path)
  save(tmp_path / "test/good/b0.png", deep(52428))
  image_files.dicom(tmp_path / "test/good/b1.dcm", np.full((20, 16), 51, np.uint8), "MONOCHROME1")
  source = build(tmp_path).split("test")
  at = {source.meta(i)["id"]: source.read_one(i)["image"] for i in range(len(source))}
  np.testing.assert_allclose(at["test/good/b0.png"], 0.8, atol=1e-4)
  np.testing.assert_allclose(at["test/good/b1.dcm"], 0.8, atol=1e-2)


@pytest.mark.parametrize("given,words", [
    (dict(layout="rsna", test_share=0.6, val_share=0.5), "leave some patients"),
    (dict(layout="rsna", fold=1), "has no folds"), (dict(layout="rsa"), "layout")])
def test_bad_fields(tmp_path, given, words):
  with pytest.raises(UserError, match=words):
    build(tmp_path, **given)



def test_two_ellipses_stand_for_lungs_where_they_are_asked_for(tmp_path):
  data = build(folder(tmp_path), lungs="ellipses")
  lungs = data.split("test").read(np.arange(2))["lungs"]
  np.testing.assert_array_equal(lungs[0], lungs[0, :, ::-1])  # left as right
  assert lungs.shape == (2, 10, 10, 1) and 0.2 < lungs.mean() < 0.4
  assert lungs[0, 4, 3] == 1 and lungs[0, 4, 0] == 0
  assert "lungs" not in build(tmp_path).split("test").read(np.arange(2))
