"""DICOM: every encoding in, equal pixels out; windows; what travels into a result."""

import pathlib

import numpy as np
import pydicom
import pydicom.data
from pydicom.uid import ExplicitVRBigEndian
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import dicom as dicom_format, images
from tests.image_files import dicom

RNG = np.random.default_rng(3)
SAMPLES = pathlib.Path(pydicom.data.__file__).parent / "test_files"  # inside pydicom's wheel
GREY = RNG.integers(0, 256, (9, 12)).astype(np.uint8)
DEEP = RNG.integers(0, 4096, (9, 12)).astype(np.uint16)
SIGNED = RNG.integers(-900, 900, (9, 12)).astype(np.int16)
COLOUR = RNG.integers(0, 256, (9, 12, 3)).astype(np.uint8)


def back(path, folder, identifiers="derived"):
  """(frame, written file) of the file as it is."""
  frame = images.read(path)
  return frame, images.write(frame, frame.pixels, folder, "b", identifiers)


@pytest.mark.parametrize("name", [
    "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm",
    "ExplVR_BigEnd.dcm", "CT_small.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm",
    "SC_ybr_full_422_uncompressed.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle_2frame.dcm",
    "SC_rgb_rle_16bit.dcm", "SC_rgb_small_odd_big_endian.dcm", "MR_small_padded.dcm"])
def test_pixels_read_back_with_pydicom_are_those_of_the_input(tmp_path, name):
  if not (SAMPLES / name).is_file():
    pytest.skip(f"this pydicom has no {name}")
  frame, target = back(SAMPLES / name, tmp_path)
  before, after = pydicom.dcmread(SAMPLES / name), pydicom.dcmread(target)
  np.testing.assert_array_equal(after.pixel_array, before.pixel_array)
  assert frame.pixels.dtype.isnative
  assert after.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
  for element in before:
    if element.tag.element and element.keyword not in (
        "PixelData", "PhotometricInterpretation", "PlanarConfiguration"):
      assert after[element.tag].value == element.value, element


def test_big_endian_bulk_data_is_swapped(tmp_path):
  words = np.arange(256, dtype=np.uint16)
  path = dicom(tmp_path / "a.dcm", DEEP, stored=12, syntax=ExplicitVRBigEndian)
  data = pydicom.dcmread(path)
  data.add_new(0x00281201, "OW", words.astype(">u2").tobytes())
  data.save_as(path)
  _, target = back(path, tmp_path / "out")
  after = pydicom.dcmread(target)
  np.testing.assert_array_equal(after.pixel_array, DEEP)
  np.testing.assert_array_equal(np.frombuffer(after[0x00281201].value, "<u2"), words)


