"""What files are that are not read: by their first bytes as formats define them, and by their endings."""

import contextlib
import logging
import re

import pytest

from data_pipelines.errors import UserError
from data_pipelines.intake import counts, find, foreign, tables

BEGINNINGS = {
    b"version https://git-lfs.github.com/spec/v1\noid": "Git LFS", b"<!DOCTYPE html><html>": "web page",
    b"<HTML lang=en>": "web page", b"8BPS\0\1": "Photoshop", b"<svg xmlns=": "SVG", b"%PDF-1.7\n": "PDF",
    b"PK\3\4\x14\0": "ZIP archive", b"7z\xbc\xaf\x27\x1c\0\4": "7z archive", b"\x1f\x8b\x08\0": "gzip",
    b"\xfd7zXZ\0": "xz", b"BZh91AY": "bzip2", b"NRRD0004\n": "NRRD", b"ObjectType = Image": "MetaImage",
    b"CDF\1": "MINC", b"\x89HDF\r\n": "HDF5", b"\x93NUMPY\1\0": "array of NumPy",
    b"\0\0\0\x1cftypavif": "AVIF", b"\0\0\0\x1cftypavis": "AVIF", b"\xff\x0a\xfa\x7f": "JPEG XL",
    b"\0\0\0\x0cJXL \r\n": "JPEG XL",
    **{b"\0\0\0\x18ftyp" + brand: "HEIC" for brand in (b"heic", b"heix", b"mif1", b"hevc")}}
TEXTS = ("Git LFS", "web page")
VOLUMES = ["nrrd", "nhdr", "mha", "mhd", "mgz", "mgh", "mnc", "img", "hdr", "img.gz", "par", "rec", "nii.bz2",
           "nii.xz", "nii.zst", "brik", "head"]
IMAGES = ["webp", "gif", "heic", "heif", "avif", "pdf", "svg", "jxl", "psd", "ppm", "pgm"]
ARCHIVES = ["zip", "tar", "tgz", "tar.gz", "tar.bz2", "7z", "rar"]


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_file_is_told_by_its_first_bytes(tmp_path, beginning):
  word = BEGINNINGS[beginning]
  (tmp_path / "t.csv").write_bytes(beginning + bytes(80))
  assert word in foreign.of_file(tmp_path / "t.csv")
  assert (word in foreign.in_place(beginning)) == (word in TEXTS)  # a table may begin with the others
  if word in TEXTS:
    for before in (b"\xef\xbb\xbf", b"\r\n \t"):
      (tmp_path / "t.csv").write_bytes(before + beginning)
      assert word in foreign.of_file(tmp_path / "t.csv")
      with pytest.raises(UserError, match=f"t.csv is no table.*{word}"):
        tables.read_text(tmp_path / "t.csv")


def test_other_beginnings_say_nothing_and_no_byte_is_said():
  assert {foreign.what_it_is(b) for b in (b"a,b\n1,2\n", bytes(64), b"cd", b"xftypheic")} == {""}
  assert "empty" in foreign.what_it_is(b"")


@pytest.mark.parametrize("element, dicom", [
    (b"\x08\0\x05\0CS\x0a\0", True), (b"\x08\0\x05\0\x0a\0\0\0", True), (b"\x02\0\x10\0UI\x12\0", True),
    (b"\x08\0\x05\0\x0a\0\x01\0", False), (b"\x08\0\x05\0cs\0\1", False), (b"\x08\0\x05\0C1\0\1", False),
    (b"\x08\0\x06\0CS\x0a\0", False),
    (b"\x09\0\x05\0CS\x0a\0", False)])
def test_dicom_without_a_preamble_by_its_first_element(tmp_path, element, dicom):
  """Group, element, and a type in capitals or a length below 65536."""
  (tmp_path / "IM1").write_bytes(element.ljust(132, b"x"))
  assert foreign.begins_as_dicom(tmp_path / "IM1") == dicom
  (tmp_path / "IM1").write_bytes(element.ljust(131, b"x"))  # shorter than any picture
  assert not foreign.begins_as_dicom(tmp_path / "IM1")


def test_what_to_do_is_said_by_the_ending():
  for endings, kind, other, words in ((VOLUMES, "nifti", "image", ".nii.gz"),
                                      (IMAGES, "image", "nifti", "PNG")):
    for ending in endings:
      assert words in foreign.advice(f"A.{ending.upper()}", ("table", kind)), ending
      assert not foreign.advice(f"a.{ending}", (other,)), ending
  assert {foreign.advice(f"a.{e}", ()) for e in ARCHIVES} == {": unpack it"}
  assert not foreign.advice("a.png", ("nifti", "image")) and not foreign.advice("zip", ())


