"""Rules of the chest autoencoders without training: losses, counters, schedules, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from configs import ae_cxr, morphaeus_cxr
from configs.fields import ae_zoo
from medae_jax.core import checks, method as method_lib
from medae_jax.core.errors import UserError
from medae_jax.core.method import State
from medae_jax.losses import perceptual, ssim, variational
from medae_jax.losses.trunk import Trunk
from medae_jax.optim import plateau


def config_of(arg, **fields):
  config = ae_cxr.get_config(arg)
  with config.unlocked():
    for name, value in fields.items():
      group, _, field = name.partition("__")
      config[group][field] = value
  return config


def method_of(arg, **fields):
  return method_lib.load(config_of(arg, **fields))


def test_every_word_has_its_parity_and_narrow_form():
  for word in ae_zoo.FILL:
    sound, parity = ae_cxr.get_config(word), ae_cxr.get_config(f"{word},parity=1")
    for field, value in ae_zoo.PARITY[word].items():
      *groups, last = field.split(".")
      for group in groups:
        sound, parity = sound[group], parity[group]
      assert sound[last] != value == parity[last], field
      sound, parity = ae_cxr.get_config(word), ae_cxr.get_config(f"{word},parity=1")
    for extra in ("parity=1", "smoke", "demo", "small"):
      checks.check(ae_cxr.get_config(f"{word},{extra}"))


@pytest.mark.parametrize("arg, text", [
    ("ae_s,vae", "ae_s and vae name several methods"), ("vae,loss=l1", "vae has a loss of its own"),
    ("nosuch", "'nosuch' is unknown")])
def test_arguments_that_do_not_go_together(arg, text):
  with pytest.raises(UserError, match=text):
    ae_cxr.get_config(arg)


@pytest.mark.parametrize("arg, fields, text", [
    ("si_vae,smoke", {"train__accum": 2}, "use 1|changes the statistics"),
    ("si_vae,smoke", {"train__accum": 2, "model__norm": "frozen"}, "codes of the encoder"),
    ("beta_vae,smoke", {"train__accum": 2}, "of the whole batch"),
    ("ae_s,smoke", {"train__accum": 2}, "changes the statistics"),
    *((f"{word},smoke", {"model__latent": 0}, "config.model.latent=0: codes of")
      for word in ("vae", "beta_vae", "aae", "si_vae")),
    ("dae,smoke", {"method__loss": "l1+perceptual"}, "takes l1, l2, ssim")])
def test_methods_that_refuse_a_config(arg, fields, text):
  with pytest.raises(UserError, match=text):
    method_of(arg, **fields)


@pytest.mark.parametrize("arg, shape, text", [
    ("aae,smoke", (48, 48, 1), "squares of 32, 64, 128"), ("aae,smoke", (64, 32, 1), "squares of 32"),
    ("vae,smoke", (36, 36, 1), "cannot be halved 3 times"),
    ("beta_vae,smoke", (40, 40, 1), "squares of 4, 8")])
def test_sizes_that_a_network_does_not_take(arg, shape, text):
  method = method_of(arg)
  with pytest.raises(UserError, match=text):
    jax.eval_shape(lambda key: method.init(key, {"image": jnp.zeros((1, *shape))}), jax.random.key(0))


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-1.0, 1.0)])
def test_ssim_in_an_expression_knows_the_range(low, high):
  image, recon = np.random.default_rng(0).uniform(0, 1, (2, 2, 16, 16, 1)).astype(np.float32)
  spread = lambda x: low + (high - low) * x
  trunk = Trunk(None, {}, {}, low=low, high=high)
  terms = perceptual.parse("l1 + 0.5*ssim", layers="")
  found = perceptual.per_image(terms, trunk, spread(image), spread(recon))
  expected = np.abs(spread(image) - spread(recon)).mean((1, 2, 3)) + 0.5 * ssim.ssim_loss(image, recon)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  shown = perceptual.anomaly_map(terms, trunk, spread(image), spread(recon))
  assert shown.shape == (2, 16, 16, 1)
  np.testing.assert_allclose(shown.mean((1, 2, 3)), expected, rtol=1e-5)


def test_divergences_by_integration():
  mean, log_std = np.array([[0.7, -0.3]]), np.array([[-0.5, 0.4]])
  x = np.linspace(-12, 12, 20001)
  total = 0.0
  for m, s in zip(mean[0], log_std[0]):
    q = np.exp(-((x - m) / np.exp(s)) ** 2 / 2) / np.exp(s) / np.sqrt(2 * np.pi)
    ratio = -((x - m) / np.exp(s)) ** 2 / 2 - s + x**2 / 2
    total += np.trapezoid(q * ratio, x)
  np.testing.assert_allclose(variational.kl_of_log_std(mean, log_std), [total], rtol=1e-5)
  np.testing.assert_allclose(variational.kl_of_log_var(mean, 2 * log_std), [total], rtol=1e-5)


@pytest.mark.parametrize("log_std", [0.0, -0.7])
def test_the_likelihood_is_a_normal_density(log_std):
  image, recon = np.random.default_rng(0).normal(size=(2, 3, 2, 2, 1))
  want = -scipy.stats.norm.logpdf(image, recon, np.exp(log_std)).sum((1, 2, 3))
  np.testing.assert_allclose(variational.gaussian_nll(image, recon, log_std), want, rtol=1e-6)


def test_the_published_divergence_exponentiates_twice():
  mean, log_std = jnp.ones((2, 3)), 0.3 * jnp.ones((2, 3))
  published, exact = (method_of("vae,smoke", method__kl=kind).divergence(mean, log_std)
                      for kind in ("published", "exact"))
  np.testing.assert_allclose(published, variational.kl_of_log_std(mean, jnp.exp(log_std)), rtol=1e-6)
  np.testing.assert_allclose(exact, variational.kl_of_log_std(mean, log_std), rtol=1e-6)


def test_capacity_counts_the_step_before_use_and_validations_where_asked():
  method = method_of("beta_vae,smoke", method__max_capacity=10.0, method__capacity_steps=100.0,
                     method__validation_calls=16)
  state = State.create({}, method.counters()).replace(step=jnp.int32(4))
  waiting = method_of("beta_vae,smoke", optim__plateau_patience=2)
  assert set(waiting.counters()) == {"plateau", "validation_calls"}
  np.testing.assert_allclose(method.capacity(state), 0.5, rtol=1e-6)
  state = method.after_validation(state, {"val/loss": 1.0})
  np.testing.assert_allclose(method.capacity(state), 2.1, rtol=1e-6)
  np.testing.assert_allclose(method.capacity(state.replace(step=jnp.int32(1000))), 10.0)


def test_plateau_waits_and_multiplies():
  """PyTorch's rule: more than `patience` validations without a relative gain."""
  state, scales = plateau.init(), []
  for value in (1.0, 0.99995, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5):
    state = plateau.update(state, value, patience=2, factor=0.1)
    scales.append(float(state["scale"]))
  np.testing.assert_allclose(scales, [1, 1, 1, 1, 1, 0.1, 0.1, 0.1], rtol=1e-6)
  assert int(state["bad"]) == 0 and float(state["best"]) == 0.5
  state = plateau.init()
  for value in (1.0, 0.99997, 0.99994, 0.99991):  # gains of less than a ten-thousandth of the best are none
    state = plateau.update(state, value, patience=2, factor=0.1)
  assert float(state["scale"]) == pytest.approx(0.1) and float(state["best"]) == 1.0
  state = plateau.update(state, 0.99985, patience=2, factor=0.1)  # more than that is one
  assert float(state["best"]) == pytest.approx(0.99985, abs=1e-6)


