"""DPA around its networks, which are stubs here: growing, caching, what an export keeps, pictures."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medae_jax.core import method as method_lib
from medae_jax.core.method import State
from medae_jax.methods import _growing, dpa
from medae_jax.optim import adam
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


# ------------------------------------------------------- its steps, around networks of one number each
X = np.random.default_rng(4).uniform(-1, 1, (6, 16, 16, 3)).astype(np.float32)
ADVERSARIAL = {"method.loss": "l1", "method.layers": "", "method.score.loss": "l1",
               "method.adversarial.weight": 0.3, "method.adversarial.name": "least_squares",
               "method.adversarial.n_critic": 2}


def one_number(monkeypatch, **changes):
  """(method, state): y = d x, D(x) = c mean(x)."""
  method = dpa.Method(test_dpa.config("dpa_cifar10", **{**ADVERSARIAL, **changes}))
  monkeypatch.setattr(method, "_stage_image", lambda params, image, alpha: image)
  monkeypatch.setattr(method, "_reconstruct", lambda params, stats, image, *_, **kw: (
      params["dec"]["a"] * image, {"dec": 2.0}))
  monkeypatch.setattr(method.perceptual, "update_stats", lambda stats, *_: {**stats, "vgg_16": 3.0})
  monkeypatch.setattr(method, "_critic", lambda params, *_: lambda x: params["w"] * x.mean((1, 2, 3)))
  method._tx = {name: optax.sgd(rate, momentum=0.5) for name, rate in (("ae", 0.1), ("critic", 0.2))}
  params = {"enc": {"from_image_16": jnp.ones(1)}, "dec": {"a": jnp.float32(0.4)},
            "critic": {"w": jnp.float32(0.7)}}
  nets = {n: params[n] for n in ("enc", "dec")}
  return method, State.create(params, {"kept": 1.0}, {"ae": method._tx["ae"].init(nets),
                                                      "critic": method._tx["critic"].init(params["critic"])})


def test_two_steps_of_the_critic_come_before_one_of_the_autoencoder(monkeypatch):
  """Each with every third image; loss = mean |x - y| + 0.3 mean (D(y) - 1)^2, the critic's 1/2 (...)."""
  method, state = one_number(monkeypatch)
  stage = method_lib.Stage("stable_16", 8)
  batch = {"image": X, "index": np.arange(6), "mix": np.zeros(6, np.float32)}
  new, metrics = method.train_step(state, batch, jax.random.key(0), stage=stage, axis_name=None)
  d, w, speed = 0.4, 0.7, 0.0
  for k in range(2):
    m = X[k::3].mean((1, 2, 3))
    losses = 0.5 * np.mean((w * m - 1) ** 2) + 0.5 * np.mean((w * d * m) ** 2)
    speed = 0.5 * speed + np.mean((w * m - 1) * m) + np.mean(w * (d * m) ** 2)
    w -= 0.2 * speed
  m = X[2::3].mean((1, 2, 3))
  rec, adv = (1 - d) * np.abs(X[2::3]).mean(), np.mean((w * d * m - 1) ** 2)
  slope = -np.abs(X[2::3]).mean() + 0.3 * np.mean(2 * (w * d * m - 1) * w * m)
  want = {"critic_loss": losses, "rec_loss": rec, "adv_loss": adv, "loss": rec + 0.3 * adv}
  np.testing.assert_allclose([metrics[k] for k in want], list(want.values()), rtol=1e-4)
  np.testing.assert_allclose(new.params["critic"]["w"], w, rtol=1e-4)
  np.testing.assert_allclose(new.params["dec"]["a"], d - 0.1 * slope, rtol=1e-4)
  assert new.stats == {"kept": 1.0, "dec": 2.0, "vgg_16": 3.0}
  assert int(new.step) == 1 and "alpha" not in metrics


def test_a_validation_has_both_parts_of_each_image(monkeypatch):
  method, state = one_number(monkeypatch)
  found = method.eval_step(state, {"image": X}, None)
  rec, adv = 0.6 * np.abs(X).mean((1, 2, 3)), (0.7 * 0.4 * X.mean((1, 2, 3)) - 1) ** 2
  np.testing.assert_allclose(found["rec_loss"], rec, rtol=1e-4)
  np.testing.assert_allclose(found["adv_loss"], adv, rtol=1e-4)
  np.testing.assert_allclose(found["loss"], rec + 0.3 * adv, rtol=1e-4)


