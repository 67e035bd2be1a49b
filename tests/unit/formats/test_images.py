"""Images in and out at their own depth and colour."""

import base64
import io
import types

import numpy as np
from PIL import Image
import pydicom
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import decode, images, nifti
from data_pipelines.intake import find
from tests.image_files import dicom, tiff

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name, shape, dtype", [
    ("a.png", (9, 11), np.uint8), ("a.png", (9, 11, 3), np.uint8), ("a.png", (9, 11), np.uint16),
    ("a.tif", (9, 11), np.uint8), ("a.tiff", (9, 11, 3), np.uint8), ("a.tif", (9, 11), np.uint16),
    ("a.bmp", (9, 11), np.uint8), ("a.bmp", (9, 11, 3), np.uint8)])
def test_round_trip_keeps_every_bit(tmp_path, name, shape, dtype):
  array = RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
  Image.fromarray(array).save(tmp_path / name)
  frame = images.read(tmp_path / name)
  np.testing.assert_array_equal(frame.pixels[0], array.reshape(*shape[:2], -1))
  assert frame.unit().max() <= 1 and frame.unit().dtype == np.float32
  np.testing.assert_array_equal(frame.stored(frame.unit()), frame.pixels)
  target = images.write(frame, frame.pixels, tmp_path / "out", "b")
  assert target.name == "b" + (tmp_path / name).suffix
  again = images.read(target)
  assert again.pixels.dtype == dtype
  np.testing.assert_array_equal(again.pixels, frame.pixels)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_png(tmp_path, channels):
  from data_pipelines.tf import tf
  array = RNG.integers(0, 65536, (7, 6, channels)).astype(np.uint16)
  (tmp_path / "a.png").write_bytes(tf.io.encode_png(array).numpy())
  frame = images.read(tmp_path / "a.png")
  assert frame.pixels.shape == (1, 7, 6, 3) and frame.high == 65535
  target = images.write(frame, frame.pixels, tmp_path / "out", "a")
  np.testing.assert_array_equal(tf.io.decode_png(target.read_bytes(), dtype=tf.uint16), array)


def test_16_bit_grey_png_with_transparency(tmp_path):
  from data_pipelines.tf import tf
  array = RNG.integers(0, 65536, (7, 6, 2)).astype(np.uint16)
  (tmp_path / "a.png").write_bytes(tf.io.encode_png(array).numpy())
  frame = images.read(tmp_path / "a.png")
  np.testing.assert_array_equal(frame.pixels[0], array[..., :1])
  assert frame.high == 65535


def test_transparency_is_carried_along(tmp_path):
  array = RNG.integers(0, 256, (5, 6, 4)).astype(np.uint8)
  Image.fromarray(array, "RGBA").save(tmp_path / "a.png")
  frame = images.read(tmp_path / "a.png")
  target = images.write(frame, frame.pixels, tmp_path / "out", "a")
  np.testing.assert_array_equal(np.asarray(Image.open(target)), array)


