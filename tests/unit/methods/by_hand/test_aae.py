"""Losses of the adversarial autoencoder around networks by hand; which networks each autoencoder makes."""

import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import ae_cxr
from medae_jax.core import method as method_lib
from medae_jax.methods.autoencoders import aae

WEIGHTS = {"rec_weight": 3.0, "latent_weight": 5.0}
RNG = np.random.default_rng(0)
PART = {"image": RNG.random((3, 2, 2, 1)), **{f"z{i}": RNG.normal(size=(3, 4)) for i in (1, 2, 3)}}


def use(net, x):
  """code [B,4] -> logits [B,2,2,1]; image -> code; an image -> logit [B,1]; a code -> logit [B,1]."""
  if net == "dec":
    return 0.5 * x.reshape(-1, 2, 2, 1) + 0.25
  if net == "enc":
    return x.reshape(-1, 4) - 0.75
  slope = {"critic_image": 0.5, "critic_latent": -1.5}[net]
  return slope * x.reshape(len(x), -1).sum(1, keepdims=True) + 0.125


def entropy(logits, target):
  """Of each example: -(t log p + (1 - t) log(1 - p)), averaged."""
  logits = np.asarray(logits, float)
  p = 1 / (1 + np.exp(-logits))
  value = -(target * np.log(p) + (1 - target) * np.log(1 - p))
  return value.reshape(len(value), -1).mean(1)


def picture(code):
  return 1 / (1 + np.exp(-use("dec", code)))


def made():
  found = object.__new__(aae.Method)
  found.config = ml_collections.ConfigDict({"method": WEIGHTS})
  return found


def test_critics_tell_what_is_real_and_the_others_deceive_them():
  method, image = made(), PART["image"]
  real = {"critic_real": entropy(use("critic_image", image), 1),
          "critic_fake": entropy(use("critic_image", picture(PART["z1"])), 0)}
  latent = {"latent_real": entropy(use("critic_latent", PART["z3"]), 1),
            "latent_fake": entropy(use("critic_latent", use("enc", image)), 0)}
  generator = {"generator": entropy(use("critic_image", picture(PART["z2"])), 1)}
  own = {"rec": entropy(use("dec", use("enc", image)), image),
         "encoder": entropy(use("critic_latent", use("enc", image)), 1)}
  for found, loss, terms in ((method._critic_image, sum(real.values()), real),
                             (method._critic_latent, 5 * sum(latent.values()), latent),
                             (method._generator, generator["generator"], generator),
                             (method._autoencoder, 3 * own["rec"] + own["encoder"], own)):
    value, said = found(use, PART)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    assert sorted(said) == sorted(terms)
    for name, term in terms.items():
      np.testing.assert_allclose(said[name], term, rtol=1e-5)


def test_the_checkpoint_is_chosen_by_the_weighted_reconstruction(monkeypatch):
  method, image = made(), PART["image"]
  method.use = lambda state, image: use
  found = method.eval_step(None, {"image": image}, None)
  recon = picture(use("enc", image))
  np.testing.assert_allclose(found["loss"], 3 * entropy(use("dec", use("enc", image)), image), rtol=1e-5)
  np.testing.assert_allclose(found["mse"], ((recon - image) ** 2).mean((1, 2, 3)), rtol=1e-5)
  np.testing.assert_allclose(method.reconstruct(use, image), recon, rtol=1e-5)


@pytest.mark.parametrize("norm, kept", [("batch", True), ("frozen", True), ("none", False)])
def test_statistics_of_a_published_file_are_kept_where_the_networks_have_them(norm, kept, monkeypatch):
  method = made()
  method.config = ml_collections.ConfigDict({"model": {"norm": norm}})
  method.pretrained, method._used = dict, lambda tensors: None
  monkeypatch.setattr(aae, "names", types.SimpleNamespace(
      AAE=None, from_torch=lambda *_: ({"enc": 1}, {"enc": {"mean": 2}})))
  assert method.from_torch({}) == ({"enc": 1}, {"enc": {"mean": 2}} if kept else {})


# ------------------------------------------------------------------------------- every autoencoder
NETS = {"ae_s": {"enc", "dec"}, "ae_d": {"enc", "dense", "dec"}, "vae": {"enc", "dec"},
        "beta_vae": {"enc", "dec"},
        "aae": {"enc", "dec", "critic_image", "critic_latent"}, "si_vae": {"enc", "dec"}}
NORMED = {"aae": {"enc", "dec", "critic_image"}, "si_vae": {"enc", "dec"}, "ae_s": {"enc", "dec"},
          "ae_d": {"enc", "dec"}}  # of those, which have statistics


@pytest.mark.parametrize("word", NETS)
def test_networks_are_made_with_their_statistics_in_the_type_that_is_asked_for(word):
  config = ae_cxr.get_config(f"{word},smoke")
  with config.unlocked():
    config.model.dtype = "bfloat16"
  method = method_lib.load(config)
  nets = method.nets((64, 64, 1))
  assert set(nets) == NETS[word] and all(net.dtype == jnp.bfloat16 for net in nets.values())
  batch = {"image": jnp.zeros((2, 64, 64, 1))}
  state = jax.eval_shape(lambda key: method.init(key, batch), jax.random.key(0))
  assert NETS[word] <= set(state.params)
  normed = NORMED.get(word, set()) if config.model.get("norm", "none") in ("batch", "frozen") else set()
  assert set(state.stats) & NETS[word] == normed
  groups = {net for group in method.groups.values() for net in group}
  assert groups == NETS[word] and set(state.opt) == set(method.groups)