def test_a_transition_fades_in_from_its_first_step_to_its_last(monkeypatch):
  """alpha = (iterations done + 1) / N while training; a state is scored as far as it was faded in."""
  method = dpa.Method(test_dpa.config(**{"method.growing.stable_steps": 10,
                                         "method.growing.transition_steps": 8}))
  stage = method_lib.stages_of(method)[1]
  assert (stage.name, stage.begin, stage.steps) == ("transition_32", 10, 8)
  seen = []
  monkeypatch.setattr(method, "_autoencoder_step", lambda state, batch, rng, alpha, axis: (
      seen.append(float(alpha)) or state, {}))
  state = State.create(names(16, 32))
  for step in (10, 13, 17, 20):
    _, metrics = method.train_step(state.replace(step=step), {}, None, stage=stage, axis_name=None)
    assert metrics["alpha"] == seen[-1]
  assert seen == [1 / 8, 4 / 8, 1, 1]
  assert [float(method.alpha(state.replace(step=s))) for s in (9, 10, 14, 18, 30)] == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("of_critic, rates", [(0.0, [0.5, 0.5]), (0.25, [0.5, 0.25])])
def test_the_critic_has_the_autoencoders_rate_where_it_has_none(of_critic, rates, monkeypatch):
  seen = []
  monkeypatch.setattr(adam, "adam", lambda lr, **kw: seen.append((lr, kw["clip"], kw["weight_decay"])))
  dpa.Method(test_dpa.config("dpa_cifar10", **{**ADVERSARIAL, "optim.lr": 0.5, "optim.lr_critic": of_critic,
                                               "optim.clip": 2.0, "optim.weight_decay": 0.1}))
  assert seen == [(lr, 2.0, 0.1) for lr in rates]


@pytest.mark.parametrize("res", [16, 32])
def test_losses_of_a_transition_are_of_both_resolutions(res, monkeypatch):
  """Statistics of the finer one first; a stable stage has one loss."""
  method = dpa.Method(test_dpa.config(**{"method.smooth_pg": True}))
  monkeypatch.setattr(method.perceptual, "trunk", lambda params, stats, res, dtype: res)
  monkeypatch.setattr(method.perceptual, "losses", lambda *args, res, real, score: ("one", res))
  monkeypatch.setattr(_growing, "blended_loss", lambda terms, trunk, half, *images, res, alpha, real: (
      trunk, half, res, alpha))
  state = names(16, 32) if res == 32 else names(16)
  found = method._losses(state, {}, jnp.zeros((1, res, res, 1)), None, 0.25)
  assert found == ((32, 16, 32, 0.25) if res == 32 else ("one", 16))


def test_scores_and_validations_are_of_stored_statistics_and_steps_of_the_batch(monkeypatch):
  """The critic's steps as well, whose reconstructions are those of the steps."""
  method, state = one_number(monkeypatch)
  seen = []

  def reconstruct(params, stats, image, alpha, *, train=False, axis_name=None):
    seen.append(train)
    return params["dec"]["a"] * image, {}
  monkeypatch.setattr(method, "_reconstruct", reconstruct)
  method.train_step(state, {"image": X, "index": np.arange(6), "mix": np.zeros(6, np.float32)},
                    jax.random.key(0), stage=method_lib.Stage("stable_16", 8), axis_name=None)
  assert seen and all(seen) and len(seen) >= 3
  seen.clear()
  method.eval_step(state, {"image": X}, None)
  method._published(state, {"image": X})
  assert seen == [False, False]


@pytest.mark.parametrize("train", [True, False])
def test_both_networks_are_told_the_mode_and_hand_their_statistics_on(train, monkeypatch):
  method, told = dpa.Method(test_dpa.config("dpa_cifar10")), []

  def apply(variables, x, alpha, *, train, axis_name, mutable):
    told.append((variables, alpha, train, axis_name))
    return x + 1, {"batch_stats": {"new": len(told)}}
  net = types.SimpleNamespace(apply=apply)
  monkeypatch.setattr(method, "_nets", lambda *_: {"enc": net, "dec": net})
  params = names(16)
  found, after = method._reconstruct(params, {"dec": {"old": 0}, "vgg_16": 5}, jnp.zeros((1, 2, 2, 3)), 0.5,
                                     train=train, axis_name="devices")
  assert told == [({"params": params["enc"]}, 0.5, train, "devices"),
                  ({"params": params["dec"], "batch_stats": {"old": 0}}, 0.5, train, "devices")]
  assert (found == 2).all() and after == {"dec": {"new": 2}}