@pytest.mark.parametrize("arg, draws", [("vae,smoke", True), ("vae,smoke,parity=1", False),
                                        ("beta_vae,smoke", True), ("ae_s,smoke", False)])
def test_codes_are_drawn_in_training_where_the_config_says(arg, draws, monkeypatch):
  method, batch = method_of(arg), {"image": jnp.ones((3, 8, 8, 1)), "index": jnp.arange(3)}
  monkeypatch.setattr(method, "step", lambda state, part, axis_name: part)
  part = method.train_step(None, batch, jax.random.key(0), stage=None, axis_name=None)
  assert ("noise" in part) == draws
  if draws:
    assert part["noise"].shape == (3, method.config.model.latent) and np.std(part["noise"]) > 0.5


@pytest.mark.parametrize("arg, count", [("aae,smoke", 3), ("si_vae,smoke", 6)])
def test_each_pass_of_a_step_has_draws_of_its_own(arg, count, monkeypatch):
  """z1, z2, z3 of the AAE; n and five draws of the soft-introspective VAE: N(0, I), none twice."""
  method, batch = method_of(arg), {"image": jnp.ones((40, 32, 32, 1)), "index": jnp.arange(40)}
  monkeypatch.setattr(method, "step", lambda state, image, noise, axis_name: noise)
  steps = [np.asarray(method.train_step(None, batch, jax.random.key(k), stage=None, axis_name=None))
           for k in (0, 1)]
  drawn = np.concatenate(steps)
  assert drawn.shape == (2 * count, 40, method.config.model.latent)
  alike = np.abs(np.corrcoef(drawn.reshape(-1, drawn.shape[-1])) - np.eye(80 * count))
  assert alike.max() < 0.999
  assert np.std(drawn) == pytest.approx(1, rel=0.05) and abs(np.mean(drawn)) < 0.05


