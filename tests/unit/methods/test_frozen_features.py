"""The method on frozen features: what it fits and scores, against scikit-learn on the same features."""

import importlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from configs import frozen_camelyon16
from medae_jax.core import method as method_lib
from medae_jax.core.errors import UserError
from medae_jax.core.method import State
from medae_jax.methods import _patches, frozen_features
from medae_jax.scores import forest


def make(**changes):
  config = frozen_camelyon16.get_config("smoke").copy_and_resolve_references()
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return method_lib.load(config.lock())


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).uniform(-1, 1, (20, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(images):
  """(method that offers all scores, its state fitted to 16 images in two batches, one padded)."""
  method = make(**{"method.score.offer": True})
  state = method.init(None, {"image": images[:1]}).replace(params=method.pretrained())
  batches = [{"image": images[:10], "valid": np.ones(10, bool)},
             {"image": images[10:20], "valid": np.arange(10) < 6}]
  return method, method.finalize(state, batches)


def test_scores_are_those_of_sklearn_on_the_same_features(images, fitted):
  method, state = fitted
  found = jax.jit(method.score)(state, {"image": images})
  maps = method._maps(state, images, ("r12", "r22"))
  rows = np.concatenate([np.asarray(maps[t].mean((1, 2))) for t in ("r12", "r22")], 1)
  want = np.sqrt(LedoitWolf().fit(rows[:16].astype(np.float64)).mahalanobis(rows))
  np.testing.assert_allclose(found["offer/image=mahalanobis;taps=r12+r22"], want, rtol=2e-3)
  want = NearestNeighbors(n_neighbors=5).fit(rows[:16]).kneighbors(rows)[0].mean(1)
  np.testing.assert_allclose(found["offer/image=neighbours;taps=r12+r22"], want, rtol=1e-4, atol=1e-4)
  assert {k.partition(";")[0] for k in found if k.startswith("offer/")} == {
      f"offer/image={k}" for k in ("mahalanobis", "neighbours", "forest", "padim", "patchcore")}
  np.testing.assert_array_equal(found["score"], found["offer/image=mahalanobis;taps=r12"])
  assert found["map"].shape == (20, 16, 16, 1) and (np.asarray(found["map"]) >= 0).all()


@pytest.mark.parametrize("kind, taps, shown, layers", [
    ("forest", "r12", "none", ["conv1_1", "conv1_2"]), ("neighbours", "r12+r22", "none", None),
    ("mahalanobis", "r12", "patchcore", None), ("padim", "", "none", None)])
def test_what_scoring_keeps_is_what_was_fitted_for_its_score_and_map(fitted, kind, taps, shown, layers):
  method = make(**{"method.score.image": kind, "method.score.taps": taps, "method.score.map": shown})
  state = fitted[1]
  kept = method.inference_state(state)
  patched = [k for k in ("padim", "patchcore") if k in (kind, shown)]
  image = kept.extra.get("image", {})
  assert {t: list(v) for t, v in image.items()} == ({} if kind == "padim" else {taps: [kind]})
  assert set(kept.extra.get("patch", {})) == ({"scale", *patched} if patched else set())
  for t, v in image.items():
    assert v[kind] is state.extra["image"][t][kind]
  (net,) = kept.params.values()
  assert layers is None or sorted(net) == layers


@pytest.mark.parametrize("kind", ["padim", "patchcore"])
def test_a_foreign_patch_is_found_where_it_is(images, kind):
  """Smooth normal images, one corner of noise: the map is highest there, the image's score rises."""
  smooth = np.tile(np.linspace(-0.5, 0.5, 16, dtype=np.float32)[None, :, None, None], (12, 1, 16, 3))
  smooth = smooth + 0.02 * images[:12]
  method = make(**{"method.score.image": kind, "method.score.map": kind, "method.scores": (kind,)})
  state = method.init(None, {"image": smooth[:1]}).replace(params=method.pretrained())
  state = method.finalize(state, [{"image": smooth[:10], "valid": np.ones(10, bool)}])
  odd = smooth[10:].copy()
  odd[1, 8:, :8] = images[13, 8:, :8]
  found = jax.jit(method.score)(state, {"image": odd})
  assert found["score"][1] > 1.5 * found["score"][0]
  y, x = np.unravel_index(np.argmax(found["map"][1, ..., 0]), (16, 16))
  assert y >= 7 and x <= 8
  assert set(method.inference_state(state).extra["patch"]) == {"scale", kind}


def test_black_and_white_are_the_configs_and_channels_may_be_chosen(images):
  unit = make(**{"method.low": 0.0, "method.high": 1.0, "method.bounded": False,
                 "method.channels": (3, 0, 1)})
  plain = make()
  state = plain.init(None, {"image": images[:1]}).replace(params=plain.pretrained())
  four = np.concatenate([images, images[..., :1]], -1)[..., [1, 2, 3, 0]] * 0.5 + 0.5  # g, b, r, r
  np.testing.assert_allclose(unit._maps(state, jnp.asarray(four), ("r12",))["r12"],
                             plain._maps(state, jnp.asarray(images), ("r12",))["r12"], atol=1e-3)
  entered = plain._features(("r12",)).maps(state.params, jnp.asarray(images))["r12"]  # of -1 to 1
  np.testing.assert_allclose(plain._maps(state, jnp.asarray(images), ("r12",))["r12"], entered, rtol=1e-5)
  assert unit.needs["image"].high is None and plain.needs["image"].high == 1
  for use in (lambda: unit._maps(state, jnp.asarray(images), ("r12",)),
              lambda: unit.init(None, {"image": images[:1]})):  # before the run is written
    with pytest.raises(UserError, match="have 3 channels"):
      use()


@pytest.mark.parametrize(("changes", "text"), [
    ({"method.score.image": "knn"}, "score.image"), ({"method.scores": ("padim",)}, "says what is fitted"),
    ({"method.score.taps": "r11"}, "none of the sets"), ({"method.map_taps": "r99"}, "method.map_taps='r99'"),
    ({"method.image_taps": ("r11", "x")}, "method.image_taps='x'"), ({"method.score.smooth": 1e30}, "to 100"),
    ({"method.forest.trees": 10**12}, "forest.trees"), ({"method.score.taps": "y"}, "score.taps='y'"),
    ({"method.low": 1.0}, "is not below")])
def test_what_does_not_fit_is_one_line(changes, text):
  with pytest.raises(UserError, match=text):
    make(**changes)


def test_no_images_no_fit(images):
  method = make()
  state = method.init(None, {"image": images[:1]})
  with pytest.raises(UserError, match="no normal images"):
    method.finalize(state, [])


# --------------------------------------------------------------------------------------------- patches
def test_patches_are_neighbourhood_means_on_one_grid():
  rng = np.random.default_rng(0)
  a, b = rng.standard_normal((2, 6, 6, 3)), rng.standard_normal((2, 3, 3, 2))
  found = np.asarray(_patches.patches({"a": jnp.asarray(a), "b": jnp.asarray(b)}, ("a", "b"), 3, 0))
  assert found.shape == (2, 6, 6, 5)
  np.testing.assert_allclose(found[:, 2, 3, :3], a[:, 1:4, 2:5].mean((1, 2)), rtol=1e-5)
  np.testing.assert_allclose(found[:, 0, 0, :3], a[:, :2, :2].mean((1, 2)), rtol=1e-5)  # inside alone
  np.testing.assert_allclose(found[:, 0, 0, 3:], b[:, :2, :2].mean((1, 2)), rtol=1e-5)
  assert _patches.patches({"a": jnp.zeros((1, 8, 4, 3))}, ("a",), 1, 4).shape == (1, 4, 2, 3)


def test_taps_count_alike_and_vectors_are_one_long():
  rows = np.random.default_rng(0).standard_normal((4, 5, 5, 7)) * np.r_[np.full(3, 100.0), np.full(4, 0.1)]
  scaled = rows * _patches.scales(rows, (3, 4))
  np.testing.assert_allclose([(scaled[..., :3]**2).sum(-1).mean(), (scaled[..., 3:]**2).sum(-1).mean()], 0.5)


@pytest.mark.parametrize("kind", _patches.KINDS)
def test_padding_is_not_fitted(kind):
  """Rows of noise that are no images change nothing, in the first batch and after it."""
  rows = np.random.default_rng(0).standard_normal((6, 2, 2, 4)).astype(np.float32)
  method = make(**{"method.scores": (kind,), "method.score.image": kind, "method.score.map": kind})
  whole, padded = (_patches.Fit(method.config.method, (4,), 0) for _ in range(2))
  whole.add(rows[:3], np.ones(3, bool))
  whole.add(rows[3:], np.ones(3, bool))
  for part in (rows[:3], rows[3:]):
    padded.add(np.concatenate([part, 9 + part[:1]]), np.arange(4) < 3)
  for a, b in zip(*(jax.tree.leaves(fit.result()) for fit in (whole, padded))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_most_anomalous_position_is_the_image_s_score_in_scaled_features():
  fitted = {"scale": np.float32([0.5, 2]), "padim": {"reduce": np.eye(2, dtype=np.float32), "mean": 0.0,
                                                     "whiten": np.eye(2, dtype=np.float32)[None]}}
  rows = np.zeros((1, 2, 2, 2), np.float32)
  rows[0, 1, 0] = [6, 2]
  distance, image = _patches.score("padim", jnp.asarray(rows), fitted, 0)
  np.testing.assert_allclose(distance[0, ..., 0], [[0, 0], [5, 0]], atol=1e-6)
  np.testing.assert_allclose(image, [5], rtol=1e-6)


def test_smoothing_is_a_gaussian_that_keeps_constants():
  x = np.zeros((1, 31, 31, 1), np.float32)
  x[0, 15, 15] = 1
  y = np.asarray(_patches.smoothed(jnp.asarray(x), 2.0))[0, ..., 0]
  np.testing.assert_allclose(y.sum(), 1, rtol=1e-5)
  np.testing.assert_allclose(y[15, 17] / y[15, 15], np.exp(-0.5), rtol=1e-4)
  assert y[15, 21] > 0 and not y[15, 22:].any()  # cut at 3 sigma
  np.testing.assert_allclose(_patches.smoothed(jnp.ones((1, 5, 5, 1)), 2.0), 1, rtol=1e-6)


def test_an_image_is_the_mean_of_its_map_and_each_score_has_what_was_fitted_for_it(monkeypatch):
  """Two taps beside each other; nothing of the network runs."""
  method = make(**{"method.neighbours": 3})
  taps, asked = next(iter(method._sets)), []
  for name in ("mahalanobis", "k_nearest"):
    monkeypatch.setattr(frozen_features.feature_distance, name,
                        lambda *args, name=name, **more: asked.append((name, *args, more)))
  monkeypatch.setattr(frozen_features.forest, "score", lambda *args: asked.append(("forest", *args)))
  maps = {tap: jnp.asarray(np.random.default_rng(i).normal(size=(2, 4, 4, 3)))
          for i, tap in enumerate(method._sets[taps])}
  state = State.create({}, extra={"image": {taps: {"mahalanobis": {"mean": 1, "whiten": 2},
                                                   "neighbours": {"bank": 3}, "forest": 4}}})
  for kind in ("mahalanobis", "neighbours", "forest"):
    method._distance(state, maps, kind, taps)
  rows = np.concatenate([np.asarray(m).mean((1, 2)) for m in maps.values()], -1)
  (first, *one), (second, *two), (third, *three) = asked
  assert (first, one[1:], second, two[1:], third, three[0]) == (
      "mahalanobis", [{"mean": 1, "whiten": 2}], "k_nearest", [3, 3, {}], "forest", 4)
  for found in (one[0], two[0], three[1]):
    np.testing.assert_allclose(found, rows, rtol=1e-5, atol=1e-6)


def test_what_is_drawn_while_fitting_follows_the_seed(monkeypatch):
  """The choice among many images, the random numbers of patches and of the forest."""
  seeds = []
  note = lambda of: lambda *args, **more: seeds.append((of, more.get("seed", args[-1]))) or made
  made = types.SimpleNamespace(add=lambda *args: None, rows=lambda: np.zeros((3, 2), np.float32),
                               result=dict, shape=(1, 1, 1, 1))
  monkeypatch.setattr(frozen_features.memory_bank, "Reservoir", note("images"))
  monkeypatch.setattr(frozen_features._patches, "Fit", note("patches"))
  monkeypatch.setattr(frozen_features.forest, "fit", lambda rows, **more: seeds.append(
      ("forest", more["seed"])) or {})
  method = make(**{"seed": 7, "method.scores": ("forest", "padim"), "method.score.image": "forest",
                   "method.score.map": "none"})
  taps = method._all_taps()
  monkeypatch.setattr(frozen_features.parallel, "per_example_fn", lambda of: lambda state, batch: {
      "pooled": {t: np.zeros((3, 2), np.float32) for t in taps}, "patches": np.zeros((3, 1, 1, 2))})
  method.finalize(State.create({}), [{"image": np.zeros((3, 2, 2, 3)), "valid": np.ones(3)}])
  assert {of for of, _ in seeds} == {"images", "patches", "forest"} and {s for _, s in seeds} == {7}


def test_patches_have_the_size_and_the_grid_of_the_config(monkeypatch):
  asked = []
  monkeypatch.setattr(_patches, "patches", lambda maps, taps, size, grid: asked.append((taps, size, grid)))
  method = make(**{"method.patches.size": 3, "method.patches.grid": 5})
  method._patch_rows({})
  assert asked == [(method._map_taps, 3, 5)]


@pytest.mark.parametrize("name", ["deep_if_cifar10", "frozen_cifar10"])
def test_a_forest_that_no_memory_holds_is_refused_before_an_image_is_read(name, monkeypatch):
  monkeypatch.setattr(forest.memory, "installed", lambda: 10**6)
  config = importlib.import_module(f"configs.{name}").get_config("smoke").copy_and_resolve_references()
  with config.unlocked():
    config.method.forest.trees = 100
    if "scores" in config.method:
      config.method.scores, config.method.score.image, config.method.score.map = ("forest",), "forest", "none"
  method, image = method_lib.load(config.lock()), np.zeros((1, 32, 32, 3), np.float32)
  with pytest.raises(UserError, match="trees=100: trees of .* images take 0.00.* GB, this machine"):
    method.init(None, {"image": image})


@pytest.mark.parametrize("scores", [("neighbours",), ("padim", "mahalanobis"),
                                    ("forest", "patchcore", "neighbours")])
def test_only_what_is_fitted_is_offered_once_a_set_of_taps_or_once_for_patches(scores):
  method = object.__new__(frozen_features.Method)
  method.config = types.SimpleNamespace(method=types.SimpleNamespace(scores=scores))
  method._sets = {"r12": ("r12",), "r12+r22": ("r12", "r22")}
  pooled, patched = (set(scores) & set(kinds) for kinds in (frozen_features.POOLED, _patches.KINDS))
  offers = method._offers()
  assert len(offers) == len(set(offers)) and pooled | patched == set(scores)
  assert set(offers) == {(k, t) for k in pooled for t in method._sets} | {(k, "") for k in patched}


@pytest.mark.parametrize("grid, size", [(0, (6, 4)), (9, (6, 4)), (3, (3, 2)), (1, (1, 1))])
def test_patches_keep_the_proportions_of_the_finest_map(grid, size):
  maps = {"a": jnp.ones((1, 6, 4, 2)), "b": jnp.ones((1, 3, 2, 1))}
  assert _patches.patches(maps, ("b", "a"), 1, grid).shape == (1, *size, 3)
