"""What of a DICOM header travels into a result, by config.predict.identifiers; forms of headers that change
what the pixels are, and that scanners write and the samples lack."""

import dataclasses
import struct

import numpy as np
from PIL import Image
import pydicom
import pydicom.datadict
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import decode, dicom as dicom_files, dicom_identity, images, writing
from tests.image_files import dicom

GREY = np.random.default_rng(3).integers(0, 256, (9, 12)).astype(np.uint8)


def _personal(path):
  return dicom(path, GREY, PatientBirthDate="19700101", InstitutionName="St. Elsewhere",
               StudyInstanceUID="1.2.7", SeriesInstanceUID="1.2.8", PixelSpacing=[0.5, 0.25],
               StudyDescription="=HYPERLINK(1)", ImageComments="call Jane", AccessionNumber="77",
               Modality="US", OperatorsName="Smith")


@pytest.mark.parametrize("said, modality", [
    ("US", "US"), ("us ", "US"), ("", ""), (None, ""), ("X" * 20, "X" * 16)])
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS", "ignore:The value length")
def test_the_modality_is_one_word_in_capitals(tmp_path, said, modality):
  """As the training data's, which it is compared with."""
  fields = {} if said is None else {"Modality": said}
  assert dicom_files.modality(dicom(tmp_path / "a.dcm", GREY, **fields)) == modality


@pytest.mark.parametrize("said, intent", [
    ("FOR PROCESSING", "raw"), ("for presentation", "processed"),
    ("", ""), (None, ""), ("FOR FUN", "")])
@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_the_intent_of_a_radiograph(tmp_path, said, intent):
  fields = {} if said is None else {"PresentationIntentType": said}
  assert dicom_files.intent(dicom(tmp_path / "a.dcm", GREY, **fields)) == intent


def test_a_changed_image_is_an_object_of_its_own(tmp_path):
  path = _personal(tmp_path / "a.dcm")
  frame = images.read(path)
  changed = frame.pixels.copy()
  changed[0, 2, 2] ^= 255
  made = pydicom.dcmread(images.write(frame, changed, tmp_path / "o", "a"))
  assert made.SOPInstanceUID != "1.2.3.4" == made.SourceImageSequence[0].ReferencedSOPInstanceUID
  assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
  assert made.ImageType[0] == "DERIVED" and made.PatientName == "Doe^Jane"
  kept = pydicom.dcmread(images.write(frame, frame.pixels, tmp_path / "o", "b"))
  assert kept.SOPInstanceUID == "1.2.3.4"  # the same pixels: the same object
  same = pydicom.dcmread(images.write(frame, changed, tmp_path / "o", "c", "same"))
  assert same.SOPInstanceUID == "1.2.3.4" and "SourceImageSequence" not in same


def test_a_changed_image_keeps_the_rest_of_its_type(tmp_path):
  path = dicom(tmp_path / "a.dcm", GREY, ImageType=["ORIGINAL", "PRIMARY", "AXIAL", "M"])
  frame = images.read(path)
  made = pydicom.dcmread(images.write(frame, 255 - frame.pixels, tmp_path / "o", "a"))
  assert list(made.ImageType) == ["DERIVED", "SECONDARY", "AXIAL", "M"]


