"""Who is on which side of one's own folder: words, patients, masks and shares, without a picture."""

import math
import pathlib
import unicodedata

import numpy as np
import pytest

from data_pipelines.errors import UserError
from data_pipelines.intake import find, folder_words, sides, unlisted, vocabulary
from tests.unit.intake import test_sides

CFG = {"group_pattern": "", "grouping": "patient", "val_share": 0.15, "test_share": 0.3, "split_seed": 5,
       "normal_words": (), "anomaly_words": (),
       "split_table": ""}


def members(*names):
  return [sides.Member(n, pathlib.Path("/set") / n, int(n.startswith("abnormal"))) for n in names]


def touched(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(path.name.encode())


def test_shares_are_of_healthy_patients_and_the_others_are_tested_on():
  """20 healthy patients: 3 for val, 6 for test; three are ill, two of them with normal images as well."""
  ill = [f"i{k}_1" for k in range(3)]
  names = [*(f"normal/p{k:02}_{i}.png" for k in range(20) for i in (1, 2)),
           *(f"abnormal/{n}.png" for n in ill), "normal/i0_2.png", "normal/i1_2.png"]
  for seed in (5, 6, 7, 8):
    found = sides.assign(members(*names), {**CFG, "split_seed": seed}, "/set")
    place = {m.patient: m.split for m in found}
    order = [f"p{k:02}" for k in np.random.default_rng(seed).permutation(20)]
    assert [place[p] for p in order] == ["val"] * 3 + ["test"] * 6 + ["train"] * 11
    assert {m.split for m in found if m.patient.startswith("i")} == {"test"} and len(found) == len(names)
  assert [r["label"] for r in sides.rows(found)] == ["normal"] * 40 + ["abnormal"] * 3 + ["normal"] * 2


@pytest.mark.parametrize("n, share", [(2, 0.1), (4, 0.5), (3, 0.4), (3, 0.3), (5, 0.4), (6, 0.4)])
def test_each_of_three_splits_needs_a_patient(n, share):
  cfg = {**CFG, "val_share": share, "test_share": share}
  make = lambda: sides.assign(members(*(f"normal/p{k}_1.png" for k in range(n))), cfg, "/set")
  if 2 * math.ceil(share * n) < n:
    assert {m.split for m in make()} == {"train", "val", "test"}
  else:
    with pytest.raises(UserError, match=f"{n} normal scans, by their names of {n} patient.* too few"):
      make()


def test_a_recorded_split_must_not_divide_a_patient(tmp_path):
  (tmp_path / "splits.csv").write_text("file,split\nnormal/p1_1.png,train\nnormal/p1_2.png,test\n")
  cfg = {**CFG, "split_table": str(tmp_path / "splits.csv")}
  with pytest.raises(UserError, match="splits.csv: 1 patient is on two sides of the split: p1 in"):
    sides.assign(members("normal/p1_1.png", "normal/p1_2.png", "normal/p2_1.png"), cfg, "/set")


@pytest.mark.parametrize("folders, own, side", [
    (("Controls",), ((), ()), 0), (("patients",), ((), ()), 1), (("patients",), (("patients",), ()), 0),
    (("tumour",), (("tumour",), ()), 0), (("normals",), ((), ("normals",)), 1), (("x", "lesions", "normal"), (
        (), ()), 1), (("Masks", "normal"), ((), ()), "mask"), (("plaque",), ((), ("plaque",)), 1),
    (("both",), (("both",), ("both",)), 1), (("x",), ((), ()), None)])
def test_the_first_folder_that_says_something_counts_and_own_words_before_all(folders, own, side):
  assert folder_words.side(folders, [set(words) for words in own]) == side


def with_masks(names, masks):
  root = pathlib.Path("/set")
  found = sides.Sides(root, "image", members(*names), [root / m for m in masks], find.Found(root))
  return [m.mask and m.mask.relative_to(root).as_posix() for m in sides.with_masks(found)]


def test_masks_have_the_path_of_their_image_with_or_without_its_side():
  names = ("abnormal/a.png", "abnormal/P1/b.png", "abnormal/c.png")
  assert with_masks(names, ("masks/abnormal/a_mask.tif", "Masks/P1/b.png", "masks/C_seg.png")) == [
      "masks/abnormal/a_mask.tif", "Masks/P1/b.png", "masks/C_seg.png"]
  assert with_masks(("abnormal/a.png", "abnormal/a_seg.png"), ("masks/a_seg.png", "masks/a-GT.png")) == [
      "masks/a-GT.png", "masks/a_seg.png"]  # its own name before one without its ending
  assert with_masks(names, ()) == [None] * 3
  for masks, said in ((("masks/b.png",), "1 of 1 masks belong to no image, the first: /set/masks/b.png"),
                      (("masks/a.png", "masks/a_mask.png"), "a.png and .*a_mask.png are masks of one image")):
    with pytest.raises(UserError, match=said):
      with_masks(names, masks)


def test_a_mask_is_of_one_image():
  """normal/1.png had the mask of abnormal/1.png: a normal image with a lesion in every measure."""
  assert with_masks(("abnormal/1.png", "normal/1.png", "normal/2.png"), ("masks/1.png",)) == [
      "masks/1.png", None, None]
  # In capitals of any kind, on either side.
  assert with_masks(("Abnormal/1.png", "NORMAL/A.png"), ("MASKS/1.png",)) == [
      "MASKS/1.png", None]
  assert with_masks(("abnormal/1.png", "normal/1.png"), ("masks/normal/1.png",)) == [
      None, "masks/normal/1.png"]
  with pytest.raises(UserError, match="masks/1.png is the mask of abnormal/1.jpg and of abnormal/1.png"):
    with_masks(("abnormal/1.jpg", "abnormal/1.png"), ("masks/1.png",))


def test_names_of_labels_beside_volumes():
  names = {"P1_seg.nii.gz": True, "P1-Mask.nii": True, "label.nii": True,
           "segmentation.nii.gz": True, "P1_ground-truth.nii": True, "P1_flair.nii.gz": False,
           "seg_P1.nii": False, "P1 ground truth.nii": True, "P1 - Mask.nii.gz": True,
           "P1__ground_truth.nii": True}
  assert {n: sides._is_label(pathlib.Path(n)) for n in names} == names


def test_what_lies_in_no_known_folder_is_said(tmp_path):
  for name in ("normal/a.png", "healthy/b.png", "raw/c.png", "d.png"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  found = sides.look(tmp_path)
  assert [m.name for m in found.members] == ["healthy/b.png", "normal/a.png"]
  assert {i.path.name: i.reason for i in found.found.left_out} == dict.fromkeys(
      ("c.png", "d.png"), "lies in no folder normal, abnormal or masks")


def test_images_that_no_table_lists_are_counted_but_for_masks(tmp_path, caplog):
  for name in ("a.png", "i/b.png", "Masks/a.png", "masks.png"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
  say = lambda *listed: unlisted.say("t.csv", tmp_path, listed, ("image",), ("masks", "d.png"))
  assert say("a.png", "i/b.png", "masks.png") == 0 and not caplog.text
  assert say("i/../a.png", str(tmp_path / "i/b.png"), "./masks.png") == 0 and not caplog.text
  (tmp_path / "d.png").touch()  # no folder
  assert say("a.png", "i/b.png", "masks.png") == 1
  (tmp_path / "d.png").unlink()
  caplog.clear()
  assert say("a.png") == 2 and "does not list 2 images" in caplog.text and "the first i/b.png" in caplog.text


# ------------------------------------------------------------------------------------------------ words
@pytest.mark.parametrize("word, said", [("Yes", True), ("1", True), (" true", True), ("", False),
                                        ("no", False), ("0", False), ("False", False), ("1.0", True)])
def test_yes_and_no(word, said):
  assert vocabulary.yes_or_no(word, "t.csv line 2", "clean") is said
  with pytest.raises(UserError, match="t.csv line 2: clean 'maybe'"):
    vocabulary.yes_or_no("maybe", "t.csv line 2", "clean")


@pytest.mark.parametrize("path", ["healthy/x/Abnormal/a.png", "anomalies/Normals/a.png",
                                  "diseased/normal/a.png"])
def test_words_of_both_sides_above_one_file(path):
  with pytest.raises(UserError, match="below a folder of normal and one of abnormal"):
    vocabulary.check_one_side([pathlib.Path("/set") / path], "/set")
  vocabulary.check_one_side([pathlib.Path("/set/healthy/lesions/0/a.png")], "/set")


def test_a_mask_of_two_images_is_that_of_the_one_abnormal_one():
  member = lambda name, label: sides.Member(name, pathlib.Path(name), label)
  two = [member("normal/1.png", 0), member("abnormal/1.png", 1), member("normal/2.png", 0)]
  assert sides._of_one("1", "m", two, ["1", "1", ""]) == ["", "1", ""]
  for labels in ((0, 0), (1, 1)):
    with pytest.raises(UserError, match="m is the mask of a/1.png and of b/1.png"):
      sides._of_one("1", "m", [member(n, v) for n, v in zip(("a/1.png", "b/1.png"), labels)], ["1", "1"])


def test_what_folders_and_names_may_say_is_not_passed_over(tmp_path, caplog):
  """Nothing but names told these apart: yes/ and no/, a mask in abnormal/masks, thumbnails."""
  def seen(*names):
    root = tmp_path / str(len(list(tmp_path.iterdir())))
    for i, name in enumerate(names):
      test_sides.image(root / name, i)
    found = sides.look(root)
    return sorted(m.name for m in found.members), sorted(p.relative_to(root).as_posix() for p in found.masks)
  some = [f"normal/{i}.png" for i in range(3)]
  for names, said in (
      (["no/a.png", "yes/b.png"], "its folder no speaks of one: say which"),
      (["p1/no_tumour/a.png"], "its folder no_tumour"),
      (["normal_2/a.png", "x/b.png"], "its folder normal_2"),
      (["a.png", "tumor_5.png"], "1 of 2 files are named as abnormal ones, the first tumor_5.png"),
      (["abnormal_1.png", "abnormal_2.png"], "2 of 2 files are named as abnormal ones")):
    with pytest.raises(UserError, match=said):
      seen(*names)
  assert seen("tumor_1.png", "tumor_2.png")[0] == ["tumor_1.png", "tumor_2.png"]  # of a set called so
  assert seen("P1_note/a.png", "x/normality.png")[0] == ["P1_note/a.png", "x/normality.png"]
  assert seen(*some, "abnormal/a.png", "abnormal/masks/a.png", "Labels/b.png") == (
      ["abnormal/a.png", *some], ["Labels/b.png", "abnormal/masks/a.png"])
  assert seen(*some, "normal/thumbs/1.png", "normal/Preview/x.png")[0] == sorted(
      ["normal/Preview/x.png", *some])
  assert seen("normal/test/a.png", "normal/b.png")[0] and "no splits here" not in caplog.text
  root = tmp_path / "both"
  for name in ("normal/a.png", "abnormal/b.png"):
    test_sides.image(root / name, 7)
  sides.look(root)
  assert "normal/a.png and " in caplog.text and "abnormal/b.png are one file, byte for byte" in caplog.text


def test_folders_of_splits_are_said_and_masks_that_contradict_their_side(tmp_path, caplog):
  for i, name in enumerate((*(f"train/normal/{k}" for k in "abcd"), "test/normal/f", "test/abnormal/e")):
    test_sides.image(tmp_path / "set" / f"{name}.png", 50 + i)
  test_sides.image(tmp_path / "set" / "masks/test/abnormal/e.png", 0)
  test_sides.opened(tmp_path / "set")
  assert "has folders called test and train, which are no splits here" in caplog.text
  assert "1 of 1 abnormal images have a mask that marks nothing, the first " in caplog.text
  test_sides.image(tmp_path / "set" / "masks/train/normal/a.png", 0)
  test_sides.opened(tmp_path / "set")  # an empty one fits
  test_sides.image(tmp_path / "set" / "masks/train/normal/a.png", 0, mark=np.s_[2:4, 2:4])
  with pytest.raises(UserError, match="a.png is normal by its folder, and its mask .* marks something"):
    test_sides.opened(tmp_path / "set")


def test_a_mask_beside_its_image_is_not_counted_among_the_scans(tmp_path, caplog):
  for i, name in enumerate(("a", "b", "c", "a_mask")):
    test_sides.image(tmp_path / f"{name}.png", i)
  with caplog.at_level("INFO"):
    found = sides.look(tmp_path)
  assert [m.name for m in found.members] == ["a.png", "b.png", "c.png"] and len(found.beside) == 1
  assert "all of its 3 scans are taken for normal" in caplog.text


def test_a_pattern_says_whose_a_scan_is():
  made = members(*(f"normal/a{k}_x{k % 5}.png" for k in range(20)))
  found = sides.assign(made, {**CFG, "group_pattern": "(x[0-9])"}, "/set")
  assert {m.patient for m in found} == {f"x{k}" for k in range(5)} and len(found) == 20


@pytest.mark.parametrize("normal, abnormal", [
    ("normals", "tumors"), ("Healthy", "metastases"), ("gesund", "krank"), ("Sano", "enfermo"),
    ("正常", "异常"),
    (unicodedata.normalize("NFD", "unauffällig"), "auffällig"), ("good", "bad"), ("ok", "nok")])
def test_sides_of_many_and_in_other_languages(tmp_path, normal, abnormal):
  """tumors/ was left out beside normals/, and gesund/ and krank/ were two patients, both normal."""
  for folder, n in ((normal, 3), (abnormal, 2)):
    for i in range(n):
      touched(tmp_path / folder / f"{folder}{i}.png")
  found = sides.look(tmp_path)
  assert [m.label for m in found.members].count(1) == 2 and len(found.members) == 5
  owners = {m.patient for m in sides.assign(found.members, CFG, tmp_path)}
  assert len(owners) == 5  # the folders are nobody's names


def test_folders_of_no_known_side_are_said_beside_known_ones(tmp_path, caplog):
  for name in ("normal/a.png", "normal/b.png", "cases/c.png", "crack/P1/d.png", "e.png"):
    touched(tmp_path / name)
  assert len(sides.look(tmp_path).members) == 2
  assert "3 files of" in caplog.text and "and are left out (cases, crack)" in caplog.text
  for label in ("tumors", "Krank"):
    assert vocabulary.label_word(label, "t.csv line 2") == 1
  made = members("NonDemented/x1.png", "NonDemented/x2.png", "Demented/x3.png")
  with pytest.raises(UserError, match="2 patient.* are too few .*where these folders are kinds of scans"):
    sides.assign(made, CFG, "/set")
