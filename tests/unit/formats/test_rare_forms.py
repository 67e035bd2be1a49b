"""Images as old and rare programs write them: what a viewer shows, or one line; never another picture."""

import base64
import struct
import zlib

import nibabel
import numpy as np
from PIL import Image, ImageCms
import pydicom
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import header, images, nifti
from tests.image_files import dicom, tiff

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 11), np.uint8)
TABLE = RNG.integers(0, 256, (256, 3), np.uint8)
# 8x8 pixels 0, 3, 6 ... without loss (SOF3): libjpeg reads it, and has no eighth of it.
LOSSLESS_JPEG = base64.b64decode(
    "/9j/xAAXAAEBAQEAAAAAAAAAAAAAAAAEBQII/8MACwgACAAIAQARAP/aAAgBAAAGAADn/e973vdhjGMYxlhjGMYxlhjGMYxlhjGMYxlhjGMYxlhj"
    "GMYxlhjGMYxg/9k=")


def png(path, colours: bytes):
  head = struct.pack(">IIBBBBB", 11, 9, 8, 3, 0, 0, 0)
  data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
  parts = [(b"IHDR", head), *([(b"PLTE", colours)] if colours else []), (b"IDAT", data), (b"IEND", b"")]
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(header.png_chunk(*p) for p in parts))
  return path


def stored_png(path, rows, interlaced=0, size=(11, 9), depth=8, colour=0, more=()):
  """A PNG of these rows of bytes, each with its filter."""
  parts = [(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)), *more,
           (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(header.png_chunk(*p) for p in parts))
  return path


@pytest.mark.parametrize("missing", [0, 1, 5])
def test_a_png_with_fewer_rows_than_it_says(tmp_path, missing):
  """Checksums and end were right, and the rest came out black without a word."""
  dark = GREY.copy()
  dark[-1] = 0
  path = stored_png(tmp_path / "a.png", [b"\0" + row.tobytes() for row in dark[:9 - missing]])
  if not missing:
    return np.testing.assert_array_equal(images.read_plain(path)[..., 0], dark)
  with pytest.raises(UserError, match="its rows end before the picture does"):
    images.read_plain(path)


@pytest.mark.parametrize("size", [(11, 8), (13, 7), (6, 9)])
def test_a_png_with_more_pixels_than_its_header_says(tmp_path, size):
  """A forged header with a right checksum: a cut or sheared picture, without a word."""
  path = stored_png(tmp_path / "a.png", [bytes(12)] * 9, size=size)
  with pytest.raises(UserError, match="it holds more pixels than the {}x{} of its header".format(*size)):
    images.read_plain(path)


@pytest.mark.parametrize("row", [0, 4, 8])
def test_a_png_with_a_row_of_no_known_filter(tmp_path, row):
  """Pillow drew it, and the rows below it, black."""
  rows = [bytes([9 * (k == row)]) + found.tobytes() for k, found in enumerate(GREY)]
  with pytest.raises(UserError, match="damaged: a row of a kind"):
    images.read_plain(stored_png(tmp_path / "a.png", rows))


@pytest.mark.parametrize("missing", [0, 1])
def test_an_interlaced_png_with_fewer_rows_than_it_says(tmp_path, missing):
  rows = [b"\0" + row.tobytes() for y, x, dy, dx in header._ADAM7 for row in GREY[y::dy, x::dx] if row.size]
  path = stored_png(tmp_path / "a.png", rows[:len(rows) - missing], 1)
  if not missing:
    return np.testing.assert_array_equal(images.read_plain(path)[..., 0], GREY)
  with pytest.raises(UserError, match="its rows end before the picture does"):
    images.read_plain(path)


@pytest.mark.parametrize("colours", [0, 100, int(GREY.max())])
def test_a_palette_that_lacks_a_colour_of_the_picture(tmp_path, colours):
  with pytest.raises(UserError, match=f"a palette of {colours} colours"):
    images.read_8bit(png(tmp_path / "a.png", TABLE[:colours].tobytes()), 3)
  np.testing.assert_array_equal(images.read_8bit(png(tmp_path / "b.png", TABLE.tobytes()), 3), TABLE[GREY])


