"""Forms of TIFF that engines read wrongly, follow for ever, or take for a level: refused, or left out."""

import contextlib
import logging
import struct
import sys
import types

import numpy as np
import pytest

from data_pipelines.errors import UserError
from data_pipelines.slides import engines, forms, plan, reader, stream, writer
from tests import slide_files

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("openslide")
RGB = slide_files.tissue(256, 320)
INKS = np.dstack([255 - RGB, (255 - RGB[::-1, :, 0]) // 2])


def written(path, levels, **how):
  with tifffile.TiffWriter(path) as file:
    for i, level in enumerate(levels):
      file.write(level, tile=(64, 64), subfiletype=int(i > 0), metadata=None, **{"photometric": "rgb", **how})
  return path


def four(image):
  return np.dstack([image, image[..., 0]])


def five(image):
  return np.dstack([image, image[..., :2]])


@pytest.mark.parametrize("change, how, said", [
    (lambda a: (a.astype(int) - 128).astype(np.int8), {}, "int8 pixels"),
    (lambda a: a.astype(np.int16), {}, "int16 pixels"),
    (lambda a: (a / 255).astype(np.float32), {}, "float32 pixels"),
    (lambda a: a[..., 0] >> 4, {"photometric": "minisblack", "bitspersample": 4}, "uint8 pixels of 4 bits"),
    (five, {"extrasamples": ["unspecified"] * 2}, "5 channels"),
    (four, {"extrasamples": ["unspecified"]}, "4 channels, and does not say what the last one is"),
    (lambda a: four(a).astype(np.uint16) * 257, {"extrasamples": ["unspecified"]}, "4 channels, and does"),
    (lambda a: a[..., :2], {"photometric": "minisblack", "planarconfig": "contig"}, "2 channels, and does")])
def test_pixels_that_engines_take_for_others(tmp_path, change, how, said):
  path = written(tmp_path / "a.tif", [change(RGB), change(RGB[::4, ::4])], **how)
  with pytest.raises(UserError, match=f"a.tif has {said}"):
    reader.open_slide(path)


@pytest.mark.parametrize("kind, how, apart", [
    ("separated", {}, 0), ("miniswhite", {}, 0), ("minisblack", {}, 0), ("ycbcr", {"compression": "jpeg"}, 0),
    ("ycbcr", {}, None), ("cielab", {}, None)])
def test_colours_are_those_of_openslide_whichever_library_reads_them(tmp_path, kind, how, apart):
  """tifffile gives what is stored: four channels of inks were taken for colours and transparency."""
  image = INKS if kind == "separated" else RGB[..., 0] if kind.startswith("min") else RGB
  path = written(tmp_path / "a.tif", [image, image[::2, ::2]], photometric=kind, **how)
  if apart is None:
    with pytest.raises(engines.Broken, match=f"(?i){kind} pixels"):
      engines.TiffSlide(path)
    return
  found = [reader._rgb(library(path).read(150, 100, 0, 60, 50)).astype(int)
           for library in (engines.OpenSlide, engines.TiffSlide)]
  assert np.abs(found[0] - found[1]).max() <= apart and found[0].std() > 5


@pytest.mark.parametrize("kind, depth, said", [
    ("separated", np.uint16, "16-bit CMYK pixels"), ("icclab", np.uint8, "ICCLab pixels"),
    ("ycbcr", np.uint16, "16-bit YCbCr pixels"), ("logluv", np.uint8, "LogLuv pixels")])
def test_colours_that_openslide_cannot_read_are_not_called_damaged(tmp_path, monkeypatch, kind, depth, said):
  """It opens the file; the other library reads inks, and knows no rule for the rest."""
  image = INKS if kind == "separated" else RGB
  image = (image.astype(int) * np.iinfo(depth).max // 255).astype(depth)
  path = written(tmp_path / "a.tif", [image], photometric=kind)
  if kind == "separated":
    with reader.open_slide(path) as slide:
      assert slide.engine == "tiffslide" and slide.read(0, 150, 100, 60, 50).std() > 5
    monkeypatch.setitem(sys.modules, "tiffslide", None)
  with pytest.raises(UserError, match=rf"a.tif is no slide that can be read \(openslide: {said}"):
    reader.open_slide(path)


@pytest.mark.parametrize("kind, depth, compression, planes, said", [
    (2, 8, 1, 2, ""), (3, 8, 5, 1, ""), (3, 16, 5, 1, "16-bit palette"), (5, 8, 1, 2, ""), (6, 8, 1, 1, ""),
    (8, 8, 1, 1, ""), (8, 8, 1, 2, "CIELab (in planes)"), (9, 8, 1, 1, "ICCLab"), (10, 8, 1, 1, "ITULab"),
    (32844, 16, 1, 1, "LogL"), (32845, 8, 1, 1, "LogLuv"), (32803, 8, 1, 1, "photometric 32803"),
    (0, 16, 1, 1, "16-bit grey"), (1, 8, 1, 1, ""),
    *((6, 16, jpeg, 1, "") for jpeg in (6, 7, 33003, 33005, 34712))])
def test_colours_that_libtiff_makes_no_rgb_of(monkeypatch, kind, depth, compression, planes, said):
  """By TIFF 6 and its supplements; what JPEG and JPEG 2000 decode to is RGB whatever the tag."""
  page = types.SimpleNamespace(photometric=kind, bitspersample=depth, compression=compression,
                               planarconfig=planes, samplesperpixel=1)
  file = contextlib.nullcontext(types.SimpleNamespace(pages=[page]))
  monkeypatch.setattr(tifffile, "TiffFile", lambda _: file)
  assert forms.beyond_libtiff("a.tif") == said


@pytest.mark.parametrize("channels, how", [
    (1, {"photometric": "minisblack"}), (1, {"photometric": "miniswhite"}),
    (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"}),
    (2, {"photometric": "minisblack", "extrasamples": ["assocalpha"], "planarconfig": "contig"})])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_tiles_that_the_right_edge_cuts_are_as_whole_ones(tmp_path, channels, how, depth):
  """libtiff shears them where grey has 16 bits or an alpha."""
  top = np.iinfo(depth).max
  image = np.dstack([RGB[..., 0], 255 - RGB[..., 1] // 2])[..., :channels].astype(depth) * depth(top // 255)
  image = image[..., 0] if channels == 1 else image
  found = []
  for width in (320, 290):  # five tiles, and four and a half
    with reader.open_slide(written(tmp_path / f"{width}.tif", [image[:, :width]], **how)) as slide:
      found.append(slide.read(0, 0, 0, 290, 256))
  assert np.array_equal(*found)
  value = image[..., 0] / top if channels == 2 else image / top
  if channels == 2:  # laid on white
    cover = image[..., 1] / top
    value = (np.minimum(value, cover) if "assocalpha" in how["extrasamples"] else value * cover) + 1 - cover
  value = 1 - value if how["photometric"] == "miniswhite" else value
  assert np.abs(found[0] / 255 - value[:, :290, None]).max() <= 1.01 / 255


def test_colours_multiplied_with_their_alpha_are_so_in_either_library(tmp_path):
  image = np.dstack([RGB // 2, np.full(RGB.shape[:2], 128, np.uint8)])
  path = written(tmp_path / "a.tif", [image], extrasamples=["assocalpha"])
  found = [reader._rgb(library(path).read(0, 0, 0, 60, 50)).astype(int)
           for library in (engines.OpenSlide, engines.TiffSlide)]
  assert np.abs(found[0] - found[1]).max() <= 1


@pytest.mark.parametrize("pages, said", [
    ([(256, 320, 0), (128, 160, 1), (192, 240, 0), (96, 120, 1)], "several pictures with levels"),
    ([(64, 80, 0), (256, 320, 0), (128, 160, 1)], "begins with a picture of 80 x 64 pixels"),
    ([(128, 160, 1), (256, 320, 0)], "begins with a picture of 160 x 128 pixels")])
def test_which_of_several_pictures_is_the_slide_is_not_guessed(tmp_path, pages, said):
  """The levels of the second were taken for levels of the first, and an overview for the slide."""
  with tifffile.TiffWriter(tmp_path / "a.tif") as file:
    for height, width, reduced in pages:
      file.write(RGB[:height, :width], tile=(64, 64), subfiletype=reduced, metadata=None, photometric="rgb")
  with pytest.raises(UserError, match=f"a.tif .*{said}"):
    reader.open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("second, warned", [
    ((200, 320, 0), True), ((200, 320, 1), False), ((60, 90, 0), False), ((128, 160, 0), False)])
def test_a_second_picture_is_said_but_for_labels_and_levels(tmp_path, caplog, second, warned):
  with tifffile.TiffWriter(tmp_path / "a.tif") as file:
    for height, width, reduced in ((256, 320, 0), second):
      file.write(RGB[:height, :width], tile=(64, 64), subfiletype=reduced, metadata=None, photometric="rgb")
  with reader.open_slide(tmp_path / "a.tif") as slide:
    assert np.array_equal(slide.read(0, 0, 0, 320, 256), RGB)
  assert ("holds 2 pictures" in caplog.text) == warned


def test_a_slide_that_its_header_turns_is_refused(tmp_path):
  """libtiff turns each tile where it lies."""
  path = written(tmp_path / "a.tif", [RGB], extratags=[(274, 3, 1, 3, True)])
  with pytest.raises(UserError, match="a.tif is turned or mirrored by its header"):
    reader.open_slide(path)


@pytest.mark.parametrize("order, big", [("<", False), (">", False), ("<", True), (">", True)])
@pytest.mark.parametrize("back", [None, 0, 2, 4])
def test_a_chain_of_directories_ends_or_comes_back(tmp_path, order, big, back):
  """Five of them, of 0 to 4 entries, in either byte order and in TIFF of 32 and 64 bits."""
  head = struct.pack(f"{order}2sH", b"II" if order == "<" else b"MM", 43 if big else 42)
  head += struct.pack(f"{order}HHQ", 8, 0, 16) if big else struct.pack(f"{order}I", 8)
  count, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
  sizes = [struct.calcsize(f"{order}{count}{entry * n}x{pointer}") for n in range(5)]
  starts = [len(head) + sum(sizes[:n]) for n in range(5)]
  after = [*starts[1:], 0 if back is None else starts[back]]
  chain = b"".join(struct.pack(f"{order}{count}{entry * n}x{pointer}", n, to) for n, to in enumerate(after))
  (tmp_path / "a.tif").write_bytes(head + chain)
  assert forms.in_circles(tmp_path / "a.tif") == (back is not None)
  (tmp_path / "a.tif").write_bytes((head + chain)[:-3])
  assert not forms.in_circles(tmp_path / "a.tif")


def test_numbers_without_sign_beyond_16_bits_are_refused_and_the_library_may_log_again(tmp_path):
  path = written(tmp_path / "a.tif", [RGB.astype(np.uint32)])
  with pytest.raises(UserError, match="uint32 pixels"):
    forms.check(path)
  logger = logging.getLogger("tifffile")
  assert logger.level != logging.CRITICAL
  assert forms.check(written(tmp_path / "b.tif", [RGB.astype(np.uint16)])) == 16
  assert forms._planes(types.SimpleNamespace(axes="CZYX", shape=(1, 5, 8, 8))) == "Z 5"


def test_inks_of_16_bits_are_colours_too(tmp_path):
  found = []
  for factor, kind in ((257, np.uint16), (1, np.uint8)):
    levels = [level.astype(kind) * factor for level in (INKS, INKS[::2, ::2])]
    slide = engines.TiffSlide(written(tmp_path / f"{factor}.tif", levels, photometric="separated"))
    found.append(reader._rgb(slide.read(150, 100, 0, 90, 80)).astype(int))
  np.testing.assert_allclose(*found, atol=1)


@pytest.mark.parametrize("axes, shape", [("CYX", (3, 256, 320)), ("ZYXS", (2, 256, 320, 3))])
def test_the_first_plane_of_a_stack_is_not_the_slide(tmp_path, axes, shape):
  path = tmp_path / "a.ome.tif"
  how = {"photometric": "rgb"} if axes.endswith("S") else {"photometric": "minisblack"}
  tifffile.imwrite(path, np.zeros(shape, np.uint8), tile=(64, 64), ome=True, metadata={"axes": axes}, **how)
  with pytest.raises(UserError, match=f"is a stack \\({axes[0]} {shape[0]}\\)"):
    reader.open_slide(path)


@pytest.mark.parametrize("scanner", ["svs", "ndpi", "scn", "bif", "philips", "none"])
def test_planes_beside_the_slide_of_a_scanner_are_left_out_by_engines(tmp_path, monkeypatch, scanner):
  """Macro and label of an SVS or a Philips file make series of several planes, too."""
  page = types.SimpleNamespace(dtype=np.dtype(np.uint8), samplesperpixel=3, bitspersample=8, photometric=2,
                               extrasamples=())
  stack = types.SimpleNamespace(axes="IYXS", shape=(3, 64, 64, 3))
  known = [f"is_{flag}" for flag in tifffile.TIFF.FILE_FLAGS]  # of tifffile
  assert scanner == "none" or f"is_{scanner}" in known

  class File(types.SimpleNamespace):
    def __enter__(self):
      return self

    def __exit__(self, *_):
      pass
  said = {name: name == f"is_{scanner}" for name in known}
  monkeypatch.setattr(tifffile, "TiffFile", lambda _: File(pages=[page], series=[stack], **said))
  (tmp_path / "a.tif").write_bytes(b"II*")
  if scanner != "none":
    assert forms.check(tmp_path / "a.tif") == 8
  else:
    with pytest.raises(UserError, match=r"is a stack \(I 3\)"):
      forms.check(tmp_path / "a.tif")


def test_directories_in_circles_hang_nothing(tmp_path):
  path = written(tmp_path / "a.tif", [RGB, RGB[::4, ::4], RGB[::16, ::16]])
  with tifffile.TiffFile(path) as file:
    first, last = file.pages[1].offset, file.pages[-1]
    entries = len(last.tags)
  data = bytearray(path.read_bytes())
  struct.pack_into("<I", data, last.offset + 2 + 12 * entries, first)
  path.write_bytes(data)
  assert not plan.is_slide(path)
  with pytest.raises(UserError, match="directories point back"):
    reader.open_slide(path)


def test_a_page_of_other_proportions_is_no_level(tmp_path, caplog):
  path = written(tmp_path / "a.tif", [RGB, RGB[:70, :128], RGB[::16, ::16]])
  with reader.open_slide(path) as slide:
    assert [level.downsample for level in slide.levels] == [1, 16]
    np.testing.assert_array_equal(slide.read(1, 0, 0, 20, 16), RGB[::16, ::16])
  assert "page 1 of 128 x 70 pixels is of other proportions" in caplog.text


def test_a_slide_is_tiled_and_has_levels_or_is_large(tmp_path):
  """Else it is an image, which is read as a whole."""
  def one(name, shapes, reduced=1, tile=(64, 64)):
    with tifffile.TiffWriter(tmp_path / name) as file:
      for i, shape in enumerate(shapes):
        file.write(np.zeros((*shape, 3), np.uint8), photometric="rgb", tile=tile, metadata=None,
                   subfiletype=reduced * (i > 0), compression="zlib")
    return plan.is_slide(tmp_path / name)
  assert one("levels.tif", [(128, 160), (64, 80)]) and one("large.tif", [(64, 4096)])
  assert not one("small.tif", [(128, 160)]) and not one("pages.tif", [(128, 160), (96, 90)], reduced=0)
  assert not one("strips.tif", [(128, 160), (64, 80)], tile=None)


def test_levels_say_how_large_their_own_pixels_are(tmp_path):
  writer.write_pyramid(tmp_path / "a.tif", [RGB, RGB[::4, ::4]], mpp=0.25)
  with tifffile.TiffFile(tmp_path / "a.tif") as file:
    found = [np.divide(*page.tags["XResolution"].value) for page in file.pages]
  np.testing.assert_allclose(found, [1e4 / 0.25, 1e4 / 1.0])
  odd = writer.halved(np.array([[10, 20, 31], [20, 30, 30], [7, 8, 9]], np.uint8), np.empty((2, 2), np.uint8))
  assert odd.tolist() == [[20, 31], [8, 9]]  # the last row and column go on; halves are rounded up


def test_a_header_that_claims_more_than_any_slide_has(tmp_path):
  path = written(tmp_path / "a.tif", [RGB])
  with tifffile.TiffFile(path) as file:
    tags = [file.pages[0].tags[name] for name in ("ImageWidth", "ImageLength")]
  data = bytearray(path.read_bytes())
  for tag in tags:
    struct.pack_into("<HII", data, tag.offset + 2, 4, 1, 4_000_000_000)
  path.write_bytes(data)
  with pytest.raises(UserError, match="4000000000 x 4000000000 pixels"):
    reader.open_slide(path)


def test_the_last_batch_of_tiles_is_filled_with_the_last_tile_and_a_resumed_run_has_the_same_batches():
  example = lambda i: np.full((1, 1, 1), i, np.float32)
  whole = {n: b[:, 0, 0, 0].tolist() for n, b in stream.batches(example, 5, 3, threads=2)}
  assert whole == {0: [0, 1, 2], 1: [3, 4, 4]}
  later = {n: b[:, 0, 0, 0].tolist() for n, b in stream.batches(example, 8, 3, first=1, threads=1)}
  assert later == {1: [3, 4, 5], 2: [6, 7, 7]}
