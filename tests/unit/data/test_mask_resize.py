"""Masks shrink by area and are cut at one half; soft masks keep their share. Values of mask files."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.errors import UserError
from data_pipelines.masks import images
from data_pipelines.ops import resize


@pytest.mark.parametrize("soft", [False, True])
def test_a_pixel_is_lesion_where_at_least_half_of_its_area_was(soft):
  mask = np.zeros((12, 12), np.float32)
  for k, i, j in ((2, 0, 0), (4, 0, 1), (5, 1, 0), (9, 1, 1)):   # so many of 9 pixels
    mask[3 * i:3 * i + 3, 3 * j:3 * j + 3] = np.r_[np.ones(k), np.zeros(9 - k)].reshape(3, 3)
  item = images.Item("x", lambda: np.zeros((12, 12, 3), np.uint8), lambda: mask, None)
  found = images.Pairs([item], 4, soft=soft).read_one(0)["mask"][..., 0]
  want = np.array([[2, 4], [5, 9]]) / 9
  np.testing.assert_allclose(found[:2, :2], want if soft else want >= 0.5, atol=1e-6)
  assert not found[2:].any()


def test_image_and_mask_have_the_margin_that_crops_need(monkeypatch):
  image = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8)
  item = images.Item("x", lambda: image, lambda: np.ones((12, 12), np.float32), None)
  found = images.Pairs([item], 4, margin=2).read_one(0)
  assert found["image"].shape == (6, 6, 3) and found["mask"].shape == (6, 6, 1)
  np.testing.assert_array_equal(found["image"], images.to_network(resize.antialiased(image, 6), 6, None))


# --------------------------------------------------------------------------------- values of mask files
MASK = np.zeros((16, 16), np.uint8)
MASK[5:11, 6:12] = 255


def saved(path, array, **options):
  Image.fromarray(array).save(path, **options)
  return path


@pytest.mark.parametrize("name, array, words", [
    ("a.jpg", MASK, "JPEG file with values of 1 to 127"),
    ("a.png", np.stack([MASK * 0, MASK], -1), "transparency"),
    ("a.png", np.stack([MASK] * 4, -1), "transparency"),
    ("a.png", (np.arange(MASK.size) ** 2 // 256).astype(np.uint8).reshape(MASK.shape), "as probab"),
    ("a.tif", np.where(MASK, 1, np.nan).astype(np.float32), "NaN")])
def test_marks_that_a_file_leaves_open(tmp_path, name, array, words):
  path = saved(tmp_path / name, array, **({"quality": 60} if name.endswith("jpg") else {}))
  with pytest.raises(UserError, match=words):
    images.read_marks(path)


@pytest.mark.parametrize("array", [MASK, MASK // 255, MASK // 2, np.stack([MASK, 0 * MASK, 0 * MASK], -1)])
def test_marks_are_any_value_above_zero(tmp_path, array):
  np.testing.assert_array_equal(images.read_marks(saved(tmp_path / "a.png", array))[..., 0], MASK > 0)


def test_a_mask_in_transparency_is_refused(tmp_path):
  path = saved(tmp_path / "a.png", np.stack([MASK * 0, MASK], -1))
  with pytest.raises(UserError, match="transparency that varies"):
    images.read_mask(path)
  opaque = saved(tmp_path / "b.png", np.stack([MASK, MASK * 0 + 255], -1))
  assert images.read_mask(opaque).sum() == 36


def test_labels_are_no_soft_masks(tmp_path):
  with pytest.raises(UserError, match="no value above 3: .*labels"):
    images.read_mask(saved(tmp_path / "a.png", MASK // 85), soft=True)
  assert images.read_mask(saved(tmp_path / "b.png", MASK // 2), soft=True).max() == pytest.approx(127 / 255)
  assert images.read_mask(saved(tmp_path / "c.png", MASK // 255), soft=True).max() == 1


# ----------------------------------------------------------------------------------------- both sides
@pytest.mark.parametrize("size", [(4, 3), (4, 9), (2, 6), (3, 5), (9, 12)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_resized_to_rows_and_columns_by_pillows_filter(size, channels):
  """Also where one side is right already; 8-bit images keep to whole grey levels, others do not."""
  rng = np.random.default_rng(0)
  grey = rng.integers(0, 256, (4, 6, channels)).astype(np.uint8)
  pillow = lambda plane: np.asarray(Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR))
  want = np.stack([pillow(grey[..., c]) for c in range(channels)], -1)
  np.testing.assert_array_equal(resize.antialiased(grey, size), want)
  unit = (grey / 255).astype(np.float32)
  np.testing.assert_allclose(resize.unit_image(unit, size), want / 255, atol=1e-6)
  fine = rng.random((4, 6, channels), np.float32)
  wanted = np.stack([pillow(fine[..., c]) for c in range(channels)], -1)
  np.testing.assert_allclose(resize.unit_image(fine, size), wanted, atol=1e-6)
  np.testing.assert_allclose(resize.antialiased_float(fine, size), wanted, atol=1e-6)
  mask = np.zeros((4, 6, 1), np.float32)
  mask[3, 0] = 1
  marked = resize.any_mark(mask, size)[..., 0]
  np.testing.assert_array_equal(marked, pillow(mask[..., 0]) > 1e-6)
  assert marked[-1, 0] and not marked[0, -1]


def test_an_image_of_the_right_size_is_left_alone():
  grey = np.zeros((4, 6, 1), np.uint8)
  assert resize.antialiased(grey, (4, 6)) is grey and resize.antialiased(grey, 4).shape == (4, 4, 1)
