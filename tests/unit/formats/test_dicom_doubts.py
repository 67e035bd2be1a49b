"""DICOM files whose header does not fit their pixels."""

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import images
from tests.image_files import dicom
from tests.unit.formats.test_dicom import GREY, SIGNED


@pytest.mark.parametrize("more, refused", [(bytes(24), False), (bytes(23) + b"\1", True)])
def test_more_pixels_than_rows_and_columns_say(tmp_path, more, refused):
  """They were cut off: a picture without its last row, or sheared where Columns is wrong."""
  path = dicom(tmp_path / "a.dcm", GREY)
  data = pydicom.dcmread(path)
  data.PixelData += more
  data.save_as(path)
  if not refused:  # a block that is filled up
    return np.testing.assert_array_equal(images.read_8bit(path, 1)[..., 0], GREY)
  with pytest.raises(UserError, match="24 bytes more than 9 x 12 pixels take"):
    images.read(path)


@pytest.mark.parametrize("fields", [
    dict(WindowCenter=-3000, WindowWidth=100), dict(WindowCenter=9000, WindowWidth=10),
    dict(WindowCenter=90000, WindowWidth=100, VOILUTFunction="SIGMOID"),
    dict(WindowCenter=-3000, WindowWidth=100, VOILUTFunction="LINEAR_EXACT", RescaleSlope=2,
         RescaleIntercept=9)])
def test_a_window_beside_all_values_leaves_open_what_is_shown(tmp_path, fields):
  """It gave a picture that is black or white all over, without a word."""
  path = dicom(tmp_path / "a.dcm", SIGNED, **fields)
  frame = images.read(path)
  assert "lies beside all of its values" in frame.unsaid and "config.data.window" in frame.unsaid
  assert frame.unit().std() > 0  # of restoration: the whole range
  with pytest.raises(UserError, match="lies beside all of its values"):
    images.read_unit(path)
  assert images.read_unit(path, 0, (-900, 900)).std() > 0.1
  flat = dicom(tmp_path / "b.dcm", np.zeros((9, 12), np.int16), **fields)
  assert not images.read(flat).unsaid  # one value all over is one grey in any window


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_units_are_those_of_a_modality_table(tmp_path, photometric):
  """Brain models scale by quantiles of units: they took the stored numbers, which the table turns round."""
  path = dicom(tmp_path / "a.dcm", GREY, photometric)
  data = pydicom.dcmread(path)
  table = pydicom.Dataset()
  table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "US"
  table.LUTData = (60000 - 200 * np.arange(256)).astype("<u2").tobytes()
  table["LUTData"].VR = "OW"
  data.ModalityLUTSequence = [table]
  data.save_as(path)
  want = apply_modality_lut(data.pixel_array, data).astype(float)
  want = want if photometric == "MONOCHROME2" else 60000 + 9000 - want  # the table's ends
  np.testing.assert_array_equal(images.read_values(path, 1)[..., 0], want)
  table.LUTData = table.LUTData[:40]
  data.save_as(path)
  with pytest.raises(UserError, match="a.dcm"):
    images.read_values(path)


def test_values_need_no_window(tmp_path):
  """Floats were refused for brain models, and the line named a field that these do not have."""
  path = dicom(tmp_path / "a.dcm", GREY, RescaleSlope=2)
  data = pydicom.dcmread(path)
  del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
  data.BitsAllocated, data.FloatPixelData = 32, GREY.astype("<f4").tobytes()
  data.save_as(path)
  np.testing.assert_array_equal(images.read_values(path, 1)[..., 0], 2.0 * GREY)
  with pytest.raises(UserError, match="no window"):
    images.read_unit(path)


def test_a_frame_without_the_rescaling_of_the_others(tmp_path):
  path = dicom(tmp_path / "a.dcm", np.stack([GREY] * 2), frames_count=2)
  data = pydicom.dcmread(path)
  scaled, frames = pydicom.Dataset(), [pydicom.Dataset(), pydicom.Dataset()]
  scaled.RescaleSlope, scaled.RescaleIntercept = 2, 0
  frames[1].PixelValueTransformationSequence = [scaled]
  data.PerFrameFunctionalGroupsSequence = frames
  data.save_as(path)
  with pytest.raises(UserError, match="frames differ in RescaleSlope"):
    images.read(path)


@pytest.mark.parametrize("rows, columns, refused", [(4, 7, False), (5, 7, True), (4, 8, True), (7, 4, True)])
def test_a_picture_that_says_the_size_of_its_own_whole_is_no_tile(tmp_path, rows, columns, refused):
  path = dicom(tmp_path / "a.dcm", np.arange(28, dtype=np.uint8).reshape(4, 7),
               TotalPixelMatrixRows=rows, TotalPixelMatrixColumns=columns)
  if not refused:
    assert images.read_8bit(path, 1).shape == (4, 7, 1)
    return
  with pytest.raises(UserError, match=f"a tile store of a whole slide .{columns}x{rows} pixels"):
    images.read_8bit(path, 1)


def test_objects_with_pixels_that_are_no_pictures(tmp_path):
  """Siemens' mosaics, segmentations and doses were read as pictures."""
  mosaic = dicom(tmp_path / "m.dcm", GREY, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
  seg, dose = (dicom(tmp_path / f"{k}.dcm", GREY // 255, Modality=k) for k in ("SEG", "RTDOSE"))
  for path, said in ((mosaic, "is a mosaic"), (seg, "is a segmentation"), (dose, "is a map of doses")):
    for read in (images.read, images.read_values):
      with pytest.raises(UserError, match=f"{path.name} {said}"):
        read(path)
  np.testing.assert_array_equal(images.read_plain(seg)[..., 0], GREY // 255)  # of a mask

  path = dicom(tmp_path / "f.dcm", GREY, WindowCenter=1, WindowWidth=2)
  data = pydicom.dcmread(path)
  del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
  data.BitsAllocated, data.FloatPixelData = 32, np.full(GREY.shape, np.nan, "<f4").tobytes()
  data.save_as(path)
  with pytest.raises(UserError, match="f.dcm holds NaN"):
    images.read(path)


@pytest.mark.parametrize("function, like", [
    ("linear_exact", "LINEAR_EXACT"), ("Sigmoid", "SIGMOID"), ("linear", "LINEAR"), ("LOG", None)])
def test_words_of_a_window_count_in_any_capitals_and_unknown_ones_are_refused(tmp_path, function, like):
  fields = dict(WindowCenter=100, WindowWidth=90)
  path = dicom(tmp_path / "a.dcm", GREY, VOILUTFunction=function, **fields)
  if like is None:
    with pytest.raises(UserError, match="a.dcm: its VOI LUT Function is 'LOG', which is none"):
      images.read_unit(path)
    return
  other = dicom(tmp_path / "b.dcm", GREY, VOILUTFunction=like, **fields)
  np.testing.assert_array_equal(images.read_unit(path), images.read_unit(other))


def test_encodings_that_nothing_decodes_are_said_with_what_to_do(tmp_path):
  path = dicom(tmp_path / "a.dcm", GREY)
  data = pydicom.dcmread(path)
  data.PixelData = pydicom.encaps.encapsulate([bytes(4)])
  data["PixelData"].is_undefined_length = True
  for syntax in ("1.2.840.10008.1.2.4.100", "1.2.3.4"):
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path)
    with pytest.raises(UserError, match="a.dcm is compressed as .* export it as Explicit VR Little Endian"):
      images.read(path)
