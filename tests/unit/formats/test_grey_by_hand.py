"""Black and white of DICOM files, by hand: rules of headers that real files have and the samples lack."""

import io

import numpy as np
from PIL import Image
import pydicom
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.masks import images as mask_images
from tests.image_files import dicom

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
SQUARES = ((np.arange(256) / 255.0) ** 2 * 4095).round().astype("<u2")  # 12 bits


def table(values=SQUARES, bits=12):
  item = pydicom.Dataset()
  item.LUTDescriptor = [len(values), 0, bits]
  item.add_new(0x00283006, "OW", values.tobytes())
  return [item]


def shown(path, **options):
  return images.read(path, **options).unit()[0, ..., 0]


@pytest.mark.parametrize("fields, low, high", [
    ({}, 0, 65535), (dict(WindowCenter=1000.5, WindowWidth=1001), 500, 1500),
    (dict(WindowCenter=1000, WindowWidth=1000, VOILUTFunction="SIGMOID"), None, None)])
def test_a_modality_table_is_looked_up_before_the_window(tmp_path, fields, low, high):
  """Stored values are numbers of its entries, whatever Bits Stored says; windows are in its units."""
  path = dicom(tmp_path / "a.dcm", RAMP, ModalityLUTSequence=table(bits=16), **fields)
  units = SQUARES[RAMP].astype(float)
  want = np.clip((units - low) / (high - low), 0, 1) if high else 1 / (1 + np.exp(-4 * (units - 1000) / 1000))
  np.testing.assert_allclose(shown(path), want, atol=1e-6)
  np.testing.assert_array_equal(images.read_8bit(path, 1), np.round(255 * want)[..., None])
  # config.data.window is in the table's units as well, and goes before the file's
  np.testing.assert_allclose(shown(path, window=(100, 3000)), np.clip((units - 100) / 2900, 0, 1), atol=1e-6)


@pytest.mark.parametrize("table_too", [False, True])
@pytest.mark.parametrize("function, width, refused", [
    ("", 0.5, True), ("LINEAR", 0.9, True), ("LINEAR", 1, False), ("LINEAR_EXACT", 0.5, False),
    ("SIGMOID", 0.5, False), ("", 0, False)])
def test_a_linear_window_narrower_than_1_is_said(tmp_path, function, width, refused, table_too):
  """PS3.3 C.11.2.1.2 forbids it, and it was taken for one of 1: SUVs have such windows."""
  fields = {"VOILUTFunction": function} if function else {}
  if table_too:
    fields["ModalityLUTSequence"] = table(np.linspace(0, 3, 256).round().astype("<u2"), 16)
  path = dicom(tmp_path / "a.dcm", RAMP, RescaleSlope=0.01, WindowCenter=1, WindowWidth=width, **fields)
  frame = images.read(path)
  assert ("a.dcm: its window is" in frame.unsaid and "config.data.window" in frame.unsaid) == refused
  if refused and not table_too:  # restoration, which changes nothing beyond its marks: as viewers show it
    want = np.clip((RAMP * 0.01 - 1 + width / 2) / width, 0, 1)
    np.testing.assert_allclose(frame.unit()[0, ..., 0], want, atol=1e-5)
  if refused:
    with pytest.raises(UserError, match="wide, which the standard's linear one cannot be"):
      images.read_unit(path)


@pytest.mark.parametrize("bits", [12, 13])
def test_entries_of_a_modality_table_have_the_bits_that_it_says(tmp_path, bits):
  """Scanners write 10 to 14; DICOM knows 8 and 16, and so does pydicom."""
  entries = table(bits=bits)
  entries[0].LUTDescriptor = [256, 10, bits]  # the first 10 stored values have the first entry
  path = dicom(tmp_path / "a.dcm", RAMP, ModalityLUTSequence=entries)
  want = SQUARES[np.maximum(RAMP, 10) - 10].astype(float)
  np.testing.assert_array_equal(images.read_values(path)[..., 0], want)
  np.testing.assert_allclose(shown(path), want / (2**bits - 1), atol=1e-6)


def test_entries_of_8_bits_are_bytes(tmp_path):
  path = dicom(tmp_path / "a.dcm", RAMP, ModalityLUTSequence=table(np.arange(255, -1, -1, np.uint8), 8))
  np.testing.assert_array_equal(images.read_values(path)[..., 0], 255.0 - RAMP)
  np.testing.assert_allclose(shown(path), 1 - RAMP / 255, atol=1e-6)


