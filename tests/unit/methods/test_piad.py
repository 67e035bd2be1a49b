"""PIAD: the policy's corner cases, networks of 2019, draws, weights, EMA, errors."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import piad_camelyon16, piad_cifar10, piad_nih
from medae_jax import convert
from medae_jax.core import method as method_lib, trained as trained_lib
from medae_jax.methods import _gradient_norms as gradient_norms, piad
from medae_jax.models import piad_nets
from tests.golden_cases import golden_files
from tests.watched import unread


def _config(**changes):
  c = ml_collections.ConfigDict(piad_cifar10.get_config("smoke").to_dict())
  for key, value in changes.items():
    c.update_from_flattened_dict({key.replace("__", "."): value})
  return c


def _batch(n=24, res=16, seed=0):
  rng = np.random.default_rng(seed)
  return {"image": rng.uniform(-1, 1, (n, res, res, 3)).astype(np.float32),
          "index": np.arange(n, dtype=np.int32)}


def _step(method):
  return jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(5), stage=None, axis_name=None))


@pytest.fixture(scope="module")
def iterations():
  """(method, fresh state and that after each of three iterations, metrics); a refresh at every second."""
  method = piad.Method(_config(method__ema=0.9))
  states, metrics, step = [method_lib.fresh_state(method, jax.random.key(0), _batch())], [], _step(method)
  for i in range(3):
    state, m = step(states[-1], _batch(seed=i))
    states.append(state)
    metrics.append(jax.device_get(m))
  return method, states, metrics


@pytest.fixture(scope="module")
def trained(iterations):
  """(method, last state, metrics of each iteration)."""
  method, states, metrics = iterations
  return method, states[-1], metrics


@pytest.fixture(scope="module")
def score(trained):
  """Its score, compiled once."""
  return jax.jit(trained[0].score)


# -------------------------------------------------------------------------------------- the policy
def _policy(layers, history=4):
  return gradient_norms.init({f"l{i}": {"kernel": 0.0, "bias": 0.0} for i in range(layers)}, history)


def test_policy_ignores_biases_and_counts_kernels():
  assert [name for name, _ in gradient_norms.kernels({"a": {"kernel": 1, "bias": 2}, "b": {"scale": 3}})
          ] == ["a/kernel"]
  grads = {"a": {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([9.0])}}
  np.testing.assert_allclose(gradient_norms.measure(grads), [5.0])
  np.testing.assert_allclose(gradient_norms.measure(grads, "std"), [0.5])


def test_policy_survives_zero_gradients():
  policy = gradient_norms.refresh(_policy(3), jnp.array([1.0, 2.0, 0.0]), jnp.array([0.5, 0.0, 0.0]))
  # Ratios 2, inf and none: the median of two is infinite, so the old weight stays.
  assert float(policy["weight"]) == 1.0
  policy = gradient_norms.refresh(_policy(4), jnp.array([1.0, 3.0, 2.0, 0.0]),
                            jnp.array([0.5, 1.0, 0.0, 0.0]))
  assert float(policy["weight"]) == 3.0
  policy = gradient_norms.refresh(_policy(4), jnp.array([1.0, 3.0, 2.0, 0.0]),
                            jnp.array([0.5, 1.0, 0.0, 0.0]), average="mean")
  assert float(policy["weight"]) == 2.5  # of the finite ones


def test_policy_forgets_what_leaves_the_ring():
  policy = _policy(1, history=2)
  for adv in (100.0, 3.0, 5.0):
    policy = gradient_norms.refresh(policy, jnp.array([adv]), jnp.array([1.0]))
  smoothed = [3.0, 0.05 * 5 + 0.95 * 3]  # starts afresh at the left edge of the window
  np.testing.assert_allclose(policy["weight"], np.median(smoothed), rtol=1e-6)


# ---------------------------------------------------------------------------------- the iteration
def test_refresh_happens_on_time_and_before_the_update(trained):
  method, state, metrics = trained
  assert method.config.method.policy.every == 2
  weights = [float(m["weight_enc"]) for m in metrics]
  assert weights[0] == 1.0 and weights[1] != 1.0 and weights[2] == weights[1]
  assert int(state.stats["policy"]["enc"]["count"]) == 1 and int(state.step) == 3


def test_one_stage_reads_a_batch_for_every_critic_step():
  method = piad.Method(_config(method__n_critic=3))
  (stage,) = method_lib.stages_of(method)
  assert stage.data["batch_size"] == 4 * method.config.train.batch_size


def test_draws_do_not_depend_on_devices():
  """Sub-batches, latents and mixing coefficients of two halves are those of the whole."""
  method, batch = piad.Method(_config()), _batch()
  whole = method.draw(batch, jax.random.key(1))
  halves = [method.draw({k: v[i:i + 12] for k, v in batch.items()}, jax.random.key(1))
            for i in (0, 12)]
  for key, value in whole.items():
    np.testing.assert_array_equal(value, np.concatenate([h[key] for h in halves], 1), err_msg=key)
  assert whole["z"].shape == (3, 8, 1, 1, 4) and whole["mix_image"].shape == (2, 8)
  assert abs(float(whole["z"].mean())) < 0.3 and float(whole["mix_latent"].min()) >= 0
  assert np.any(np.asarray(whole["mix_latent"]) != np.asarray(whole["mix_image"]))
  assert len(np.unique(np.asarray(whole["index"]))) == 24


def test_accumulation_changes_nothing(iterations):
  """Two slices of the batch give the gradients of the whole (2021: no batch statistics)."""
  fresh, whole = iterations[1][:2]
  state, _ = _step(piad.Method(_config(method__ema=0.9, train__accum=2)))(fresh, _batch())
  for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(state.params), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)  # Adam's first step magnifies float order


def test_the_generator_loss_reaches_the_right_networks(trained):
  method, state, _ = trained
  draws = method.draw(_batch(), jax.random.key(3))
  last = {k: v[-1] for k, v in draws.items() if not k.startswith("mix")}
  grads, _, losses = jax.jit(lambda s, d: method._grads(s, d, None))(state, last)
  alone = jax.jit(jax.grad(lambda enc: -method._apply("critic_latent", state.params, method._apply(
      "enc", {"enc": enc}, last["image"])).mean()))(state.params["enc"])
  for a, b in zip(jax.tree.leaves(grads["adv"]["enc"]), jax.tree.leaves(alone)):
    np.testing.assert_allclose(a, b, atol=1e-6)
  assert set(losses) == {"loss", "adv_image", "adv_latent"}


def test_ema_scores_with_the_average(trained, score):
  state, batch = trained[1], {"image": _batch(4)["image"]}
  averaged = score(state, batch)
  last = score(state.replace(stats={**state.stats, "ema": {
      net: state.params[net] for net in ("enc", "dec")}}), batch)
  assert np.any(np.asarray(averaged["score"]) != np.asarray(last["score"]))
  assert averaged["map"].shape == (4, 16, 16, 1) and averaged["score"].shape == (4,)


def test_inference_state_holds_the_averages_alone(trained, score):
  method, state, _ = trained
  kept, batch = method.inference_state(state), {"image": _batch(4)["image"]}
  jax.tree.map(np.testing.assert_array_equal, score(kept, batch), score(state, batch))
  assert sorted(kept.params) == ["vgg"] and sorted(kept.stats) == ["ema", "vgg_16"]
  assert not unread(method, kept, batch)


def test_cached_features_change_nothing(trained):
  method, state, _ = trained
  method = piad.Method(_config(method__ema=0.9, method__cache_features=True))
  batch = _batch()
  cached = dict(method.cache(state, {"image": batch["image"]}, None))
  assert [k for k in cached if k.startswith("feature/")] == ["feature/r32"]
  draws = [method.draw({**extra, **batch}, jax.random.key(3)) for extra in ({}, cached)]
  last = [{k: v[-1] for k, v in d.items() if not k.startswith("mix")} for d in draws]
  loss = jax.jit(lambda d: method._grads(state, d, None)[2]["loss"])
  losses = [loss(d) for d in last]
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_fixed_weights_and_other_losses():
  """Each critic with a loss of its own."""
  method = piad.Method(_config(method__policy__name="fixed", method__adv_image__name="logistic",
                               method__adv_latent__name="least_squares"))
  state = method_lib.fresh_state(method, jax.random.key(0), _batch())
  state, metrics = _step(method)(state, _batch())
  assert float(metrics["weight_enc"]) == 10 and float(metrics["weight_dec"]) == 100
  assert all(np.isfinite(v) for v in metrics.values())


def test_a_loss_beyond_the_limit_ends_training():
  method = piad.Method(_config(method__loss_limit=1e-6))
  state = method_lib.fresh_state(method, jax.random.key(0), _batch())
  _, metrics = _step(method)(state, _batch())
  assert np.isinf(metrics["loss"])


def test_vgg_is_not_trained(iterations):
  fresh, *_, state = iterations[1]
  for a, b in zip(jax.tree.leaves(fresh.params["vgg"]["trunk"]),
                  jax.tree.leaves(state.params["vgg"]["trunk"])):
    np.testing.assert_array_equal(a, b)
  assert "vgg" not in state.opt and set(state.opt) == {"enc_dec", "critic_image", "critic_latent"}


# --------------------------------------------------------------------------------- networks of 2019
@pytest.mark.parametrize("latent_res", [1, 4])
def test_2019_networks(latent_res):
  n = piad_nets.needed_widths(32, latent_res)
  assert n == {1: 4, 4: 4}[latent_res]
  enc = piad_nets.Encoder((3, 4, 5, 6), 7, latent_res)
  dec = piad_nets.Decoder((6, 5, 4, 3), 2, latent_res)
  image = jnp.ones((2, 32, 32, 2))
  latent, params = jax.eval_shape(lambda: enc.init_with_output(jax.random.key(0), image))
  assert latent.shape == (2, latent_res, latent_res, 7)
  recon, _ = jax.eval_shape(lambda: dec.init_with_output(jax.random.key(1), jnp.ones(latent.shape)))
  assert recon.shape == (2, 32, 32, 2)
  widths = [params["params"][f"block{i}"]["conv2"]["bias"].shape[0] for i in range(n - 1)]
  assert widths == [3, 4, 5]


def test_2019_critic_sees_the_whole_batch():
  critic = piad_nets.Encoder((4, 4, 4), 1, mbstd=True)
  image = jax.random.normal(jax.random.key(0), (4, 16, 16, 3))
  params = jax.jit(critic.init)(jax.random.key(1), image)
  apply = jax.jit(critic.apply)
  assert np.any(np.abs(apply(params, image)[:2] - apply(params, image[:2])) > 1e-6)


# ------------------------------------------------------------------------------------------ errors
@pytest.mark.parametrize("change, text", [
    (dict(model__variant="2020"), "variant='2020'"),
    (dict(model__enc=(4, 4)), "config.model.enc: 2 widths"),
    (dict(model__variant="2019", model__dec=(4, 4)), "config.model.dec: 2 widths"),
    (dict(model__latent_res=3), "latent_res=3"),
    (dict(method__n_critic=0), "n_critic=0"), (dict(method__ema=1.0), "ema=1.0"),
    (dict(method__adv_image__name="hinge"), "adv_image.name='hinge'"),
    (dict(method__policy__name="x"), "policy.name='x'"),
    (dict(method__policy__measure="x"), "measure='x'"), (dict(method__policy__average="x"), "average='x'"),
    (dict(method__policy__history=0), "every and history"),
    (dict(method__policy__measure="max"), "measure='max'"),
    (dict(method__policy__every=0), "every and history"),
    (dict(method__layers="r99"), "r99"), (dict(method__vgg_stats="published"), "vgg_stats")])
def test_bad_configs_say_what_is_wrong(change, text):
  with pytest.raises(ValueError, match=text):
    piad.Method(_config(**change))
  piad.Method(_config(method__policy__every=1, method__policy__history=1))


def test_wrong_image_size_and_missing_weights():
  method = piad.Method(_config())
  with pytest.raises(ValueError, match=r"images are \(32, 32, 3\), config.model says"):
    method_lib.fresh_state(method, jax.random.key(0), _batch(res=32))
  method = piad.Method(_config(method__vgg_weights="", method__vgg_stats="published"))
  with pytest.raises(ValueError, match="vgg19-dcbb9e9d.pth"):
    method_lib.fresh_state(method, jax.random.key(0), _batch())


@pytest.mark.parametrize("arg, text", [
    ("cls=10", "cls=10"), ("exp=x", "exp=x"), ("run=3", "run=3"), ("colour=1", "colour"),
    ("ablation=mse", "belongs to exp=paper2019"), ("exp=paper2019,ablation=x", "ablation=x")])
def test_bad_arguments(arg, text):
  with pytest.raises(ValueError, match=text):
    piad_cifar10.get_config(arg)


@pytest.mark.parametrize("module", [piad_cifar10, piad_camelyon16, piad_nih])
def test_random_weights_bring_their_own_statistics(module):
  assert module.get_config("vgg=random:3").method.vgg_stats == "running"
  assert module.get_config("vgg=vgg19-dcbb9e9d.pth").method.vgg_stats == "published"


def test_ablations_are_steps_towards_the_method():
  get = lambda a: piad_cifar10.get_config(f"exp=paper2019,ablation={a}").method
  assert get("mse").layers == "image" and get("mse").policy.name == "fixed"
  assert get("mse_gradient_norms").policy.name == "gradient_norms"
  assert get("perceptual").layers == "r42" and not get("perceptual").normalize
  assert get("perceptual_l1").normalize and get("perceptual_l1").absolute
  assert get("").loss == "relative_perceptual_L1"
  assert piad_camelyon16.get_config("augment=1").data.random_crop


def test_published_checkpoint_becomes_a_workdir(tmp_path):
  """Golden parameters under the public names -> convert -> the same network; critics optional."""
  golden = golden_files("piad", "train*.npz")[0]
  arrays = np.load(golden, allow_pickle=False)
  net = json.loads(golden.with_suffix(".json").read_text())["net"]
  tensors = {k.removeprefix("init/").replace("/", "."): arrays[k] for k in arrays
             if k.startswith(("init/enc/", "init/dec/"))}
  np.savez(tmp_path / "published.npz", **tensors)
  config = _config(**{f"model__{ours}": net[theirs] for ours, theirs in (
      ("res", "res"), ("channels", "idim"), ("latent_res", "lres"), ("latent_dim", "ldim"))},
                   model__enc=tuple(net["enc"]), model__dec=tuple(net["dec"]),
                   model__critic_image=tuple(net["ddis"]), model__critic_latent=tuple(net["edis"]))
  convert.convert(tmp_path / "published.npz", config, tmp_path / "w")
  run = trained_lib.load(tmp_path / "w")
  method, state = run.method, run.state
  image = arrays["real_x"][0].transpose(0, 2, 3, 1)
  np.testing.assert_allclose(method.score(state, {"image": image})["recon"],
                             arrays["fwd/rec"].transpose(0, 2, 3, 1), atol=3e-6)
  np.savez(tmp_path / "other.npz", **tensors, extra=np.zeros(3))
  with pytest.raises(ValueError, match="extra"):
    convert.convert(tmp_path / "other.npz", config, tmp_path / "w2")
