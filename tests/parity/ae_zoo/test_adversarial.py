"""AAE and soft-introspective VAE against the golden traces, in float64: every term, gradient and update.

What batch statistics leave without a gradient follows the reference's rounding and is left out, as the README
says (`unstable_names`).
"""

import jax
import numpy as np
import pytest

from medae_jax.methods.autoencoders.si_vae import DRAWS
from tests.golden_cases import file_cases
from tests.parity.ae_zoo.cases import Case, nhwc, unstable_names

COMPILED_FAST = True  # many programs of a few steps each, in float64
pytestmark = pytest.mark.usefixtures("float64")
_AAE_TERMS = {"loss_D_real": "critic_real", "loss_D_fake": "critic_fake", "loss_G": "generator",
              "loss_ZD_real": "latent_real", "loss_ZD_fake": "latent_fake", "loss_E": "encoder",
              "bce_rec_unweighted": "rec"}
_AAE_GROUPS = {"D_optimizer": "critic_image", "G_optimizer": "dec", "ZD_optimizer": "critic_latent",
               "GE_optimizer": "autoencoder"}
_SI_TERMS = {"E_kl_real_mean": "enc_kl", "E_kl_rec_each": "enc_rec_kl", "E_kl_fake_each": "enc_fake_kl",
             "E_rec_mean": "enc_rec", "E_recrec_each": "enc_rec_rec", "E_fakerec_each": "enc_fake_rec",
             "expelbo_rec": "enc_rec_exp", "expelbo_fake": "enc_fake_exp", "lossE": "enc_loss",
             "D_kl_rec_mean": "dec_rec_kl", "D_kl_fake_mean": "dec_fake_kl", "D_rec_mean": "dec_rec",
             "D_recrec_mean": "dec_rec_rec", "D_fakerec_mean": "dec_fake_rec", "lossD": "dec_loss"}


def _aae_fields(case):
  return {"model.width": case.z["sd/E.conv1_1.bias"].shape[0], "model.norm": "batch",
          "model.latent": case.z["noise_draw0"].shape[1]}


@pytest.mark.parametrize("file", file_cases("ae_zoo", "aae*.npz"))
def test_aae(file):
  case = Case(file, "aae", _aae_fields)
  method, z, state = case.method, case.z, case.state()
  unstable = unstable_names(z)
  images = case.images

  @jax.jit
  def outputs(state):
    use = method.use(state, images[0])
    code = use("enc", images[0])
    return {"rec_init": jax.nn.sigmoid(use("dec", code)), "z_init": code,
            "D_init": jax.nn.sigmoid(use("critic_image", images[0])),
            "ZD_init": jax.nn.sigmoid(use("critic_latent", code))}
  for name, value in outputs(state).items():
    expected = z[f"eval_{name}"]
    expected = nhwc(expected) if name == "rec_init" else expected.reshape(value.shape)
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6, err_msg=name)
  step = jax.jit(method.step)
  for i, image in enumerate(images):
    state, metrics = step(state, image, case.draws(i, 3))
    for theirs, ours in _AAE_TERMS.items():
      np.testing.assert_allclose(metrics[ours], z[theirs][i], rtol=1e-5, err_msg=f"{theirs} of step {i}")
    if i == 0:
      for theirs, ours in _AAE_GROUPS.items():
        case.compare(f"grad_step0/{theirs}/", case.gradients(state, ours), share=1e-4, atol=1e-7,
                     skip=unstable)
  case.compare("sd_after/", case.published(state.params, state.stats), atol=1e-5, skip=unstable)
  recon = jax.jit(lambda s, x: method.score(s, {"image": x})["recon"])(state, images[0])
  np.testing.assert_allclose(recon, nhwc(z["eval_rec_after"]), rtol=0, atol=1e-3)


def _si_fields(case):
  m = case.c["model"]
  return {"model.widths": tuple(m["channels"]), "model.latent": m["zdim"],
          "model.norm": {"eval": "frozen", "train": "batch"}[case.c["bn_mode"]]}


@pytest.mark.parametrize("file", file_cases("ae_zoo", "si_vae*.npz"))
def test_soft_introspective(file):
  case = Case(file, "si_vae", _si_fields)
  method, z, state = case.method, case.z, case.state()
  unstable = unstable_names(z)
  images = case.images

  @jax.jit
  def outputs(state):
    mean, log_var = method.use(state, images[0])("enc", images[0])
    return {"mu": mean, "logvar": log_var,
            "rec_deterministic": method.reconstruct(method.use(state, images[0]), images[0])}
  for name, value in outputs(state).items():
    expected = z[f"eval_{name}_init"]
    expected = nhwc(expected) if name.startswith("rec") else expected
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6, err_msg=name)
  _black_image(case, state)
  step = jax.jit(method.step)
  for i, image in enumerate(images):
    noise = case.draws(i, len(DRAWS))
    state, metrics = step(state, image, noise)
    for theirs, ours in _SI_TERMS.items():
      np.testing.assert_allclose(metrics[ours], np.mean(z[f"step{i}/{theirs}"]), rtol=2e-5,
                                 atol=1e-12, err_msg=f"{theirs} of step {i}")
    if i == 0:
      for theirs, ours in (("optimizer_e", "enc"), ("optimizer_d", "dec")):
        case.compare(f"grad_step0/{theirs}/", case.gradients(state, ours), share=1e-4, atol=1e-7,
                     skip=unstable)
  count = case.compare("sd_after/", case.published(state.params, state.stats), atol=1e-5, skip=unstable)
  assert count + len(unstable & set(case.shapes)) == len(case.shapes)


def _black_image(case, state):
  """`method.zero_pass`: statistics begin as in the file, the encoder's variances at 0.9."""
  made = jax.jit(lambda key: case.method.init(key, {"image": case.images[0]}).stats)(jax.random.key(0))
  for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(made), jax.tree.leaves(state.stats)):
    np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=str(path))