def test_entries_of_other_bits_are_refused_by_name(tmp_path):
  for k, bits in enumerate((7, 17)):
    path = dicom(tmp_path / f"{k}.dcm", RAMP, ModalityLUTSequence=table(bits=bits))
    with pytest.raises(UserError, match=f"{k}.dcm has a modality look-up table with entries of {bits} bits"):
      images.read_values(path)


def test_floats_are_turned_round_in_units(tmp_path):
  """Their end is the largest that is stored, rescaled once."""
  path = dicom(tmp_path / "a.dcm", RAMP, "MONOCHROME1", RescaleSlope=2, RescaleIntercept=5)
  data = pydicom.dcmread(path)
  del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
  data.BitsAllocated, data.FloatPixelData = 32, RAMP.astype("<f4").tobytes()
  data.save_as(path)
  np.testing.assert_array_equal(images.read_values(path)[..., 0], 2.0 * (255 - RAMP) + 5)


def test_a_table_of_shown_values_counts_where_no_window_stands(tmp_path):
  """Of 8 bits: what is shown is no longer what is stored."""
  path = dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=table())
  np.testing.assert_array_equal(images.read_8bit(path, 1)[..., 0], np.round(SQUARES[RAMP] / 4095 * 255))
  frame = images.read(path)  # back to the nearest entry, from below as from above
  asked = np.array([SQUARES[200] + 3, SQUARES[200] - 3]) / 4095
  assert frame.stored(asked).tolist() == [200, 200]
  last = dicom(tmp_path / "c.dcm", RAMP, VOILUTSequence=table(4095 * (SQUARES == 4095).astype("<u2")))
  assert np.flatnonzero(shown(last)).tolist() == [255]  # no flat picture: its highest value is another
  path = dicom(tmp_path / "b.dcm", RAMP, VOILUTSequence=table(), WindowCenter=128, WindowWidth=256)
  np.testing.assert_array_equal(images.read_8bit(path, 1)[..., 0], RAMP)


@pytest.mark.parametrize("kind, shape, turned", [
    ("MONOCHROME2", "IDENTITY", False), ("MONOCHROME2", "INVERSE", True), ("MONOCHROME1", "INVERSE", True)])
def test_black_and_white_are_turned_round_once(tmp_path, kind, shape, turned):
  path = dicom(tmp_path / "a.dcm", RAMP, kind, PresentationLUTShape=shape)
  np.testing.assert_array_equal(images.read_8bit(path, 1)[..., 0], 255 - RAMP if turned else RAMP)


def test_units_of_inverted_files_are_mirrored_in_the_range_of_their_bits(tmp_path):
  """The least value that the file can store becomes the largest, in units; not by what it holds."""
  array = np.array([[-2048, -5, 0, 300, 2047]], np.int16)
  path = dicom(tmp_path / "a.dcm", array, "MONOCHROME1", stored=12, RescaleSlope=2, RescaleIntercept=100)
  np.testing.assert_array_equal(images.read_values(path)[..., 0], -1 * (array + 1) * 2.0 + 100)


def test_hounsfield_units_have_a_range_of_their_own(tmp_path):
  """CT alone, and only where it says what its units are."""
  array = np.array([[0, 1024, 2047, 4095]], np.uint16)
  rescaled = dict(RescaleSlope=1, RescaleIntercept=-1024)
  for modality, stored, fields, want in (
      ("CT", 16, rescaled, array / 4095), ("CT", 12, {}, array / 4095), ("MR", 12, rescaled, array / 4095),
      ("CT", 12, dict(RescaleSlope=1, RescaleIntercept=-2048), np.clip(array - 1024.0, 0, 4095) / 4095)):
    path = dicom(tmp_path / "a.dcm", array, stored=stored, Modality=modality, **fields)
    np.testing.assert_allclose(shown(path), want, atol=1e-6, err_msg=f"{modality} {fields}")


@pytest.mark.parametrize("stored, most, refused", [
    (12, 1000, False), (13, 2047, True), (13, 2048, False), (16, 16383, True), (16, 16384, False)])
def test_dark_files_of_more_than_12_bits_leave_white_open(tmp_path, stored, most, refused):
  picture = np.linspace(0, most, 64).astype(np.uint16).reshape(8, 8)
  path = dicom(tmp_path / "a.dcm", picture, stored=stored)
  assert bool(images.read(path).unsaid) == refused
  if not refused:
    np.testing.assert_allclose(shown(path), picture / (2**stored - 1), atol=1e-6)
  flat = dicom(tmp_path / "b.dcm", 0 * picture + 7, stored=stored)  # one grey: nothing is hidden
  assert not images.read(flat).unsaid


