"""What is written: equal pixels, the size of a pixel, profile and description; nothing personal."""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import header, images
from tests.image_files import tiff

RNG = np.random.default_rng(8)
GREY = RNG.integers(0, 256, (11, 14)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (11, 14, 3)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (11, 14)).astype(np.uint16)
DEEP_COLOUR = RNG.integers(0, 65536, (11, 14, 3)).astype(np.uint16)
RGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RATIONAL = [(282, "II", [(25400, 1000)]), (283, "II", [(50800, 1000)]), (296, "H", [3])]
IMAGEJ = b"ImageJ=1.53\nunit=cm\nmin=0.0\nmax=255.0\n"


def written(path, tmp_path, **options):
  """The frame's file again with one changed pixel, as Pillow sees it."""
  frame = images.read(path)
  pixels = frame.pixels.copy()
  pixels[0, 3, 4] = pixels[0, 5, 6]
  target = images.write(frame, pixels, tmp_path / "out", "w", **options)
  np.testing.assert_array_equal(images.read(target).pixels, pixels)
  again = images.read(target)
  if frame.alpha is not None:
    np.testing.assert_array_equal(again.alpha, frame.alpha)
  return Image.open(target)


@pytest.mark.parametrize("array", [GREY, COLOUR, DEEP, np.dstack([COLOUR, GREY]), GREY > 99])
def test_png_keeps_resolution_profile_and_gamma(tmp_path, array):
  colour = array.ndim == 3
  info = PngImagePlugin.PngInfo()
  info.add(b"gAMA", (45455).to_bytes(4, "big"))
  info.add_text("Author", "Jane Doe")
  Image.fromarray(array).save(tmp_path / "a.png", dpi=(254, 127), pnginfo=info,
                              icc_profile=RGB_PROFILE if colour else None)
  found = written(tmp_path / "a.png", tmp_path)
  np.testing.assert_allclose(found.info["dpi"], (254, 127), atol=0.1)
  assert found.info["gamma"] == pytest.approx(0.45455)
  assert (found.info.get("icc_profile") == RGB_PROFILE) == colour
  assert b"Jane" not in (tmp_path / "out/w.png").read_bytes()


def test_deep_colour_png_keeps_them_too(tmp_path):
  frame = images.Frame(tmp_path / "a.png", DEEP_COLOUR[None], 0, 65535,
                       info=header.Header("PNG", (254.0, 254.0), RGB_PROFILE))
  target = images.write(frame, frame.pixels, tmp_path / "in", "a")
  found = written(target, tmp_path)
  np.testing.assert_allclose(found.info["dpi"], (254, 254), atol=0.1)
  assert found.info["icc_profile"] == RGB_PROFILE


def test_deep_colour_tiff_keeps_the_profile(tmp_path):
  """Pillow opens no such TIFF: what it has of the directory is read."""
  frame = images.Frame(tmp_path / "a.tif", DEEP_COLOUR[None], 0, 65535,
                       info=header.Header("TIFF", (254.0, 254.0), RGB_PROFILE))
  content = images.write(frame, frame.pixels, tmp_path / "in", "a").read_bytes()
  directory = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
  file = io.BytesIO(content)
  file.seek(directory.next)
  directory.load(file)
  assert directory[34675] == RGB_PROFILE and directory[258] == (16, 16, 16)  # ICC's tag of TIFF 6


@pytest.mark.parametrize("array, options", [
    (GREY, {}), (COLOUR, {}), (DEEP, {}), (DEEP_COLOUR, {}), (DEEP.astype(np.int32), {}),
    ((GREY / 255).astype(np.float32), {}), (np.dstack([DEEP_COLOUR, DEEP]), {"alpha": 2}),
    (DEEP_COLOUR, {"order": ">", "deflate": True}), (COLOUR, {"tile": 16, "big": True})])
