"""DICOM files whose header does not fit their pixels, and what detectors store beside a picture."""

import gzip
import io

import nibabel
import numpy as np
from PIL import Image
import pydicom
from pydicom.pixels import apply_modality_lut
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import dicom as reader, images, nifti
from data_pipelines.masks import images as masks
from tests.image_files import dicom, tiff
from tests.unit.formats.test_dicom import GREY, SIGNED

DEEP = np.arange(200, 308, dtype=np.uint16).reshape(9, 12) * 13


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


@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("value, more", [(65535, {}), (0, {}), (60000, {"PixelPaddingRangeLimit": 65535})])
def test_padding_is_dark_whatever_it_is_stored_as(tmp_path, kind, value, more):
  """Bits above Bits Stored were cut off: 65535 became 4095, white."""
  padded = DEEP.copy()
  padded[0] = value
  fields = dict(stored=12, PixelPaddingValue=value, **more)
  frame = images.read(dicom(tmp_path / "a.dcm", padded, kind, **fields))
  plain = images.read(dicom(tmp_path / "b.dcm", DEEP, kind, stored=12))
  assert not frame.unit()[0, 0].any() and (plain.unit() > 0).all()
  np.testing.assert_array_equal(frame.unit()[0, 1:], plain.unit()[0, 1:])
  np.testing.assert_array_equal(images.read_8bit(frame.path, 1)[0], 0)
  values = images.read_values(frame.path)
  np.testing.assert_array_equal(values[1:], images.read_values(plain.path)[1:])
  assert not values[0].any()
  again = images.write(frame, frame.pixels, tmp_path, "again", "same")  # as it was stored, above 12 bits too
  assert pydicom.dcmread(again).PixelData == pydicom.dcmread(frame.path).PixelData


def test_padding_of_signed_pixels_and_of_a_depth_that_is_said_by_nothing_else(tmp_path):
  signed = DEEP.astype(np.int16) - 2900
  signed[0] = -32768
  path = dicom(tmp_path / "a.dcm", signed, stored=16, PixelPaddingValue=-32768, WindowCenter=0,
                    WindowWidth=3000)
  assert not images.read_unit(path)[0].any() and (images.read_values(path)[0] == signed[1:].min()).all()
  dark = DEEP.copy()
  dark[0] = 65535  # which filled the range: a nearly black picture was accepted
  path = dicom(tmp_path / "b.dcm", dark, stored=16, PixelPaddingValue=65535)
  with pytest.raises(UserError, match="b.dcm names no window, and of the 16 bits .* it uses 2756"):
    images.read_unit(path)
  full = dicom(tmp_path / "c.dcm", np.full_like(DEEP, 7), stored=12, PixelPaddingValue=7)
  assert images.read(full).padding is None  # a picture of padding alone is one whose header is wrong


@pytest.mark.parametrize("shape, table, refused", [
    ("inverse", False, ""), ("LIN OD", False, "LIN OD"), (None, True, "a table"), ("IDENTITY", False, "")])
def test_tables_of_prints_are_not_left_out_without_a_word(tmp_path, shape, table, refused):
  more = {"PresentationLUTShape": shape} if shape else {}
  path = dicom(tmp_path / "a.dcm", DEEP, stored=12, **more)
  if table:
    data = pydicom.dcmread(path)
    data.PresentationLUTSequence = [pydicom.Dataset()]
    data.save_as(path)
  if refused:
    with pytest.raises(UserError, match=rf"a.dcm: a Presentation LUT \({refused}\) changes its greys"):
      images.read_unit(path)
    return images.read_unit(path, window=(0, 4095))
  unit = images.read_unit(path)
  np.testing.assert_allclose(1 - unit if shape == "inverse" else unit, DEEP[..., None] / 4095, atol=1e-6)


@pytest.mark.parametrize("said, word", [
    ("FOR PROCESSING", "raw"), ("FOR PRESENTATION", "processed"), ("for processing ", "raw"), ("", "")])
def test_what_a_radiograph_says_it_is_for(tmp_path, said, word):
  assert reader.intent(dicom(tmp_path / "a.dcm", DEEP, PresentationIntentType=said)) == word
  assert reader.intent(tmp_path / "a.png") == ""


@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_whole_numbers_that_floats_round(tmp_path, kind):
  voxels = np.full((3, 3, 3), 2**53, kind)
  for most, refused in ((2**53, False), (2**53 + 1, True)):
    voxels[1, 1, 1] = most
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4), dtype=kind), tmp_path / "a.nii")
    if refused:
      with pytest.raises(UserError, match=r"a.nii holds whole numbers from 90\d+ to 90\d+3, beyond 2\^53"):
        nifti.read(tmp_path / "a.nii")
    else:
      assert nifti.read(tmp_path / "a.nii")[0].max() == 2.0**53


