"""Grey conversion, resizing, splits and drawn marks against the public implementation's results."""

import json

import numpy as np
import pytest

from data_pipelines.formats import images
from data_pipelines.marks import reference
from data_pipelines.marks.font import text_polylines
from data_pipelines.marks.layers import Stroke, paint
from data_pipelines.ops import resize
from data_pipelines.pairs import splits
from tests import golden_cases

FAMILY = "annotation_removal"


def each(pattern):
  """Decorator: the test's argument `file` is each file of the family by pattern."""
  return pytest.mark.parametrize("file", golden_cases.file_cases(FAMILY, pattern))


def arrays(file):
  return np.load(file, allow_pickle=False)


def groups(z, prefix):
  return sorted({k.split("/")[0] for k in z.files if k.startswith(prefix)})


@each("preprocess*.npz")
def test_grey_and_resize(file):
  """Luminance exact; bilinear resizing within one grey level (README's tolerance)."""
  z = arrays(file)
  names = groups(z, "case")
  assert names
  for name in names:
    rgb = z[f"{name}/rgb"]
    grey = images.grey(rgb)
    np.testing.assert_array_equal(grey[..., 0], z[f"{name}/gray"])
    for image, key in ((grey, "gray_resized"), (rgb, "rgb_resized")):
      expected = z[f"{name}/{key}"].astype(int).reshape(*z[f"{name}/{key}"].shape[:2], -1)
      got = resize.unit_image(image.astype(np.float32) / 255, expected.shape[:2])
      assert np.abs(np.round(got * 255) - expected).max() <= 1, (name, key)


@each("preprocess*.npz")
def test_saved_bytes_are_rounded(file):
  z = arrays(file)
  unit = z["uint8/probability"]
  frame = images.Frame("", np.zeros((1, 1, 1, 1), np.uint8))
  np.testing.assert_array_equal(frame.stored(unit), z["uint8/rounded"])
  assert np.any(z["uint8/rounded"] != z["uint8/original_truncated"])  # the defect that is not repeated


@each("splits*.json")
def test_reference_splits(file):
  cases = json.loads(file.read_text())
  assert cases
  for name, expected in cases.items():
    count, share = name[1:].split("_val")
    train, val = splits.reference_split(int(count), float(share))
    assert train == expected["train"] and val == expected["val"], name


@each("drawing*.npz")
def test_calipers_are_exact(file):
  z = arrays(file)
  names = groups(z, "calipers")
  assert names
  for name in names:
    image = z["image_bgr"].copy()
    mask = reference.caliper_mask(z[f"{name}/points_row_col"], int(z[f"{name}/num_dots"]),
                                        image.shape[:2])
    image[mask] = z[f"{name}/colour_bgr"]
    np.testing.assert_array_equal(image, z[f"{name}/result_bgr"])


@each("drawing*.npz")
def test_region_is_exact(file):
  z = arrays(file)
  np.testing.assert_array_equal(reference.region(z["image_bgr"]), z["region_mask"] > 0)


@each("drawing*.npz")
@pytest.mark.parametrize("number, text", enumerate(("Rt. Ovary", "LL Ovary", "Li Ov", "Lt. Ovary")))
def test_text_has_the_reference_size(file, number, text):
  """The fonts differ; place and extent of the text agree within 15 % of its width and 3 px."""
  z = arrays(file)
  if f"text{number}/result_bgr" not in z:
    pytest.skip("no such text case")
  changed = np.argwhere((z[f"text{number}/result_bgr"] != z["image_bgr"]).any(-1))
  row, col = z[f"text{number}/point_row_col"]
  lines, _ = text_polylines(text, 11.0)
  layer = paint([Stroke(p + (col, row - 10), 2.0) for p in lines], z["image_bgr"].shape[:2],
                (1, 1, 1), antialias=False)
  own = np.argwhere(layer.alpha > 0) + (layer.top, layer.left)
  width = np.ptp(changed[:, 1])
  assert abs(np.ptp(own[:, 1]) - width) < 0.15 * width
  assert abs(own[:, 0].min() - changed[:, 0].min()) <= 3
