"""What a header leaves open: pictures turned by EXIF beside masks, pixels that are no squares."""

import io
import logging
import struct
import zlib

import numpy as np
from PIL import Image
import pydicom
from pydicom.dataset import Dataset
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import doubts, images
from tests import image_files
from tests.image_files import dicom
from tests.unit.chest.test_chest_sets import build
from tests.unit.data.test_paired import open_pairs, save, write_pairs

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize("values, few", [
    ([[3, 3, 3]], 1), ([[0, 0, 0]], 1), ([[0, 1, 1]], 2), ([[5, 9, 5]], 2), ([[-1, 0, -1]], 2),
    ([[0, 5, 9]], 0), ([[4, 5, 9]], 0), ([[9, 5, 4]], 0)])
def test_pictures_of_one_or_two_values(values, few):
  """Whatever the values are: black need not be 0."""
  assert doubts.few_greys(np.array(values, np.float32)[..., None]) == few


@pytest.mark.parametrize("second, few", [(5, 2), (9, 2), (7, 0)])
def test_values_of_all_channels_count(second, few):
  assert doubts.few_greys(np.array([[[5, 5], [9, second]]], np.float32)) == few


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
    ({"NominalScannedPixelSpacing": [0.1, 0.2], "PixelAspectRatio": [3, 2]}, "0.1 x 0.2 mm"),
    (region(PhysicalDeltaX=-0.02), "0.01 x 0.02 cm"), (region(PhysicalDeltaY=-0.01), "0.01 x 0.02 cm"),
    (region(PhysicalUnitsXDirection=4), ""), (region(RegionSpatialFormat=3), ""),
    ({"SharedFunctionalGroupsSequence": [item(PixelMeasuresSequence=[item(PixelSpacing=[2, 1])])]},
     "2 x 1 mm")])
def test_pixels_of_dicom_that_are_no_squares(tmp_path, fields, said):
  ratio, found = doubts.aspect(image_files.dicom(tmp_path / "a.dcm", GREY, **fields))
  assert found.startswith(said) if said else not found
  assert ratio == pytest.approx(np.divide(*map(float, found.split()[:3:2])) if found else 1, rel=1e-3)


OME = '<OME><Pixels PhysicalSizeX="0.5" PhysicalSizeY="1"/></OME>'


@pytest.mark.parametrize("name, options, said", [
    ("a.png", {"dpi": (100, 200)}, "100 x 200 dpi"), ("a.tif", {"dpi": (204, 98)}, "204 x 98 dpi"),
    ("a.tif", {"tiffinfo": {270: OME}, "dpi": (72, 72)}, "5.08e+04 x 2.54e+04 dpi"),
    ("a.jpg", {"dpi": (72, 72)}, ""), ("a.png", {}, ""), ("a.jpg", {"dpi": (300, 150)}, "300 x 150 dpi")])
def test_pixels_of_pictures_that_are_no_squares(tmp_path, name, options, said):
  Image.fromarray(GREY).save(tmp_path / name, **options)
  ratio, found = doubts.aspect(tmp_path / name)
  assert found.startswith(said) if said else not found
  ratios = {"100": 0.5, "204": 204 / 98, "300": 2, "5.08e+04": 2}
  assert ratio == pytest.approx(ratios.get(said.partition(" ")[0], 1), 1e-3)


def test_pixels_of_pictures_that_say_proportions_alone(tmp_path):
  Image.fromarray(GREY).save(tmp_path / "a.jpg")
  jfif = bytearray((tmp_path / "a.jpg").read_bytes())
  jfif[13:18] = struct.pack(">BHH", 0, 2, 1)  # no unit, two dots along a row on one along a column
  (tmp_path / "a.jpg").write_bytes(jfif)
  Image.fromarray(GREY).save(tmp_path / "a.png", dpi=(72, 72))
  png = bytearray((tmp_path / "a.png").read_bytes())
  chunk, at = b"pHYs" + struct.pack(">IIB", 2, 1, 0), png.index(b"pHYs")
  png[at:at + 17] = chunk + struct.pack(">I", zlib.crc32(chunk))
  (tmp_path / "a.png").write_bytes(png)
  Image.fromarray(GREY).save(tmp_path / "a.tif", tiffinfo={282: 2.0, 283: 1.0, 296: 1})
  for name in ("a.jpg", "a.png", "a.tif"):
    ratio, said = doubts.aspect(tmp_path / name)
    assert ratio == 2 and said.startswith("2 x 1 dpi"), name


def turned(path, turn, shape=(8, 6)):
  exif = Image.Exif()
  exif[0x0112] = turn
  Image.fromarray(np.zeros(shape, np.uint8)).save(path, exif=exif)
  return path


