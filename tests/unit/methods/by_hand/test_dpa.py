"""DPA around its networks, which are stubs here: growing, caching, what an export keeps, pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core import method as method_lib
from medae_jax.core.method import State
from medae_jax.methods import dpa
from tests.unit.methods import test_dpa


def names(*resolutions):
  """An encoder's parameters as far as they say the stage: two resolutions are a transition."""
  return {"enc": {f"from_image_{r}": jnp.zeros(1) for r in resolutions}, "dec": {"a": jnp.zeros(1)}}


def test_growing_keeps_what_has_a_name_already(monkeypatch):
  """Parameters and statistics of normalisation; only new blocks begin anew."""
  method = dpa.Method(test_dpa.config())
  fresh = {"from_image_16": jnp.zeros(1), "from_image_32": jnp.zeros(1)}
  monkeypatch.setattr(method, "_fresh", lambda rng, shape, name: (
      {"enc": dict(fresh), "dec": {"a": jnp.zeros(1)}}, {"enc": dict(fresh)}))
  monkeypatch.setattr(method, "_vgg_stats", lambda params, res: {})
  old = {"enc": {"from_image_16": jnp.ones(1)}, "dec": {"a": jnp.ones(1)}}
  state = State.create({**old, "vgg": {}}, {"enc": {"from_image_16": jnp.ones(1)}})
  stage = method_lib.stages_of(method)[1]
  new = method.grow(state, stage, None, {"image": np.zeros((1, 32, 32, 1))})
  for tree in (new.params["enc"], new.stats["enc"]):
    assert tree["from_image_16"] == 1 and tree["from_image_32"] == 0
  assert new.params["dec"]["a"] == 1


@pytest.mark.parametrize("resolutions, on, kept", [
    ((32,), True, True), ((16, 32), True, False), ((16,), True, False), ((32,), False, False)])
def test_features_are_cached_where_a_stage_sees_the_images_themselves(resolutions, on, kept, monkeypatch):
  method = dpa.Method(test_dpa.config(**{"method.cache_features": on}))
  monkeypatch.setattr(method.perceptual, "cache", lambda params, arrays, res: {**arrays, "feature": res})
  found = method.cache(State.create(names(*resolutions)), {"image": 0}, None)
  assert found == ({"image": 0, "feature": 32} if kept else {"image": 0})


@pytest.mark.parametrize("smooth", [False, True])
def test_an_export_of_a_transition_keeps_the_statistics_that_its_score_reads(smooth):
  method = dpa.Method(test_dpa.config(**{"method.smooth_pg": smooth}))
  assert method.perceptual.running
  trunk = {"vgg": {"trunk": method.perceptual.source.zeros(method.perceptual.layers)}}
  widths = method.perceptual.widths(trunk)
  stats = {k: v for r in (16, 32) for k, v in method.perceptual.init_stats(r, widths).items()}
  kept = method.inference_state(State.create({**names(16, 32), **trunk}, stats))
  assert sorted(kept.stats) == (["vgg_16", "vgg_32"] if smooth else ["vgg_32"])


def test_pictures_go_from_minus_one_and_one_to_black_and_white(monkeypatch):
  method, image = dpa.Method(test_dpa.config()), jnp.asarray([-1.0, 0, 1, 3]).reshape(1, 2, 2, 1)
  monkeypatch.setattr(method, "_published", lambda state, batch: {"recon": -image, "map": jnp.abs(image)})
  found = {k: np.ravel(v) for k, v in method.pictures(None, {"image": image}, None).items()}
  want = {"image": [0, 0.5, 1, 1], "recon": [1, 0.5, 0, 0], "map": [0.5, 0, 0.5, 1]}
  jax.tree.map(np.testing.assert_allclose, found, {k: np.array(v) for k, v in want.items()})


@pytest.mark.parametrize("loss, ends", [(0.9e6, False), (1.1e6, True)])
def test_a_loss_beyond_a_million_ends_training(loss, ends, monkeypatch):
  """Infinity is where the loop stops; the network here is one number."""
  method = dpa.Method(test_dpa.config("dpa_cifar10", **{"method.loss": "l1"}))
  nets = {"enc": {"from_image_16": jnp.ones(1)}, "dec": {"a": jnp.ones(1)}}
  state = State.create(nets, opt={"ae": method._tx["ae"].init(nets)})
  monkeypatch.setattr(method, "_reconstruct", lambda params, stats, image, *_, **kw: (
      image + params["dec"]["a"] * loss, {}))
  batch = {"image": np.zeros((2, 16, 16, 3), np.float32)}
  monkeypatch.setattr(method.perceptual, "real", lambda *args: {})
  monkeypatch.setattr(method.perceptual, "update_stats", lambda stats, *args: stats)
  _, metrics = method._autoencoder_step(state, batch, None, 1.0, None)
  assert np.isinf(metrics["loss"]) == ends
  np.testing.assert_allclose(metrics["rec_loss"], loss, rtol=1e-4)