@pytest.mark.parametrize("shape", [(8, 8), (7, 9)])
def test_one_bit_files_stay_one_bit(tmp_path, shape):
  bits = RNG.integers(0, 2, shape).astype(np.uint8)
  path = dicom(tmp_path / "a.dcm", bits)
  data = pydicom.dcmread(path)
  data.BitsAllocated, data.BitsStored, data.HighBit = 1, 1, 0
  data.PixelData = pydicom.pixels.pack_bits(bits)
  data.save_as(path)
  frame = images.read(path)
  np.testing.assert_array_equal(frame.unit()[0, ..., 0], bits)
  changed = 1 - frame.pixels
  target = images.write(frame, changed, tmp_path / "out", "a")
  after = pydicom.dcmread(target)
  np.testing.assert_array_equal(after.pixel_array, 1 - bits)
  assert len(after.PixelData) == -(-bits.size // 16) * 2


def test_what_lies_above_bits_stored_stays(tmp_path):
  overlay = (RNG.random(DEEP.shape) < 0.1).astype(np.uint16) << 12
  frame, target = back(dicom(tmp_path / "a.dcm", DEEP | overlay, stored=12), tmp_path / "out")
  np.testing.assert_array_equal(frame.pixels[0, ..., 0], DEEP)
  raw = np.frombuffer(pydicom.dcmread(target).PixelData, "<u2").reshape(DEEP.shape)
  np.testing.assert_array_equal(raw, DEEP | overlay)


@pytest.mark.parametrize("fields", [
    dict(), dict(WindowCenter=[300, 40], WindowWidth=[500, 80]),
    dict(WindowCenter=300, WindowWidth=500, RescaleSlope=2, RescaleIntercept=-100),
    dict(WindowCenter=300, WindowWidth=500, VOILUTFunction="LINEAR_EXACT"),
    dict(WindowCenter=300, WindowWidth=500, VOILUTFunction="SIGMOID"),
    dict(WindowCenter=-300, WindowWidth=500, RescaleSlope=-1, RescaleIntercept=0),
    dict(WindowCenter=300, WindowWidth=1)])
@pytest.mark.parametrize("array, stored", [(SIGNED, 0), (DEEP, 12)])
def test_windows_are_pydicoms(tmp_path, fields, array, stored):
  path = dicom(tmp_path / "a.dcm", array, stored=stored, **fields)
  data, frame = pydicom.dcmread(path), images.read(path)
  units = pydicom.pixels.apply_rescale(array, data)
  if fields:
    shown = pydicom.pixels.apply_windowing(units, data)
    top = np.float64(2) ** int(data.BitsStored)
    low = -top / 2 if array.dtype.kind == "i" else 0
    if "RescaleSlope" in fields:  # pydicom's range is that of the rescaled values then
      slope, intercept = fields["RescaleSlope"], fields["RescaleIntercept"]
      ends = sorted(v * slope + intercept for v in (low, low + top - 1))
      low, top = ends[0], ends[1] - ends[0] + 1
    want = (shown - low) / (top - 1)
    if fields.get("RescaleSlope", 1) < 0:  # pydicom turns its own range round
      want = 1 - want
  else:
    want = (array + 32768.0) / 65535 if array.dtype.kind == "i" else array / 4095
  np.testing.assert_allclose(frame.unit()[0, ..., 0], np.clip(want, 0, 1), atol=2e-3)
  again = frame.stored(frame.unit())
  np.testing.assert_allclose(images.Frame(path, again, frame.low, frame.high, frame.inverted,
                                          curve=frame.curve).unit(), frame.unit(), atol=3e-3)


def test_a_lookup_table_is_followed(tmp_path):
  table = np.round(4095 * (np.arange(4096) / 4095) ** 0.5).astype(np.uint16)
  path = dicom(tmp_path / "a.dcm", DEEP, stored=12)
  data = pydicom.dcmread(path)
  item = pydicom.Dataset()
  item.LUTDescriptor, item.LUTData = [4096, 0, 12], table.tobytes()
  item["LUTData"].VR = "OW"
  data.VOILUTSequence = [item]
  data.save_as(path)
  frame = images.read(path)
  np.testing.assert_allclose(frame.unit()[0, ..., 0], table[DEEP] / 4095, atol=1e-6)
  np.testing.assert_allclose(table[frame.stored(frame.unit())[0, ..., 0]], table[DEEP])


def test_values_mean_the_same_in_every_file(tmp_path):
  """A slice with a bright spot and one without: nothing is stretched to the file's own range."""
  for kind, fields in ((np.uint16, {}), (np.int16, {}), (np.int16, dict(Modality="CT", RescaleSlope=1,
                                                                       RescaleIntercept=-1024))):
    plain = np.full((4, 4), 500, kind)
    spot = plain.copy()
    spot[0, 0] = 3000
    one, other = (images.read(dicom(tmp_path / f"{n}.dcm", a, **fields)).unit()
                  for n, a in (("a", plain), ("b", spot)))
    assert one[0, 2, 2, 0] == other[0, 2, 2, 0]


def test_config_data_window_is_in_units_after_rescaling(tmp_path):
  path = dicom(tmp_path / "a.dcm", SIGNED, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=0,
               WindowWidth=9)
  found = images.read_unit(path, 1, (-500, 500))[..., 0]
  np.testing.assert_allclose(found, np.clip((SIGNED * 2.0 - 100 + 500) / 1000, 0, 1), atol=1e-6)


@pytest.mark.parametrize("syntax, codec, package", [
    ("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", "pip install pyjpegls"),
    ("1.2.840.10008.1.2.4.81", "JPEG-LS Lossy", "pip install pyjpegls"),
    ("1.2.840.10008.1.2.4.57", "JPEG Lossless", "pip install pylibjpeg pylibjpeg-libjpeg"),
    ("1.2.840.10008.1.2.4.70", "JPEG Lossless", "pip install pylibjpeg pylibjpeg-libjpeg"),
    ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000", "pylibjpeg-openjpeg")])
def test_a_missing_codec_is_named_with_its_package(tmp_path, syntax, codec, package):
  decoder = pydicom.pixels.get_decoder(syntax)
  if decoder.is_available:
    pytest.skip(f"{codec} can be decoded here")
  path = dicom(tmp_path / "scan.dcm", GREY)
  data = pydicom.dcmread(path)
  data.file_meta.TransferSyntaxUID = syntax
  data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
  data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
  data.save_as(path)
  with pytest.raises(UserError) as error:
    images.read(path)
  text = str(error.value)
  assert "scan.dcm" in text and codec in text and package in text and "\n" not in text


def test_palettes_are_read_and_not_written(tmp_path):
  path = SAMPLES / "examples_palette.dcm"
  if not path.is_file():
    pytest.skip("this pydicom has no palette sample")
  frame = images.read(path)
  data = pydicom.dcmread(path)
  want = pydicom.pixels.apply_color_lut(data.pixel_array, data)
  np.testing.assert_array_equal(frame.pixels[0], want)
  assert frame.unit().max() > 0.5
  with pytest.raises(UserError, match="PALETTE COLOR"):
    images.write(frame, frame.pixels, tmp_path, "a")


def edited(change, array, *args, **options):
  def write(path):
    data = pydicom.dcmread(dicom(path, array, *args, **options))
    change(data)
    data.save_as(path)
    return path
  return write


def planes(data):
  data.PlanarConfiguration = 1
  data.PixelData = np.ascontiguousarray(np.moveaxis(COLOUR, -1, 0)).tobytes()


def bit_frames(data):
  data.BitsAllocated = data.BitsStored = 1
  data.HighBit, data.NumberOfFrames = 0, 3
  data.PixelData = pydicom.pixels.pack_bits(RNG.integers(0, 2, (3, 9, 12)).astype(np.uint8))


def shared_window(data):
  window, groups = pydicom.Dataset(), pydicom.Dataset()
  window.WindowCenter, window.WindowWidth = 2048, 4096
  groups.FrameVOILUTSequence = [window]
  data.SharedFunctionalGroupsSequence = [groups]


RLE = lambda data: data.compress(pydicom.uid.RLELossless)
FORMS = {
    "planes": edited(planes, COLOUR, "RGB"),
    "ybr": lambda p: dicom(p, pydicom.pixels.convert_color_space(COLOUR, "RGB", "YBR_FULL"), "YBR_FULL"),
    "signed 8": lambda p: dicom(p, GREY.astype(np.int8)),
    "8 in 16": lambda p: dicom(p, GREY.astype(np.uint16), stored=8),
    "32": lambda p: dicom(p, GREY.astype(np.uint32) * 999, WindowCenter=9e4, WindowWidth=2e5),
    "signed 32": lambda p: dicom(p, GREY.astype(np.int32) * -999, WindowCenter=-9e4, WindowWidth=2e5),
    "bit frames": edited(bit_frames, GREY), "shared window": edited(shared_window, DEEP),
    "rle": edited(RLE, DEEP, stored=12), "rle colour": edited(RLE, COLOUR, "RGB"),
    "big-endian frames": lambda p: dicom(p, np.stack([DEEP] * 3), frames_count=3, stored=12,
                                         syntax=ExplicitVRBigEndian),
    "big-endian colour": lambda p: dicom(p, COLOUR.astype(np.uint16) * 257, "RGB",
                                         syntax=ExplicitVRBigEndian),
    "big-endian 8": lambda p: dicom(p, GREY[:, :11], syntax=ExplicitVRBigEndian),
    "deflated": lambda p: dicom(p, GREY, syntax=pydicom.uid.DeflatedExplicitVRLittleEndian),
    "empty window": lambda p: dicom(p, GREY, WindowCenter="", WindowWidth=""),
    "window of width 0": lambda p: dicom(p, GREY, WindowCenter=5, WindowWidth=0)}


@pytest.mark.parametrize("form", FORMS)
def test_changed_pixels_come_back_in_every_form(tmp_path, form):
  frame = images.read(FORMS[form](tmp_path / "a.dcm"))
  unit = frame.unit()
  assert unit.min() < 0.1 and unit.max() > 0.4
  changed = frame.pixels.copy()
  changed[0, 0, 0] = frame.pixels[0, 4, 4]
  after = pydicom.dcmread(images.write(frame, changed, tmp_path / "o", "a"))
  np.testing.assert_array_equal(after.pixel_array.reshape(changed.shape), changed)


def test_a_slope_of_0_is_named(tmp_path):
  path = dicom(tmp_path / "pet.dcm", DEEP, RescaleSlope=0, RescaleIntercept=1, WindowCenter=5,
               WindowWidth=9)
  with pytest.raises(UserError, match=r"pet.dcm: its Rescale Slope is 0"):
    images.read(path)


@pytest.mark.parametrize("damage", ["cut", "rows", "no pixels", "frames", "bits", "giant"])
def test_damaged_files_are_one_line(tmp_path, damage):
  path = dicom(tmp_path / "scan.dcm", DEEP, stored=12)
  if damage == "cut":
    path.write_bytes(path.read_bytes()[:-50])
  else:
    data = pydicom.dcmread(path)
    if damage == "rows":
      data.Rows = 90
    elif damage == "no pixels":
      del data.PixelData
    elif damage == "frames":
      data.NumberOfFrames = 10_000_000
    elif damage == "bits":
      del data.BitsAllocated
    else:
      data.Rows = data.Columns = 65535
    data.save_as(path)
  with pytest.raises(UserError) as error:
    images.read(path)
  assert "scan.dcm" in str(error.value) and "\n" not in str(error.value)


def test_a_deflated_file_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
  path = dicom(tmp_path / "a.dcm", np.zeros((600, 600), np.uint8),
               syntax=pydicom.uid.DeflatedExplicitVRLittleEndian)
  assert path.stat().st_size < 5000 and images.read(path).pixels.shape == (1, 600, 600, 1)
  monkeypatch.setattr(dicom_format, "_MAX_VALUES", 300_000)
  with pytest.raises(UserError, match="a.dcm is deflated and would grow"):
    images.read(path)


def test_old_files_without_a_file_header_are_read(tmp_path):
  path = dicom(tmp_path / "IM1.dcm", GREY)
  data = pydicom.dcmread(path)
  data.file_meta, data.preamble = pydicom.dataset.FileMetaDataset(), None
  data.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
  assert path.read_bytes()[128:132] != b"DICM"
  frame, target = back(path, tmp_path / "o")
  np.testing.assert_array_equal(frame.pixels[0, ..., 0], GREY)
  np.testing.assert_array_equal(pydicom.dcmread(target).pixel_array, GREY)


def test_a_tile_of_a_whole_slide_is_not_taken_for_the_picture(tmp_path):
  def tiles(data):
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = 9000, 12000
  with pytest.raises(UserError, match="whole slide .12000x9000 pixels.*save the slide as"):
    images.read(edited(tiles, COLOUR, "RGB")(tmp_path / "slide.dcm"))
