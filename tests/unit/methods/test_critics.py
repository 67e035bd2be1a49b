"""methods/_critics.py: which examples, which loss, one step of a critic."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.fields import dpa as dpa_fields, piad as piad_fields
from medae_jax.methods import _critics


def test_sub_batches_do_not_depend_on_the_number_of_devices():
  batch = {"image": np.arange(12), "index": np.arange(12)}
  whole = _critics.sub_batches(batch, 3)
  shares = [_critics.sub_batches({k: v[i:i + 6] for k, v in batch.items()}, 3) for i in (0, 6)]
  for j in range(3):
    joined = np.concatenate([s[j]["index"] for s in shares])
    np.testing.assert_array_equal(joined, whole[j]["index"])
  with pytest.raises(ValueError, match="do not divide"):
    _critics.sub_batches(batch, 5)


def test_options_are_those_of_the_loss():
  config = {"name": "least_squares", "reg_alpha": 5.0, "gradient_penalty": 10.0}
  assert _critics.AdversarialLoss.of(config, "here").options == {}
  config["name"] = "logistic"
  assert _critics.AdversarialLoss.of(config, "here").options == {"reg_alpha": 5.0}
  config["name"] = "wasserstein"
  assert _critics.AdversarialLoss.of(config, "here").options == {"gradient_penalty": 10.0}
  with pytest.raises(ValueError, match="here.name='hinge': use wasserstein, logistic, least_squares"):
    _critics.AdversarialLoss.of({"name": "hinge"}, "here")


@pytest.mark.parametrize("fields", [dpa_fields.base().method.adversarial, piad_fields.adversarial()])
def test_every_option_of_the_configs_reaches_its_loss(fields):
  """D(x) = w x, so that the gradient is w: each option by what it adds to Wasserstein's loss."""
  real, fake, w, tx = jnp.asarray([[2.0], [4.0]]), jnp.asarray([[1.0], [0.0]]), 3.0, optax.sgd(0.1)
  loss = _critics.AdversarialLoss.of({**fields, "wasserstein_weight": 2.0, "gradient_penalty": 5.0,
                                      "norm_penalty": 0.25, "target_gamma": 0.5}, "here")
  step = lambda loss: loss.update(tx, lambda p, x: p * x, jnp.asarray(w), tx.init(0.0), {
      "real": real, "fake": fake, "mix": jnp.asarray([0.2, 0.9])})[2:]
  total, parts = step(loss)
  want = {"wass": -2 * (9 - 1.5), "norm": 0.25 * ((36 + 144) / 2 + 9 / 2), "gp": 5 * (3 - 0.5)**2 / 0.5**2}
  assert {k: float(v) for k, v in parts.items()} == pytest.approx(want)
  assert float(total) == pytest.approx(sum(want.values()))
  _, parts = step(_critics.AdversarialLoss.of({**fields, "name": "logistic", "reg_alpha": 0.5,
                                               "reg_type": "fake"}, "here"))
  assert float(parts["reg_fake"]) == pytest.approx(0.5 * 9) and float(parts["reg_real"]) == 0


def test_one_step_moves_a_linear_critic_down_its_loss():
  """D(x) = w x: the least-squares loss is ((w r - 1)^2 + (w f)^2) / 2, its slope r (w r - 1) + w f^2."""
  loss = _critics.AdversarialLoss("least_squares", {})
  batch = {"real": jnp.full((4, 1), 2.0), "fake": jnp.full((4, 1), 3.0), "mix": jnp.zeros(4)}
  tx = optax.sgd(0.1)
  for accum in (1, 2):
    w, _, value, parts = loss.update(tx, lambda p, x: x * p, jnp.asarray(0.25), tx.init(jnp.zeros(())),
                                     batch, accum=accum)
    assert value == pytest.approx(0.5 * (0.5**2 + 0.75**2)) == parts["loss"]
    assert w == pytest.approx(0.25 - 0.1 * (2 * (0.5 - 1) + 0.25 * 9))
  assert loss.generator(jnp.array([0.0, 3.0])) == pytest.approx((1 + 4) / 2)
