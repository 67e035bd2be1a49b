"""What a header leaves open: pictures turned by EXIF beside masks, pixels that are no squares."""

import logging

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
import pytest

from data_pipelines.formats import doubts
from tests import image_files
from tests.unit.chest.test_chest_sets import build
from tests.unit.data.test_paired import open_pairs, write_pairs

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


def item(**fields):
  found = Dataset()
  for name, value in fields.items():
    setattr(found, name, value)
  return found


def region(**fields):
  return {"SequenceOfUltrasoundRegions": [item(**{
      "RegionSpatialFormat": 1, "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3,
      "PhysicalDeltaX": 0.02, "PhysicalDeltaY": 0.01, **fields})]}


@pytest.mark.parametrize("fields, said", [
    ({"PixelSpacing": [0.2, 0.1]}, "0.2 x 0.1 mm from row to row"), ({}, ""),
    ({"PixelSpacing": [0.2, 0.199]}, ""),
    ({"ImagerPixelSpacing": [0.1, 0.2]}, "0.1 x 0.2 mm"), ({"PixelAspectRatio": [3, 2]}, "3 x 2 from"),
    ({"NominalScannedPixelSpacing": [0.1, 0.2]}, "0.1 x 0.2 mm"), ({"PixelAspectRatio": [1, 1]}, ""),
    ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.1, 0.2]}, ""),
    ({"PixelSpacing": [0, 0.1]}, ""), (region(), "0.01 x 0.02 cm"),
    (region(PhysicalUnitsXDirection=4), ""), (region(RegionSpatialFormat=3), ""),
    ({"SharedFunctionalGroupsSequence": [item(PixelMeasuresSequence=[item(PixelSpacing=[2, 1])])]},
     "2 x 1 mm")])
def test_pixels_of_dicom_that_are_no_squares(tmp_path, fields, said):
  found = doubts.oblong(image_files.dicom(tmp_path / "a.dcm", GREY, **fields))
  assert found.startswith(said) if said else not found


@pytest.mark.parametrize("name, options, said", [
    ("a.png", {"dpi": (100, 200)}, "100 x 200 dpi"), ("a.tif", {"dpi": (204, 98)}, "204 x 98 dpi"),
    ("a.jpg", {"dpi": (72, 72)}, ""), ("a.png", {}, ""), ("a.jpg", {"dpi": (300, 150)}, "300 x 150 dpi")])
def test_pixels_of_pictures_that_are_no_squares(tmp_path, name, options, said):
  Image.fromarray(GREY).save(tmp_path / name, **options)
  found = doubts.oblong(tmp_path / name)
  assert found.startswith(said) if said else not found


def test_what_cannot_be_read_is_left_to_its_reader(tmp_path, caplog):
  (tmp_path / "a.png").write_bytes(b"no picture")
  assert doubts.oblong(tmp_path / "a.png") == doubts.oblong(tmp_path / "nosuch.dcm") == ""
  with caplog.at_level(logging.WARNING):
    doubts.say_turned([(tmp_path / "a.png", tmp_path / "b.png")])
  assert not caplog.text


def upside_down(path, array, again=1):
  path.parent.mkdir(parents=True, exist_ok=True)
  exif = Image.Exif()
  exif[0x0112] = 3 if again else 1
  Image.fromarray(array).save(path, exif=exif)


@pytest.mark.parametrize("which, said", [
    (("annotated",), "1 of 5 images are turned or mirrored by their EXIF orientation, and their clean"),
    (("clean",), "and their annotated frames"), (("annotated", "clean"), ""), ((), "")])
def test_frames_of_a_pair_of_which_one_is_turned(tmp_path, caplog, which, said):
  write_pairs(tmp_path)
  for folder in which:
    path = tmp_path / folder / "p1_1.png"
    upside_down(path, np.asarray(Image.open(path)))
  with caplog.at_level(logging.WARNING):
    open_pairs(tmp_path)
  assert said in caplog.text if said else "EXIF" not in caplog.text


@pytest.mark.parametrize("marked, said", [("masks", "and their masks"), ("boxes", "and their boxes")])
def test_marks_of_a_turned_radiograph(tmp_path, caplog, marked, said):
  for name in ("train/good/a.png", "test/mass/c.jpg", "test/good/b.png"):
    upside_down(tmp_path / name, np.zeros((20, 16), np.uint8), name.endswith("jpg"))
  if marked == "boxes":
    (tmp_path / "boxes.csv").write_text("file,x,y,width,height\ntest/mass/c.jpg,2,3,4,5\n")
  else:
    upside_down(tmp_path / "masks/test/mass/c.png", np.full((20, 16), 255, np.uint8), False)
  with caplog.at_level(logging.WARNING):
    build(tmp_path)
  assert f"1 of 1 images are turned or mirrored by their EXIF orientation, {said}" in caplog.text