def groups(**window):
  inner, outer = pydicom.Dataset(), pydicom.Dataset()
  for name, value in window.items():
    setattr(inner, name, value)
  outer.FrameVOILUTSequence = [inner]
  return outer


def test_windows_of_frames(tmp_path):
  """All alike: it is the file's. Of each frame its own: refused, but where somebody says another one."""
  deep = np.linspace(0, 60000, 512).astype(np.uint16).reshape(2, 16, 16)
  alike = [groups(WindowCenter=1000.5, WindowWidth=1001)] * 2
  path = dicom(tmp_path / "a.dcm", deep, frames_count=2, PerFrameFunctionalGroupsSequence=alike)
  want = np.clip((deep - 500.0) / 1000, 0, 1)
  np.testing.assert_allclose(images.read(path).unit()[..., 0], want, atol=1e-6)
  apart = [groups(WindowCenter=1000, WindowWidth=w) for w in (1000, 2000)]
  path = dicom(tmp_path / "b.dcm", deep, frames_count=2, PerFrameFunctionalGroupsSequence=apart)
  with pytest.raises(UserError, match="frames differ in WindowCenter and WindowWidth"):
    images.read(path)
  np.testing.assert_allclose(images.read(path, (0, 60000)).unit()[..., 0], deep / 60000, atol=1e-6)


@pytest.mark.parametrize("array, stored, low, high", [
    (np.array([[-2048, 2047]], np.int16), 12, -2048, 2047), (np.array([[0, 4095]], np.uint16), 12, 0, 4095)])
def test_nothing_is_stored_that_the_bits_cannot_hold(tmp_path, array, stored, low, high):
  """Of a window wider than the bits: 5000 in 12 bits would be read as 904."""
  frame = images.read(dicom(tmp_path / "a.dcm", array, stored=stored, WindowCenter=0, WindowWidth=20000))
  assert frame.stored(np.array([0.0, 1.0])).tolist() == [low, high]


def test_large_whole_numbers_stay_apart(tmp_path):
  """Beyond 2**24 float32 holds every second whole number."""
  array = np.array([[0, 1, 2, 3, 4]], np.uint32) + 2**26
  np.testing.assert_allclose(shown(dicom(tmp_path / "a.dcm", array), window=(2.0**26, 2.0**26 + 4)),
                             [[0, 0.25, 0.5, 0.75, 1]], atol=1e-6)


def test_colours_of_12_bits_in_16(tmp_path):
  colours = np.array([[[0, 2048, 4095], [4095, 100, 7]]], np.uint16)
  path = dicom(tmp_path / "a.dcm", colours, "RGB", stored=12)
  np.testing.assert_allclose(images.read_unit(path), colours / 4095, atol=1e-6)


def test_bits_above_those_stored_that_are_none_of_the_picture(tmp_path):
  """Signs of negative values, and overlays of the first group, in however many pixels."""
  negative = -np.arange(1, 65, dtype=np.int16).reshape(8, 8)
  frame = images.read(dicom(tmp_path / "a.dcm", negative, stored=12))
  np.testing.assert_array_equal(frame.pixels[0, ..., 0], negative)
  picture = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60
  path = dicom(tmp_path / "b.dcm", picture | 4096, stored=12)
  data = pydicom.dcmread(path)
  data.add_new(0x60000102, "US", 12)  # Overlay Bit Position
  data.save_as(path)
  np.testing.assert_array_equal(images.read(path).pixels[0, ..., 0], picture)


def test_frames_three_pixels_wide_are_grey_and_no_mask(tmp_path):
  frames = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
  path = dicom(tmp_path / "a.dcm", frames, frames_count=2)
  np.testing.assert_array_equal(images.read(path).pixels[..., 0], frames)
  for read in (images.read_plain, mask_images.read_mask, images.read_values):
    with pytest.raises(UserError, match="holds 2 frames"):
      read(path)


def test_windows_are_of_grey_pictures_also_of_three_rows_and_no_colours_have_one(tmp_path):
  halved = {"WindowCenter": 64.5, "WindowWidth": 129}  # 0 ... 128
  for rows in (2, 3, 4):
    grey = np.repeat(np.array([[0, 64, 128, 255]], np.uint8), rows, 0)
    np.testing.assert_allclose(shown(dicom(tmp_path / "a.dcm", grey, **halved)), [[0, 0.5, 1, 1]] * rows)
    colours = np.stack([grey, grey, 255 - grey], -1)
    unit = images.read_unit(dicom(tmp_path / "b.dcm", colours, "RGB", **halved))
    np.testing.assert_allclose(unit, colours / 255, atol=1e-6)


