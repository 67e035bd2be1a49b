"""Every number of config.optim reaches the optimiser under its own name, in every method that has one."""

import optax
import pytest

from medae_jax.core import method as method_lib
from medae_jax.core.method import Stage
from medae_jax.optim import adam, schedules
from tests.contract import cases

# Distinct numbers: an exchanged or forgotten argument shows.
GIVEN = {"lr": 0.5, "b1": 0.125, "b2": 0.25, "eps": 0.375, "weight_decay": 0.0625, "clip": 0.75,
         "momentum": 0.875, "lr_critic": 0.03125, "lr_critic_image": 0.015625, "lr_critic_latent": 0.0078125}
_BETAS = ("b1", "b2", "eps")
# {config: [(field of the rate, fields under their own names, what else is passed)]}
WANTED = {
    "dae_brats": [("lr", (*_BETAS, "weight_decay", "clip"), {"amsgrad": True})],
    "annotation_removal": [("lr", (*_BETAS, "weight_decay", "clip"), {})],
    "dpa_camelyon16": [(rate, (*_BETAS, "weight_decay", "clip"), {}) for rate in ("lr", "lr_critic")],
    "piad_camelyon16": [(rate, ("b1", "b2", "weight_decay"), {})
                        for rate in ("lr", "lr_critic_image", "lr_critic_latent")],
    "morphaeus_cxr": [("lr", _BETAS, {})] * 2,
    "ae_cxr": [("lr", _BETAS, {})], "ae_cxr:vae": [("lr", _BETAS, {})],
    "deep_geo_camelyon16": [("lr", _BETAS, {"eps_hat": True})]}


@pytest.fixture
def made(monkeypatch):
  """[(name, rate at step 0, other arguments)] of the optimisers that were built since."""
  calls = []

  def record(name):
    def build(rate, own=None, **given):
      calls.append((name, float(rate(0) if callable(rate) else rate), given))
      return optax.sgd(0.1)
    return build
  for name in ("adam", "sgd"):
    monkeypatch.setattr(adam, name, record(name))
  return calls


def config_of(case, **more):
  config = cases.config(case).copy_and_resolve_references()
  with config.unlocked():
    for field, value in {**GIVEN, "schedule": "constant", "amsgrad": True, **more}.items():
      if field in config.optim:
        config.optim[field] = value
  return config.lock()


@pytest.mark.parametrize("name", WANTED)
def test_numbers_of_the_config_reach_adam(name, made):
  method_lib.load(config_of(name))
  assert made == [("adam", GIVEN[rate], {**{k: GIVEN[k] for k in fields}, **more})
                  for rate, fields, more in WANTED[name]]


@pytest.mark.parametrize("optimiser, name", [("sgd", "momentum"), ("adam", "b1")])
def test_numbers_of_the_config_reach_noisy_annotations_optimiser(optimiser, name, made):
  method = method_lib.load(config_of("noisy_skin", name=optimiser))
  method._optimizer(Stage("noisy", 4))
  assert made[-1] == (
      optimiser, GIVEN["lr"], {name: GIVEN["momentum"], "weight_decay": GIVEN["weight_decay"]})


def test_a_critic_without_a_rate_of_its_own_has_the_others(made):
  method_lib.load(config_of("dpa_camelyon16", lr_critic=0.0, clip=0.0))
  assert [rate for _, rate, _ in made] == [0.5, 0.5] and made[0][2]["clip"] is None  # 0 clips nothing


@pytest.mark.parametrize("name", WANTED)
def test_rates_fall_over_the_whole_length_of_the_training(name, monkeypatch):
  asked, build = [], schedules.build
  monkeypatch.setattr(schedules, "build", lambda o, total: asked.append(total) or build(o, total))
  config = config_of(name).copy_and_resolve_references()
  with config.unlocked():
    config.train.update(steps=17, eval_every=3, save_every=4, log_every=5, epochs=0.0)
  method_lib.load(config.lock())
  assert set(asked) == ({17} if "schedule" in config.optim else set())
