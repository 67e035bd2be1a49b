"""The DPA method: configuration errors, stages, growing, scores in every stage, statistics."""


import jax
import numpy as np
import pytest

from medae_jax import train
from medae_jax.core import method as method_lib
from medae_jax.core.errors import UserError
from medae_jax.methods import dpa
from medae_jax.models import vgg
from medae_jax.weights import vgg as vgg_weights
from tests.contract import cases
from tests.contract.run_steps import flat
from tests.watched import unread


def config(name="dpa_nih", arg="smoke", **changes):
  c = cases.load_config(cases.ROOT / "configs" / f"{name}.py", arg)
  with c.unlocked():
    c.update_from_flattened_dict(changes)
  return c


def batch(c, n=4, seed=0):
  s = c.model.max_res
  image = np.random.default_rng(seed).uniform(-1, 1, (n, s, s, c.data.channels))
  return {"image": image.astype(np.float32), "index": np.arange(n, dtype=np.int32)}


def run_stages(method, c, upto=None):
  """The state at the end of every stage (two steps each), by name."""
  states, state, b = {}, None, batch(c)
  for stage in method_lib.stages_of(method):
    state = (method_lib.fresh_state(method, jax.random.key(0), b) if state is None
             else method.grow(state, stage, jax.random.key(stage.begin), b))
    step = jax.jit(lambda s, x, stage=stage: method.train_step(
        s, x, jax.random.key(1), stage=stage, axis_name=None))
    for _ in range(stage.steps):
      state, _ = step(state, b)
    states[stage.name] = state
    if stage.name == upto:
      break
  return states


@pytest.mark.parametrize("changes, message", [
    ({"model.enc_widths": (4, 4)}, "config.model.enc: 2 widths"),
    ({"model.enc_widths": (4,) * 7}, "config.model.enc: 7 widths"),
    ({"model.kind": "resnet"}, "regular, residual9, residual18"),
    ({"model.latent_res": 4, "model.latent_dim": 7}, "must equal widths"),
    ({"model.use_wscale": True}, "regular family only"),
    ({"model.norm": "group"}, "none, bn, in or pixel"),
    ({"model.norm": "bn", "train.accum": 2}, "config.train.accum"),
    ({"method.growing.initial_res": 12}, "divided by a power of two"),
    ({"method.growing.initial_res": 2}, "below the coarsest block"),
    ({"method.layers": "r32"}, None),
    ({"method.layers": "16:r22"}, "^config.method.layers='16:r22': no layer for resolution 32"),
    ({"method.layers": "nosuch"}, "^config.method.layers='nosuch': 'nosuch' is not a VGG19 layer"),
    ({"method.layers": "r99", "method.score.layers": "r32"}, "^config.method.layers='r99': 'r99' is not a"),
    ({"method.score.layers": "2:r32"}, "^config.method.score.layers='2:r32': no layer for resolution"),
    ({"method.loss": "huber"}, "^config.method.loss='huber': loss 'huber': 'huber' is none of l1, l2"),
    ({"method.score.loss": "1.2.3*l1"}, "^config.method.score.loss='1.2.3.l1': .*write names"),
    ({"method.vgg_stats": "published"}, "statistics of VGG19's ImageNet weights"),
    ({"method.adversarial.weight": 1.0, "method.adversarial.name": "hinge"}, "wasserstein"),
    ({"method.growing.steps_per_stage": "stable_99:3"},
     r"names \['stable_99'\], .*are stable_16, transition_32, stable_32, .* 16, 32$"),
    ({"method.growing.batch_sizes": "64:3"}, r"names \['64'\]"),
    ({"method.growing.batch_sizes": "stable_32:3"}, r"names \['stable_32'\]"),  # it was overlooked
    ({"method.growing.batch_sizes": "16=3"}, "NAME:NUMBER"),
])
def test_bad_configurations_are_one_clear_line(changes, message):
  def build():
    method_lib.stages_of(dpa.Method(config(**changes)))
  if message is None:
    build()
    return
  with pytest.raises(ValueError, match=message) as error:
    build()
  assert "\n" not in str(error.value)


def test_images_of_another_size_are_refused():
  c = config()
  wrong = {"image": np.zeros((2, 20, 20, 1), np.float32)}
  method = dpa.Method(c)
  with pytest.raises(ValueError, match="images are 20x20, config.model.max_res=32"):
    method_lib.fresh_state(method, jax.random.key(0), wrong)
  state = method_lib.fresh_state(method, jax.random.key(0), batch(c))
  with pytest.raises(ValueError, match="images are 20x20; a network at 16 px needs squares of 16"):
    method.score(state, wrong)


@pytest.mark.parametrize("height, width", [(16, 32), (32, 16), (20, 24)])
def test_both_sides_of_the_images_are_the_configs(height, width):
  with pytest.raises(UserError, match=f"images are {height}x{width}, config.model.max_res=32"):
    dpa.Method(config())._fresh(jax.random.key(0), (4, height, width, 1), "stable_32")


def test_missing_weights_stop_before_training():
  c = config(**{"method.vgg_weights": "", "method.vgg_stats": "published"})
  with pytest.raises(ValueError, match="vgg19-dcbb9e9d.pth"):
    dpa.Method(c).pretrained()


