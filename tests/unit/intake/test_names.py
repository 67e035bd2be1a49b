"""Names of results: safe everywhere, no two alike, short where that is clear."""

import contextlib
import pathlib
import re
import unicodedata

import pytest

from data_pipelines.errors import UserError
from data_pipelines.intake import mask_words, names
from tests import messy_folder

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("files,flat,nested", [
    (["a.png"], ["a"], ["a"]),
    (["s/a.png", "t/b.png"], ["a", "b"], ["s/a", "t/b"]),
    (["s/a.png", "t/a.png"], ["s_a", "t_a"], ["s/a", "t/a"]),
    (["case1.png", "case1.jpg"], ["case1_png", "case1_jpg"], ["case1_png", "case1_jpg"]),
    (["x/b_c.png", "x_b/c.png", "y/c.png", "y/b_c.png"], ["x_b_c_png", "x_b_c_png_2", "y_c", "y_b_c"],
     ["x/b_c", "x_b/c", "y/c", "y/b_c"]),
    (["a.png", "A.PNG"], ["a_png", "A_PNG_2"], ["a_png", "A_PNG_2"]),
    ([f"{NFC}.png", f"{NFD}.png"], [f"{NFC}_png", f"{NFC}_png_2"], [f"{NFC}_png", f"{NFC}_png_2"]),
    (["a.png", "a.jpg", "a_png.tif"], ["a_png", "a_jpg", "a_png_tif"], None),
    (["x.nii", "x.nii.gz", "x.NII"], ["x_nii", "x_nii_gz", "x_NII_2"], None),
    (["1.2.826.0.1", "1.2.826.0.2"], ["1.2.826.0.1", "1.2.826.0.2"], None),
    (["a.png", "A.PNG", "A_PNG_2.tif"], ["a_png", "A_PNG_3", "A_PNG_2"], None),
    (["scan.v2.png"], ["scan.v2"], None)])
def test_names(files, flat, nested):
  paths = [pathlib.Path("root") / f for f in files]
  found = names.result_names(paths, "root", flat=True)
  assert list(found) == paths
  assert list(found.values()) == flat
  if nested:
    assert list(names.result_names(paths, "root").values()) == nested


def test_a_name_that_is_too_long_keeps_its_beginning():
  first, second = (names.safe("P01_" + "x" * 300 + end) for end in "ab")
  assert first != second and len(first.encode()) == len(second.encode()) == names.LONGEST
  assert first[:-10] == second[:-10] == "P01_" + "x" * (names.LONGEST - 15) + "-"


@pytest.mark.parametrize("text", [
    "../../evil", "/etc/passwd", "..", ".", "", "   ", "a/b", "a\\b", "<x>", "C:\\x", "con", "NUL.txt",
    "a. ", "._hidden", "...", "../", "a\nb", "a\0b", "\udcff", "é" * 200, "a" * 400, "a\u202egnp.exe", "*?[",
    "-rf", "~", "a|b", "日" * 120, "\u2028", "_", "x" * 199 + "é"])
def test_any_text_makes_one_safe_component(tmp_path, text):
  name = names.safe(text)
  assert name and not set(name) & set('/\\<>:"|?*\0\n') and not name.startswith(".")
  assert name == name.strip() and not name.endswith(".") and len(name.encode()) <= names.LONGEST
  assert names.safe(name) == name and name.partition(".")[0].lower() not in ("con", "nul")
  place = tmp_path / f"{name}_anomaly.nii.gz.tmp"
  place.write_bytes(b"")
  assert place.resolve().parent == tmp_path.resolve() and list(tmp_path.iterdir()) == [place]


def test_no_two_alike_whatever_is_found(tmp_path):
  used = sorted(messy_folder.fill(tmp_path / "in", ".png", tmp_path / "out"))
  texts = ["a/b", "a_b", "a<b", "A_B", "../a_b", "a" * 300, "a" * 301, "a" * 299 + "b", NFC, NFD]
  for found in (names.result_names([tmp_path / "in" / f for f in used], tmp_path / "in").values(),
                names.result_names([tmp_path / "in" / f for f in used], tmp_path / "in", True).values(),
                names.unique(texts)):
    found = list(found)
    assert len({names.same(n) for n in found}) == len(found)
    assert not any(n.startswith("/") or ".." in pathlib.PurePosixPath(n).parts for n in found)
    assert all(names.safe(part) == part for n in found for part in n.split("/"))


def test_folders_of_texts_stay_and_spellings_of_one_name_are_one():
  assert names.unique(["../a/./b", "a//b ", "...", "x/y"], True) == ["a/b", "a/b_2", "_", "x/y"]
  assert names.same("Straße") == names.same("STRASSE")


