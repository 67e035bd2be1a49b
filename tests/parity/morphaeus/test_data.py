"""Images of the published code of MorphAEus: two preparations, 1e-6 (the one through Pillow exact)."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.chest import listing
from data_pipelines.datasets import chest_xray
from data_pipelines.fields import changed
from tests.golden_cases import file_cases


def _plain(path, cfg):
  return chest_xray._plain(listing.Radiograph(path.name, str(path)), cfg)


@pytest.mark.parametrize("file", file_cases("morphaeus", "preprocess*.npz"))
def test_preparations(file, tmp_path):
  z = np.load(file)
  for name in ("gray", "rgb"):
    pixels = z[f"{name}_u8"].transpose(1, 2, 0)
    Image.fromarray(pixels.squeeze()).save(tmp_path / f"{name}.png")
    expected = z[f"{name}_train_noantialias"].transpose(1, 2, 0)
    cfg = chest_xray.resolve(changed(chest_xray.defaults(), preparation="published",
                                     image_size=expected.shape[0]))
    np.testing.assert_allclose(_plain(tmp_path / f"{name}.png", cfg), expected, atol=1e-6)
  scored = chest_xray.read_example(tmp_path / "gray.png", cfg)
  np.testing.assert_array_equal(scored, z["gray_eval_pil"].transpose(1, 2, 0))


def test_csv_split_files_of_the_paper(tmp_path):
  """A header, a path a line (CRLF), findings as kinds; a list of positives that is missing is left out."""
  names = {"cxr_normal_train.csv": 3, "cxr_normal_val.csv": 1, "cxr_normal_test.csv": 2,
           "cxr_opa_test.csv": 2}
  (tmp_path / "images").mkdir()
  for file, n in names.items():
    lines = [f"./images/{file[4:-4]}-{i}.png" for i in range(n)]
    (tmp_path / file).write_text("\r\n".join(["filename", *lines]) + "\r\n")
    for i, line in enumerate(lines):
      Image.fromarray(np.full((9, 9), 20 * i, np.uint8)).save(tmp_path / line)
  cfg = changed(chest_xray.defaults(), layout="lists", lists_root=str(tmp_path), image_root=str(tmp_path),
                image_size=8)
  data = chest_xray.build(cfg, 0)
  assert [len(data.lists[k]) for k in ("train", "val_normal", "test_normal", "test_anomaly")] == [3, 1, 2, 2]
  assert {i.kind for i in data.lists["test_anomaly"]} == {"lung opacity"}
  source = data.split("test")
  assert [int(source.read_one(i)["label"]) for i in range(4)] == [0, 0, 1, 1]
  assert source.read_one(1)["image"].max() == pytest.approx(20 / 255)