@pytest.mark.parametrize("colour, depth, bytes_a_row", [
    (2, 8, 33), (4, 8, 22), (6, 8, 44), (0, 16, 22), (3, 4, 6)])
def test_rows_are_counted_in_every_kind_of_png(tmp_path, colour, depth, bytes_a_row):
  """A last row that is missing, and one that is there and black."""
  rows = [bytes([0]) + bytes(range(1, bytes_a_row + 1)) for _ in range(8)] + [bytes(bytes_a_row + 1)]
  table = [(b"PLTE", TABLE.tobytes())] if colour == 3 else []
  kind = dict(size=(11, 9), depth=depth, colour=colour, more=table)
  assert images.read(stored_png(tmp_path / "a.png", rows, **kind), (0, 65535)).pixels.shape[1:3] == (9, 11)
  with pytest.raises(UserError, match="its rows end before the picture does"):
    images.read(stored_png(tmp_path / "b.png", rows[:-1], **kind))


def test_colours_of_a_palette_are_those_of_the_file(tmp_path):
  """Grey only where all three agree; what is transparent stays known, and a profile of colours behind."""
  table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
  for k in range(3):
    odd = table.copy()
    odd[:, k] = 255 - odd[:, k]
    found = images.read(png(tmp_path / "a.png", odd.tobytes()))
    np.testing.assert_array_equal(found.pixels[0], odd[GREY])
  picture = Image.fromarray(GREY)
  picture.putpalette(table.tobytes())
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  picture.save(tmp_path / "b.png", transparency=bytes(range(256)), icc_profile=profile)
  frame = images.read(tmp_path / "b.png")
  np.testing.assert_array_equal(frame.pixels[0, ..., 0], GREY)
  np.testing.assert_array_equal(frame.alpha, GREY)
  with Image.open(images.write(frame, frame.pixels, tmp_path / "out", "b")) as written:
    assert written.mode == "LA" and "icc_profile" not in written.info
  with pytest.raises(UserError, match="transparency that varies"):
    images.read_plain(tmp_path / "b.png")


@pytest.mark.parametrize("times", [257, 1])
def test_colours_of_a_tiff_palette_in_16_bits_and_in_8(tmp_path, times):
  table = (320, "H", (TABLE.T.astype(int) * times).ravel().tolist())
  path = tiff(tmp_path / "a.tif", GREY, photometric=3, extra=[table])
  np.testing.assert_array_equal(images.read_8bit(path, 3), TABLE[GREY])


def test_transparency_beside_numbers_of_colours(tmp_path):
  table = (320, "H", (TABLE.T.astype(int) * 257).ravel().tolist())
  both = np.dstack([GREY, 255 - GREY])
  frame = images.read(tiff(tmp_path / "a.tif", both, photometric=3, alpha=2, extra=[table]))
  np.testing.assert_array_equal(frame.pixels[0], TABLE[GREY])
  np.testing.assert_array_equal(frame.alpha, 255 - GREY)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_signed_jpeg_2000(tmp_path, dtype):
  picture = Image.fromarray(GREY.astype(dtype) * (257 if dtype == np.uint16 else 1))
  picture.save(tmp_path / "plain.jp2", signed=False, irreversible=False)
  picture.save(tmp_path / "signed.jp2", signed=True, irreversible=False)
  np.testing.assert_array_equal(images.read_8bit(tmp_path / "plain.jp2", 1)[..., 0], GREY)
  with pytest.raises(UserError, match="signed.jp2 has signed pixels"):
    images.read_8bit(tmp_path / "signed.jp2", 1)


@pytest.mark.parametrize("bits", [9, 16])
def test_colour_jpeg_2000_of_more_than_8_bits(tmp_path, bits):
  """Pillow keeps eight of them, whatever the file says."""
  Image.fromarray(np.dstack([GREY] * 3)).save(tmp_path / "a.jp2", irreversible=False)
  data = bytearray((tmp_path / "a.jp2").read_bytes())
  place = data.index(b"\xff\x4f\xff\x51") + 42  # Ssiz of the first component
  assert data[place] == 7
  data[place] = bits - 1
  (tmp_path / "a.jp2").write_bytes(data)
  with pytest.raises(UserError, match="a colour JPEG 2000 file of more than 8 bits"):
    images.read(tmp_path / "a.jp2")


