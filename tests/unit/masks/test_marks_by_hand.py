"""Marks of half a pixel, of JPEG, inverted; patients of a segmentation set; lungs that are stated."""

import re

import numpy as np
from PIL import Image
import pytest

from data_pipelines import fields
from data_pipelines.datasets import _chest_lists, paired, segmentation
from data_pipelines.errors import UserError
from data_pipelines.formats import lossy
from data_pipelines.intake import tables
from data_pipelines.masks import images, layouts


def test_a_pixel_that_is_half_marked_is_marked():
  mask = np.zeros((8, 8), np.float32)
  mask[:, :3] = 1  # of columns 2 and 3 one half
  item = images.Item("a", lambda: np.zeros((8, 8, 3), np.uint8), lambda: mask, None)
  for soft, second in ((False, 1), (True, 0.5)):
    found = images.Pairs([item], 4, soft=soft).read_one(0)["mask"]
    np.testing.assert_array_equal(found[0, :, 0], [1, second, 0, 0])


@pytest.mark.parametrize("value, refused", [(1, True), (60, True), (127, True), (128, False), (255, False)])
def test_faint_marks_of_jpeg_are_what_its_compression_made(tmp_path, value, refused):
  Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / "a.jpg", quality=100)
  Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / "a.png")
  assert images.read_marks(tmp_path / "a.png").all()
  if not refused:
    assert images.read_marks(tmp_path / "a.jpg").all()
    return
  with pytest.raises(UserError, match="JPEG file with values of 1 to 127"):
    images.read_marks(tmp_path / "a.jpg")


@pytest.mark.parametrize("name, options, form", [
    ("a.tif", {"compression": "jpeg", "quality": 60}, "TIFF (JPEG)"), ("a.png", {}, ""),
    ("a.jp2", {"irreversible": True, "quality_mode": "rates", "quality_layers": [9]}, "JPEG 2000"),
    ("a.tif", {"compression": "tiff_lzw"}, ""), ("a.png", {"format": "WEBP", "quality": 20}, "WebP"),
    ("a.png", {"format": "WEBP", "lossless": True}, "")])
def test_marks_of_other_lossy_forms(tmp_path, name, options, form):
  """A ring around each mark was marked."""
  y, x = np.ogrid[:64, :64]
  marks = np.where((y - 30) ** 2 + (x - 25) ** 2 < 150, 255, 0).astype(np.uint8)
  Image.fromarray(marks).save(tmp_path / name, **options)
  assert lossy.name_of(tmp_path / name) == form
  if form:
    with pytest.raises(UserError, match=f"is a {re.escape(form)} file with values of 1 to 127"):
      images.read_marks(tmp_path / name)
  else:
    np.testing.assert_array_equal(images.read_marks(tmp_path / name)[..., 0], marks > 0)
  Image.fromarray(marks // 255).save(tmp_path / "l.jp2")  # labels, without loss
  assert images.read_marks(tmp_path / "l.jp2").sum() == np.count_nonzero(marks)


@pytest.mark.parametrize("rows, share_of_drawn, refused", [
    (6, 0, True), (5, 0, True), (4, 0, False), (6, 1, False)])
def test_a_mask_of_more_than_half_without_what_was_drawn_is_inverted(tmp_path, rows, share_of_drawn, refused):
  clean = np.full((8, 8, 3), 50, np.uint8)
  annotated, mask = clean.copy(), np.zeros((8, 8), np.uint8)
  annotated[7] = 200
  mask[:rows], mask[7] = 255, 255 * share_of_drawn
  for name, pixels in (("annotated", annotated), ("clean", clean), ("mask", mask)):
    Image.fromarray(pixels).save(tmp_path / f"{name}.png")
  cfg = paired.resolve(paired.defaults())
  files = [tmp_path / f"{name}.png" for name in ("annotated", "clean", "mask")]
  pair = paired.FilePair("a", files[0], "p", cfg, *files[1:])
  if refused:
    with pytest.raises(UserError, match="it is inverted"):
      pair.load()
  else:
    assert pair.load()[2].sum() == 8 * (rows + share_of_drawn)


@pytest.mark.parametrize("part", ["noisy", "clean"])
def test_a_patient_of_either_training_stream_is_in_no_other_split(monkeypatch, part):
  make = lambda name, group: images.Item(name, None, None, None, group=group)
  parts = {"noisy": [make("a", "P1")], "clean": [make("b", "P2")], "val": [make("c", "P3")], "test": []}
  monkeypatch.setitem(layouts.READERS, "folders", lambda cfg: (parts, "set"))
  cfg = fields.changed(segmentation.defaults(), layout="folders")
  assert segmentation.build(cfg, 0).splits == ("val", "noisy", "clean")
  parts["val"] = [make("c", parts[part][0].group)]
  with pytest.raises(UserError, match="1 patient is on two sides"):
    segmentation.build(cfg, 0)


def test_stated_lungs_are_two_upright_ellipses():
  found = _chest_lists.ellipses(100)[..., 0]
  np.testing.assert_array_equal(found, found[:, ::-1])
  rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
  assert (rows[0], rows[-1], columns[0], columns[-1]) == (17, 78, 14, 85) and not found[:, 46:54].any()
  assert found.sum() == pytest.approx(2 * np.pi * 16 * 31, rel=0.01)


@pytest.mark.parametrize("columns, cells, noise, said", [
    ("", ["m/0,0", "m/1,0", "m/2,0"], "", []),
    ("", ["m/1_mask,0", "m/0_mask,0", "m/2,0"], "", ["2 masks are named as those of other images, the"]),
    ("", ["m/a,0", "m/b,0", "m/a,0"], "", ["1 masks are each of several images, the first m/a.png"]),
    ("is_clean", ["m/0,1", "m/1,0", "m/2,0"], "", ["its column 'is_clean' is not read"]),
    ("clean", ["m/0,1", "m/1,0", "m/2,0"], "dilate", []), ("unclean", ["m/0,1", "m/1,0", "m/2,0"], "", []),
    ("noisy_mask", ["m/0,n", "m/1,n", "m/2,n"], "dilate", ["a column noisy_mask, which is not read"]),
    ("noisy_mask", ["m/0,n", "m/1,n", "m/2,n"], "", [])])
def test_what_a_table_may_mean_and_is_not_read_as(tmp_path, caplog, columns, cells, noise, said):
  """Expert masks were made noisy beside a column of noisy ones; exchanged masks passed."""
  rows = "".join(f"i/{k}.png,{cell.replace(',', '.png,')}\n" for k, cell in enumerate(cells))
  (tmp_path / "t.csv").write_text(f"image,mask,{columns or 'more'}\n{rows}")
  table = tables.read_table(tmp_path / "t.csv", ("image", "mask"))
  layouts._say_doubts(table, [r.file("image") for r in table.rows], noise)
  assert len(caplog.records) == len(said) and all(line in caplog.text for line in said)