def test_nothing_hides_beside_the_elements(tmp_path):
  """Words in the preamble, the file header and items of sequences; UIDs that lead back to the input's."""
  region = pydicom.Dataset()
  region.PhysicalDeltaX, region.RegionDataType, region.PatientComments = 0.1, 1, "Jane's heart"
  made = []
  for name, uid in (("a", "1.2.3.4"), ("b", "1.2.3.5")):
    path = dicom(tmp_path / f"{name}.dcm", GREY, SequenceOfUltrasoundRegions=[region],
                 StudyInstanceUID="1.2.7", SeriesInstanceUID="1.2.8", SOPInstanceUID=uid)
    data = pydicom.dcmread(path)
    data.preamble = b"Jane".ljust(128)
    for title in ("Source", "Sending", "Receiving"):
      setattr(data.file_meta, f"{title}ApplicationEntityTitle", "JANES_SCANNER")
    data.save_as(path)
    frame = images.read(path)
    target = images.write(frame, frame.pixels, tmp_path / "o", name, "none")
    made.append(pydicom.dcmread(target))
    content = target.read_bytes().replace(made[-1].PixelData, b"")
    assert b"Jane" not in content and b"JANE" not in content
    assert made[-1].SequenceOfUltrasoundRegions[0].PhysicalDeltaX == 0.1
  one, other = made
  assert one.SeriesInstanceUID == other.SeriesInstanceUID  # files of a series stay files of one
  assert one.SOPInstanceUID != other.SOPInstanceUID and one.StudyInstanceUID != one.SeriesInstanceUID
  for data, uid in ((one, "1.2.3.4"), (other, "1.2.3.5")):
    guess = pydicom.uid.generate_uid(entropy_srcs=[uid])
    assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID not in (uid, guess)


@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_look_up_table_keeps_its_numbers_and_not_its_words(tmp_path, name):
  table = pydicom.Dataset()
  table.LUTDescriptor, table.LUTData, table.LUTExplanation = [256, 0, 8], list(range(256)), "Jane's own"
  table.PatientComments = "Jane"
  data = pydicom.dcmread(dicom(tmp_path / "a.dcm", GREY))
  setattr(data, name, [table])
  made = dicom_identity._anonymous(data)
  item = getattr(made, name)[0]
  assert {e.keyword for e in item} == {"LUTDescriptor", "LUTData"} and item.LUTData == list(range(256))


def test_where_an_ultrasound_lies_in_its_picture_is_kept(tmp_path):
  """Every element of PS3.3 C.8.5.5 that says where a region is and how large its pixels are."""
  words = ["RegionSpatialFormat", "RegionDataType", "RegionFlags", "RegionLocationMinX0",
           "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1",
           "PhysicalUnitsXDirection", "PhysicalUnitsYDirection", "PhysicalDeltaX",
           "PhysicalDeltaY", "ReferencePixelX0", "ReferencePixelY0"]
  region = pydicom.Dataset()
  for k, word in enumerate(words):
    setattr(region, word, k + 1)
  path = dicom(tmp_path / "a.dcm", GREY, SequenceOfUltrasoundRegions=[region])
  frame = images.read(path)
  made = pydicom.dcmread(images.write(frame, frame.pixels, tmp_path / "o", "a", "none"))
  kept = made.SequenceOfUltrasoundRegions[0]
  assert {word: kept.get(word) for word in words} == {word: k + 1 for k, word in enumerate(words)}
  for name in (*dicom_identity._KEPT, *dicom_identity._KEPT_ITEMS, *dicom_identity._NEW_UIDS):
    assert pydicom.datadict.tag_for_keyword(name), name


def test_identifiers_none_leaves_the_picture_only(tmp_path):
  path = _personal(tmp_path / "a.dcm")
  data = pydicom.dcmread(path)
  data.add_new(0x00091001, "LO", "private Jane")
  data.add_new(0x00290010, "LO", "private Jane")
  data.add_new(0x00284000, "LT", "comment on Jane")
  data.save_as(path)
  frame = images.read(path)
  target = images.write(frame, frame.pixels, tmp_path / "o", "b", "none")
  made = pydicom.dcmread(target)
  content = target.read_bytes().replace(made.PixelData, b"")  # chance makes any word of pixels and new UIDs
  new_uids = {str(element.value) for element in [*made.file_meta, *made.iterall()] if element.VR == "UI"
              and str(element.value).startswith(("2.25.", "1.2.826.0.1.3680043."))}
  for uid in sorted(new_uids, key=len, reverse=True):  # pydicom's own UID may be the head of a longer one
    content = content.replace(uid.encode(), b"")
  for word in (b"Jane", b"Doe", b"42 ", b"1970", b"Elsewhere", b"HYPERLINK", b"Smith", b"1.2.7\0",
               b"1.2.3.4"):
    assert word not in content, word
  np.testing.assert_array_equal(made.pixel_array, GREY)
  assert list(made.PixelSpacing) == [0.5, 0.25] and made.PatientIdentityRemoved == "YES"


