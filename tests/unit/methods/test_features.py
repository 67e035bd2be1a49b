"""Features of a frozen backbone and the forest on them: methods/_features.py, methods/deep_if.py."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from configs import deep_if_cifar10
from medae_jax.core import method as method_lib, scoring
from medae_jax.core.errors import UserError
from medae_jax.methods import _features, deep_if
from medae_jax.scores import forest

SIZE = 16


def config(**fields):
  c = deep_if_cifar10.get_config("smoke,taps=r11+r22,size=0").copy_and_resolve_references()
  with c.unlocked():
    c.method.forest.update(trees=5, samples=8)
    c.method.update(fields)
  return c.lock()


def grey_levels(n, size=SIZE, channels=3, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), np.uint8)


def unit(levels):
  """Grey levels as the data sets give them: float32 in [-1, 1]."""
  return (levels.astype(np.float32) / 255 - 0.5) / 0.5


def batches(image, size=4):
  for begin in range(0, len(image), size):
    part = image[begin:begin + size]
    valid = np.arange(size) < len(part)
    yield {"image": np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)]), "valid": valid}


def state_of(c):
  method = deep_if.Method(c)
  return method, method_lib.fresh_state(method, jax.random.key(0), {"image": unit(grey_levels(2))})


@pytest.fixture(scope="module")
def made():
  """(method, its state) without a cache."""
  return state_of(config())


def test_pooled_features_are_means_of_the_maps_in_the_order_of_the_taps(made):
  method, state = made
  image = unit(grey_levels(2))
  maps = method.features.maps(state.params, image)
  assert list(maps) == ["r11", "r22"]
  pooled = np.asarray(method.features.pooled(state.params, image))
  want = np.concatenate([np.asarray(maps[t], np.float64).mean((1, 2)) for t in maps], 1)
  np.testing.assert_allclose(pooled, want, rtol=1e-5, atol=1e-6)
  assert pooled.std() > 0


@pytest.mark.parametrize("other", [
    {"size": 20}, {"eight_bit": False}, {"dtype": "bfloat16"}, {"backbone": "vgg19"}])
def test_kept_features_are_of_one_preparation(other, tmp_path):
  """What changes the numbers beside pixels and weights changes the key."""
  plain, changed = (_features.Features(config(**{"cache": str(tmp_path), "eight_bit": True, **f}))
                    for f in ({}, other))
  assert plain._cache._options != changed._cache._options


def test_grey_images_are_repeated(made):
  method, state = made
  grey = unit(grey_levels(2, channels=1))
  one, three = (method.features.pooled(state.params, x) for x in (grey, np.repeat(grey, 3, -1)))
  np.testing.assert_array_equal(one, three)


def test_resized_on_the_device_as_by_pillow_before(made):
  method, state = made
  large = grey_levels(2, 2 * SIZE + 3)
  small = np.stack([np.asarray(Image.fromarray(x).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
                    for x in large])
  resizing = _features.Features(config(size=SIZE))
  np.testing.assert_allclose(resizing.pooled(state.params, unit(large)),
                             method.features.pooled(state.params, unit(small)), rtol=1e-4, atol=1e-5)


def test_rows_are_those_of_the_valid_images_in_their_order(made):
  method, state = made
  image = unit(grey_levels(6))
  rows = method.features.rows(state, batches(image))
  assert rows.dtype == np.float32 and isinstance(rows, np.memmap)
  np.testing.assert_allclose(rows, method.features.pooled(state.params, image), rtol=1e-5, atol=1e-6)
  with pytest.raises(UserError, match="no normal images"):
    method.features.rows(state, [])


def test_bfloat16_is_close(made):
  method, state = made
  image = unit(grey_levels(2))
  narrow = _features.Features(config(dtype="bfloat16")).pooled(state.params, image)
  assert narrow.dtype == jnp.float32
  full = np.asarray(method.features.pooled(state.params, image))
  assert 0 < np.abs(np.asarray(narrow) - full).max() < 0.02 * np.abs(full).max()


def test_the_score_is_the_forest_s_and_seeds_grow_forests_of_their_own(made):
  method, state = made
  image, test = unit(grey_levels(12)), unit(grey_levels(3, seed=1))
  fitted = method.finalize(state, batches(image))
  rows = method.features.pooled(state.params, test)
  want = forest.score(fitted.extra["forest"], rows)
  np.testing.assert_allclose(method.score(fitted, {"image": test})["score"], want, rtol=1e-6)
  assert np.isnan(method.score(state, {"image": test})["score"]).all()  # nothing was fitted yet
  other = config().copy_and_resolve_references()
  other.seed += 1
  refitted = deep_if.Method(other).finalize(state, batches(image))
  assert not np.array_equal(refitted.extra["forest"]["feature"], fitted.extra["forest"]["feature"])


def test_a_cache_changes_no_number_and_is_asked_first(made, tmp_path, monkeypatch):
  method, state = made
  image, test = unit(grey_levels(12)), unit(grey_levels(4, seed=1))
  c = config(cache=str(tmp_path / "kept"))
  keeping = deep_if.Method(c)
  fitted, plain = (m.finalize(state, batches(image)) for m in (keeping, method))
  scores = scoring.score_fn(c, fitted)({"image": test})["score"]
  np.testing.assert_array_equal(scores, scoring.score_fn(config(), plain)({"image": test})["score"])
  monkeypatch.setattr(_features.Features, "maps", None)  # the backbone runs no more
  again = deep_if.Method(c).finalize(state, batches(image))
  np.testing.assert_array_equal(again.extra["forest"]["path"], fitted.extra["forest"]["path"])
  np.testing.assert_array_equal(scoring.score_fn(c, again)({"image": test})["score"], scores)


@pytest.mark.parametrize("text, want", [("r22+r11", ("r22", "r11")), (" r11 , r22", ("r11", "r22"))])
def test_taps(text, want):
  assert _features.Features(config(taps=text)).taps == want


@pytest.mark.parametrize("fields, text", [
    ({"taps": "r99"}, "config.method.taps='r99': vgg16 has"), ({"taps": "r11+r11"}, "each once"),
    ({"taps": ""}, "config.method.taps=''"), ({"dtype": "float16"}, "config.method.dtype"),
    ({"forest": {"trees": 0}}, "config.method.forest.trees"),
    ({"forest": {"samples": 1}}, "config.method.forest.samples"), ({"size": -1}, "config.method.size"),
    ({"backbone": "vgg"}, "vgg16")])
def test_what_is_refused(fields, text):
  with pytest.raises(UserError, match=text):
    deep_if.Method(config(**fields))


@pytest.mark.parametrize("shape, text", [((2, SIZE, SIZE, 2), "2 channels"),
                                         ((2, 4, 4, 3), "pixels or more")])
def test_images_that_the_backbone_cannot_take(made, shape, text):
  with pytest.raises(UserError, match=text):
    made[0].features.check_shape(shape)
