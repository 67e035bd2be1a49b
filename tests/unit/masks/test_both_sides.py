"""What must be of one size is compared by both sides: one alone went unnoticed in seven places."""

import types

import numpy as np
from PIL import Image
import pytest

from data_pipelines.datasets import _own_images, paired
from data_pipelines.errors import UserError
from data_pipelines.formats import images, nifti
from data_pipelines.masks import images as mask_images
from data_pipelines.slides import cells, engines
from tests.unit.data import test_paired

OTHERS = [(3, 6), (4, 5), (6, 4)]  # rows and columns; the right ones are 4 and 6


def grey(path, height, width):
  Image.fromarray(np.full((height, width), 90, np.uint8)).save(path)
  return path


@pytest.mark.parametrize("height, width", OTHERS)
def test_frames_and_marks_of_a_pair(tmp_path, height, width):
  cfg = test_paired.config(tmp_path)
  clean, other = grey(tmp_path / "clean.png", 4, 6), grey(tmp_path / "other.png", height, width)
  with pytest.raises(UserError, match=f"a: annotated is {height}x{width}, clean 4x6"):
    paired.FilePair("a", other, "g", cfg, clean).load()
  Image.fromarray(np.zeros((height, width), np.uint8)).save(tmp_path / "mask.png")
  with pytest.raises(UserError, match=f"a: mask is {height}x{width}, clean 4x6"):
    paired.FilePair("a", clean, "g", cfg, clean, tmp_path / "mask.png").load()


@pytest.mark.parametrize("height, width", OTHERS)
def test_an_image_of_ones_own_folder_and_its_mask(tmp_path, height, width):
  Image.fromarray(np.zeros((height, width), np.uint8)).save(tmp_path / "m.png")
  member = types.SimpleNamespace(path=grey(tmp_path / "i.png", 4, 6), mask=tmp_path / "m.png")
  source = types.SimpleNamespace(_cfg={"image_size": (4, 6), "window": (0, 0)})
  with pytest.raises(UserError, match=f"i.png is 6x4 and its mask .*m.png is {width}x{height} pixels"):
    _own_images._Images._mask(source, member)


@pytest.mark.parametrize("height, width", OTHERS)
def test_regions_and_cells_of_a_slide(height, width):
  tiff = types.SimpleNamespace(_kind=(2, 1), _slide=types.SimpleNamespace(
      read_region=lambda *_, **__: np.zeros((height, width, 3), np.uint8)))
  with pytest.raises(engines.Broken, match=f"6x4 pixels asked, {width}x{height} came"):
    engines.TiffSlide.read(tiff, 0, 0, 0, 6, 4)
  with pytest.raises(UserError, match="are not of one slide"):
    cells._of_shape(np.zeros((height, width), bool), (4, 6))


@pytest.mark.parametrize("height, width", OTHERS)
def test_what_is_written_like_an_input(tmp_path, height, width):
  with pytest.raises(UserError, match="does not fit the grid"):
    nifti.write_like(tmp_path / "a.nii", np.zeros((height, width, 2), np.float32),
                     types.SimpleNamespace(shape=(4, 6, 2)))
  frame = types.SimpleNamespace(path=tmp_path / "a.png", pixels=np.zeros((1, 4, 6, 1), np.uint8))
  for pixels in (np.zeros((1, height, width, 1), np.uint8), np.zeros((1, 4, 6, 3), np.uint8),
                 np.zeros((2, 4, 6, 1), np.uint8), np.zeros((1, 4, 6, 1), np.uint16)):
    with pytest.raises(UserError, match="is not the form of the input"):
      images.write(frame, pixels, tmp_path / "out", "a")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("slices", [1, 3])
def test_a_volume_is_written_with_all_of_its_slices(tmp_path, slices):
  with pytest.raises(UserError, match="does not fit the grid"):
    nifti.write_like(tmp_path / "a.nii", np.zeros((4, 6, slices), np.float32),
                     types.SimpleNamespace(shape=(4, 6, 2)))


@pytest.mark.parametrize("shape, rows, columns", [((4, 8), (2, 6), (0, 8)), ((8, 2), (0, 8), (3, 5))])
def test_an_image_that_is_no_square_lies_unsqueezed_in_the_middle_of_one(shape, rows, columns):
  canvas = _own_images.on_canvas(np.ones((*shape, 1), np.float32), (8, 8))
  want = np.zeros((8, 8, 1))
  want[slice(*rows), slice(*columns)] = 1
  np.testing.assert_array_equal(canvas, want)
  np.testing.assert_array_equal(_own_images.off_canvas(canvas[..., 0], shape), np.ones(shape))


@pytest.mark.parametrize("shape", [(400, 150), (150, 400)])
@pytest.mark.parametrize("end", [np.s_[:60, :60], np.s_[-60:, -60:]])
def test_an_outline_at_either_end_of_a_long_mask(shape, end):
  mask = np.zeros(shape, bool)
  mask[end] = True
  assert not mask_images._is_outline(mask)
  mask[end][3:-3, 3:-3] = False
  assert mask_images._is_outline(mask)
