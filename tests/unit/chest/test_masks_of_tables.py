"""Radiographs of a labels.csv beside a folder of masks: which are used, and what is said of the others."""

import numpy as np
import pytest

from data_pipelines.chest import listing
from data_pipelines.datasets import chest_xray
from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.one_class import folders
from tests.unit.chest.test_chest_sets import build, save


def test_masks_of_a_table_are_not_called_unused(tmp_path, caplog):
  """They were, though they mark; what is said now is a mask that fits no image."""
  names = [f"{split}/{i}.png" for split, n in (("train", 3), ("test", 4)) for i in range(n)]
  label = lambda name: "mass" if name in names[-2:] else "normal"
  rows = ["file,split,label", *(f"{n},{n.split('/')[0]},{label(n)}" for n in names)]
  rows[1] = f"{tmp_path}/{rows[1]}"  # an absolute path is listed as well
  for name in (*names, "elsewhere/1.png"):
    save(tmp_path / name)
  (tmp_path / "labels.csv").write_text("\n".join(rows))
  marked = np.full((20, 16), 255, np.uint8)
  for name in (names[-1], "test/9.png"):
    save(tmp_path / "masks" / name, marked)
  mask = build(tmp_path).split("test").read(np.arange(4))["mask"]
  assert mask.sum() == 100 and mask[3].all()
  assert "does not list 1 images" in caplog.text and "elsewhere/1.png: they are not used" in caplog.text
  assert "1 masks fit no image and are not used" in caplog.text
  save(tmp_path / "masks/test/3_mask.png", marked)
  with pytest.raises(UserError, match="are masks of one image"):
    build(tmp_path)
  (tmp_path / "masks/test/3_mask.png").rename(tmp_path / "masks/test/3_mask_1.png")  # one alone counted
  with pytest.raises(UserError, match="3_mask_1.png is one of several masks of test/3 by its name: join"):
    build(tmp_path)


def test_a_mask_of_two_splits_is_of_nobody(tmp_path):
  """ground_truth/mass/c0_mask.png marked the image of val and that of test."""
  for name in ("train/good/a.png", "val/mass/c0.png", "test/mass/c0.png", "test/good/b.png"):
    save(tmp_path / name)
  save(tmp_path / "ground_truth/mass/c0_mask.png", np.full((20, 16), 255, np.uint8))
  with pytest.raises(UserError, match="is the mask of val/mass/c0.png and of test/mass/c0.png by its path"):
    build(tmp_path, val_anomalies=0, grouping="file")


def test_an_image_is_not_decoded_again_for_its_size(tmp_path, monkeypatch):
  for name in ("train/good/a.png", "test/mass/c0.png", "test/good/b.png"):
    save(tmp_path / name)
  save(tmp_path / "ground_truth/mass/c0_mask.png", np.full((20, 16), 255, np.uint8))
  source = build(tmp_path).split("test")
  monkeypatch.setattr(images, "size", lambda *a: 1 / 0)
  assert source.read(np.arange(2))["mask"].sum() == 100


ILL = [f"mass/c{i}.png" for i in range(3)]


def labelled(root, masks):
  """Two normal and three ill test images of 20 x 16 with masks: {name: what it marks}."""
  for name in ("train/good/a.png", "test/good/n0.png", "test/good/n1.png", *(f"test/{n}" for n in ILL)):
    save(root / name)
  for name, marked in masks.items():
    save(root / "masks" / name, marked)
  return build(root)


INSIDE = np.pad(np.full((8, 8), 255, np.uint8), ((6, 6), (4, 4)))


def test_masks_are_looked_at_before_the_training(tmp_path, caplog):
  """Masks that mark normal images, are inverted or empty were read without a word."""
  right = dict.fromkeys(ILL, INSIDE)
  for case, (masks, said) in enumerate((
      (right, ""), (dict.fromkeys(ILL, 255 - INSIDE), "3 of 3 masks mark all four corners"),
      ({**right, ILL[1]: 255 - INSIDE}, "1 of 3 masks mark the whole border"),
      (dict.fromkeys(ILL, 0 * INSIDE), "none of 3 masks marks anything"),
      ({**right, "good/n0.png": 0 * INSIDE}, ""))):
    caplog.clear()
    labelled(tmp_path / str(case), masks)
    assert said in caplog.text and bool(said) == ("masks" in caplog.text)
  with pytest.raises(UserError, match="n0.png is normal by its label, and its mask .* marks something"):
    labelled(tmp_path / "last", {"good/n0.png": INSIDE})


@pytest.mark.parametrize("boxes, said", [
    ([(10 + i, 20, 20, 12) for i in range(5)], ""), ([(4 + i, 5, 5, 3) for i in range(5)], "in percent"),
    ([(10 + i, 20, 30 + i, 32) for i in range(5)], "are they two corners"),
    ([(4 + i, 5, 5, 3) for i in range(4)], "")])
