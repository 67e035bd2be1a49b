"""One picture in many files, one result: every view of the one reader, over forms that people store."""

import numpy as np
from PIL import Image, TiffImagePlugin, TiffTags
import pydicom
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import images
from data_pipelines.masks import images as mask_images
from tests.image_files import dicom, tiff

RNG = np.random.default_rng(5)
GREY = RNG.integers(40, 240, (21, 30)).astype(np.uint8)
GREY[0, :2] = 0, 255
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], -1)
DEEP, DEEP_COLOUR = GREY.astype(np.uint16) * 257, COLOUR.astype(np.uint16) * 257
ALPHA = np.full_like(DEEP, 7)
TURNED = [(274, "H", [6])]  # orientation: shown after a quarter turn to the right


def pillow(array, **options):
  return lambda path: Image.fromarray(array).save(path, **options)


def mode(array, name, **options):
  return lambda path: Image.fromarray(array).convert(name).save(path, **options)


def turned(array, **options):
  def write(path):
    image = Image.fromarray(np.rot90(array))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif, **options)
  return write


def of_tiff(array, **options):
  return lambda path: tiff(path, array, **options)


def of_dicom(array, *args, **options):
  return lambda path: dicom(path, array, *args, **options)


def grey_alpha16(path):
  from data_pipelines.tf import tf  # Pillow has no such mode
  path.write_bytes(tf.io.encode_png(np.dstack([DEEP, ALPHA])).numpy())


def pages(path):
  big, small = Image.fromarray(GREY), Image.fromarray(GREY[:4, :4])
  big.save(path, format="MPO", save_all=True, append_images=[small])