def test_tiff_keeps_resolution_description_and_depth(tmp_path, array, options):
  tiff(tmp_path / "a.tif", array, extra=[*RATIONAL, (270, "s", IMAGEJ), (315, "s", b"Jane Doe"),
                                         (50838, "I", [4, 8]), (50839, "B", list(b"IJIJabcdefgh"))],
       **options)
  found = written(tmp_path / "a.tif", tmp_path).tag_v2
  np.testing.assert_allclose([float(found[t]) for t in (282, 283, 296)], (25.4, 50.8, 3), 1e-6)
  assert found[270] == IMAGEJ.decode() and 315 not in found
  bare = written(tmp_path / "a.tif", tmp_path, identifiers="none").tag_v2
  assert 270 not in bare and 50839 not in bare and float(bare[282]) == pytest.approx(25.4)


def test_profile_of_tiff(tmp_path):
  Image.fromarray(COLOUR).save(tmp_path / "a.tif", icc_profile=RGB_PROFILE, dpi=(96, 96))
  found = written(tmp_path / "a.tif", tmp_path)
  assert found.info["icc_profile"] == RGB_PROFILE and found.info["dpi"] == (96, 96)


def test_resolution_of_jpeg_and_bmp(tmp_path):
  exif = Image.Exif()
  exif[0x010F], exif[0x9C9D] = "Jane's camera", "Jane".encode("utf-16-le")
  Image.fromarray(COLOUR).save(tmp_path / "a.jpg", dpi=(254, 254), exif=exif, icc_profile=RGB_PROFILE)
  found = written(tmp_path / "a.jpg", tmp_path)
  np.testing.assert_allclose(found.info["dpi"], (254, 254), atol=0.1)
  assert found.info["icc_profile"] == RGB_PROFILE and not found.getexif()
  Image.fromarray(COLOUR).save(tmp_path / "a.bmp", dpi=(254, 254))
  np.testing.assert_allclose(written(tmp_path / "a.bmp", tmp_path).info["dpi"], (254, 254), atol=0.1)


def test_a_profile_of_other_colours_does_not_travel(tmp_path):
  """A CMYK file is read as RGB: its profile would colour the result wrongly."""
  profile = RGB_PROFILE[:16] + b"CMYK" + RGB_PROFILE[20:]
  Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.tif", icc_profile=profile)
  assert "icc_profile" not in written(tmp_path / "a.tif", tmp_path).info


@pytest.mark.parametrize("code", range(1, 9))
def test_a_quarter_turn_turns_the_resolution(tmp_path, code):
  turned = code >= 5
  tiff(tmp_path / "a.tif", DEEP, extra=[*RATIONAL, (274, "H", [code])])
  found = written(tmp_path / "a.tif", tmp_path)
  assert found.size == ((11, 14) if turned else (14, 11))
  want = (50.8, 25.4) if turned else (25.4, 50.8)
  np.testing.assert_allclose([float(found.tag_v2[t]) for t in (282, 283)], want, 1e-6)
  assert found.getexif().get(274, 1) == 1  # it is not turned a second time
  exif = Image.Exif()
  exif[274] = code
  Image.fromarray(GREY).save(tmp_path / "a.png", dpi=(254, 127), exif=exif)
  found = written(tmp_path / "a.png", tmp_path)
  np.testing.assert_allclose(found.info["dpi"], (127, 254) if turned else (254, 127), atol=0.1)


def test_a_wrong_ending_is_mended(tmp_path):
  Image.fromarray(COLOUR).save(tmp_path / "a.tif", format="JPEG")
  frame = images.read(tmp_path / "a.tif")
  with Image.open(images.write(frame, frame.pixels, tmp_path / "out", "a")) as found:
    assert found.format == "TIFF"  # a JPEG called .tif becomes what it is called
  Image.fromarray(DEEP).save(tmp_path / "b.png", format="TIFF")
  frame = images.read(tmp_path / "b.png")
  assert images.write(frame, frame.pixels, tmp_path / "out", "b").name == "b.tif"


# ------------------------------------------------------------------------------------- damage
READERS = {"read": images.read, "unit": images.read_unit, "8bit": lambda p: images.read_8bit(p, 3),
           "values": images.read_values, "plain": images.read_plain, "size": images.size}