def test_pixel_losses_need_no_vgg():
  c = config("dpa_cifar10", "smoke", **{"method.loss": "l1", "method.score.loss": "l2",
                                        "method.vgg_weights": ""})
  method = dpa.Method(c)
  state = method_lib.fresh_state(method, jax.random.key(0), batch(c))
  assert sorted(state.params) == ["dec", "enc"]
  out = method.score(state, batch(c))
  want = ((np.asarray(out["recon"]) - batch(c)["image"])**2).mean((1, 2, 3))
  np.testing.assert_allclose(out["score"], want, rtol=1e-5)


def test_init_needs_no_file_and_holds_zeros():
  """A resumed run asks for shapes, maybe without the file: only `pretrained` reads."""
  c = config(**{"method.vgg_weights": "missing.pth", "method.vgg_stats": "published",
                "method.vgg_widths": (64, 128, 256, 512, 512)})
  method = dpa.Method(c)
  state = jax.jit(method.init)(jax.random.key(0), batch(c))
  trunk, stats = state.params["vgg"]["trunk"], state.params["vgg"]["stats"]
  assert trunk["conv1_1"]["kernel"].shape == (3, 3, 3, 64)
  assert stats["r32"]["std"].shape == (256,)
  assert not any(np.any(x) for x in jax.tree.leaves(state.params["vgg"]))
  with pytest.raises(FileNotFoundError, match="missing.pth"):
    method_lib.fresh_state(method, jax.random.key(0), batch(c))


@pytest.mark.parametrize("widths", [(64, 128, 256, 512, 512), (3, 5, 4, 6, 6)])
def test_a_narrow_file_brings_its_own_widths(tmp_path, widths):
  trunk = vgg.random_params(3, (3, 5, 4, 6, 6), ["r42"])
  vgg_weights.save(tmp_path / "narrow.npz", trunk)
  c = config(**{"method.vgg_weights": str(tmp_path / "narrow.npz"), "method.vgg_widths": widths})
  method = dpa.Method(c)
  made = method.init(jax.random.key(0), batch(c)).params["vgg"]["trunk"]
  assert {k: v["bias"].shape for k, v in made.items()}["conv3_2"] == (4,)
  state = method_lib.fresh_state(method, jax.random.key(0), batch(c))
  for name, conv in state.params["vgg"]["trunk"].items():
    np.testing.assert_array_equal(conv["kernel"], trunk[name]["kernel"], err_msg=name)
  assert sorted(state.params["vgg"]["trunk"]) == sorted(made)


def test_pretrained_networks_of_other_shapes_are_refused(monkeypatch):
  method, c = dpa.Method(config()), config()
  other = vgg.random_params(0, (4, 6, 9, 8, 8), ["r32"])
  monkeypatch.setattr(method, "pretrained", lambda: {"vgg": {"trunk": other}})
  with pytest.raises(UserError, match=r"'vgg' does not fit config.method: trunk/conv3_1/bias is \(9,\)"):
    method_lib.fresh_state(method, jax.random.key(0), batch(c))


@pytest.fixture(scope="module")
def grown():
  c = config()
  method = dpa.Method(c)
  return c, method, run_stages(method, c)


def assert_scores_alike(method, state, image):
  """The inference state gives the same bits, and none of its arrays is there for nothing."""
  kept, score, batch = method.inference_state(state), jax.jit(method.score), {"image": image}
  jax.tree.map(np.testing.assert_array_equal, score(kept, batch), score(state, batch))
  assert not kept.opt and not unread(method, kept, batch)
  return kept


def test_inference_state_of_every_stage(grown):
  c, method, states = grown
  for name, state in states.items():
    kept = assert_scores_alike(method, state, batch(c)["image"])
    assert sorted(kept.params) == ["dec", "enc", "vgg"], name


@pytest.mark.parametrize("changes, nets, convolutions", [
    ({"method.adversarial.weight": 1.0, "model.norm": "bn"}, ["dec", "enc", "vgg"], 6),
    ({"method.score.loss": "l1"}, ["dec", "enc"], 0),
    ({"method.layers": "r42", "method.score.layers": "r12"}, ["dec", "enc", "vgg"], 2)])
def test_inference_state_has_no_critic_and_what_the_score_reads_of_vgg(changes, nets, convolutions):
  c = config("dpa_cifar10", "smoke", **changes)
  method = dpa.Method(c)
  state = method_lib.fresh_state(method, jax.random.key(0), batch(c))
  assert ("critic" in state.params) == ("method.adversarial.weight" in changes)
  kept = assert_scores_alike(method, state, batch(c)["image"])
  assert sorted(kept.params) == nets and ("enc" in kept.stats) == ("model.norm" in changes)
  assert len(kept.params.get("vgg", {"trunk": ()})["trunk"]) == convolutions