def test_boxes_that_are_something_else_together(caplog, boxes, said):
  """Boxes of a copy of a quarter of the size lay in the upper left corner without a word."""
  boxed = [(listing.Radiograph(f"{i}", f"{i}", boxes=(box,)), (64, 64)) for i, box in enumerate(boxes)]
  listing.say_of_boxes(boxed, "boxes.csv")
  assert said in caplog.text and bool(caplog.text) == bool(said)
  with pytest.raises(UserError, match="goes beyond them"):
    listing.say_of_boxes([(boxed[0][0], (6, 6))], "boxes.csv")


def in_folders(root, *folders):
  for folder in ("train/normal", *folders):
    for i in range(3):
      save(root / folder / f"{folder.replace('/', '_')}{i}.png")
  return root


@pytest.mark.parametrize("folder, normal, said", [
    ("controls", True, False), ("ok", True, False), ("no_pneumonia", False, True), ("notumor", False, True),
    ("uninfected", False, True), ("normal-lung", False, True), ("unhealthy", False, False),
    ("nodule", False, False)])
def test_folders_that_deny_a_finding_are_normal_or_said(tmp_path, caplog, folder, normal, said):
  """test/controls was a finding called controls, without a word."""
  data = build(in_folders(tmp_path, "test/normal", f"test/{folder}", "test/pneumonia"))
  kinds = {part: {i.kind for i in data.lists[part]} for part in ("test_normal", "test_anomaly")}
  assert (folder in kinds["test_normal"]) == normal and (folder in kinds["test_anomaly"]) == (not normal)
  assert (f"test/{folder} counts as one of findings by its name: where its images" in caplog.text) == said
  if said:
    caplog.clear()
    build(tmp_path, normal_words=(folder,))
    assert "counts as one" not in caplog.text


def test_training_knows_the_words_of_folders_and_ones_own_go_before(tmp_path):
  """train/controls is normal and train/ok too, patients are anomalies, unless config.data says otherwise."""
  root = in_folders(tmp_path, "train/ok", "train/controls", "train/patients")
  sides = lambda **own: {i.kind: side for (split, side), items in folders.read_folders(
      root, {**chest_xray.defaults(), **own}).items() for i in items if split == "train"}
  assert sides() == {"normal": "normal", "ok": "normal", "controls": "normal", "patients": "anomaly"}
  assert sides(normal_words=("Patients",))["patients"] == "normal"
  assert sides(anomaly_words=("ok",))["ok"] == "anomaly"


def test_masks_beside_findings_are_said_and_several_of_one_refused(tmp_path, caplog):
  """MVTec 3D and BMAD have them there, COVID-QU-Ex in "infection masks"; those of LOCO fitted no image."""
  root = in_folders(tmp_path / "a", "test/normal/img", "test/hole/img")
  build(root)
  assert "folders of masks" not in caplog.text
  for i in range(3):
    save(root / f"test/hole/infection masks/{i}.png", np.full((20, 16), 255, np.uint8))
  data = build(root)
  assert len(data.lists["test_anomaly"]) == 3 and "3 files in folders of masks lie beside" in caplog.text
  root = in_folders(tmp_path / "b", "test/normal", "test/crack")
  save(root / "ground_truth/crack/test_crack0/000.png", np.full((20, 16), 255, np.uint8))
  with pytest.raises(UserError, match="test_crack0/000.png is one of several masks of crack/test_crack0"):
    build(root)


@pytest.mark.parametrize("column, words, said", [
    ("Frontal/Lateral", ("Frontal", "Lateral"), True), ("Projection", ("PA", "L"), True),
    ("view", ("R", "L"), False), ("ViewCodeSequence_CodeMeaning", ("antero-posterior", "lateral"), True)])
def test_lateral_views_of_more_tables_are_said(tmp_path, caplog, column, words, said):
  names = [f"{split}_{i}.png" for split, n in (("train", 3), ("test", 4)) for i in range(n)]
  rows = [f"file,split,label,{column}", *(
      f"{n},{n.split('_')[0]},{'mass' if n in names[-2:] else 'normal'},{words[k % 2]}"
      for k, n in enumerate(names))]
  for name in names:
    save(tmp_path / name)
  (tmp_path / "labels.csv").write_text("\n".join(rows))
  build(tmp_path)
  assert (f"by its column {column.lower()!r} 3 of 7 images are lateral views" in caplog.text) == said


@pytest.mark.parametrize("fields, said", [
    ({}, ""), ({"findings": ("mass",), "invert": False}, "config.data.findings=('mass',) is not read with "
              "config.data.layout=folder, nor is invert: leave it out"),
    ({"val_share": 0.2}, "config.data.val_share=0.2 is not read")])
def test_fields_that_the_layout_does_not_read_are_said(tmp_path, caplog, fields, said):
  build(in_folders(tmp_path, "test/normal", "test/mass"), **fields)
  assert said in caplog.text and ("is not read" in caplog.text) == bool(said)