@pytest.mark.parametrize("view", READERS)
def test_every_view_survives_bad_files(tmp_path, view):
  """Cut files, flipped bits, claims, pipes, folders, loops: one line that names the file, at once."""
  read, bad = READERS[view], []
  noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8))
  for kind in ("png", "jpg", "tif", "bmp", "jp2"):
    noise.save(tmp_path / f"whole.{kind}", **({"compression": "tiff_lzw"} if kind == "tif" else {}))
    whole = (tmp_path / f"whole.{kind}").read_bytes()
    for share in (0.0, 0.01, 0.5, 0.9):
      bad.append(tmp_path / f"cut{share}.{kind}")
      bad[-1].write_bytes(whole[:int(len(whole) * share)])
  whole = bytearray((tmp_path / "whole.png").read_bytes())
  for at in (20, len(whole) // 2, len(whole) - 20):
    bad.append(tmp_path / f"flipped{at}.png")
    bad[-1].write_bytes(bytes([*whole[:at], whole[at] ^ 16, *whole[at + 1:]]))
  bad.append(tmp_path / "no_end.png")
  bad[-1].write_bytes(whole[:-12])
  bad.append(tmp_path / "giant.png")
  start = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
  bad[-1].write_bytes(b"\x89PNG\r\n\x1a\n" + header.png_chunk(start[:4], start[4:])
                      + header.png_chunk(b"IDAT", b"x") + header.png_chunk(b"IEND", b""))
  bad.append(tmp_path / "giant.bmp")
  small = bytearray((tmp_path / "whole.bmp").read_bytes())
  small[18:26] = (100_000).to_bytes(4, "little") * 2
  bad[-1].write_bytes(small)
  bad.append(tmp_path / "pipe.png")
  os.mkfifo(bad[-1])
  bad.append(tmp_path / "folder.png")
  bad[-1].mkdir()
  bad.append(tmp_path / "loop.png")
  bad[-1].symlink_to("loop.png")
  bad.append(tmp_path / "text.tif")
  bad[-1].write_text("no image\nat all")
  bad.append(tmp_path / "page.png")
  bad[-1].write_text("<html>")
  for path in bad:
    with pytest.raises(UserError) as error:
      read(path)
    assert path.name in str(error.value) and "\n" not in str(error.value)
  for path in (tmp_path / "gone.png", tmp_path / "dangling.png"):
    if path.name.startswith("dangling"):
      path.symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=path.name):
      read(path)


def test_one_clear_colour_is_carried_as_alpha(tmp_path):
  Image.fromarray(GREY).save(tmp_path / "a.png", transparency=int(GREY[0, 0]))
  frame = images.read(tmp_path / "a.png")
  np.testing.assert_array_equal(frame.pixels[0, ..., 0], GREY)
  found = np.asarray(written(tmp_path / "a.png", tmp_path))
  np.testing.assert_array_equal(found[..., 1] == 0, GREY[0, 0] == GREY)


def test_rows_of_a_png_are_counted_once_a_file_and_anew_when_it_changes(tmp_path, monkeypatch):
  """A stream that reads files in every step inflated each of them twice in every epoch."""
  counted, count = [], header._count_png_rows
  monkeypatch.setattr(header, "_count_png_rows", lambda chunks: (counted.append(1), count(chunks)))
  def stored(filter_of_last):
    rows = zlib.compress(bytes(12) + bytes([filter_of_last]) + bytes(11), 0)
    parts = (b"IHDR", struct.pack(">IIBBBBB", 11, 2, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(header.png_chunk(*p) for p in parts))
    os.utime(tmp_path / "a.png", (1e9, 1e9))  # as many bytes, the same time
    return tmp_path / "a.png"
  assert not any(images.read_plain(stored(0)).any() for _ in range(3)) and len(counted) == 1
  for _ in range(2):  # what was refused stays so
    with pytest.raises(UserError, match="damaged: a row of a kind"):
      images.read_plain(stored(7))