def test_jpeg_becomes_png_with_the_decoded_pixels(tmp_path):
  Image.fromarray(RNG.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(tmp_path / "a.jpg")
  frame = images.read(tmp_path / "a.jpg")
  target = images.write(frame, frame.pixels, tmp_path / "out", "a")
  assert target.name == "a.png"
  np.testing.assert_array_equal(np.asarray(Image.open(target)),
                                np.asarray(Image.open(tmp_path / "a.jpg")))


def test_jpeg_is_turned_as_viewers_show_it(tmp_path):
  image = Image.fromarray(np.zeros((8, 16), np.uint8))
  exif = image.getexif()
  exif[0x0112] = 6  # a quarter turn
  image.save(tmp_path / "a.jpg", exif=exif)
  assert images.read(tmp_path / "a.jpg").pixels.shape == (1, 16, 8, 1)


@pytest.mark.parametrize("code, shown", [  # EXIF 2.3, table 6: where the 0th row and column lie
    (0, lambda x: x), (1, lambda x: x), (2, lambda x: x[:, ::-1]), (3, lambda x: x[::-1, ::-1]),
    (4, lambda x: x[::-1]), (5, lambda x: x.T), (6, lambda x: x.T[:, ::-1]), (7, lambda x: x.T[::-1, ::-1]),
    (8, lambda x: x.T[::-1]), (9, lambda x: x)])
def test_every_orientation_of_exif(tmp_path, code, shown):
  pixels = RNG.integers(0, 256, (3, 5)).astype(np.uint8)
  image = Image.fromarray(pixels)
  exif = image.getexif()
  exif[0x0112] = code
  image.save(tmp_path / "a.png", exif=exif)
  np.testing.assert_array_equal(images.read(tmp_path / "a.png").pixels[0, ..., 0], shown(pixels))
  image.save(tmp_path / "a.jpg", exif=exif)  # whose size is read without its pixels
  assert images.size(tmp_path / "a.jpg") == images.size(tmp_path / "a.png") == shown(pixels).shape


@pytest.mark.parametrize("array, kw", [
    (RNG.integers(0, 256, (8, 9)).astype(np.uint8), {}),
    (RNG.integers(0, 4096, (8, 9)).astype(np.uint16), {}),
    (RNG.integers(-900, 900, (8, 9)).astype(np.int16), {}),
    (RNG.integers(0, 256, (8, 9, 3)).astype(np.uint8), {"photometric": "RGB"}),
    (RNG.integers(0, 256, (3, 8, 9)).astype(np.uint8), {"frames_count": 3}),
])
def test_dicom_keeps_everything_but_changed_pixels(tmp_path, array, kw):
  path = dicom(tmp_path / "a.dcm", array, **kw)
  frame = images.read(path)
  assert frame.pixels.ndim == 4 and frame.pixels.dtype == array.dtype
  assert frame.pixels.size == array.size
  changed = frame.pixels.copy()
  changed[0, 0, 0] = changed[0, 1, 1]
  target = images.write(frame, changed, tmp_path / "out", "a", identifiers="same")
  before, after = pydicom.dcmread(path), pydicom.dcmread(target)
  np.testing.assert_array_equal(after.pixel_array.reshape(changed.shape), changed)
  for element in before:
    if element.keyword != "PixelData":
      assert after[element.tag].value == element.value, element.keyword


def test_dicom_window_and_inverted_grey(tmp_path):
  array = np.array([[0, 100, 200, 300]], np.uint16)
  path = dicom(tmp_path / "a.dcm", array, "MONOCHROME1", WindowCenter=150, WindowWidth=201)
  frame = images.read(path)
  assert (frame.low, frame.high, frame.inverted) == (49.5, 249.5, True)  # c - 1/2 -+ (w - 1)/2
  shown = pydicom.pixels.apply_windowing(array, pydicom.dcmread(path)) / 65535
  np.testing.assert_allclose(frame.unit()[0, ..., 0], 1 - shown, atol=1e-6)
  np.testing.assert_array_equal(frame.stored(np.array([1.0, 0.5, 0.0, -3.0])), [50, 150, 250, 250])


def test_dicom_without_ending_is_found(tmp_path):
  dicom(tmp_path / "IM0001", np.zeros((4, 4), np.uint8))
  (tmp_path / "notes").write_text("no image")
  assert [p.name for p in find.find(tmp_path, ("image", "dicom")).files] == ["IM0001"]
  assert images.read(tmp_path / "IM0001").pixels.shape == (1, 4, 4, 1)


def test_bad_files_are_named_in_one_line(tmp_path):
  (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 40)
  (tmp_path / "text.jpg").write_text("hello")
  (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"junk")
  for name in ("broken.png", "text.jpg", "broken.dcm"):
    with pytest.raises(ValueError) as caught:
      images.read(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
  with pytest.raises(FileNotFoundError, match="absent.png"):
    images.read(tmp_path / "absent.png")


# ----------------------------------------------------------------------- 8-bit and raw-valued readers
def _deep_png(path):
  from data_pipelines.tf import tf
  pixels = np.random.default_rng(2).integers(0, 65536, (6, 7, 3), np.uint16)
  path.write_bytes(tf.io.encode_png(pixels).numpy())
  return pixels


def test_values_keep_the_depth_of_the_file(tmp_path):
  pixels = _deep_png(tmp_path / "a.png")
  np.testing.assert_array_equal(images.read_values(tmp_path / "a.png"), pixels)
  with pytest.raises(FileNotFoundError, match="image .*gone.png does not exist"):
    images.read_values(tmp_path / "gone.png")


@pytest.mark.parametrize("read", [images.read, lambda p: images.read_8bit(p, 3), images.read_values])
def test_every_reader_refuses_damage_and_pages_in_one_line(tmp_path, read):
  whole = io.BytesIO()
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole, "JPEG")
  (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:700])
  (tmp_path / "text.png").write_text("no image\nat all")
  (tmp_path / "folder.png").mkdir()
  page = Image.fromarray(np.zeros((4, 4), np.uint8))
  page.save(tmp_path / "pages.tif", save_all=True, append_images=[page])
  for name in ("cut.jpg", "text.png", "pages.tif"):
    with pytest.raises(UserError) as error:
      read(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)
  with pytest.raises((UserError, FileNotFoundError), match="folder.png"):
    read(tmp_path / "folder.png")