def test_a_file_that_would_read_otherwise_is_not_left(tmp_path, monkeypatch):
  """The result is read back: where pixels or their shape differ, of DICOM or a picture, nothing is there."""
  frame = images.read(dicom(tmp_path / "a.dcm", GREY))
  picture = tmp_path / "b.png"
  Image.fromarray(GREY).save(picture)
  drawn = images.read(picture)
  as_read, decoded = dicom_files.load, decode.decode
  for spoilt in (lambda a: a ^ 1, lambda a: a[:, :-1]):
    with monkeypatch.context() as patch:
      patch.setattr(dicom_files, "load", lambda *given, spoilt=spoilt: (None, spoilt(as_read(*given)[1])))
      with pytest.raises(UserError, match="cannot be written again: its 8-bit pixels would read otherwise"):
        images.write(frame, frame.pixels, tmp_path / "o", "a")
    with monkeypatch.context() as patch:
      patch.setattr(writing.decode, "decode", lambda *given, spoilt=spoilt: dataclasses.replace(
          decoded(*given), pixels=spoilt(decoded(*given).pixels)))
      with pytest.raises(UserError, match="uint8 pixels of this form cannot be written as .png"):
        images.write(drawn, drawn.pixels, tmp_path / "o", "b")
  assert not [p for p in (tmp_path / "o").rglob("*") if p.is_file()]


# Segments of a JPEG stream before its frame: tables and restarts whose codes lie among those of frames.
SEGMENTS = b"".join(bytes([0xFF, kind]) + b"\0\x0b" + bytes(range(1, 10)) for kind in (
    0xE0, 0xDB, 0xC4, 0xC8, 0xCC, 0xFE))


def _edited(path, array, change, **fields):
  data = pydicom.dcmread(dicom(path, array, **fields))
  change(data)
  data.save_as(path)
  return path


@pytest.mark.parametrize("before", [b"", b"\xff\xff", SEGMENTS, SEGMENTS + b"\xff"])
@pytest.mark.parametrize("frame", [0xC0, 0xC1, 0xC3, 0xC5, 0xCF, 0xF7])  # F7: JPEG-LS
def test_sides_of_a_compressed_picture_behind_any_segment(tmp_path, before, frame):
  """Tables were taken for the frame, and fill bytes for its end, by one slip that no test saw."""
  def squeezed(data):
    stream = b"\xff\xd8" + before + bytes([0xFF, frame]) + struct.pack(">HB2H", 11, 8, 5, 7) + bytes(20)
    data.PixelData = pydicom.encaps.encapsulate([stream])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
  with pytest.raises(UserError, match="a compressed picture of 5 x 7 pixels and says 9 x 12"):
    images.read(_edited(tmp_path / "a.dcm", GREY, squeezed))


@pytest.mark.parametrize("kind, value, vr", [
    (np.uint8, 7, "US"), (np.int16, -2000, "SS"), (np.int16, 63536, "US"), (np.uint16, -5536, "SS"),
    (np.uint32, 7, "US"), (np.uint8, 200, "US"), (np.uint8, 0, "packed")])
def test_padding_of_every_depth_and_with_the_sign_of_the_other_kind(tmp_path, kind, value, vr):
  """Many write the value beside the picture without a sign where the pixels have one: 63536 is -2000."""
  stored = np.array(value).astype(np.int64).astype(kind)
  array = GREY.astype(kind) % 100 + 8
  array[2:4, 5] = stored
  def change(data):
    data.add_new(0x00280120, vr.replace("packed", "US"), value)
    if vr == "packed":
      data.compress(pydicom.uid.RLELossless)
  path = _edited(tmp_path / "a.dcm", array, change, stored=7 if value == 200 else 0, WindowCenter=64,
                 WindowWidth=128)  # 200: above the 7 bits of the picture
  frame, beside = images.read(path), array == stored
  np.testing.assert_array_equal(frame.padding[0, ..., 0], beside)
  np.testing.assert_array_equal(frame.pixels[0, ..., 0][~beside], array[~beside])


