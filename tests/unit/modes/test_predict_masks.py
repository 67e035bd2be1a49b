"""predict and export use what val fixed: threshold, components, fitted weights, the checkpoint chosen."""

import json

import nibabel
import numpy as np
from PIL import Image
import pytest

from medae_jax import export, predict
from medae_jax.core import files
from tests.unit import fake_run, known_maps


def workdir(folder, calibration=None, gains=None, **fields):
  """A run of known_maps whose map of an image is its grey level in 0 ... 1, times the gain."""
  c = known_maps.config("")
  for name, value in fields.items():
    c.update_from_flattened_dict({name.replace("__", "."): value})
  run = known_maps.write(folder / "run", c, **(gains or {}))
  if calibration is not None:
    files.write_json(run / "calibration.json", calibration)
  return run


def picture(folder, scale=1):
  """8x8 (times scale): a lesion of 4x4 at 0.8, a blob of 2x3 at 0.6 and a pixel row at 0.4."""
  image = np.zeros((8, 8))
  image[4:8, 4:8], image[0:2, 0:3], image[0, 5:8] = 0.8, 0.6, 0.4
  (folder / "in").mkdir()
  grey = np.round(255 * image.repeat(scale, 0).repeat(scale, 1)).astype(np.uint8)
  Image.fromarray(grey).save(folder / "in/x.png")
  return grey / 255


def predicted(run, folder, **more):
  """(row of the CSV, map, mask or None)."""
  out = folder / "out"
  rows = predict.predict(run, {"predict.input": str(folder / "in"), "predict.output": str(out),
                               "predict.overlay_slices": 0, **more})
  mask = out / "x_mask.png"
  return (rows[0], np.asarray(Image.open(out / "x_anomaly.tif")),
          np.asarray(Image.open(mask)) > 0 if mask.exists() else None)


@pytest.mark.parametrize("limit,kept", [(5, True), (6, False)])
def test_components_of_the_calibration_are_deleted_from_the_mask_only(tmp_path, limit, kept):
  """As evaluate counts them; config.eval.components (0 here) was replaced by what val used."""
  run = workdir(tmp_path, {"threshold": 0.5, "components": limit})
  grey = picture(tmp_path)
  row, found, mask = predicted(run, tmp_path)
  np.testing.assert_allclose(found, grey, atol=1e-6)       # the map itself stays whole
  want = grey > 0.5
  want[0:2, 0:3] &= kept
  np.testing.assert_array_equal(mask, want)
  assert row["mask_pixels"] == want.sum() and row["threshold"] == 0.5


def test_a_threshold_of_ones_own_wins(tmp_path):
  run = workdir(tmp_path, {"threshold": 0.5, "components": 0, "image_threshold": 0.9})
  grey = picture(tmp_path)
  row, _, mask = predicted(run, tmp_path, **{"predict.threshold": 0.7})
  np.testing.assert_array_equal(mask, grey > 0.7)
  assert row["threshold"] == 0.7 and row["called_abnormal"] == 0
  _, _, mask = predicted(run, tmp_path, **{"predict.threshold": float(np.float32(grey.max()))})
  assert not mask.any()                                    # above the threshold, not at it


def test_image_threshold_is_that_of_the_calibration(tmp_path):
  grey = picture(tmp_path)
  for cut, called in ((grey.mean() - 0.01, 1), (grey.mean() + 0.01, 0)):
    run = workdir(tmp_path / f"{called}", {"threshold": 0.5, "image_threshold": float(cut)})
    row, _, _ = predicted(run, tmp_path)
    assert row["called_abnormal"] == called and row["score"] == pytest.approx(grey.mean(), abs=1e-5)


def test_without_calibration_the_components_of_the_config_count(tmp_path):
  run = workdir(tmp_path, eval__components=6)
  grey = picture(tmp_path)
  _, _, mask = predicted(run, tmp_path, **{"predict.threshold": 0.5})
  want = grey > 0.5
  want[0:2, 0:3] = False
  np.testing.assert_array_equal(mask, want)


def test_mask_lies_on_the_pixels_of_the_file(tmp_path):
  """Three times the model's size: the mask has the file's size, at the same places."""
  run = workdir(tmp_path, {"threshold": 0.5, "components": 6})
  grey = picture(tmp_path, 3)
  _, found, mask = predicted(run, tmp_path)
  assert found.shape == mask.shape == grey.shape == (24, 24)
  assert mask[13:, 13:].all() and not mask[:11, :].any() and not mask[:, :11].any()


