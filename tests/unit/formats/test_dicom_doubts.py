"""DICOM files whose header does not fit their pixels."""

import numpy as np
import pydicom
import pytest

from data_pipelines.errors import UserError
from data_pipelines.formats import images
from tests.image_files import dicom
from tests.unit.formats.test_dicom import GREY, SIGNED


@pytest.mark.parametrize("more, refused", [(bytes(24), False), (bytes(23) + b"\1", True)])
def test_more_pixels_than_rows_and_columns_say(tmp_path, more, refused):
  """They were cut off: a picture without its last row, or sheared where Columns is wrong."""
  path = dicom(tmp_path / "a.dcm", GREY)
  data = pydicom.dcmread(path)
  data.PixelData += more
  data.save_as(path)
  if not refused:  # a block that is filled up
    return np.testing.assert_array_equal(images.read_8bit(path, 1)[..., 0], GREY)
  with pytest.raises(UserError, match="24 bytes more than 9 x 12 pixels take"):
    images.read(path)


@pytest.mark.parametrize("fields", [
    dict(WindowCenter=-3000, WindowWidth=100), dict(WindowCenter=9000, WindowWidth=10),
    dict(WindowCenter=90000, WindowWidth=100, VOILUTFunction="SIGMOID"),
    dict(WindowCenter=-3000, WindowWidth=100, VOILUTFunction="LINEAR_EXACT", RescaleSlope=2,
         RescaleIntercept=9)])
def test_a_window_beside_all_values_leaves_open_what_is_shown(tmp_path, fields):
  """It gave a picture that is black or white all over, without a word."""
  path = dicom(tmp_path / "a.dcm", SIGNED, **fields)
  frame = images.read(path)
  assert "lies beside all of its values" in frame.unsaid and "config.data.window" in frame.unsaid
  assert frame.unit().std() > 0  # of restoration: the whole range
  with pytest.raises(UserError, match="lies beside all of its values"):
    images.read_unit(path)
  assert images.read_unit(path, 0, (-900, 900)).std() > 0.1
  flat = dicom(tmp_path / "b.dcm", np.zeros((9, 12), np.int16), **fields)
  assert not images.read(flat).unsaid  # one value all over is one grey in any window