def test_elements_that_are_there_and_empty_say_nothing(tmp_path):
  def emptied(data):
    data.NumberOfFrames = data.RescaleSlope = data.WindowWidth = None
    data.add_new(0x00280120, "US", None)
  frame = images.read(_edited(tmp_path / "a.dcm", GREY, emptied))
  np.testing.assert_array_equal(frame.pixels[0, ..., 0], GREY)
  np.testing.assert_array_equal(images.read_values(frame.path)[..., 0], GREY)
  assert frame.padding is None and (frame.low, frame.high) == (0, 255)


def test_grey_of_two_samples_is_no_picture_and_no_high_bit_is_the_usual_one(tmp_path):
  with pytest.raises(UserError, match="a.dcm has MONOCHROME2 pixels; grey, RGB, YBR and palette"):
    images.read(_edited(tmp_path / "a.dcm", GREY, lambda data: setattr(data, "SamplesPerPixel", 2)))
  plain = _edited(tmp_path / "b.dcm", GREY, lambda data: delattr(data, "HighBit"))
  np.testing.assert_array_equal(images.read(plain).pixels[0, ..., 0], GREY)


@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("bits, most, misfit", [
    (12, 4095, False), (16, 4095, True), (12, 60000, True), (8, 40, False)])
def test_entries_of_a_table_of_shown_values_as_bytes_and_as_numbers(tmp_path, vr, bits, most, misfit):
  """Of fewer bits than it says a table shows a dark picture; 8 bits may be a print of little contrast."""
  table = pydicom.Dataset()
  entries = np.linspace(0, most, 256).astype(np.uint8 if bits == 8 and vr == "OW" else "<u2")
  table.LUTDescriptor = [256, 0, bits]
  table.add_new(0x00283006, vr, entries.tobytes() if vr == "OW" else entries.tolist())
  path = dicom(tmp_path / "a.dcm", GREY, VOILUTSequence=[table])
  assert ("its VOI look-up table says entries" in images.read(path).unsaid) == misfit
  if not misfit:
    np.testing.assert_allclose(images.read_unit(path)[..., 0], entries[GREY] / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("form", ["numbers", "words", "bytes"])
def test_a_table_of_8_bits_shows_every_value_of_12(tmp_path, form, big):
  """As radiographs have: pydicom looked values up modulo 256, and bands of all greys were the picture."""
  deep = np.arange(108, dtype=np.uint16).reshape(9, 12) * 38
  entries = np.repeat(np.arange(256), 16)
  table = pydicom.Dataset()
  table.LUTDescriptor = [4096, 0, 8]
  table.add_new(0x00283006, "US" if form == "numbers" else "OW", entries.tolist() if form == "numbers" else (
      entries.astype((">u2" if big else "<u2") if form == "words" else np.uint8).tobytes()))
  syntax = pydicom.uid.ExplicitVRBigEndian if big else pydicom.uid.ExplicitVRLittleEndian
  path = dicom(tmp_path / "a.dcm", deep, stored=12, syntax=syntax, VOILUTSequence=[table])
  np.testing.assert_allclose(images.read_unit(path)[..., 0], (deep // 16) / 255, atol=1e-6)
  for count, bits in ((5000, 8), (8192, 12)):
    table.LUTDescriptor = [count, 0, bits]
    with pytest.raises(UserError, match=f"b.dcm: a look-up table says that it has {count} entries, and has"):
      images.read(dicom(tmp_path / "b.dcm", deep, stored=12, syntax=syntax, VOILUTSequence=[table]))