def test_giants_are_refused_by_size_and_limit(tmp_path, monkeypatch):
  Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / "bomb.png")
  monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
  for limit in (100, None):  # Pillow's own limit is met before ours, or not at all
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match="bomb.png is 50x40 pixels .* the limit is"):
      images.read_8bit(tmp_path / "bomb.png", 1)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_values_of_colours_are_as_bright_as_their_luma(tmp_path):
  Image.fromarray(np.eye(3, dtype=np.uint8)[None] * 200).save(tmp_path / "a.png")
  found = images.read_values(tmp_path / "a.png", 1)
  np.testing.assert_allclose(found[0, :, 0], 200 * np.array([0.299, 0.587, 0.114]), atol=1e-9)


def test_grey_is_pillows_luma(tmp_path):
  pixels = np.random.default_rng(1).integers(0, 256, (9, 8, 3), np.uint8)
  np.testing.assert_array_equal(images.grey(pixels)[..., 0],
                                np.asarray(Image.fromarray(pixels).convert("L")))
  images.write_array(tmp_path / "a.png", images.grey(pixels))
  np.testing.assert_array_equal(images.read_8bit(tmp_path / "a.png", 1), images.grey(pixels))


@pytest.mark.parametrize("content, said", [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa", "git lfs pull"), (b"", "is empty"),
    (b"\n<!DOCTYPE html><title>404</title>", "a web page"), (b"PK\3\4" + b"\0" * 40, "a ZIP archive"),
    (b"\0\0\0\x18ftypheic" + b"\0" * 40, "HEIC photograph"), (b"\xff\x0a" + bytes(60), "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "JPEG XL"), (b"8BPS\0\1" + bytes(60), "Photoshop"),
    (b"\0\0\0\x18ftypavif" + bytes(40), "AVIF picture"), (b"what is it", ""), (bytes(500), "zeros alone"),
    (base64.encodebytes(bytes(range(256))), "base64"), (b"data:image/png;base64,iVBORw0KGgo", "base64"),
    (b"A few words and a line of text, which are not all of one alphabet." * 3, "")])
def test_a_file_that_is_something_else_is_called_what_it_is(tmp_path, content, said):
  for name, read, plain in (("a.png", images.read, "no image, damaged at its start"),
                            ("a.nii", nifti.read, "does not begin as one$")):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is n.*{said or plain}"):
      read(tmp_path / name)


@pytest.mark.parametrize("kind", ["f4", "i4", "i2", "u2"])
@pytest.mark.parametrize("form", [{}, {"tile": 16}])
def test_words_of_a_big_endian_tiff_are_what_they_are_when_it_is_compressed(tmp_path, kind, form):
  """libtiff had turned them already: floats of 1e37, masks that are marked all over."""
  values = (np.arange(600).reshape(20, 30) / (600 if kind == "f4" else 1)).astype(kind)
  for order in "<>":
    path = tiff(tmp_path / "a.tif", values, order=order, deflate=True, **form)
    np.testing.assert_array_equal(images.read_values(path)[..., 0], values)
    np.testing.assert_array_equal(images.read_plain(path)[..., 0], values)


def test_a_mask_of_floats_whose_white_is_zero_leaves_open_what_white_is(tmp_path):
  """Every pixel of it was marked: 65535 and 65534."""
  path = tiff(tmp_path / "a.tif", np.eye(20, 30, dtype=np.float32), photometric=0)
  with pytest.raises(UserError, match="mask .*a.tif has float32 pixels and white is zero"):
    images.read_plain(path)


def test_the_largest_picture_is_twice_what_pillow_warns_of():
  assert decode.MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("channels, fine", [(1, True), (3, True), (4, True), (5, False), (6, False)])
def test_channels_that_pillow_would_drop_are_refused(monkeypatch, channels, fine):
  monkeypatch.setattr(decode.headers, "pages", lambda image: 1)
  picture = types.SimpleNamespace(tag_v2={277: channels})
  if fine:
    decode._check_pages("a.tif", picture, "image")
  else:
    with pytest.raises(UserError, match=f"a.tif has {channels} channels"):
      decode._check_pages("a.tif", picture, "image")


@pytest.mark.parametrize("bits", [1, 4, 7, 8])
@pytest.mark.parametrize("shape", [(9, 11), (9, 11, 3)])
def test_jpeg_2000_of_few_bits_is_as_white_as_they_say(tmp_path, bits, shape):
  """Pillow moves them up: 4 bits ended at 240, a mask of 1 bit at 128."""
  codecs = pytest.importorskip("imagecodecs")
  stored = RNG.integers(0, 2**bits, shape).astype(np.uint8)
  stored.flat[:2] = 0, 2**bits - 1
  path = tmp_path / "a.jp2"
  path.write_bytes(codecs.jpeg2k_encode(stored, level=0, reversible=True, bitspersample=bits))
  np.testing.assert_array_equal(images.read_8bit(path, 3 if shape[2:] else 1).reshape(shape),
                                np.round(stored * (255 / (2**bits - 1))))


@pytest.mark.parametrize("compression, refused", [(32773, True), (1, False), (8, False)])
def test_differences_between_pixels_in_a_compression_without(tmp_path, compression, refused):
  """Decoders show the differences; some writers store them all the same."""
  array = np.arange(63, dtype=np.uint8).reshape(7, 9)
  path = tiff(tmp_path / "a.tif", array, deflate=compression == 8, extra=[(317, "H", [2])])
  if compression == 32773:
    data = path.read_bytes()
    at = data.index(b"\x03\x01\x03\x00\x01\x00\x00\x00\x01")
    path.write_bytes(data[:at + 8] + (32773).to_bytes(2, "little") + data[at + 10:])
  if not refused:
    assert images.read(path).pixels.shape == (1, 7, 9, 1)
    return
  with pytest.raises(UserError, match="a.tif holds differences between its pixels"):
    images.read(path)


def test_a_png_without_its_end_is_cut_off(tmp_path):
  """All of its rows are there, so that a viewer shows it; what came behind them is not known."""
  Image.fromarray(np.arange(99, dtype=np.uint8).reshape(9, 11)).save(tmp_path / "a.png")
  (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-12])
  with pytest.raises(UserError, match="a.png is not a readable .*cut off before its end"):
    images.read_plain(tmp_path / "a.png")


@pytest.mark.parametrize("chunk", [b"IHDR", b"IDAT"])
def test_a_png_whose_checksum_is_wrong_is_damaged(tmp_path, chunk):
  Image.fromarray(np.arange(99, dtype=np.uint8).reshape(9, 11)).save(tmp_path / "a.png")
  data = bytearray((tmp_path / "a.png").read_bytes())
  at = data.index(chunk)
  data[at + 4 + int.from_bytes(data[at - 4:at], "big")] ^= 1
  (tmp_path / "a.png").write_bytes(data)
  with pytest.raises(UserError, match=f"wrong checksum of chunk {chunk.decode()}"):
    images.read_plain(tmp_path / "a.png")