def test_results_beside_their_image():
  files = sorted(map(pathlib.Path, (
      "a.png", "a_mask.png", "a-overlay.jpg", "left_mask.png", "b_c.png", "b_c_anomaly.tif", "ab_mask.png",
      "s/a_mask.png", "a_1.png", "t/x.png", "t/x/y.png", "t/x_mask.png", "u/x/x.png", "u/x_mask.png")))
  results = [f.as_posix() for f in files if names.beside_its_image(f, files)]
  assert results == ["a-overlay.jpg", "a_mask.png", "b_c_anomaly.tif", "t/x_mask.png"]


@pytest.mark.parametrize("name", [
    "x_mask_1", "x_mask2", "x_mask (1)", "x_superpixels", "x_attribute_globules", "x_annotation",
    "x_contours", "x_heatmap", "x_json_label", "mask_x", "seg-x", "x.mask", "x(mask)", "x mask",
    "x_lesionmask", "x_gt1",
    "x (1)_mask", "x (1)_mask_1", "mask_x (1)",
    "x_labelTrainIds", "x_SegmentationClass", "x_left_mask", "x_rater2", "label", "label_viz", "Mask1"])
def test_marks_beside_an_image_have_many_names(name):
  """BUSI has `benign (1)_mask_1.png`, ISIC `_superpixels`, LabelMe img, label, label_viz: all were images."""
  files = sorted(pathlib.Path("p", f"{n}.png") for n in ("x", "x (1)", "x_1", "y_mask_tape", name))
  assert [f.stem for f in files if names.beside_its_image(f, files)] == [name]


@pytest.mark.parametrize("name", ["x_1", "x_tumor", "x_copy", "camera_x", "x_problem", "roi", "y_mask_1",
                                  "7_mask", "anomaly"])
def test_other_names_beside_an_image_are_images(name):
  files = sorted(pathlib.Path("p", f"{n}.png") for n in ("x", name))
  assert not any(names.beside_its_image(f, files) for f in files)
  alone = sorted(pathlib.Path("p", f"{n}.png") for n in ("mask", "label_1"))
  assert not any(names.beside_its_image(f, alone) for f in alone)  # a folder of masks: its owner knows


def test_words_of_marks_and_names_of_devices_are_those_of_these_lists():
  assert set(mask_words.RESULT_ENDINGS) == {
      "anomaly", "mask", "overlay", "prob", "seg", "segmentation", "label", "labels", "gt", "groundtruth",
      "ground_truth", "lesion", "lesions"}
  devices = ["con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))]
  for name in devices:
    assert [names.safe(n) for n in (name, f"{name.upper()}.txt")] == [f"_{name}", f"_{name.upper()}.txt"]
  for name in ("com", "lpt", "com10", "console", "null"):
    assert names.safe(name) == name


@pytest.mark.parametrize("mask, images, image", [
    ("x_mask", ["x", "x_mask"], "x_mask"), ("x_lesion_mask", ["x", "x_lesion"], "x_lesion"),
    ("x", ["x"], "x"), ("x_lesion_mask", ["x"], "x"), ("x_Lesion-GT", [], "x"),
    ("P/x ground_truth", ["P/x"], "P/x"), ("x_masked", ["x"], "x_masked"), ("mask", ["x"], "mask"),
    ("x.seg", ["x"], "x")])
def test_the_image_of_a_mask(mask, images, image):
  assert mask_words.image_of(mask, images) == image


@pytest.mark.parametrize("mask, image", [
    ("benign (1)_mask_1", "benign (1)"), ("x_mask2", "x"), ("x_2", "x"), ("x_(2)", "x"),
    ("p/x_lesion_03", "p/x"), ("x/0", "x"), ("x_mask/1", "x"), ("y_1", ""), ("x1", ""), ("x_2020", ""),
    ("x", ""), ("x_1_a", "")])
def test_further_masks_of_an_image(mask, image):
  """Of BUSI's benign (1)_mask.png and benign (1)_mask_1.png nothing said that both are meant."""
  images, said = {"benign (1)", "x", "p/x"}, f"^f.png is one of several masks of {re.escape(image)} by its"
  with pytest.raises(UserError, match=said) if image else contextlib.nullcontext():
    mask_words.refuse_several({"x_mask": "x.png", "p/x": "y.png", mask: "f.png"}, images)


@pytest.mark.parametrize("others, reason", [
    (("b/1.png",), ""), (("a/x/1.png",), ""), (("a/x/1.png", "b/1.png"), ""),
    (("a/1.png",), "lies in the folder of 1"), (("a/mask_2.png",), "")])
def test_a_mask_by_its_whole_name_is_that_of_an_image_in_its_own_folder(others, reason):
  """Of one in the next folder, or in one below, it was none of this folder's marks."""
  root = pathlib.Path("r")
  files = sorted(root / name for name in ("a/mask.png", *others))
  assert reason in names.marked(files, root).get(root / "a/mask.png", "") and (
      bool(reason) == (root / "a/mask.png" in names.marked(files, root)))
