"""Losses, steps and scores of MorphAEus with networks of one number each; nothing is compiled.

The prior is e d x, the deformed prior adds c, the deformed image is x - 2 c; v = (c, 0) everywhere.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import morphaeus_cxr
from medae_jax.core.method import Stage, State
from medae_jax.losses import ncc
from medae_jax.methods import morphaeus
from medae_jax.models.layers import warp
from medae_jax.optim import adam, schedules

START = {"enc": 0.6, "dec": 0.9, "deformer": 0.2}
IMAGE = np.random.default_rng(1).random((3, 4, 4, 1)).astype(np.float32)


def config(**changes):
  c = morphaeus_cxr.get_config("smoke").copy_and_resolve_references()
  with c.unlocked():
    c.update_from_flattened_dict({
        "method.loss": "l2", "method.layers": "", "method.delta": 0.7, "method.beta": 3.0,
        "method.beta_epochs": 200, "model.norm": "none", "optim.epoch_steps": 10, "train.steps": 100,
        "method.warmup_epochs": 2, **changes})
  return c.lock()


def made(monkeypatch, **changes):
  """(method, state at step 25)."""
  method = morphaeus.Method(config(**changes))

  def forward(params, stats, image, *, deform=True, both=False, train=False, axis_name=None):
    prior, c = params["enc"] * params["dec"] * image, params["deformer"]
    out = {"prior": prior}
    if deform:
      out |= {"recon": prior + c, "velocity": jnp.stack([c * image[..., 0]] * 2, -1), "field": None}
      out |= {"reversed": image - 2 * c} if both else {}
    return out, {"mean": jnp.float32(5)} if train else stats
  monkeypatch.setattr(method, "_forward", forward)
  monkeypatch.setattr(method, "_penalty", lambda v: jnp.abs(v).mean((1, 2, 3)))
  # Asymmetric, so that it matters what is compared with what.
  monkeypatch.setattr(ncc, "ncc_loss", lambda a, b, window: ((a - 0.5 * b) ** 2).mean((1, 2, 3)) / window)
  method._tx = dict.fromkeys(morphaeus.GROUPS, optax.sgd(lambda count: 0.1, momentum=0.5))
  params = {k: jnp.float32(v) for k, v in START.items()}
  opt = {name: method._tx[name].init({n: params[n] for n in group})
         for name, group in morphaeus.GROUPS.items()}
  return method, State.create(params, {"mean": jnp.float32(0)}, opt).replace(step=jnp.int32(25))


def by_hand(e, d, c, deform=True, both=True):
  """Mean loss at step 25, in the third epoch: beta = 3 * 2 / 200."""
  x = jnp.asarray(IMAGE)
  prior = e * d * x
  rec = jnp.mean((prior - x) ** 2)
  if not deform:
    return rec
  fit = jnp.mean((x - 0.5 * (prior + c)) ** 2) / 9
  if both:
    fit = (fit + jnp.mean((prior - 0.5 * (x - 2 * c)) ** 2) / 9) / 2
  return rec + 0.7 * (fit + 0.03 * jnp.mean(jnp.abs(c * x)))


@pytest.mark.parametrize("deform, both", [(True, True), (True, False), (False, True)])
def test_a_step(deform, both, monkeypatch):
  """Of the prior alone: the deformer, its optimiser included, stands still."""
  method, state = made(monkeypatch, **{"model.both": both})
  stage = Stage("deform" if deform else "prior", 80)
  new, metrics = method.train_step(state, {"image": IMAGE}, jax.random.key(0), stage=stage, axis_name=None)
  loss, slopes = jax.value_and_grad(by_hand, (0, 1, 2))(*START.values(), deform, both)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  for (net, value), slope in zip(START.items(), slopes):
    np.testing.assert_allclose(new.params[net], value - 0.1 * slope, rtol=1e-5, err_msg=net)
  assert (new.params["deformer"] != state.params["deformer"]) == deform
  speed, count = jax.tree.leaves(new.opt["deformer"])
  np.testing.assert_allclose(speed, slopes[2], rtol=1e-5)
  assert int(count) == deform  # it counts from the first step that reaches the deformer
  assert int(new.step) == 26


@pytest.mark.parametrize("norm, kept", [("batch", 5), ("frozen", 0), ("group", 0)])
def test_statistics_of_a_step_are_kept_where_they_are_learnt(norm, kept, monkeypatch):
  method, state = made(monkeypatch, **{"model.norm": norm})
  new, _ = method.train_step(state, {"image": IMAGE}, jax.random.key(0), stage=Stage("deform", 80),
                             axis_name=None)
  assert float(new.stats["mean"]) == kept


@pytest.mark.parametrize("step, beta", [
    (0, 1e-3), (9, 1e-3), (10, 0.015), (25, 0.03), (1999, 3 * 199 / 200), (2000, 3.0), (9000, 3.0)])
def test_weight_of_the_smoothness_rises_with_the_epoch(step, beta):
  """clip(beta e / E, 1e-3, beta) in epoch e = step // 10."""
  np.testing.assert_allclose(morphaeus.Method(config()).beta(jnp.int32(step)), beta, rtol=1e-6)


