"""Noisy annotations with a network of one number, whose gradients a test computes itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import noisy_skin
from medae_jax.core.method import Stage, State
from medae_jax.methods import noisy_annotation
from medae_jax.models import noisy_unet
from medae_jax.optim import adam

RNG = np.random.default_rng(0)
BATCH = {name: {"image": RNG.normal(size=(2, 2, 2, 1)).astype(np.float32),
                "mask": RNG.integers(0, 2, (2, 2, 2, 1)).astype(np.float32)} for name in ("noisy", "clean")}


class Linear(noisy_annotation.Method):
  """Logits w x."""

  def _apply(self, params, image, dtype=None):
    return params * image


def method_of(cls=Linear, **fields):
  c = noisy_skin.get_config("smoke").copy_and_resolve_references()
  with c.unlocked():
    for name, value in fields.items():
      group, field = name.split("__")
      c[group][field] = value
  return cls(c.lock())


def slopes(name, w=0.3):
  """(d loss / d logit, d logit / d w) of every pixel."""
  x, mask = BATCH[name]["image"], BATCH[name]["mask"]
  return 1 / (1 + np.exp(-w * x)) - mask, x


def test_weights_metrics_and_the_share_of_the_clean_gradient():
  """w_i = max(u_i, 0) / sum, u_i = g l_i', plus clean_weight times g."""
  slope, x = slopes("noisy")
  g = np.mean(np.multiply(*slopes("clean")))
  u = g * slope * x
  weight = np.maximum(u, 0) / np.maximum(u, 0).sum()
  method = method_of(method__clean_weight=0.5)
  grads, metrics, _ = method._reweighted(jnp.float32(0.3), BATCH, 1, None)
  np.testing.assert_allclose(grads, (weight * slope * x).sum() + 0.5 * g, rtol=1e-4)
  np.testing.assert_allclose(metrics["zero_weights"], np.mean(u <= 0))
  np.testing.assert_allclose(metrics["agreement"], np.mean(u > 0))
  assert 0 < np.mean(u > 0) < 1


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_plain_loss_takes_its_share_of_the_clean_gradient(share):
  method = method_of(method__baseline="plain", method__clean_weight=share, optim__momentum=0.0,
                     optim__weight_decay=0.0, optim__lr=0.1, optim__schedule="constant")
  stage, w = Stage("noisy", 4), jnp.float32(0.3)
  state = State.create({"net": w}, opt={"net": method._optimizer(stage)[0].init(w)})
  new, _ = method.train_step(state, BATCH, jax.random.key(0), stage=stage, axis_name=None)
  noisy, clean = (np.mean(np.multiply(*slopes(name))) for name in ("noisy", "clean"))
  np.testing.assert_allclose(new.params["net"], 0.3 - 0.1 * (noisy + share * clean), rtol=1e-5)


def test_what_was_learnt_of_an_example_is_found_by_its_number():
  """0 visits for those beyond the capacity and those of no number."""
  track = {"weight": jnp.ones((2, 4, 4)), "agree": jnp.asarray([0.2, 0.7]), "seen": jnp.asarray([3.0, 5.0])}
  batch = {"image": jnp.zeros((4, 2, 2, 1)), "sample": jnp.asarray([1, 0, 2, -1])}
  found = method_of().score(State.create({"net": 0.0}, {"track": track}), batch)
  np.testing.assert_array_equal(found["seen"], [5, 3, 0, 0])
  np.testing.assert_allclose(found["agree"][:2], [0.7, 0.2])


def test_images_are_standardised_before_the_network(monkeypatch):
  class Network:
    def __init__(self, *args):
      pass

    def apply(self, variables, image):
      return image
  monkeypatch.setattr(noisy_unet, "NoisyUNet", Network)
  method = method_of(noisy_annotation.Method, model__mean=(0.5, 0.25), model__std=(0.5, 2.0))
  found = method._apply(jnp.zeros(1), jnp.ones((1, 1, 1, 2)))
  np.testing.assert_allclose(np.ravel(found), [1, 0.375])


def test_adam_has_the_momentum_of_the_config(monkeypatch):
  seen = {}
  monkeypatch.setattr(adam, "adam", lambda schedule, **kw: seen.update(kw))
  method_of(optim__name="adam", optim__momentum=0.6, optim__weight_decay=0.2)._optimizer(Stage("noisy", 4))
  assert seen == {"b1": 0.6, "weight_decay": 0.2}