def test_forms_of_tiff_that_are_refused_say_what_to_do(tmp_path):
  page = DEEP.astype(np.uint8)
  Image.fromarray(page).save(tmp_path / "m.tif", save_all=True, append_images=[Image.fromarray(page)] * 2)
  with pytest.raises(UserError, match="m.tif has 3 pages; join them into one mask"):
    masks.read_mask(tmp_path / "m.tif")
  with pytest.raises(UserError, match="m.tif has 3 pages; give one image a file"):
    images.read(tmp_path / "m.tif")
  path = tiff(tmp_path / "w.tif", np.stack([page] * 3, -1), deflate=True)
  packed = b"\3\1\3\0\1\0\0\0"  # tag 259, one short number
  assert path.read_bytes().count(packed) == 1
  path.write_bytes(path.read_bytes().replace(packed + b"\x08\0", packed + (50001).to_bytes(2, "little")))
  with pytest.raises(UserError, match="w.tif is no.* .TIFF compressed as WebP: .*LZW or Deflate"):
    images.read(path)


@pytest.mark.parametrize("change, said", [
    ((b"120.5", b"120,5"), "its header holds '120,5' where a number belongs"),
    ((b"120.5", b"1\\2\\3"), None), ((b"1.250", b"1\\2  "), "holds several numbers where one belongs"),
    ((b"300.0", b"-50.0"), "a.dcm: its window is -50 wide; some viewers turn black and white round"),
    ((b"300.0", b"0    "), None)])
def test_numbers_of_a_header_that_are_none(tmp_path, change, said):
  """A negative width was taken for no window."""
  path = dicom(tmp_path / "a.dcm", GREY, WindowCenter="120.5", WindowWidth="300.0", RescaleSlope="1.250",
               RescaleIntercept=0)
  path.write_bytes(path.read_bytes().replace(*change))
  if said is None:
    assert images.read_unit(path).std() > 0.01
    return
  with pytest.raises(UserError, match=said):
    images.read_unit(path)


def test_slices_of_emission_tomography_have_slopes_of_their_own(tmp_path):
  """Without a window equal greys were other activities in every file."""
  fields = dict(RescaleIntercept=0, Units="BQML")
  path = dicom(tmp_path / "a.dcm", DEEP * 16, Modality="PT", RescaleSlope=3.5, **fields)
  with pytest.raises(UserError, match=r"a.dcm names no window, and its Rescale Slope \(3.5\) is of"):
    images.read_unit(path)
  np.testing.assert_array_equal(images.read_values(path)[..., 0], DEEP * 16 * 3.5)
  assert images.read_unit(path, window=(0, 3e5)).std() > 0.05
  for modality, slope in (("PT", 1), ("MR", 3.5)):
    path = dicom(tmp_path / "b.dcm", DEEP * 16, Modality=modality, RescaleSlope=slope, **fields)
    assert images.read_unit(path).std() > 0.05


def test_files_that_are_no_dicom_or_lack_what_it_needs_say_so_in_plain_words(tmp_path):
  said = {}
  plain = dicom(tmp_path / "a.dcm", GREY)
  (tmp_path / "packed.dcm").write_bytes(gzip.compress(plain.read_bytes()))
  (tmp_path / "named.png").write_bytes(plain.read_bytes())
  for name, field in (("rows", "Rows"), ("photo", "PhotometricInterpretation"), ("none", "PixelData")):
    data = pydicom.dcmread(plain)
    setattr(data, field, b"") if field == "PixelData" else delattr(data, field)
    data.save_as(tmp_path / f"{name}.dcm")
  data = pydicom.dcmread(plain)
  data.PixelData = pydicom.encaps.encapsulate([jpeg_of(GREY[:5])])
  data["PixelData"].is_undefined_length, data.file_meta.TransferSyntaxUID = True, pydicom.uid.JPEGBaseline8Bit
  data.save_as(tmp_path / "size.dcm")
  for path in (p for p in tmp_path.iterdir() if p != plain):
    with pytest.raises(UserError) as error:
      images.read(path)
    said[path.stem] = str(error.value).partition(str(path))[2]
  assert said["packed"].endswith("(it is packed by gzip: unpack it)")
  assert said["named"].endswith("(it is a DICOM file: let its name end in .dcm)")
  assert "its header has no Rows" in said["rows"] and "no PhotometricInterpretation" in said["photo"]
  assert said["none"] == " holds no image (no modality)" and "5 x 12 pixels and says 9 x 12" in said["size"]


def jpeg_of(array):
  content = io.BytesIO()
  Image.fromarray(array).save(content, "JPEG")
  return content.getvalue()
