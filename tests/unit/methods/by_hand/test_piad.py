"""An iteration of PIAD with networks of one number each, whose gradients a test writes down itself.

E(x) = e x, G(z) = g z, D_x(x) = a x with the least-squares loss, D_z(z) = b z with Wasserstein's.
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from configs import piad_camelyon16, piad_cifar10
from medae_jax.core.method import State
from medae_jax.methods import _gradient_norms as gradient_norms, piad
from medae_jax.models import dpa_nets, piad_nets
from medae_jax.optim import adam

RATE = {"enc_dec": 0.01, "critic_image": 0.02, "critic_latent": 0.03}
MOMENTUM, START = 0.5, {"enc": 0.7, "dec": -0.4, "critic_image": 0.3, "critic_latent": 0.6}
RNG = np.random.default_rng(3)
DRAWS = {**{k: RNG.normal(1, 1, (3, 2, 1, 1, 1)).astype(np.float32) for k in ("image", "z")},
         **{k: RNG.random((2, 2)).astype(np.float32) for k in ("mix_image", "mix_latent")}}


def config(**changes):
  c = ml_collections.ConfigDict(piad_cifar10.get_config("smoke").to_dict())
  c.update_from_flattened_dict({
      "method.loss": "l2", "method.layers": "", "method.score.loss": "", "method.ema": 0.9,
      "method.adv_image.name": "least_squares", "method.adv_latent.wasserstein_weight": 2.0,
      "method.adv_latent.norm_penalty": 0.0, **changes})
  return c


def made(monkeypatch, **changes):
  """(method, state before its first iteration)."""
  method = piad.Method(config(**changes))
  monkeypatch.setattr(method, "_apply", lambda net, params, x, axis_name=None: params[net]["kernel"] * x)
  method.tx = {name: optax.sgd(rate, momentum=MOMENTUM) for name, rate in RATE.items()}
  params = {net: {"kernel": jnp.float32(value)} for net, value in START.items()}
  nets = {net: params[net] for net in ("enc", "dec")}
  stats = {"policy": {net: gradient_norms.init(params[net], 4) for net in nets}, "ema": nets}
  return method, State.create(params, stats, {name: tx.init(piad._of(params, name))
                                              for name, tx in method.tx.items()})


def by_hand():
  """(critics after both of their steps, adversarial and reconstruction gradients of E and G, losses)."""
  x, z = DRAWS["image"].reshape(3, 2), DRAWS["z"].reshape(3, 2)
  e, g, a, b = START.values()
  speed_a = speed_b = 0.0
  for k in range(2):
    fake = g * z[k]
    slope_a = np.mean((a * x[k] - 1) * x[k]) + np.mean(a * fake * fake)
    slope_b = -2 * (z[k].mean() - (e * x[k]).mean()) + 10 * 2 * (abs(b) - 1) * np.sign(b)
    speed_a, speed_b = slope_a + MOMENTUM * speed_a, slope_b + MOMENTUM * speed_b
    a, b = a - RATE["critic_image"] * speed_a, b - RATE["critic_latent"] * speed_b
  x, z = x[2], z[2]
  adv = {"enc": -b * x.mean(), "dec": np.mean(2 * (a * g * z - 1) * a * z)}
  rec = {"enc": np.mean(-2 * (x - g * e * x) * g * x), "dec": np.mean(-2 * (x - g * e * x) * e * x)}
  losses = {"loss": np.mean((x - g * e * x) ** 2), "adv_image": np.mean((a * g * z - 1) ** 2),
            "adv_latent": -np.mean(b * e * x)}
  return {"critic_image": a, "critic_latent": b}, adv, rec, losses


@pytest.mark.parametrize("policy", ["fixed", "gradient_norms"])
def test_an_iteration(policy, monkeypatch):
  """Two steps of both critics, each with images of its own; then E and G, on the third images.

  The weight of the reconstruction loss is the config's, or at a refresh |adversarial| / |reconstruction|.
  """
  method, state = made(monkeypatch, **{"method.policy.name": policy, "method.policy.every": 1,
                                       "method.policy.weight_enc": 10.0, "method.policy.weight_dec": 100.0})
  new, metrics = method.iterate(state, DRAWS)
  critics, adv, rec, losses = by_hand()
  weight = ({"enc": 10.0, "dec": 100.0} if policy == "fixed" else {n: abs(adv[n]) / abs(rec[n]) for n in adv})
  want = {**critics, **{n: START[n] - RATE["enc_dec"] * (adv[n] + weight[n] * rec[n]) for n in adv}}
  for net, value in want.items():
    np.testing.assert_allclose(new.params[net]["kernel"], value, rtol=1e-5, err_msg=net)
  for name, value in {**losses, **{f"weight_{n}": w for n, w in weight.items()}}.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
  assert int(new.step) == 1
  kept = 2 / 11  # of the average before the first iteration: min(ema, (1 + t) / (10 + t)), t = 1
  for net in ("enc", "dec"):
    np.testing.assert_allclose(new.stats["ema"][net]["kernel"], kept * START[net] + (1 - kept) * want[net],
                               rtol=1e-5)


def test_weights_are_refreshed_at_every_second_iteration(monkeypatch):
  """Counted from 1; until then they are 1."""
  method, state = made(monkeypatch, **{"method.policy.every": 2})
  for count in (0, 1, 1):
    state, metrics = method.iterate(state, DRAWS)
    assert int(state.stats["policy"]["enc"]["count"]) == count
    assert (float(metrics["weight_enc"]) == 1) == (count == 0)


@pytest.mark.parametrize("limit, ends", [(0.0, False), (1e-3, True), (1e3, False)])
def test_any_of_the_losses_beyond_the_limit_ends_training(limit, ends, monkeypatch):
  method, state = made(monkeypatch, **{"method.loss_limit": limit})
  assert np.isinf(method.iterate(state, DRAWS)[1]["loss"]) == ends


def test_each_optimiser_has_its_own_rate(monkeypatch):
  rates = []
  monkeypatch.setattr(adam, "adam", lambda schedule, **kw: rates.append(
      (float(schedule(0)) if callable(schedule) else schedule, kw)) or optax.sgd(1.0))
  piad.Method(config(**{"optim.lr": 0.5, "optim.lr_critic_image": 0.25, "optim.lr_critic_latent": 0.125,
                        "optim.b1": 0.6, "optim.b2": 0.7, "optim.weight_decay": 0.01}))
  shared = {"b1": 0.6, "b2": 0.7, "weight_decay": 0.01}
  assert rates == [(0.5, shared), (0.25, shared), (0.125, shared)]


def test_every_gradient_of_an_iteration_is_accumulated_in_the_slices_of_the_config(monkeypatch):
  """Two steps of both critics, then the networks: in one slice they are the same, the memory is not."""
  slices, plain = [], piad.parallel.value_and_grad
  monkeypatch.setattr(piad.parallel, "value_and_grad", lambda *args, accum, **more: slices.append(
      accum) or plain(*args, accum=accum, **more))
  method, state = made(monkeypatch, **{"train.accum": 2})
  jax.eval_shape(method.iterate, state, DRAWS)
  assert len(slices) > 4 and set(slices) == {2}


def test_networks_of_the_public_files_by_their_names():
  """ddis and image_dis tell images apart, edis and latent_dis codes."""
  assert piad.TORCH_NAMES == {
      "2021": {"enc": "enc", "dec": "dec", "critic_image": "ddis", "critic_latent": "edis"},
      "2019": {"enc": "enc", "dec": "gen", "critic_image": "image_dis", "critic_latent": "latent_dis"}}


def test_latents_are_normal_and_each_critic_mixes_by_numbers_of_its_own():
  """z ~ N(0, I); a ~ U(0, 1), one an example and critic, none for the step of E and G."""
  method = piad.Method(config(**{"model.latent_dim": 4}))
  n, k = 600, method.n_critic + 1
  found = method.draw({"image": jnp.zeros((k * n, 2, 2, 3)), "index": jnp.arange(k * n)}, jax.random.key(0))
  z = np.asarray(found["z"])
  assert z.shape == (k, n, 1, 1, 4)
  assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05 and abs((np.abs(z) < 1).mean() - 0.683) < 0.02
  mixes = [np.asarray(found[f"mix_{side}"]) for side in ("image", "latent")]
  for mix in mixes:
    assert mix.shape == (k - 1, n) and mix.min() >= 0 and mix.max() < 1
    assert abs(mix.mean() - 0.5) < 0.05 and abs(mix.std() - 12**-0.5) < 0.02
  assert abs(np.corrcoef(*(mix.ravel() for mix in mixes))[0, 1]) < 0.15


@pytest.mark.parametrize("module, words, every", [
    (piad_cifar10, "cls=1", 10000), (piad_camelyon16, "", 1000), (piad_camelyon16, "exp=reproduce", 1000)])
def test_a_fold_chooses_among_saved_states_by_its_own_anomalies(module, words, every):
  """As published: on the fold's test part. A final run has no validation, and its last state."""
  fold = module.get_config(f"{words},fold=2".strip(","))
  assert fold.data.fold == 2 and fold.data.val_from_test and fold.train.eval_every == every
  assert (fold.train.best_metric, fold.train.best_mode) == ("val/image_auroc", "max")
  assert fold.eval.checkpoint == "best" and not fold.train.early_stop
  final = module.get_config(words)
  assert not final.data.val_from_test and final.train.eval_every == 0 and final.eval.checkpoint == "last"


