"""Annotation removal around a network of one number: its loss term by term, its step, what it restores."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import annotation_removal as configs
from medae_jax.core.method import State
from medae_jax.losses import ssim
from medae_jax.methods import annotation_removal

RNG = np.random.default_rng(2)
CLEAN = RNG.uniform(0.1, 0.6, (2, 3, 4, 3)).astype(np.float32)
MASK = np.zeros((2, 3, 4, 1), np.float32)
MASK[0, 1, 1:3] = MASK[1, 0, 0] = 1
IMAGE = np.where(MASK > 0, np.float32(1), CLEAN)
IMAGE[0, 2, 3, 0] = 0.95  # changed in one channel, but not marked: parity's mask has it
BATCH = {"image": IMAGE, "clean": CLEAN, "mask": MASK}
W = 0.8


def made(monkeypatch, *, gate=False, **changes):
  """(method, state): the network gives w x, with a gate the logit x_0 - w."""
  c = configs.get_config("smoke").copy_and_resolve_references()
  with c.unlocked():
    c.update_from_flattened_dict({
        "model.network": "autoencoder_skip", "model.head": "gated" if gate else "residual",
        "method.alpha": 40.0, "method.beta": 2.0, "method.mse_weight": 3.0, "method.ssim_weight": 0.25,
        "method.mark_weight": 0.5, "method.ssim_window": 7, "method.score.threshold": 0.1,
        "method.score.dilate": 0, **changes})
  method, trained = annotation_removal.Method(c.lock()), []

  def apply(params, stats, image, train, axis_name=None):
    trained.append(train)
    out = {"recon": params * image}
    return {**out, **({"logit": image[..., :1] - params} if gate else {})}, {"seen": stats["seen"] + train}
  monkeypatch.setattr(method, "_apply", apply)
  # Asymmetric, so that it matters what is compared with what.
  monkeypatch.setattr(ssim, "ssim_loss", lambda a, b, window: ((a - 0.5 * b) ** 2).mean((1, 2, 3)) * window)
  method._tx = optax.sgd(0.1)
  params = jnp.float32(W)
  state = State.create({"net": params}, {"net": {"seen": jnp.float32(0)}}, {"net": method._tx.init(params)})
  return method, state, trained


def by_hand(w, gate, parity):
  """{term: mean}: the squared error is over the weights of the whole batch."""
  mask = jnp.asarray(IMAGE != CLEAN if parity else np.broadcast_to(MASK, CLEAN.shape), jnp.float32)
  weight, recon = 40 * mask + 2 * (1 - mask), w * IMAGE
  terms = {"mse": 3 * jnp.sum(weight * (CLEAN - recon) ** 2) / jnp.sum(weight),
           "ssim": 0.25 * 7 * jnp.mean((recon - 0.5 * (IMAGE if parity else CLEAN)) ** 2)}
  if gate:
    p = jax.nn.sigmoid(IMAGE[..., :1] - w)
    terms["mark"] = -0.5 * jnp.mean(MASK * jnp.log(p) + (1 - MASK) * jnp.log(1 - p))
  return terms


@pytest.mark.parametrize("gate, parity", [(False, False), (False, True), (True, False)])
def test_a_step(gate, parity, monkeypatch):
  """With parity the mask is what differs, and the similarity is that to the annotated image."""
  method, state, trained = made(monkeypatch, gate=gate, **{"method.parity": parity})
  new, metrics = method.train_step(state, BATCH, jax.random.key(0), stage=None, axis_name=None)
  want, slopes = by_hand(W, gate, parity), jax.jacobian(by_hand)(W, gate, parity)
  for name, value in want.items():
    np.testing.assert_allclose(metrics[f"loss_{name}"], value, rtol=1e-4, err_msg=name)
  np.testing.assert_allclose(metrics["loss"], sum(want.values()), rtol=1e-4)
  np.testing.assert_allclose(new.params["net"], W - 0.1 * sum(slopes.values()), rtol=1e-4)
  assert set(trained) == {True} and float(new.stats["net"]["seen"]) == 1 and int(new.step) == 1


@pytest.mark.parametrize("parity", [False, True])
def test_validation_weighs_each_image_by_itself(parity, monkeypatch):
  """Its squared error over its own weights."""
  method, state, trained = made(monkeypatch, **{"method.parity": parity})
  found = method.eval_step(state, BATCH, None)
  mask = (IMAGE != CLEAN if parity else np.broadcast_to(MASK, CLEAN.shape)).astype(np.float32)
  weight = 40 * mask + 2 * (1 - mask)
  want = 3 * (weight * (CLEAN - W * IMAGE) ** 2).sum((1, 2, 3)) / weight.sum((1, 2, 3))
  np.testing.assert_allclose(found["loss_mse"], want, rtol=1e-4)
  np.testing.assert_allclose(found["loss"], found["loss_mse"] + found["loss_ssim"], rtol=1e-5)
  assert trained == [False]


@pytest.mark.parametrize("gate", [False, True])
def test_what_is_not_marked_is_left_as_it_was(gate, monkeypatch):
  """Evidence is the largest change of a channel, 0.2 x here, or the gate."""
  method, state, _ = made(monkeypatch, gate=gate, **{"method.score.threshold": 0.51 if gate else 0.15})
  found = method.score(state, {"image": IMAGE})
  marked = IMAGE[..., :1] > 0.8 + np.log(0.51 / 0.49) if gate else IMAGE.max(-1, keepdims=True) * 0.2 > 0.15
  assert 0 < marked.mean() < 0.5
  np.testing.assert_array_equal(found["marks"], marked)
  np.testing.assert_array_equal(found["restored"], np.where(marked, np.float32(W) * IMAGE, IMAGE))
  np.testing.assert_allclose(found["score"], marked.mean((1, 2, 3)))
  for gain, most in ((3.0, 1.0), (-1.0, 0.0)):  # what lies beyond black and white is cut off
    beyond = state.replace(params={"net": jnp.float32(gain)})
    shown = method.pictures(beyond, {"image": IMAGE}, None)["recon"]
    for recon in (shown, method.score(beyond, {"image": IMAGE})["recon"]):
      assert float(recon.max()) == most and float(recon.min()) >= 0


def test_a_gate_mixes_the_networks_image_with_the_input():
  """p = g q + (1 - g) a; sides that the poolings do not divide are continued by their last pixels."""
  c = configs.get_config("smoke").copy_and_resolve_references()
  with c.unlocked():
    c.model.update(network="autoencoder_skip", head="gated")
  method = annotation_removal.Method(c.lock())

  class Network:
    stride = 4

    def apply(self, variables, x, mutable):
      assert x.shape == (1, 4, 8, 1) and (x[0, 3] == x[0, 2]).all() and (x[0, :, 5:] == x[0, :, 4:5]).all()
      return jnp.concatenate([jnp.full_like(x, 0.5), jnp.full_like(x, jnp.log(3.0))], -1), {}
  method._net = lambda *args: Network()
  image = jnp.asarray(IMAGE[:1, :, :, :1].repeat(2, 2)[:, :, :5])
  out, _ = method._apply({}, {}, image, False)
  np.testing.assert_allclose(out["recon"], 0.75 * 0.5 + 0.25 * image, rtol=1e-6)
  np.testing.assert_allclose(out["logit"], jnp.full_like(image, np.log(3)), rtol=1e-6)