def test_which_turns_leave_a_mask_in_doubt(tmp_path, caplog):
  """Quarter turns of an oblong image fit one way alone; a mask with a turn of its own was turned too."""
  image, mask = tmp_path / "a.png", tmp_path / "m.png"
  said = {}
  for own, other, shape in [(1, 1, (8, 6)), (3, 3, (8, 6)), (3, 6, (6, 6)), (1, 3, (8, 6)), *(
      (turn, 1, shape) for turn in range(2, 9) for shape in ((8, 6), (6, 6)))]:
    caplog.clear()
    doubts.say_turned([(turned(image, own, shape), turned(mask, other, shape))])
    said[own, other, shape] = f"which fit either way, are not, the first {image} and {mask}: " in caplog.text
    assert said[own, other, shape] == bool(caplog.text)
  assert {k for k, v in said.items() if v} == {(t, 1, (6, 6)) for t in range(2, 9)} | {
      (t, 1, (8, 6)) for t in (2, 3, 4)}
  caplog.clear()
  doubts.say_turned([(turned(image, 6), None)], "boxes")
  assert f"the first {image}: they" in caplog.text


def test_masks_of_tiff_whose_white_is_zero_are_said(tmp_path, caplog):
  masks = [tmp_path / name for name in ("a.tif", "b.TIFF", "c.tif", "d.png")]
  for mask, mode in zip(masks, ("L", "1", "1", "1")):
    tags = {} if mask.suffix == ".png" else {"tiffinfo": {262: 1 if mode == "L" else 0}}
    Image.fromarray(np.zeros((8, 6), np.uint8)).convert(mode).save(
        mask, "png" if mask.suffix == ".png" else "tiff", **tags)
  doubts.say_of_masks([(turned(tmp_path / "image.png", 3), mask) for mask in masks])
  assert f"2 of 4 masks are TIFF files whose white is zero, the first {masks[1]}: " in caplog.text
  assert "4 of 4 images are turned" in caplog.text
  caplog.clear()
  doubts.say_of_masks([(masks[3], masks[0])])
  assert not caplog.text


def test_what_cannot_be_read_is_left_to_its_reader(tmp_path, caplog):
  (tmp_path / "a.png").write_bytes(b"no picture")
  assert doubts.aspect(tmp_path / "a.png") == doubts.aspect(tmp_path / "nosuch.dcm") == (1, "")
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


def test_pairs_that_differ_nearly_everywhere_and_thumbnails_are_no_pairs(tmp_path, caplog):
  """Exchanged names or another brightness marked the whole frame; thumbs/ was a patient of its own."""
  write_pairs(tmp_path)
  for folder in ("clean", "annotated"):
    save(tmp_path / folder / "thumbs" / "p1_1.png", np.zeros((4, 4)))
  assert len(open_pairs(tmp_path).splits) == 3 and "differ in more" not in caplog.text
  frame = np.asarray(Image.open(tmp_path / "annotated/p1_2.png")) / 255
  save(tmp_path / "annotated/p1_2.png", frame[:, ::-1])
  data = open_pairs(tmp_path)
  assert "1 of 5 pairs differ in more than 30 % of their pixels, the first p1_2.png (" in caplog.text
  assert not [m for s in data.splits for i in range(len(data.split(s))) if "thumbs" in (
      m := data.split(s).meta(i)["id"])]


# ------------------------------------------------------------------------------------ signs of DICOM
SLOPE = np.outer(np.arange(40), np.arange(48)) / (39 * 47) - 0.5  # greys that go on smoothly through 0
DEEP = np.random.default_rng(5).integers(0, 65536, (21, 30)).astype(np.uint16)
COLOUR = np.stack([np.round(255 * (SLOPE + 0.5) * part) for part in (1, 0.5, 0.2)], -1).astype(np.uint8)


def jpeg2000(path, array, stream, photometric="MONOCHROME2", **fields):
  """A DICOM file with a stream of Pillow's or one made of it; `fields` are set last."""
  data = pydicom.dcmread(dicom(path, array, photometric))
  data.PixelData = pydicom.encaps.encapsulate([stream])
  data["PixelData"].is_undefined_length, data["PixelData"].VR = True, "OB"
  data.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
  data.update(fields)
  data.save_as(path)
  return path


def stream_of(array, **options):
  file = io.BytesIO()
  Image.fromarray(array).save(file, "JPEG2000", no_jp2=True, **options)
  return file.getvalue()


