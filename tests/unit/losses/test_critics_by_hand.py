"""Adversarial losses of a critic D(x) = sum x^2 / 2, whose gradient at x is x."""

import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.losses import adversarial

REAL = np.array([[3.0, 0.0], [0.0, 1.0]])
FAKE = np.array([[0.0, 4.0], [2.0, 0.0]])
ALPHA = np.array([0.25, 1.0])


def critic(x):
  return jnp.sum(x**2, -1) / 2


def test_wasserstein_penalises_the_gradient_between_real_and_fake():
  loss, parts = adversarial.wasserstein_critic(
      critic, jnp.asarray(REAL), jnp.asarray(FAKE), jnp.asarray(ALPHA), wasserstein_weight=2.0,
      gradient_penalty=10.0, norm_penalty=0.5, target_gamma=2.0)
  on_real, on_fake = (REAL**2).sum(1) / 2, (FAKE**2).sum(1) / 2
  mixed = ALPHA[:, None] * REAL + (1 - ALPHA[:, None]) * FAKE       # alpha weighs the real one
  length = np.linalg.norm(mixed, axis=1)
  want = {"wass": -2 * (on_real.mean() - on_fake.mean()),
          "norm": 0.5 * ((on_real**2).mean() + (on_fake**2).mean()),
          "gp": 10 * (((length - 2) / 2) ** 2).mean()}
  for name, value in want.items():
    assert float(parts[name]) == pytest.approx(value, rel=1e-5), name
  assert float(loss) == pytest.approx(sum(want.values()), rel=1e-5)


def test_generators_want_high_scores():
  scores = jnp.array([1.0, 3.0])
  assert float(adversarial.wasserstein_generator(scores)) == pytest.approx(-2.0)