@pytest.mark.parametrize("name, of, word", [
    (".a.png.icloud", "a.png", "iCloud"), ("a.nii.gz.crdownload", "a.nii.gz", "has not ended"),
    ("A.DCM.PART", "A.DCM", "has not ended"), ("a.png.aria2", "a.png", "has not ended"),
    ("a.png", "", ""), ("._a.png.icloud", "", ""), (".icloud", "", ""), ("part", "", ""),
    ("a.part.png", "", "")])
def test_what_stands_in_the_place_of_a_file(name, of, word):
  stands_for, reason = foreign.not_here(name)
  assert stands_for == of and word in reason and bool(reason) == bool(of)


def test_a_file_that_is_not_here_is_an_input_that_cannot_be_read(tmp_path):
  """Half of a set lay in a cloud, and the other half was the set; its placeholders were "hidden files"."""
  for name in (".a.png.icloud", "b.png.part", "c.png", "c.png.part", "d.png", "d.png.aria2", ".e.txt.icloud"):
    (tmp_path / name).write_bytes(b"x")
  found = find.find(tmp_path, ("image",))
  assert [p.name for p in found.files] == ["c.png", "d.png"]  # of c an older download is left
  assert [item.path.name for item in found.broken] == [".a.png.icloud", "b.png.part", "d.png.aria2"]
  with pytest.raises(UserError, match=r"\.a\.png\.icloud stands for .* download it .*and 2 more"):
    counts.refuse_broken(found)


@pytest.mark.parametrize("names, said", [
    (("masks/a.gif", "masks/readme.md", "masks/LICENSE"), "1 files in folders of masks .* masks/a.gif"),
    (("normal/a.npy", "normal/b.npy"), "2 files are in a form that is not read"),
    (("normal/b.webp",), "1 files .* normal/b.webp: save it as PNG"),
    (("labels/a.txt", "labels/b.txt"), "2 texts have the names of images"),
    (("normal/a.xml", "normal/b.xml"), "2 texts have the names of images"),
    (("normal/a.npy", "LICENSE", "SHA256SUMS", "notes.docx", "more.zip", "normal/list.csv", "x.md",
      "y.md"), "")])
def test_what_is_in_a_form_that_is_not_read_is_said(tmp_path, caplog, names, said):
  """Masks saved as GIF or .npy were no masks, and half of the images not there, by lines of information."""
  for name in ("normal/a.png", "normal/b.png", *names):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
  with caplog.at_level(logging.WARNING):
    counts.say(find.find(tmp_path, ("image",)))
  assert bool(re.search(said, caplog.text)) if said else not caplog.text


def test_pictures_of_a_run_below_the_data_are_no_inputs(tmp_path):
  """--workdir inside of the folder of images: panels of the first run were normal images of the next."""
  for name in ("a.png", "runs/1/evaluation/test_panel.png", "runs/1/checkpoints/x", "runs/1/config.json",
               "other/config.json", "other/b.png", "more/checkpoints/c.png"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / "linked").symlink_to(tmp_path / "runs/1")
  found = find.find(tmp_path, ("image",))
  assert [p.name for p in found.files] == ["a.png", "c.png", "b.png"]
  reasons = {item.path.name: item.reason for item in found.left_out}
  assert reasons.pop("1") == reasons.pop("linked") == "is the folder of a run, whose pictures are no inputs"
  assert find.find(tmp_path / "runs/1/evaluation", ("image",)).files  # asked for


@pytest.mark.parametrize("side, refused", [
    ("abnormal", True), ("Tumors", True), ("1", False), ("maps", False)])
def test_results_among_the_images_of_a_side_are_refused(tmp_path, side, refused):
  """--output=set/abnormal: all abnormal images were left out, with a line of information."""
  for name in ("normal/a.png", f"{side}/b.png"):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).touch()
  (tmp_path / side / "predictions.csv").write_text("input,score\n")
  found = find.find(tmp_path, ("image",))
  with pytest.raises(UserError, match=f"{side} holds predictions.csv: results .*: move the results") if (
      refused) else contextlib.nullcontext():
    counts.refuse_broken(found)