def test_validation_is_the_mean_of_both_errors(monkeypatch):
  method, state = made(monkeypatch)
  found = method.eval_step(state, {"image": IMAGE}, None)
  prior = 0.54 * IMAGE
  errors = [((x - IMAGE) ** 2).mean((1, 2, 3)) for x in (prior, prior + 0.2)]
  np.testing.assert_allclose(found["mse_prior"], errors[0], rtol=1e-5)
  np.testing.assert_allclose(found["mse"], errors[1], rtol=1e-5)
  np.testing.assert_allclose(found["loss"], (errors[0] + errors[1]) / 2, rtol=1e-5)


def test_share_of_folded_pixels(monkeypatch):
  """A determinant of 0 is a folding, too."""
  method, state = made(monkeypatch)
  monkeypatch.setattr(warp, "jacobian_determinant", lambda field: jnp.asarray([[[-1.0, 0, 1, 2]]] * 3))
  np.testing.assert_allclose(method.score(state, {"image": IMAGE})["folded"], [0.5] * 3)


def test_the_deformer_which_begins_later_has_the_rate_of_the_others(monkeypatch):
  """Step 70 is its 50th: the prior learns alone in the first 20."""
  monkeypatch.setattr(adam, "adam", lambda rate, **others: rate)
  method = morphaeus.Method(config(**{"optim.schedule": "cosine"}))
  rates = [[float(method._tx["ae"](n)), float(method._tx["deformer"](n - 20))] for n in (69, 70, 71)]
  assert [own == other for own, other in rates] == [True] * 3
  assert rates[0][0] > rates[1][0] > rates[2][0]


def test_the_schedule_ends_with_training(monkeypatch):
  seen, build = [], schedules.build
  monkeypatch.setattr(schedules, "build", lambda o, steps: seen.append(steps) or build(o, steps))
  morphaeus.Method(config())
  assert seen == [100]


def test_both_networks_learn_from_the_prior():
  """Real passes, networks of one number: their gradients reach the encoder."""
  method = morphaeus.Method(config())

  class Network:
    def apply(self, variables, x, train, axis_name, mutable):
      return (variables["params"] * x, [x]), {}
  method._nets = lambda channels: {"enc": Network(), "dec": Network()}
  loss = lambda params: method._forward(params, {}, jnp.asarray(IMAGE), deform=False)[0]["prior"].sum()
  slopes, total = jax.grad(loss)({"enc": 0.6, "dec": 0.9}), IMAGE.sum()
  np.testing.assert_allclose([slopes["enc"], slopes["dec"]], [0.9 * total, 0.6 * total], rtol=1e-5)


@pytest.mark.parametrize("of", ["prior", "recon"])
def test_scores_are_fitted_on_the_image_that_the_config_names(monkeypatch, of):
  method, state = made(monkeypatch, **{"method.score.of": of})
  monkeypatch.setattr(method, "_scores", types.SimpleNamespace(finalize=lambda *given: given))
  first, batches, recon_of = method.finalize(state, ["batches"])
  prior = START["enc"] * START["dec"] * IMAGE
  assert first is state and batches == ["batches"]
  np.testing.assert_allclose(recon_of(state, {"image": IMAGE}),
                             prior + (0 if of == "prior" else START["deformer"]), rtol=1e-6)


def test_pictures_show_the_prior_its_deformed_form_and_the_field(monkeypatch):
  method, state = made(monkeypatch)
  field = np.random.default_rng(2).random((3, 4, 4, 2)).astype(np.float32) * 3
  forward = method._forward
  monkeypatch.setattr(method, "_forward", lambda *args: ({**forward(*args)[0], "field": field}, None))
  found = method.pictures(state, {"image": IMAGE}, None)
  prior = START["enc"] * START["dec"] * IMAGE
  np.testing.assert_allclose(found["prior"], prior, rtol=1e-6)
  np.testing.assert_allclose(found["recon"], np.clip(prior + START["deformer"], 0, 1), rtol=1e-6)
  np.testing.assert_array_equal(found["field"], morphaeus.deformer.moved_grid(field))
  np.testing.assert_array_equal(found["jacobian"], morphaeus.deformer.shown_jacobian(field))