@pytest.mark.parametrize("ema, factor", [(0.9, 0.6 * -0.5), (0.0, 0.7 * -0.4)])
def test_scores_have_a_loss_of_their_own_and_validations_that_of_training(ema, factor, monkeypatch):
  """Mean |x - G(E(x))|, and its square, by the averaged networks where there are averages."""
  method, state = made(monkeypatch, **{"method.score.loss": "l1", "method.ema": ema})
  averaged = {"enc": {"kernel": jnp.float32(0.6)}, "dec": {"kernel": jnp.float32(-0.5)}}
  state = state.replace(stats={**state.stats, "ema": averaged})
  x = RNG.normal(0, 1, (3, 4, 4, 3)).astype(np.float32)
  off = (1 - factor) * x
  found = method.score(state, {"image": x})
  np.testing.assert_allclose(found["score"], np.abs(off).mean((1, 2, 3)), rtol=1e-5)
  np.testing.assert_allclose(found["map"], np.abs(off).mean(-1, keepdims=True), rtol=1e-4)
  np.testing.assert_allclose(found["recon"], factor * x, rtol=1e-5)
  np.testing.assert_allclose(method.eval_step(state, {"image": x}, None)["loss"],
                             (off**2).mean((1, 2, 3)), rtol=1e-5)