def test_components_are_those_of_the_volume(tmp_path):
  """Two voxels in each of three slices are one component of six."""
  volume = np.full((8, 8, 5), 50, np.int16)
  volume[:2] = 0
  volume[4, 3:5, 1:4] = 90
  volume[6:8, 6:8, :] = 100                                # 20 voxels: the unit of intensity
  (tmp_path / "in").mkdir()
  nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "in/p_flair.nii.gz")
  for limit, kept in ((5, True), (6, False)):
    run = workdir(tmp_path / str(limit), {"threshold": 0.7, "components": limit},
                  data__name="tests.unit.known_maps")
    config = json.loads((run / "config.json").read_text())
    config["data"]["modalities"] = ["flair"]
    files.write_json(run / "config.json", config)
    rows = predict.predict(run, {"predict.input": str(tmp_path / "in"), "predict.batch_size": 2,
                                 "predict.output": str(run / "out"), "predict.overlay_slices": 0})
    mask = np.asarray(nibabel.load(run / "out/p_mask.nii.gz").dataobj) > 0
    want = volume == 100
    want |= kept & (volume == 90)
    np.testing.assert_array_equal(mask, want)
    assert rows[0]["mask_voxels"] == want.sum()
    found = np.asarray(nibabel.load(run / "out/p_anomaly.nii.gz").dataobj)
    np.testing.assert_allclose(found[4, 3, 2] / found[7, 7, 2], 0.9, rtol=1e-5)
    # five slices in batches of two: the sixth, a copy of the last, counts nowhere
    assert rows[0]["slices"] == 5 and rows[0]["score_mean"] == pytest.approx(found.mean(), rel=1e-5)
    assert rows[0]["score"] == pytest.approx(found.mean((0, 1)).max(), rel=1e-5)


@pytest.mark.parametrize("which,gain", [("best", 2.0), ("last", 1.0)])
def test_checkpoint_is_the_one_of_the_config(tmp_path, which, gain):
  run = workdir(tmp_path, {"threshold": 0.5}, {"last": 1.0, "best": 2.0}, eval__checkpoint=which)
  grey = picture(tmp_path)
  _, found, _ = predicted(run, tmp_path)
  np.testing.assert_allclose(found, gain * grey, atol=1e-5)
  other = {"best": "last", "last": "best"}[which]
  _, found, _ = predicted(run, tmp_path, **{"eval.checkpoint": other})
  np.testing.assert_allclose(found, (3 - gain) * grey, atol=1e-5)


def test_weights_fitted_on_val_are_in_use(tmp_path):
  """Of three channels only green counts: the map is its excess over 0.6."""
  c = fake_run.config(splits=("test",), modalities=(), image_size=(16, 20), channels=3)
  c.method.score.update(erosion=0, median=0)
  run = fake_run.write(tmp_path / "run", c)
  files.write_json(run / "calibration.json", {"threshold": 0.1, "components": 0, "score": {
      "weights_positive": [0.0, 3.0, 0.0], "weights_negative": [0.0, 0.0, 0.0]}})
  image = np.full((16, 20, 3), 50, np.uint8)
  image[2:6, 2:6, 0], image[8:12, 8:12, 1] = 255, 255
  (tmp_path / "in").mkdir()
  Image.fromarray(image).save(tmp_path / "in/x.png")
  _, found, mask = predicted(run, tmp_path)
  want = np.maximum(image[..., 1] / 255 - 0.6, 0)
  np.testing.assert_allclose(found, want, atol=1e-6)
  np.testing.assert_array_equal(mask, want > 0.1)


# ----------------------------------------------------------------------------------------- export
@pytest.mark.parametrize("which,gain", [("best", 2.0), ("last", 1.0)])
def test_export_takes_the_checkpoint_of_the_config(tmp_path, which, gain):
  calibration = {"threshold": 0.5, "components": 6}
  run = workdir(tmp_path, calibration, {"last": 1.0, "best": 2.0}, eval__checkpoint=which)
  folder = export.export(run)
  image = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
  np.testing.assert_allclose(export.load(folder)({"image": image})["map"], gain * image, rtol=1e-6)
  manifest = json.loads((folder / "manifest.json").read_text())
  assert manifest["checkpoint"]["which"] == which and manifest["calibrated"] is True
  assert json.loads((folder / "calibration.json").read_text()) == calibration


def test_a_whole_table_says_that_everything_is_there(tmp_path, monkeypatch):
  """A kill while the page is made leaves "not finished" in the table; a fault of the page loses no row."""
  picture(tmp_path)
  run, table, seen = workdir(tmp_path), tmp_path / "out/predictions.csv", []
  def broken(*args):
    seen.append(table.read_text())
    raise OSError("no space left")
  monkeypatch.setattr(predict.pages, "write", broken)
  with pytest.raises(OSError, match="no space left"):
    predicted(run, tmp_path)
  assert "not finished" in seen[0] and (tmp_path / "out/x_anomaly.tif").is_file()
  assert "not finished" not in table.read_text() and "\nx," in table.read_text()