@pytest.mark.parametrize("bits", [4, 12])
def test_white_is_the_largest_value_of_packed_bits(tmp_path, bits):
  most = 2**bits - 1
  array = np.array([[0, 1, most // 2, most]], np.uint8 if bits < 8 else np.uint16)
  found = images.read_unit(tiff(tmp_path / "a.tif", array, bits=bits))[..., 0]
  np.testing.assert_allclose(found, array / most, atol=1e-6)


def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path):
  picture = Image.fromarray(GREY)
  exif = picture.getexif()
  exif[0x0112] = 9
  picture.save(tmp_path / "a.jpg", exif=exif)
  assert images.size(tmp_path / "a.jpg") == images.read_8bit(tmp_path / "a.jpg", 1).shape[:2] == (9, 11)


def test_the_size_of_a_lossless_jpeg(tmp_path):
  (tmp_path / "a.jpg").write_bytes(LOSSLESS_JPEG)
  assert images.size(tmp_path / "a.jpg") == (8, 8)
  np.testing.assert_array_equal(images.read_8bit(tmp_path / "a.jpg", 1).ravel(), 3 * np.arange(64))


def test_no_program_is_run_to_draw_an_image(tmp_path):
  (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
  with pytest.raises(UserError, match="no image"):
    images.read_8bit(tmp_path / "a.png", 1)


def test_a_mask_whose_white_is_zero_is_what_a_viewer_shows(tmp_path):
  shown = (GREY > 99) * np.uint16(65535)
  path = tiff(tmp_path / "a.tif", 65535 - shown, photometric=0)
  np.testing.assert_array_equal(images.read_plain(path)[..., 0], shown)


# ------------------------------------------------------------------------------------------------ DICOM
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_of_a_dicom_palette_in_16_bits_and_in_8(tmp_path, bits):
  tables = {}
  for k, colour in enumerate(("Red", "Green", "Blue")):
    values = TABLE[:, k] if bits == 8 else TABLE[:, k].astype("<u2") * 257
    tables[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
    tables[f"{colour}PaletteColorLookupTableData"] = values.tobytes()
  path = dicom(tmp_path / "a.dcm", GREY, "PALETTE COLOR", **tables)
  np.testing.assert_array_equal(images.read_8bit(path, 3), TABLE[GREY])


def test_a_negative_rescale_slope_turns_black_and_white_round(tmp_path):
  path = dicom(tmp_path / "a.dcm", GREY, RescaleSlope=-1, RescaleIntercept=255)
  np.testing.assert_array_equal(images.read_8bit(path, 1)[..., 0], 255 - GREY)
  frame = images.read(path)
  np.testing.assert_array_equal(frame.stored(frame.unit()), frame.pixels)


@pytest.mark.parametrize("place, values", [
    ("PixelValueTransformationSequence", {"RescaleSlope": (1, 2), "RescaleIntercept": (0, 0)}),
    ("FrameVOILUTSequence", {"WindowCenter": (100, 50), "WindowWidth": (50, 50)})])
def test_frames_of_which_each_has_black_and_white_of_its_own(tmp_path, place, values):
  def groups(k):
    inner, outer = pydicom.Dataset(), pydicom.Dataset()
    for name, both in values.items():
      setattr(inner, name, both[k])
    setattr(outer, place, [inner])
    return outer
  two = np.stack([GREY, GREY])
  same = dicom(tmp_path / "same.dcm", two, frames_count=2, PerFrameFunctionalGroupsSequence=[groups(0)] * 2)
  other = dicom(tmp_path / "other.dcm", two, frames_count=2,
                PerFrameFunctionalGroupsSequence=[groups(0), groups(1)])
  assert len(images.read(same).pixels) == 2
  with pytest.raises(UserError, match="other.dcm: its frames differ in"):
    images.read(other)


@pytest.mark.parametrize("fields", [{"RescaleSlope": "nan"}, {"RescaleSlope": 1, "RescaleIntercept": "inf"}])
def test_a_rescale_that_is_no_number_is_named(tmp_path, fields):
  """A slope of NaN turned black and white round: NaN is not above 0."""
  with pytest.raises(UserError, match="a.dcm: its Rescale Slope is"):
    images.read_8bit(dicom(tmp_path / "a.dcm", GREY, **fields), 1)


@pytest.mark.parametrize("fields", [
    {"WindowCenter": "1e400", "WindowWidth": "10"}, {"WindowCenter": "nan", "WindowWidth": "nan"},
    {"WindowCenter": "5", "WindowWidth": "0", "VOILUTFunction": "SIGMOID"}])
def test_a_window_that_is_no_number_counts_as_none(tmp_path, fields):
  """The picture was NaN, in silence."""
  path = dicom(tmp_path / "a.dcm", GREY, **fields)
  np.testing.assert_array_equal(images.read_8bit(path, 1)[..., 0], GREY)


# ------------------------------------------------------------------------------------- TIFF and NIfTI
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shown", [1, 3])
def test_a_channel_that_a_tiff_does_not_name_is_not_dropped_in_silence(tmp_path, dtype, shown):
  times = 257 if dtype == np.uint16 else 1
  beside = lambda extra: np.dstack([*[GREY] * shown, extra]).astype(dtype) * times
  same = tiff(tmp_path / "same.tif", beside(0 * GREY), photometric=1 if shown == 1 else 2, alpha=0)
  if (dtype, shown) == (np.uint16, 1):  # Pillow has no form for it
    with pytest.raises(UserError, match="same.tif is not a readable image"):
      images.read_8bit(same, 1)
    return
  np.testing.assert_array_equal(images.read_8bit(same, 1)[..., 0], GREY)
  other = tiff(tmp_path / "other.tif", beside(255 - GREY), photometric=1 if shown == 1 else 2, alpha=0)
  few = np.zeros((40, 40), np.uint8)
  few[-1, -1] = 1  # in the last of nine tiles
  last = tiff(tmp_path / "last.tif", np.dstack([*[0 * few] * shown, few]).astype(dtype) * times, tile=16,
              photometric=1 if shown == 1 else 2, alpha=0)
  for path in (other, last):
    with pytest.raises(UserError, match=f"{path.name} has {shown + 1} channels, and does not say what the"):
      images.read_8bit(path, 1)


@pytest.mark.parametrize("field, value, said", [
    ("vox_offset", 0, "voxels begin at byte 0, inside the header"), ("vox_offset", np.nan, "byte nan"),
    ("scl_slope", np.inf, "its scl_slope is infinite"), ("scl_inter", -np.inf, "its scl_inter is infinite"),
    ("scl_slope", np.nan, "")])
def test_numbers_of_a_nifti_header_that_would_give_other_voxels(tmp_path, field, value, said):
  """The header's own bytes were read as voxels, values left unscaled."""
  head = nibabel.Nifti1Header()
  head.set_data_shape((2, 3, 4))
  head.set_data_dtype(np.float32)
  head["magic"], head["vox_offset"] = b"n+1", 352
  head[field] = value
  voxels = np.arange(24, dtype=np.float32).reshape((2, 3, 4), order="F")
  (tmp_path / "a.nii").write_bytes(head.binaryblock + bytes(4) + voxels.tobytes("F"))
  if not said:
    np.testing.assert_array_equal(nifti.read_volume(tmp_path / "a.nii"), voxels)
    return
  with pytest.raises(UserError, match=f"a.nii is corrupt: .*{said}"):
    nifti.read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("fields, refused", [({}, True), ({"PixelPaddingValue": 4096 + 100}, False)])
def test_pixels_of_more_bits_than_the_header_says_are_not_cut_off_in_silence(tmp_path, fields, refused):
  """Of a 16-bit picture with Bits Stored 12 the lower 12 bits were shown; few pixels may lie above."""
  picture = np.full((9, 11), 4096 + 100, np.uint16)
  picture[0] = 100
  path = dicom(tmp_path / "a.dcm", picture, stored=12, **fields)
  if not refused:
    assert images.read(path).pixels.max() == 100
    return
  with pytest.raises(UserError, match="a.dcm says that it stores 12 bits, and 89% of its pixels have more"):
    images.read(path)