@pytest.mark.parametrize("score, dtype", [(False, jnp.bfloat16), (True, jnp.float32)])
def test_a_narrow_trunk_is_of_training_alone(score, dtype):
  method = dpa.Method(test_dpa.config(**{"method.vgg_dtype": "bfloat16", "method.loss": "l1",
                                         "method.score.loss": "l2"}))
  terms, found = method.perceptual.of(score, jnp.zeros((1, 16, 16, 1)))
  assert found == dtype and [t.name for t in terms] == ["l2" if score else "l1"]


@pytest.mark.parametrize("antialias, rows", [(False, slice(1, 3)), (True, slice(0, 4))])
def test_a_stage_sees_the_middles_of_its_cells_or_the_whole_ones(antialias, rows):
  """At 8 of 32 px, as published the middle 2x2 pixels of 4x4; so a transition from 4, whose cells are 8x8."""
  method = dpa.Method(test_dpa.config(**{"method.growing.antialias": antialias}))
  image = np.random.default_rng(0).random((2, 32, 32, 1)).astype(np.float32)
  cells = lambda n: image.reshape(2, 32 // n, n, 32 // n, n, 1)
  high = cells(4)[:, :, rows, :, rows].mean((2, 4))
  np.testing.assert_allclose(method._stage_image(names(8), image, 0.25), high, rtol=1e-5)
  middle = slice(0, 8) if antialias else slice(3, 5)
  low = cells(8)[:, :, middle, :, middle].mean((2, 4)).repeat(2, 1).repeat(2, 2)
  found = method._stage_image(names(4, 8), image, 0.25)
  np.testing.assert_allclose(found, 0.75 * low + 0.25 * high, rtol=1e-5)


@pytest.mark.parametrize("weight, groups", [(0.0, 1), (0.3, 3)])
def test_every_stage_reads_a_batch_for_each_step_of_the_critic_and_one_more(weight, groups):
  """A batch size of one's own included; steps are those of the stage, the last one's of config.train."""
  method = dpa.Method(test_dpa.config(**{
      "method.adversarial.weight": weight, "method.adversarial.n_critic": 2, "train.batch_size": 10,
      "method.growing.batch_sizes": "16:4", "method.growing.steps_per_stage": "transition_32:7",
      "method.growing.stable_steps": 9, "train.steps": 21}))
  found = [(s.name, s.steps, s.data["batch_size"]) for s in method.stages()]
  assert found == [("stable_16", 9, 4 * groups), ("transition_32", 7, 10 * groups),
                   ("stable_32", 21, 10 * groups)]


def test_running_statistics_are_means_of_the_first_steps_and_stand_still_then():
  perceptual = dpa.Method(test_dpa.config(**{"method.vgg_stats_steps": 2})).perceptual
  layers = list(perceptual.init_stats(32, dict.fromkeys(perceptual.layers, 1))["vgg_32"]["layers"])
  stats = {"kept": 1, **perceptual.init_stats(32, dict.fromkeys(layers, 1))}
  seen = []
  for value in (3.0, 5.0, 100.0, 200.0):
    stats = perceptual.update_stats(stats, dict.fromkeys(layers, jnp.full((2, 4, 4, 1), value)), 32, None)
    seen.append([float(stats["vgg_32"]["layers"][layers[0]][k][0]) for k in ("mean", "square")])
  assert layers and seen == [[3, 9], [4, 17], [4, 17], [4, 17]] and stats["kept"] == 1


def test_pixel_terms_of_a_transition_do_not_fade(monkeypatch):
  """0.5 l1 of the whole images, and the features' loss (2 at half the side, 6 at the whole) with alpha."""
  values = {"l1": lambda res: {16: 1.0, 32: 4.0}[res], "perceptual": lambda res: {16: 2.0, 32: 6.0}[res]}
  monkeypatch.setattr(_growing.losses, "term_loss", lambda term, trunk, image, recon, res, real=None: (
      jnp.full(1, values[term.name](res) + 10 * (image.shape[1] != res))))
  terms = (_growing.losses.Term("perceptual", 3.0), _growing.losses.Term("l1", 0.5))
  image = jnp.zeros((1, 32, 32, 1))
  found = _growing.blended_loss(terms, None, None, image, image, res=32, alpha=0.25)
  np.testing.assert_allclose(found, 3 * (0.75 * 2 + 0.25 * 6) + 0.5 * 4)
