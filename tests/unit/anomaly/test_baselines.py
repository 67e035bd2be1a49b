"""Detectors without a network: the filters that each has gone through, and that they are the ones to beat."""

import numpy as np
import pytest
from scipy import ndimage

from medae_jax.metrics import dictionary
from medae_jax.tasks.anomaly import baselines, evaluator
from tests.unit import known_maps
from tests.unit.tasks.test_intervals_and_components import _Data


def _config(**score):
  c = known_maps.config("")
  with c.unlocked():
    c.method.score, c.eval.bootstrap = score, 50
  return c.lock()


@pytest.fixture(scope="module")
def brains():
  """Four slices of two channels, background on the left; the second channel has other values."""
  image = np.random.default_rng(0).uniform(0.2, 0.6, (4, 12, 12, 2)).astype(np.float32)
  image[:, :, :3] = 0
  return image


def test_smoothed_along_edges_where_the_model_is(brains):
  c = _config(image_score="foreground_mean", guided=2, guided_eps=1e9, guide_channel=1)  # box means
  maps, scores = baselines.maps_and_scores(c)(brains)
  assert set(maps) == set(scores) == set(baselines.names(c))
  body = (brains.sum(-1) > 0.01).astype(float)
  boxes = lambda x: ndimage.uniform_filter(x * body, (0, 5, 5), mode="constant") / np.maximum(
      ndimage.uniform_filter(body, (0, 5, 5), mode="constant"), 1e-9)
  smooth = np.stack([ndimage.median_filter(m, 5, mode="mirror") for m in brains[..., 0] * body])
  want = boxes(boxes(smooth)) * body
  np.testing.assert_allclose(maps["intensity_guided"][..., 0], want, atol=1e-5)
  np.testing.assert_allclose(scores["intensity_guided"], want.sum((1, 2)) / body.sum((1, 2)), rtol=1e-4)


def test_edges_are_those_of_the_models_channel(brains):
  at = lambda channel: baselines.maps_and_scores(_config(guided=2, guided_eps=1e-3, guide_channel=channel))(
      brains)[0]["intensity_guided"]
  assert np.abs(at(0) - at(1)).max() > 1e-3


@pytest.mark.parametrize("field, value", [
    ("eval.baseline_channel", 1), ("method.score.image_score", "max"), ("method.score.guided", 3),
    ("method.score.guided_eps", 1e-2), ("method.score.guide_channel", 1)])
def test_splits_share_a_program_that_every_field_changes(field, value):
  fields = dict(image_score="mean", guided=2, guided_eps=1e-3, guide_channel=0)
  one, same, other = (_config(**fields) for _ in range(3))
  assert baselines.maps_and_scores(one) is baselines.maps_and_scores(same)
  with other.unlocked():
    other.update_from_flattened_dict({field: value})
  assert baselines.maps_and_scores(one) is not baselines.maps_and_scores(other)


@pytest.mark.parametrize("channel", [0, 1])
def test_the_threshold_is_on_the_channel_that_is_asked_for(brains, channel):
  c = _config()
  with c.unlocked():
    c.eval.baseline_channel = channel
  body = brains.sum(-1) > 0.01
  np.testing.assert_allclose(baselines.maps_and_scores(c)(brains)[0]["intensity"][..., 0],
                             brains[..., channel] * body, atol=1e-6)


def test_without_the_filter_there_are_the_two_that_always_were(brains):
  for c in (_config(), _config(guided=0)):
    assert set(baselines.maps_and_scores(c)(brains)[0]) == {"intensity", "intensity_median5"}


def test_the_filtered_threshold_is_beaten_or_not_as_the_others():
  rng = np.random.default_rng(1)
  mask = np.zeros((6, 12, 12, 1), np.float32)
  mask[:, 4:9, 4:9] = 1
  noise = rng.normal(0, 0.12, mask.shape).clip(-0.25)
  image = np.concatenate([0.3 + 0.2 * mask + noise, 0.3 + 0.2 * mask], -1).astype(np.float32)  # clean edges
  data = _Data({"image": image, "mask": mask}, [{"id": str(i), "patient": str(i // 2)} for i in range(6)])
  judge = evaluator.Evaluator(_config(guided=2, guided_eps=1e-3, guide_channel=1), data, "test", None)
  judge.update({"image": image, "mask": mask, "position": np.arange(6), "valid": np.ones(6, bool)},
               {"map": image[..., :1], "score": image.mean((1, 2, 3))})
  found = judge.result()
  ap = {e: found["baseline"][f"pixel_ap{e}"] for e in dictionary.BASELINES}
  assert ap["_guided"] > ap["_median5"] > ap[""] == found["pixel_ap"]
  assert found["model_better_by"]["difference"] == pytest.approx(ap[""] - ap["_guided"])
  assert found["model_better"] is False
  assert found["ci95"]["pixel_ap_minus_baseline"][1] < ap[""] - ap["_median5"]