# --------------------------------------------------------------------------- networks, one channel each
def leaky(x):
  return np.where(x > 0, x, 0.2 * x)


def test_a_block_of_2019_pools_behind_its_convolutions():
  """Both are identities here: mean(l(l(x))) + mean(x)."""
  x = RNG.normal(0, 1, (1, 4, 4, 1)).astype(np.float32)
  same = {"kernel": jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0), "bias": jnp.zeros(1)}
  found = piad_nets.DownBlock(1).apply({"params": {"conv1": same, "conv2": same}}, x)
  mean = lambda v: v.reshape(1, 2, 2, 2, 2, 1).mean((2, 4))
  np.testing.assert_allclose(found, mean(leaky(leaky(x))) + mean(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant, first", [("2019", lambda z: z), ("2021", leaky)])
def test_the_generator_of_2019_takes_the_latent_as_it_is(variant, first):
  """Padded by 3, its 4x4 kernel is met turned round: out[i, j] = w[3 - i, 3 - j] z."""
  c = config(**{"model.variant": variant, "model.res": 8, "model.latent_dim": 1})
  c.model.update(enc=(2, 2), dec=(2, 2), critic_image=(2, 2))
  nets = piad_nets.build(c.model)
  z = jnp.full((1, 1, 1, 1), -0.5)
  made = nets["dec"].init(jax.random.key(0), z)
  _, seen = nets["dec"].apply(made, z, capture_intermediates=True, mutable=["intermediates"])
  layer, name = made["params"], "first" if variant == "2019" else "res_4"
  layer = layer["first"] if variant == "2019" else layer["res_4"]["conv"]
  found = seen["intermediates"][name]["__call__"][0]
  want = first(-0.5) * layer["kernel"][::-1, ::-1, 0] + layer["bias"]
  np.testing.assert_allclose(found[0], want, rtol=1e-5, atol=1e-6)
  # the image critic alone has the deviation of the batch as one more channel
  inputs = {net: nets[net].init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)))["params"] for net in
            ("enc", "critic_image")}
  last = {net: (p["last"] if variant == "2019" else p["res_4"]["conv"])["kernel"].shape[2]
          for net, p in inputs.items()}
  assert last == {"enc": 2, "critic_image": 3 if variant == "2019" else 2}


def test_the_latent_critic_reads_channel_after_channel():
  x = RNG.normal(0, 1, (2, 2, 3, 4)).astype(np.float32)
  kernel = jnp.arange(24.0).reshape(1, 1, 24, 1)
  found = dpa_nets.LatentDiscriminator(()).apply(
      {"params": {"body": {"conv0": {"kernel": kernel, "bias": jnp.ones(1)}}}}, x)
  want = [1 + sum(image[h, w, c] * (6 * c + 3 * h + w) for h, w, c in np.ndindex(2, 3, 4)) for image in x]
  np.testing.assert_allclose(found.ravel(), want, rtol=1e-4)


@pytest.mark.parametrize("net", ["image", "latent"])
def test_an_adversarial_loss_alone_can_end_training_on_either_side_of_zero(net, monkeypatch):
  method, state = made(monkeypatch, **{"method.loss_limit": 50.0})
  for value, ends in ((-60.0, True), (60.0, True), (-40.0, False), (40.0, False)):
    losses = {"loss": jnp.float32(1), "adv_image": jnp.float32(2), "adv_latent": jnp.float32(3)}
    losses[f"adv_{net}"] = jnp.float32(value)
    nothing = {n: {"kernel": jnp.float32(0)} for n in ("enc", "dec")}
    monkeypatch.setattr(method, "_grads", lambda state, draws, axis, losses=losses: (
        {"adv": nothing, "rec": nothing}, state.stats, losses))
    assert np.isinf(method.iterate(state, DRAWS)[1]["loss"]) == ends, value