@pytest.mark.parametrize("arg", ["beta_vae,smoke", "si_vae,smoke"])
def test_codes_are_drawn_in_scores_and_validation_where_the_config_says(arg, monkeypatch):
  """One draw for all images in a score; the network here shows whether it was given one."""
  shown, batch = {}, {"image": jnp.zeros((3, 8, 8, 1)), "index": jnp.arange(3)}
  for sample in (False, True):
    config = config_of(arg)
    with config.unlocked():
      config.method.score.sample = sample
    method = method_lib.load(config)
    given = lambda use, image, noise=None: image + (0 if noise is None else jnp.abs(noise).sum())
    monkeypatch.setattr(method, "use", lambda *args, **kw: None)
    monkeypatch.setattr(method, "reconstruct", given)
    monkeypatch.setattr(method, "terms", lambda use, state, part, mean: {
        k: ((given(use, part["image"], part.get("noise")) - part["image"]) ** 2).mean((1, 2, 3))
        for k in ("loss", "rec")}, raising=False)
    state = State.create({}, {})
    loss = method.eval_step(state, batch, jax.random.key(1))["loss"]
    shown[sample] = method.score(state, batch)["recon"], loss
  for off, on in zip(shown[False], shown[True]):
    assert not np.any(off) and np.all(on > 0)
  assert np.ptp(shown[True][0]) == 0


def test_a_capacity_is_no_part_of_what_chooses_the_checkpoint(monkeypatch):
  for kind, want in (("capacity", 2.0), ("beta", 5.0)):
    method = method_of("beta_vae,smoke", method__regulariser=kind)
    monkeypatch.setattr(method, "terms", lambda *args: {"loss": 5.0, "rec": 2.0, "kl": 3.0})
    batch = {"image": jnp.zeros((1, 64, 64, 1))}
    assert method.eval_step(State.create({}, {}), batch, None)["loss"] == want


def test_the_plateau_scales_the_step():
  """Of the parameters, not of the optimiser's memory."""
  method = method_of("vae,smoke")
  params, grads = ({net: {"w": w} for net in ("enc", "dec")} for w in (jnp.zeros(2), jnp.ones(2)))
  state = State.create(params, method.counters(), {"net": method.tx.init(params)})
  low = {**state.stats["plateau"], "scale": jnp.asarray(0.25)}
  full, quarter = (method.move("net", s, grads, {}) for s in (state, state.replace(stats={"plateau": low})))
  np.testing.assert_allclose(quarter.params["enc"]["w"], full.params["enc"]["w"] / 4, rtol=1e-6)
  assert full.params["enc"]["w"][0] < 0
  jax.tree.map(np.testing.assert_array_equal, full.opt, quarter.opt)
  np.testing.assert_allclose(method.rate(state.replace(stats={"plateau": low})), 0.25 * method.rate(state))


def test_cross_entropy_of_logits():
  logits, target = np.array([[2.0, -1.0]]), np.array([[0.3, 1.0]])
  p = 1 / (1 + np.exp(-logits))
  expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(1)
  np.testing.assert_allclose(variational.cross_entropy(logits, target), expected, rtol=1e-6)


def test_networks_of_morphaeus_are_those_of_the_fields():
  config = morphaeus_cxr.get_config("smoke")
  with config.unlocked():
    config.model.update(widths=(3, 5, 7), strides=(1, 2, 1), kernel=7, norm="group", act="leaky_relu",
                        slope=0.3, levels=2, upsampling="transposed", dtype="bfloat16")
  nets = method_lib.load(config)._nets(4)
  for net in nets.values():
    assert (net.channels, net.strides, net.size, net.norm) == ((3, 5, 7), (1, 2, 1), 7, "group")
    assert (net.act, net.dtype) == ("leaky_relu", jnp.bfloat16)
  enc, dec = nets["enc"], nets["dec"]
  assert enc.slope == dec.slope == 0.3 and dec.out == 4 and dec.upsampling == "transposed"
  assert nets["deformer"].levels == 2


def test_widths_keep_their_order():
  """Sorted, a net that narrows was another one."""
  for word in ("si_vae", "vae"):
    nets = method_of(f"{word},smoke", model__widths=(16, 4, 8)).nets((16, 16, 1))
    assert tuple(nets["enc"].widths) == (16, 4, 8)
