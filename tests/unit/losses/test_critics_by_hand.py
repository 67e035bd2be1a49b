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


@pytest.mark.parametrize("sides, real, fake", [("real", 5.0, 0), ("fake", 0, 10.0), ("real_fake", 5.0, 10.0)])
def test_the_logistic_critic_is_regularised_where_it_is_asked_for(sides, real, fake):
  """Mean |x|^2: (9 + 1) / 2 of the real ones, (16 + 4) / 2 of the fakes."""
  loss, parts = adversarial.critic_loss("logistic", critic, jnp.asarray(REAL), jnp.asarray(FAKE), None,
                                        reg_alpha=0.5, reg_type=sides)
  on_real, on_fake = (REAL**2).sum(1) / 2, (FAKE**2).sum(1) / 2
  want = {"loss": np.log1p(np.exp(-on_real)).mean() + np.log1p(np.exp(on_fake)).mean(),
          "reg_real": 0.5 * real, "reg_fake": 0.5 * fake}
  assert {k: float(v) for k, v in parts.items()} == pytest.approx(want, rel=1e-5)
  assert float(loss) == pytest.approx(sum(want.values()), rel=1e-5)


def test_scores_of_a_map_are_their_mean_and_least_squares_are_halved():
  loss, _ = adversarial.critic_loss("least_squares", lambda x: jnp.stack([x, x + 2], -1),
                                    jnp.array([1.0, 3.0]), jnp.array([-1.0, 2.0]), None)  # 2, 4; 0, 3
  assert float(loss) == pytest.approx(((1 + 9) / 2 + (0 + 9) / 2) / 2)
  maps = jnp.array([[[1.0, 3.0]], [[-1.0, 1.0]]])
  want = {"wasserstein": -1.0, "logistic": np.log1p(np.exp([-2.0, 0.0])).mean(), "least_squares": (1 + 1) / 2}
  assert {k: float(adversarial.generator_loss(k, maps)) for k in adversarial.NAMES} == pytest.approx(want)
