"""The slices that the page shows of a volume: turned for the eye, with their mm, in grey that fits."""

import types

import ml_collections
import nibabel
import numpy as np
import pytest

from medae_jax import serve
from medae_jax.reporting.results import Score
from medae_jax.tasks import view as views
from tests.stored_volumes import NAMES, egg, stored, write

OBLONG = np.diag([-2.0, -3, 5, 1])  # mm of columns, rows and slices of a picture


def shown(folder, codes, known=True):
  """The view of the egg stored towards `codes`; its map is the second modality."""
  arrays, affines = zip(*(stored(v, codes, OBLONG) for v in egg()))
  write(folder, arrays, affine=affines[0], codes=(1, 1) if known else (0, 0))
  config = ml_collections.ConfigDict({
      "data": {"modalities": NAMES, "orientation": "LPS"}, "predict": {"orientation": ""},
      "eval": {"kind": "anomaly"}})
  score = Score(map=arrays[1].astype(np.float32), mask=arrays[1] > 600, score=1.0, affine=affines[0],
                row={"highest_slice": 6})
  return views.of(folder, config, None, score)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL", "PIR"])
def test_a_volume_is_shown_as_radiologists_look_however_it_is_stored(tmp_path, codes):
  found, (flair, t1) = shown(tmp_path, codes), egg()
  upright = lambda volume: np.moveaxis(volume, (2, 1, 0), (0, 1, 2))  # [Z, rows, columns] of LPS
  assert found.image.shape == (9, 52, 40) and found.pixel == (3, 2) and found.sides
  assert found.ml == pytest.approx(2 * 3 * 5 / 1000) and found.first == 6
  np.testing.assert_array_equal(found.image, views._grey(upright(flair)))
  np.testing.assert_array_equal(found.mask, upright(t1) > 600)
  level = found.low + found.levels / 65535 * (found.high - found.low)
  np.testing.assert_allclose(level, upright(t1), atol=0.02)


def test_where_a_header_is_silent_nobody_knows_mm_and_sides(tmp_path):
  found = shown(tmp_path, "LPS", known=False)
  assert found.pixel == (1, 1) and not found.sides
  assert nibabel.load(tmp_path / "p_flair.nii.gz").header["sform_code"] == 0


def test_grey_ends_at_the_brightest_of_what_is_not_background_and_black_is_zero():
  image = np.zeros((100, 100))
  image[:20, :50] = np.linspace(200, 400, 1000).reshape(20, 50)
  found = views._grey(image)
  assert found[50, 50] == 0 and found[19, 49] == 255 and found[0, 0] == round(255 * 200 / 399)
  assert (found[:20, :50] == 255).mean() < 0.02
  image[:20, :50] -= 300  # of values below zero the darkest are black
  found = views._grey(image)
  assert found[:20, :50].min() == 0 and 0 < found[50, 50] < 255


@pytest.mark.parametrize("kind, needs, sizes", [
    ("anomaly", ("image",), [5]), ("segmentation", ("image",), [1]), ("restoration", ("image",), []),
    ("anomaly", ("image", "mask"), [])])
def test_a_server_compiles_before_the_first_request_what_predict_will_ask_for(kind, needs, sizes):
  seen = []
  run = types.SimpleNamespace(
      config=ml_collections.ConfigDict({"eval": {"kind": kind}, "predict": {"batch_size": 5}}),
      method=types.SimpleNamespace(score_needs=needs), image_shape=(4, 6, 2), score_fn=None,
      score=lambda images: seen.append(images.shape))
  serve.warm(run)
  assert seen == [(n, 4, 6, 2) for n in sizes]