@pytest.mark.parametrize("rows, columns", [(16, 900), (900, 16)])
def test_one_row_of_tiles_is_no_picture_either(tmp_path, rows, columns):
  path = dicom(tmp_path / "a.dcm", RAMP, TotalPixelMatrixRows=rows, TotalPixelMatrixColumns=columns)
  with pytest.raises(UserError, match=f"whole slide .{columns}x{rows} pixels"):
    images.read(path)


def compressed(path, picture, rows=0, frames=1, form="JPEG2000", **fields):
  """A file of `picture` as JPEG or JPEG 2000, whose header says `rows` rows of as many pixels in all."""
  stream = io.BytesIO()
  Image.fromarray(picture).save(stream, form, **({"no_jp2": True} if form == "JPEG2000" else {}))
  path = dicom(path, picture, **fields)
  data = pydicom.dcmread(path)
  data.Rows, data.Columns = rows or len(picture), picture.size // (rows or len(picture))
  data.PixelData = pydicom.encaps.encapsulate([stream.getvalue()] * frames)
  data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
  data.file_meta.TransferSyntaxUID = (
      pydicom.uid.JPEGBaseline8Bit if form == "JPEG" else pydicom.uid.JPEG2000Lossless)
  data.save_as(path)
  return path


@pytest.mark.parametrize("form", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("rows, frames, said", [
    (16, 1, ""), (8, 1, "a compressed picture of 16 x 16 pixels and says 8 x 32"),
    (16, 2, "another number of frames than its header says")])
def test_a_compressed_picture_has_the_sides_that_its_header_says(tmp_path, form, rows, frames, said):
  """As many pixels in other rows were sheared."""
  path = compressed(tmp_path / "a.dcm", RAMP, rows, frames, form)
  if not said:
    return np.testing.assert_allclose(images.read_8bit(path, 1)[..., 0], RAMP, atol=9)
  with pytest.raises(UserError, match=f"a.dcm .*{said}"):
    images.read(path)


@pytest.mark.parametrize("array, form, refused", [
    (RAMP.astype(np.uint16) * 16, "JPEG2000", False), (RAMP.astype(np.uint16) * 250, "JPEG2000", True),
    (RAMP.astype(np.int16) * 16 - 2048, "", False), (RAMP.astype(np.int16) * 200 - 9999, "", True)])
def test_more_bits_than_the_header_says_with_a_sign_and_compressed(tmp_path, array, form, refused):
  """They were cut off, or white all over; plain ones were refused already."""
  path = (compressed if form else dicom)(tmp_path / "a.dcm", array, stored=12)
  if not refused:
    return np.testing.assert_array_equal(images.read_values(path)[..., 0], array)
  with pytest.raises(UserError, match="a.dcm says that it stores 12 bits, and"):
    images.read_values(path)


def test_padding_and_values_whose_sign_is_not_repeated(tmp_path):
  """12 bits with a sign in 16: above bit 11 a negative value may have zeros."""
  values = RAMP.astype(np.int16) * 16 - 2048
  path = dicom(tmp_path / "a.dcm", values & 0xFFF, stored=12, PixelPaddingValue=-2048)
  frame = images.read(path)
  np.testing.assert_array_equal(frame.padding[0, ..., 0], values == -2048)
  np.testing.assert_array_equal(images.read_values(path)[1:, :, 0], values[1:])


@pytest.mark.parametrize("scale, refused", [(1, True), (16, True), (256, False), (257, False)])
def test_colours_of_8_bits_in_16_are_refused_as_greys_are(tmp_path, scale, refused):
  """They were nearly black."""
  path = dicom(tmp_path / "a.dcm", np.dstack([RAMP, RAMP.T, RAMP]).astype(np.uint16) * scale, "RGB")
  if not refused:
    return np.testing.assert_allclose(images.read_8bit(path, 3)[..., 0], RAMP, atol=1)
  with pytest.raises(UserError, match=f"a.dcm: its colours go to 65535 .* none is above {255 * scale}:"):
    images.read_8bit(path, 3)


def test_a_palette_of_8_bits_in_words_of_16(tmp_path):
  tables = {}
  for name in ("Red", "Green", "Blue"):
    tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
    tables[f"{name}PaletteColorLookupTableData"] = np.arange(256).astype("<u2").tobytes()
  found = images.read_8bit(dicom(tmp_path / "a.dcm", RAMP, "PALETTE COLOR", **tables), 1)[..., 0]
  np.testing.assert_array_equal(found, RAMP)
