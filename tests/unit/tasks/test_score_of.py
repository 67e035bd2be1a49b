"""A Score out of predict's files of every task, and out of the outputs of a method."""

import ml_collections
import numpy as np

from data_pipelines.formats import images, nifti
from medae_jax.core import files
from medae_jax.tasks import score_of
from medae_jax.tasks.segmentation import predictor

PICTURE = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


def test_files_of_segmentation(tmp_path):
  probability, mask = np.array([[0, 51], [255, 204]], np.uint8), np.array([[0, 0], [255, 255]], np.uint8)
  files.write_png(tmp_path / "a_b_prob.png", probability)
  files.write_png(tmp_path / "a_b_mask.png", mask)
  found = score_of.files(tmp_path, {"threshold": 0.5})
  np.testing.assert_allclose(found.map, [[0, 0.2], [1, 0.8]], atol=1e-6)
  np.testing.assert_array_equal(found.mask, [[False, False], [True, True]])
  assert (found.score, found.threshold, found.picture, found.affine) == (None, 0.5, None, None)


def test_files_of_restoration(tmp_path):
  files.write_png(tmp_path / "x.png", PICTURE)
  files.write_png(tmp_path / "masks/x_mask.png", np.array([[255, 0]], np.uint8))
  files.write_png(tmp_path / "compare/x.png", PICTURE[:2])
  found = score_of.files(tmp_path, {"output": "x.png", "mask": "masks/x_mask.png"})
  np.testing.assert_array_equal(found["restored"], PICTURE)
  np.testing.assert_array_equal(found.mask, [[True, False]])
  assert found.picture == (tmp_path / "compare/x.png").read_bytes() and found.map is None


def test_files_of_anomalies(tmp_path):
  volume, place = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4), np.diag([-2.0, 3.0, 4.0, 1.0])
  nifti.write(tmp_path / "p_anomaly.nii.gz", volume, place)
  nifti.write(tmp_path / "p_mask.nii.gz", (volume > 0.5).astype(np.uint8), place)
  files.write_png(tmp_path / "p_overlay.png", PICTURE)
  found = score_of.files(tmp_path, {"score": 0.7, "called_abnormal": 1, "p_value": 0.1, "warning": "odd"})
  np.testing.assert_array_equal(found.map, volume)
  np.testing.assert_array_equal(found.mask, volume > 0.5)
  np.testing.assert_array_equal(found.affine, place)
  assert (found.verdict, found.p_value, found.warning) == ("abnormal", 0.1, "odd") and found.picture
  (tmp_path / "flat").mkdir()
  images.write_array(tmp_path / "flat/q_anomaly.tif", volume[0])
  alone = score_of.files(tmp_path / "flat", {"score": 0.2, "called_abnormal": 0})
  np.testing.assert_array_equal(alone.map, volume[0])
  assert alone.verdict == "normal" and alone.mask is None


def test_small_components_go_image_by_image():
  maps = np.zeros((2, 6, 6, 1), np.float32)
  maps[0, 1, 1:3], maps[1, 2:5, 2:5] = 1, 1  # two pixels, and nine
  config = ml_collections.ConfigDict({"predict": {"threshold": 0.0}, "eval": {"components": 3}})
  outputs = {"map": maps, "score": np.array([0.2, 0.9])}
  found = score_of.arrays(config, {"threshold": 0.5, "image_threshold": 0.5}, outputs, single=False)
  assert found.mask.sum((1, 2)).tolist() == [0, 9] and found.verdict == ["normal", "abnormal"]
  assert score_of.arrays(config, None, outputs, single=False).mask is None
  logits = {"logit": np.full((1, 2, 2, 1), np.log(3.0)), "score": np.array([0.1])}
  np.testing.assert_allclose(score_of.arrays(config, None, logits, single=True).map, 0.75)


def test_ground_truths_beside_the_images_of_a_folder_are_no_inputs(tmp_path):
  """ISIC's archives have both in one folder; what is given alone is meant."""
  alone = "ISIC_2_Segmentation.PNG"
  for name in ("ISIC_1.jpg", "ISIC_1_segmentation.png", alone, "ISIC_3.png", "ISIC_3_mask.png"):
    (tmp_path / name).touch()
  config = ml_collections.ConfigDict({"predict": {"threshold": 0.0}, "data": {}})
  found = predictor.Predictor(config, {"threshold": 0.25}, None)
  assert [p.name for p in found.find_inputs(tmp_path)] == ["ISIC_1.jpg", "ISIC_3.png"]
  assert [p.name for p in found.find_inputs(tmp_path / alone)] == [alone]
  thresholds = {given: predictor.Predictor(ml_collections.ConfigDict(
      {"predict": {"threshold": given[0]}, "data": {}}), given[1] and {"threshold": given[1]}, None).threshold
                for given in ((0.0, 0.25), (0.75, 0.25), (0.0, None), (0.0, 0.0))}
  assert list(thresholds.values()) == [0.25, 0.75, 0.5, 0.5]