@pytest.mark.parametrize("kind, bits", [("u2", 16), ("u2", 12), ("i2", 16), ("u1", 8)])
def test_a_sign_that_the_header_has_wrong(tmp_path, kind, bits):
  """The bright half of a radiograph was darker than black, the air of a CT slice brighter than white."""
  middle = 0 if kind[0] == "i" else 2 ** (bits - 1)
  path = dicom(tmp_path / "a.dcm", (SLOPE * 0.9 * 2**bits + middle).astype(kind), stored=bits,
               WindowCenter=middle, WindowWidth=2**bits)
  np.testing.assert_allclose(images.read_unit(path)[..., 0], SLOPE * 0.9 + 0.5, atol=0.01)
  data = pydicom.dcmread(path)
  data.PixelRepresentation = 1 - data.PixelRepresentation
  data.save_as(path)
  with pytest.raises(UserError, match="its header .Pixel Representation. is wrong"):
    images.read(path)


def test_writing_and_borders_are_no_wrong_sign(tmp_path):
  """White beside black is a step of the whole range either way."""
  grey = (SLOPE * 4000 + 3000).astype(np.uint16)
  grey[5:9, 5:30:2], grey[20:30, 20:30] = 65535, 0
  for representation in (0, 1):  # -1 is then what stands beside the picture
    path = dicom(tmp_path / "a.dcm", grey, PixelRepresentation=representation, WindowCenter=0,
                 WindowWidth=9e4)
    assert images.read(path).pixels.shape == (1, 40, 48, 1)


def test_jpeg_2000_whose_sign_or_colours_the_header_has_wrong(tmp_path):
  """Numbers came out half the range too bright, colours were turned to RGB twice."""
  stream = bytearray(stream_of(DEEP))
  path = jpeg2000(tmp_path / "a.dcm", DEEP, bytes(stream), WindowCenter=32768, WindowWidth=65536)
  np.testing.assert_array_equal(images.read(path).pixels[0, ..., 0], DEEP)
  stream[stream.find(b"\xff\x4f\xff\x51") + 42] |= 128
  path = jpeg2000(tmp_path / "a.dcm", DEEP, bytes(stream))
  with pytest.raises(UserError, match="of numbers with a sign, and its header .Pixel Representation"):
    images.read(path)
  again = jpeg2000(tmp_path / "b.dcm", DEEP, bytes(stream), PixelRepresentation=1)
  np.testing.assert_array_equal(images.read(again).pixels[0, ..., 0], DEEP.astype(int) - 32768)
  for kind, mct, fine in (("YBR_RCT", 1, True), ("RGB", 1, True), ("YBR_FULL", 1, False),
                          ("YBR_FULL", 0, True)):
    path = jpeg2000(tmp_path / "c.dcm", COLOUR, stream_of(COLOUR, mct=mct), kind)
    if fine:
      assert np.array_equal(images.read(path).pixels[0], COLOUR) == (mct == 1)
      continue
    with pytest.raises(UserError, match="colours are changed twice"):
      images.read(path)


@pytest.mark.parametrize("kind", ["RGB", "MONOCHROME2"])
@pytest.mark.parametrize("planes", [0, 1])
def test_pictures_that_are_torn_by_their_header(tmp_path, kind, planes):
  """Rows and Columns exchanged, or colours in planes: a sheared or a many-coloured picture went through."""
  picture = COLOUR if kind == "RGB" else COLOUR[..., 0]
  data = pydicom.dcmread(dicom(tmp_path / "a.dcm", picture, kind))
  if kind == "RGB":
    data.PlanarConfiguration = planes
    data.PixelData = (np.moveaxis(picture, -1, 0) if planes else picture).tobytes()
  data.save_as(tmp_path / "a.dcm")
  np.testing.assert_array_equal(images.read(tmp_path / "a.dcm").pixels[0].squeeze(), picture)
  if kind == "RGB":
    data.PlanarConfiguration = 1 - planes
  else:
    data.Rows, data.Columns = data.Columns, data.Rows
  data.save_as(tmp_path / "a.dcm")
  with pytest.raises(UserError, match="a.dcm.* torn"):
    images.read(tmp_path / "a.dcm")
  noise = np.random.default_rng(0).integers(0, 256, picture.shape).astype(np.uint8)
  assert images.read(dicom(tmp_path / "b.dcm", noise, kind)).pixels.shape[1:3] == picture.shape[:2]


def test_a_sign_that_a_compressed_picture_lost(tmp_path):
  """Air became the brightest: numbers of 12 bits with a sign, stored without."""
  lost = (SLOPE * 3600).astype(np.int16) & 4095
  for bits, fine in ((12, False), (16, True)):
    path = jpeg2000(tmp_path / "a.dcm", lost, stream_of(lost.astype(np.uint16)), BitsStored=bits,
                    HighBit=bits - 1, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096)
    if fine:
      assert images.read(path).pixels.shape == (1, 40, 48, 1)
      continue
    with pytest.raises(UserError, match="12 bits with a sign: the sign is lost"):
      images.read(path)