def test_growing_keeps_blocks_and_starts_fresh_optimisers(grown):
  c, method, states = grown
  stages = {s.name: s for s in method_lib.stages_of(method)}
  old = states["stable_16"]
  new = method.grow(old, stages["transition_32"], jax.random.key(9), batch(c))
  assert sorted(new.params["enc"]) == ["from_image_16", "from_image_32", "res_16", "res_32",
                                       "res_4", "res_8"]
  assert sorted(new.params["dec"]) == ["res_16", "res_32", "res_4", "res_8", "to_image_16",
                                       "to_image_32"]
  for net in ("enc", "dec"):
    for name in old.params[net]:
      jax.tree.map(np.testing.assert_array_equal, new.params[net][name], old.params[net][name])
  assert all(not np.any(x) for x in jax.tree.leaves(new.opt))
  assert any(np.any(x) for x in jax.tree.leaves(old.opt))
  assert sorted(states["stable_32"].params["enc"]) == ["from_image_32", "res_16", "res_32", "res_4",
                                                     "res_8"]
  assert int(states["stable_32"].step) == sum(s.steps for s in stages.values())


def test_a_faded_in_transition_is_the_next_stable_network(grown):
  """At alpha 1 only the high branch is left: the stable network of the next stage."""
  c, method, states = grown
  image = batch(c)["image"]
  end = states["transition_32"]
  stages = {s.name: s for s in method_lib.stages_of(method)}
  after = method.grow(end, stages["stable_32"], jax.random.key(0), batch(c))
  assert method.alpha(end) == 1.0
  np.testing.assert_allclose(method.score(end, {"image": image})["recon"],
                             method.score(after, {"image": image})["recon"], atol=1e-5)


def test_every_stage_scores_full_size_images(grown):
  c, method, states = grown
  b = batch(c)
  for name, state in states.items():
    out = method.score(state, b)
    assert out["map"].shape == (4, 32, 32, 1) and out["recon"].shape == (4, 32, 32, 1), name
    assert out["score"].shape == (4,) and np.isfinite(out["score"]).all()
    alone = method.score(state, {"image": b["image"][2:3]})
    np.testing.assert_allclose(alone["score"], out["score"][2:3], rtol=1e-4)


def test_one_compilation_a_stage(grown):
  """alpha is traced: all steps of a transition share one program."""
  c, method, states = grown
  stage = next(s for s in method_lib.stages_of(method) if s.name == "transition_32")
  state = method.grow(states["stable_16"], stage, jax.random.key(0), batch(c))
  step = jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(1), stage=stage,
                                                axis_name=None))
  alphas = []
  for _ in range(stage.steps):
    state, metrics = step(state, batch(c))
    alphas.append(float(metrics["alpha"]))
    assert method.alpha(state) == metrics["alpha"]  # scored as the last step saw it
  assert step._cache_size() == 1
  np.testing.assert_allclose(alphas, (np.arange(stage.steps) + 1) / stage.steps)


def test_running_statistics_are_averages_and_then_stand_still():
  c = config("dpa_cifar10", "smoke", **{"method.vgg_stats_steps": 2})
  method = dpa.Method(c)
  stage, = method_lib.stages_of(method)
  state = method_lib.fresh_state(method, jax.random.key(0), batch(c))
  step = jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(1), stage=stage,
                                                axis_name=None))
  seen, moments = [], []
  for i in range(3):
    b = batch(c, seed=i)
    seen.append(method.perceptual.real(state.params, b["image"], 16, np.float32)["r32"])
    state, _ = step(state, b)
    moments.append(jax.tree.map(np.asarray, state.stats["vgg_16"]["layers"]["r32"]))
  both = np.concatenate(seen[:2])
  np.testing.assert_allclose(moments[1]["mean"], both.mean((0, 1, 2)), rtol=1e-5)
  np.testing.assert_allclose(moments[1]["square"], (both**2).mean((0, 1, 2)), rtol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, moments[1], moments[2])


def test_score_loss_is_apart_from_the_training_loss():
  a = config("dpa_cifar10", "smoke", **{"method.loss": "l1"})
  b = config("dpa_cifar10", "smoke", **{"method.loss": "l1", "method.score.loss": ""})
  assert a.method.score.loss == "relative_perceptual_L1"
  x = batch(a)
  states = [method_lib.fresh_state(dpa.Method(c), jax.random.key(0), x) for c in (a, b)]
  perceptual, l1 = (dpa.Method(c).score(s, x) for c, s in zip((a, b), states))
  want = np.abs(np.asarray(l1["recon"]) - x["image"]).mean((1, 2, 3))
  np.testing.assert_allclose(l1["score"], want, rtol=1e-5)
  np.testing.assert_array_equal(l1["recon"], perceptual["recon"])
  assert not np.allclose(l1["score"], perceptual["score"])


@pytest.mark.slow
def test_cached_features_train_the_same(tmp_path):
  """Resident data with features computed once: the parameters of resident data without."""
  def trained(tag, cached):
    c = config("dpa_cifar10", "smoke", **{"data.resident": True, "method.cache_features": cached,
                                          "train.steps": 4})
    return flat(train.train(c, str(tmp_path / tag))["state"].params)
  a, b = trained("a", False), trained("b", True)
  for key in a:
    np.testing.assert_allclose(a[key], b[key], atol=1e-5, err_msg=key)
