"""Losses of the variational autoencoders on fixed codes and reconstructions, in float64."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from configs import ae_cxr
from medae_jax.core import method as method_lib
from medae_jax.core.method import State
from medae_jax.losses import variational
from tests.golden_cases import file_cases
from tests.parity.ae_zoo.cases import double, nhwc

COMPILED_FAST = True  # many programs of a few steps each, in float64
pytestmark = pytest.mark.usefixtures("float64")


def _beta_method(loss_type, **fields):
  config = ae_cxr.get_config("beta_vae")
  with config.unlocked():
    config.method.update(regulariser={"B": "capacity", "H": "beta"}[loss_type], **fields)
    config.train.update(steps=10**6)
    config.optim.epoch_steps = 1
  return method_lib.load(config)


def _beta_options(name):
  """Of a loss's name in the file: "B_g2_c50", "H_b4"; the published defaults where it names none."""
  defaults = {"b": ("beta", 4.0), "g": ("gamma", 10.0), "c": ("max_capacity", 25.0)}
  given = {k: float(v) for k, v in re.findall(r"_([bgc])([\d.]+)", name)}
  return {field: given.get(letter, value) for letter, (field, value) in defaults.items()}


def _vae_method(kl, rec_log_std=0.0):
  config = ae_cxr.get_config("vae")
  with config.unlocked():
    config.method.update(kl=kl, rec_log_std=rec_log_std)
    config.train.update(steps=10**6)
  return method_lib.load(config)


class Fixed:
  """In the place of the networks: the file's codes and reconstructions."""

  def __init__(self, code, recon):
    self._found = {"enc": code, "dec": recon}

  def __call__(self, net, x):
    return self._found[net]


@pytest.mark.parametrize("file", file_cases("ae_zoo", "vae_losses*.npz"))
def test_vae(file):
  with np.load(file) as archive:
    z = {k: archive[k] for k in archive.files}
  image, recon = double(nhwc(z["x"])), double(nhwc(z["x_rec"]))
  mean, log_std, eps = (double(z[k].reshape(z[k].shape[:2])) for k in ("mu", "log_std", "eps"))
  use = Fixed((mean, log_std), recon)
  loss = lambda *args: _vae_method(*args).terms(use, None, {"image": image, "noise": eps}, None)
  for name, args in (("original", ("published",)), ("fixed_logstd", ("exact",)),
                     ("original_reclogstd_m1", ("published", -1.0))):
    np.testing.assert_allclose(loss(*args)["loss"].mean(), z[f"loss_{name}"], rtol=1e-6, err_msg=name)
  for name, kl in (("original", "published"), ("fixed", "exact")):
    np.testing.assert_allclose(loss(kl)["kl"], z[f"kl_{name}_per_sample"], rtol=1e-5)
  np.testing.assert_allclose(loss("exact")["rec"], z["neg_log_p_per_sample"], rtol=1e-6)
  assert json.loads(str(z["config"]))["model"]["z_dim"] == mean.shape[1]


@pytest.mark.parametrize("file", file_cases("ae_zoo", "beta_vae_loss*.npz"))
def test_beta_vae(file):
  with np.load(file) as archive:
    z = {k: archive[k] for k in archive.files}
  image, recon, mean, log_var = (double(z[k]) for k in ("x", "x_rec", "mu", "logvar"))
  np.testing.assert_allclose(variational.kl_of_log_var(mean, log_var).mean(), z["kld"], rtol=1e-6)
  use = Fixed((mean, log_var), nhwc(recon))
  part, batch_mean = {"image": jnp.asarray(nhwc(image))}, lambda x: x.mean()
  names = [k.removeprefix("loss_calls123_") for k in z if k.startswith("loss_calls123_")]
  assert names
  for name in names:
    named = _beta_method(name[0], **_beta_options(name))
    def loss(call, method=named):
      state = State.create({}, {"validation_calls": jnp.int32(0)}).replace(step=jnp.int32(call - 1))
      terms = method.terms(use, state, part, batch_mean)
      np.testing.assert_allclose(terms["rec"].mean(), z["mse"], rtol=1e-6)
      return terms["loss"].mean()
    found = [loss(call) for call in (1, 2, 3)]
    np.testing.assert_allclose(found, z[f"loss_calls123_{name}"], rtol=1e-6, err_msg=name)
    for key in (k for k in z if re.fullmatch(rf"loss_iter\d+_{re.escape(name)}", k)):
      call = int(key.removeprefix("loss_iter").partition("_")[0])
      np.testing.assert_allclose(loss(call), z[key], rtol=1e-6, err_msg=key)