# {name of the file: (how it is written, the 8-bit picture that it must equal, greatest difference)}
SAME = {
    "grey8.png": (pillow(GREY), GREY, 0),
    "grey8.tif": (of_tiff(GREY), GREY, 0),
    "grey8white_is_zero.tif": (of_tiff(255 - GREY, photometric=0), GREY, 0),
    "grey8planes.tif": (of_tiff(COLOUR, planes=True), COLOUR, 0),
    "grey8.bmp": (pillow(GREY), GREY, 0),
    "grey8.jp2": (pillow(GREY, irreversible=False), GREY, 0),
    "grey16.jp2": (pillow(DEEP, irreversible=False), GREY, 0),
    "grey8_16bit.png": (pillow(DEEP), GREY, 0),
    "grey16.tif": (of_tiff(DEEP), GREY, 0),
    "grey16be.tif": (of_tiff(DEEP, order=">"), GREY, 0),
    "grey16big.tif": (of_tiff(DEEP, big=True), GREY, 0),
    "grey16tiles.tif": (of_tiff(DEEP, tile=16), GREY, 0),
    "grey16deflate.tif": (of_tiff(DEEP, deflate=True), GREY, 0),
    "grey16white_is_zero.tif": (of_tiff(65535 - DEEP, photometric=0), GREY, 0),
    "grey16turned.tif": (of_tiff(np.rot90(DEEP), extra=TURNED), GREY, 0),
    "grey16left.tif": (of_tiff(GREY.astype(np.uint16) << 8), GREY, 0),
    "grey16dark.tif": (of_tiff(DEEP // 257 // 8 * 257), GREY // 8, 0),
    "grey16full.tif": (of_tiff(DEEP + RNG.integers(-100, 100, DEEP.shape).clip(0).astype(np.uint16)
                               * (DEEP < 65000)), GREY, 0),
    "grey12packed.tif": (of_tiff((GREY * 16.06).round().astype(np.uint16), bits=12), GREY, 1),
    "grey4.tif": (of_tiff(GREY // 16, bits=4), GREY // 16 * 17, 0),
    "int32.tif": (pillow(DEEP.astype(np.int32)), GREY, 0),
    "uint32.tif": (of_tiff(DEEP.astype(np.uint32)), GREY, 0),
    "float.tif": (pillow((GREY / 255).astype(np.float32)), GREY, 0),
    "floatbe.tif": (of_tiff((GREY / 255).astype(np.float32), order=">"), GREY, 0),
    "float_white_is_zero.tif": (of_tiff((1 - GREY / 255).astype(np.float32), photometric=0), GREY, 0),
    "colour.png": (pillow(COLOUR), COLOUR, 0),
    "colour16.tif": (of_tiff(DEEP_COLOUR), COLOUR, 0),
    "colour16be.tif": (of_tiff(DEEP_COLOUR, order=">", deflate=True), COLOUR, 0),
    "colour16tiles.tif": (of_tiff(DEEP_COLOUR, tile=16), COLOUR, 0),
    "colour16planes.tif": (of_tiff(DEEP_COLOUR, planes=True, deflate=True), COLOUR, 0),
    "colour16turned.tif": (of_tiff(np.rot90(DEEP_COLOUR), extra=TURNED), COLOUR, 0),
    "rgba16.tif": (of_tiff(np.dstack([DEEP_COLOUR, ALPHA]), alpha=2), COLOUR, 0),
    "alpha.png": (pillow(np.dstack([COLOUR, GREY])), COLOUR, 0),
    "grey_alpha.png": (pillow(np.dstack([GREY, 255 - GREY])), GREY, 0),
    "grey_alpha16.png": (grey_alpha16, GREY, 0),
    "palette.png": (lambda p: Image.fromarray(GREY // 32 * 36).convert("P").save(p),
                    GREY // 32 * 36, 0),
    "one_bit.png": (mode(GREY, "1", ), None, 0),
    "one_bit.tif": (mode(GREY, "1", compression="group4"), None, 0),
    "cmyk.tif": (mode(COLOUR, "CMYK"), COLOUR, 0),
    "turned.jpg": (turned(COLOUR, quality=95, subsampling=0), COLOUR, 90),
    "turned.png": (turned(COLOUR), COLOUR, 0),
    "phone.jpg": (pages, GREY, 60),
    "grey8.dcm": (of_dicom(GREY), GREY, 0),
    "grey16.dcm": (of_dicom(DEEP), GREY, 0),
    "grey12.dcm": (of_dicom((GREY * 16.06).round().astype(np.uint16), stored=12), GREY, 1),
    "grey_inverted.dcm": (of_dicom(255 - GREY, "MONOCHROME1"), GREY, 0),
    "grey_signed.dcm": (of_dicom((DEEP.astype(int) - 32768).astype(np.int16)), GREY, 0),
    "grey_window.dcm": (of_dicom(GREY.astype(np.uint16), WindowCenter=128, WindowWidth=256), GREY, 0),
    "grey_hu.dcm": (of_dicom(GREY.astype(np.int16), Modality="CT", RescaleSlope=2,
                             RescaleIntercept=-100, WindowCenter=155.5, WindowWidth=511), GREY, 0),
    "colour.dcm": (of_dicom(COLOUR, "RGB"), COLOUR, 0),
    "big_endian.dcm": (of_dicom(DEEP, syntax=pydicom.uid.ExplicitVRBigEndian), GREY, 0),
}


@pytest.mark.parametrize("name", SAME)
def test_every_view_of_every_form_is_the_same_picture(tmp_path, name):
  write, want, most = SAME[name]
  path = tmp_path / name
  write(path)
  if want is None:
    want = np.asarray(Image.fromarray(GREY).convert("1")).astype(np.uint8) * 255
  want = want.reshape(*want.shape[:2], -1).astype(int)
  channels = want.shape[-1]
  frame = images.read(path)
  assert np.abs(images.read_8bit(path, channels) - want).max() <= most
  assert np.abs(images.read_unit(path, channels) * 255 - want).max() <= most + 0.5
  assert images.size(path) == want.shape[:2]
  if channels == 1:
    np.testing.assert_array_equal(images.read_8bit(path, 3)[..., 1], images.read_8bit(path, 1)[..., 0])
    values = images.read_values(path, 1)  # in some unit: a straight line of the grey levels
    assert np.corrcoef(values.ravel(), want.ravel())[0, 1] > (0.9999 if most < 2 else 0.9)
  else:
    luma = images.grey(want.astype(np.uint8)).astype(int)
    assert np.abs(images.read_8bit(path, 1) - luma).max() <= most
  np.testing.assert_allclose(frame.stored(frame.unit()), frame.pixels, atol=1e-6)


# Forms that leave open what they mean, or that would be cut: {name: (writer, what the line says)}
REFUSED = {
    "x16.png": (pillow(GREY.astype(np.uint16) * 16), "10 to 14 bits in 16"),
    "x1.tif": (of_tiff(GREY.astype(np.uint16)), "10 to 14 bits in 16"),
    "x64.tif": (of_tiff(GREY.astype(np.uint16) * 64), "no value above 16320 of 65535"),
    "colour12.tif": (of_tiff(COLOUR.astype(np.uint16) * 16), "10 to 14 bits"),
    "int32x1.tif": (pillow(GREY.astype(np.int32)), "10 to 14 bits"),
    "int32deep.tif": (pillow(GREY.astype(np.int32) * 2**20), "beyond 0 ... 65535"),
    "uint32.tif": (of_tiff(GREY.astype(np.uint32) * 16843009), "beyond 31 bits"),
    "negative.tif": (pillow(GREY.astype(np.int32) - 100), "from -100 to 155"),
    "int16.tif": (of_tiff((DEEP // 2).astype(np.int16)), "signed 16-bit"),
    "int8.tif": (of_tiff(GREY.astype(np.int8)), "signed 8-bit"),
    "float255.tif": (pillow(GREY.astype(np.float32)), "beyond 0 ... 1"),
    "below0.tif": (pillow((GREY / 255 - 0.2).astype(np.float32)), "beyond 0 ... 1"),
    "nan.tif": (pillow(np.where(GREY > 200, np.nan, GREY / 255).astype(np.float32)), "NaN"),
    "float64.tif": (of_tiff(GREY / 255), "64 bits"),
    "bigbe.tif": (of_tiff(DEEP, big=True, order=">"), "not a readable image"),
    "five.tif": (of_tiff(np.dstack([GREY] * 5)), "a form that is not read"),
    "six.tif": (lambda p: tiff(p, np.dstack([GREY] * 6), photometric=2, extra=[(338, "H", [2, 0, 0])]),
                "6 channels"),
    "imagej.tif": (lambda p: behind(p, 5, tiffinfo={270: "ImageJ=1.53\nimages=5\nslices=5\n"}), "5 pages"),
    "metamorph.tif": (lambda p: behind(p, 3, tiffinfo=metamorph(3)), "3 pages"),
    "planes16.tif": (of_tiff(DEEP_COLOUR, planes=True), "form that is not read"),
    "stack.tif": (lambda p: tiff(p, None, pages=[GREY] * 5), "5 pages"),
    "animated.png": (lambda p: Image.fromarray(GREY).save(
        p, save_all=True, append_images=[Image.fromarray(255 - GREY)]), "2 pages"),
    "dose.dcm": (of_dicom(GREY.astype(np.uint32) * 5000), "no window"),
    "flat.dcm": (of_dicom(GREY.astype(np.uint16) * 16), "names no window"),
    "flat_signed.dcm": (of_dicom(GREY.astype(np.int16) - 100), "uses -100 ... 155 only"),
    "frames.dcm": (of_dicom(np.stack([GREY] * 4), frames_count=4), "4 frames"),
    "high_bit.dcm": (of_dicom(DEEP, stored=12, HighBit=15), "up to bit 15"),
    "hsv.dcm": (of_dicom(COLOUR, "HSV"), "HSV pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_leaves_its_depth_open_is_refused_by_name(tmp_path, name):
  write, says = REFUSED[name]
  path = tmp_path / name
  write(path)
  for read in (lambda: images.read_unit(path), lambda: images.read_8bit(path, 1),
               lambda: images.read_8bit(path, 3), lambda: images.size(path)):
    with pytest.raises(UserError) as error:
      read()
    text = str(error.value)
    assert name in text and says in text and "\n" not in text


@pytest.mark.parametrize("name, window", [
    ("x16.png", (0, 4080)), ("x1.tif", (0, 255)), ("int32deep.tif", (0, 255 * 2**20)),
    ("float255.tif", (0, 255)), ("negative.tif", (-100, 155)), ("dose.dcm", (0, 255 * 5000)),
    ("flat.dcm", (0, 4080)), ("int16.tif", (0, 65535 // 2))])
def test_config_data_window_says_it(tmp_path, name, window):
  REFUSED[name][0](tmp_path / name)
  found = images.read_8bit(tmp_path / name, 1, window)[..., 0].astype(int)
  assert np.abs(found - GREY).max() <= (1 if name == "int16.tif" else 0)


def behind(path, planes, **options):
  """A stack whose planes lie behind one directory, as ImageJ and MetaMorph write large ones."""
  Image.fromarray(GREY).save(path, **options)
  path.write_bytes(path.read_bytes() + GREY.tobytes() * (planes - 1))


def metamorph(planes):
  found = TiffImagePlugin.ImageFileDirectory_v2()
  found[33629], found.tagtype[33629] = (1,) * planes, TiffTags.LONG
  return found


def test_a_picture_out_of_a_stack_is_read(tmp_path):
  """Its description still counts the planes."""
  behind(tmp_path / "a.tif", 1, tiffinfo={270: "ImageJ=1.53\nimages=5\n"})
  np.testing.assert_array_equal(images.read_8bit(tmp_path / "a.tif", 1)[..., 0], GREY)


def test_a_thumbnail_is_no_page(tmp_path):
  path = tiff(tmp_path / "a.tif", None, pages=[GREY, GREY[:5, :5]], extra=[(254, "I", [0])])
  data = bytearray(path.read_bytes())
  at = data.rfind(bytes([254, 0, 4, 0, 1, 0, 0, 0]))
  data[at + 8] = 1  # of the second page: a smaller copy of another one
  path.write_bytes(bytes(data))
  np.testing.assert_array_equal(images.read(path).pixels[0, ..., 0], GREY)


def test_black_files_are_black_at_any_depth(tmp_path):
  for kind in (np.uint8, np.uint16, np.int32, np.float32):
    Image.fromarray(np.zeros((4, 4), kind)).save(tmp_path / "a.tif")
    assert not images.read_8bit(tmp_path / "a.tif", 3).any()


def test_masks_of_any_depth(tmp_path):
  mask = GREY > 128
  for name, array in {"a.png": mask * np.uint8(255), "b.png": mask.astype(np.uint8), "c.png": mask,
                      "d.png": mask * np.uint16(65535), "e.tif": mask.astype(np.float32),
                      "f.tif": mask.astype(np.int32)}.items():
    Image.fromarray(array).save(tmp_path / name)
    np.testing.assert_array_equal(mask_images.read_mask(tmp_path / name), mask)
  Image.fromarray(DEEP).save(tmp_path / "deep.png")
  with pytest.raises(UserError, match="more than 8 bits"):
    mask_images.read_mask(tmp_path / "deep.png")


YY, XX = np.mgrid[:40, :50]
PICTURE = np.stack([4 * XX + YY, 5 * XX, 4 * XX + 30], -1).astype(np.uint8)  # dark to bright


@pytest.mark.parametrize("planes", [0, 1])
@pytest.mark.parametrize("grey", [False, True])
def test_colours_that_a_dicom_header_calls_others(tmp_path, planes, grey):
  """RGB called YBR_FULL, and the reverse, came out in false colours without a word."""
  rgb = PICTURE if not grey else np.repeat(PICTURE[..., :1], 3, -1)
  ybr = pydicom.pixels.convert_color_space(rgb, "RGB", "YBR_FULL")
  lies = lambda a: a if not planes else np.moveaxis(a, -1, 0).reshape(a.shape)
  def file(array, kind):
    return dicom(tmp_path / "a.dcm", lies(array), kind, PlanarConfiguration=planes)
  for array, kind in ((rgb, "RGB"), (rgb, "Rgb"), (ybr, "YBR_FULL"), (ybr, "ybr_full ")):
    shown = images.read_8bit(file(array, kind), 3)
    assert np.abs(shown.astype(int) - rgb).max() <= 3
  with pytest.raises(UserError, match="none as YBR_FULL, as if they were RGB: its header .Photometric"):
    images.read(file(rgb, "YBR_FULL"))
  with pytest.raises(UserError, match="greys in the first channel alone, as YBR_FULL"):
    images.read(file(ybr, "RGB"))
  flat = np.full_like(rgb, 128)
  np.testing.assert_array_equal(images.read_8bit(file(flat, "RGB"), 3), flat)


@pytest.mark.parametrize("kind", ["monochrome1", "Monochrome1 "])
def test_words_of_grey_in_small_letters(tmp_path, kind):
  path = dicom(tmp_path / "a.dcm", 255 - GREY, kind)
  np.testing.assert_array_equal(images.read_8bit(path, 1)[..., 0], GREY)


TWELVE = GREY.astype(np.uint16) * 16


@pytest.mark.parametrize("fields, words", [
    (dict(WindowCenter=128, WindowWidth=256), "shows 100% of its pixels all white"),  # of 8 bits
    (dict(WindowCenter=2048, WindowWidth=4096, RescaleSlope="0.0625", RescaleIntercept=0), "within 6.2% of"),
    (dict(RescaleSlope="0.0625", RescaleIntercept=0, WindowCenter=128, WindowWidth=256), ""),
    (dict(WindowCenter=2048, WindowWidth=4096), ""), (dict(WindowCenter=300, WindowWidth=4096), ""),
    (dict(WindowCenter=1000, WindowWidth=500), "")])
def test_a_window_in_other_units_than_the_values(tmp_path, fields, words):
  frame = images.read(dicom(tmp_path / "a.dcm", TWELVE, stored=12, **fields))
  assert (words in frame.unsaid and "config.data.window" in frame.unsaid) if words else not frame.unsaid
  assert not images.read(dicom(tmp_path / "b.dcm", TWELVE, stored=12, **fields), (0, 4095)).unsaid


def test_eight_bits_in_twelve_and_tables_of_another_depth(tmp_path):
  """Their pictures were nearly black."""
  read = lambda **fields: images.read(dicom(tmp_path / "a.dcm", **fields)).unsaid
  said = read(array=GREY.astype(np.uint16), stored=12)
  assert "of the 12 bits that it stores it uses 0 ... 255 only" in said
  assert not read(array=GREY.astype(np.uint16) * 2, stored=12)
  for bits, factor, odd in ((12, 1, False), (16, 16, False), (16, 1, True), (10, 1, True)):
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, bits]
    table.add_new("LUTData", "OW", (np.arange(4096) * factor).astype("<u2").tobytes())
    said = read(array=TWELVE, stored=12, VOILUTSequence=[table])
    assert (f"entries of {bits} bits, and the largest is 4095" in said) if odd else not said
