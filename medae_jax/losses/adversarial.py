"""Adversarial losses of DPA's ablations and of PIAD: Wasserstein with gradient penalty, logistic
("logistic"), least squares.

A critic is a function image (or latent) [b, ...] -> score [b, ...] with its parameters bound; every
example's score must depend on that example alone. All returned values are means over the batch, so
that gradients averaged over devices are those of the global batch. `real` and `fake` are treated as
constants in critic losses.

Sources: Gulrajani et al. 2017 (gradient penalty), Karras et al. 2018 (norm penalty), Mescheder et
al. 2018 (gradient regularisation of the logistic loss), Mao et al. 2017 (least squares); weights as
in Shvetsova et al. 2021 (arXiv 2006.13265).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from medae_jax.core.errors import UserError

NAMES = ("wasserstein", "logistic", "least_squares")
Critic = Callable[[jax.Array], jax.Array]


def _flat(scores: jax.Array) -> jax.Array:
  """[b, 1, 1, 1] or [b] -> [b]."""
  return scores.reshape(scores.shape[0], -1).mean(1)


def _input_gradient(critic: Critic, x: jax.Array) -> jax.Array:
  """Gradient of each example's score with respect to itself, [b, n]."""
  return jax.grad(lambda v: critic(v).sum())(x).reshape(x.shape[0], -1)


def wasserstein_critic(critic: Critic, real: jax.Array, fake: jax.Array, alpha: jax.Array, *,
                       wasserstein_weight=1.0, gradient_penalty=10.0, norm_penalty=0.0,
                       target_gamma=1.0):
  """-wasserstein_weight (E D(real) - E D(fake)) + norm penalty + gradient penalty.

  Args:
    real, fake: [b, ...].
    alpha: [b], [b,1] ...: one mixing coefficient an example, U(0,1); the gradient is penalised at
      alpha real + (1 - alpha) fake, towards norm `target_gamma`.

  Returns:
    loss [], {"wass", "norm", "gp"} the three weighted parts.
  """
  real, fake = jax.lax.stop_gradient((real, fake))
  on_real, on_fake = _flat(critic(real)), _flat(critic(fake))
  wass = -wasserstein_weight * (on_real.mean() - on_fake.mean())
  norm = norm_penalty * ((on_real**2).mean() + (on_fake**2).mean())
  alpha = alpha.reshape(-1, *[1] * (real.ndim - 1))
  gradient = _input_gradient(critic, alpha * real + (1 - alpha) * fake)
  # sqrt has no derivative at 0; there the penalty's own derivative is taken as 0.
  square = (gradient**2).sum(1)
  length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
  gp = gradient_penalty * ((length - target_gamma)**2 / target_gamma**2).mean()
  return wass + norm + gp, {"wass": wass, "norm": norm, "gp": gp}


def wasserstein_generator(scores: jax.Array) -> jax.Array:
  """-E D(fake)."""
  return -_flat(scores).mean()


def logistic_critic(critic: Critic, real: jax.Array, fake: jax.Array, *, reg_alpha=0.0,
               reg_type="real"):
  """E softplus(-D(real)) + E softplus(D(fake)) + reg_alpha E ||grad D||^2.

  Args:
    reg_type: inputs at which the gradient is regularised: "real", "fake" or "real_fake".

  Returns:
    loss [], {"loss", "reg_real", "reg_fake"}, the regularisers weighted.

  Raises:
    UserError: unknown reg_type.
  """
  if reg_type not in ("real", "fake", "real_fake"):
    raise UserError(f"reg_type={reg_type!r}: use real, fake or real_fake")
  real, fake = jax.lax.stop_gradient((real, fake))
  loss = (jax.nn.softplus(-_flat(critic(real))).mean()
          + jax.nn.softplus(_flat(critic(fake))).mean())
  parts = {"loss": loss, "reg_real": jnp.zeros(()), "reg_fake": jnp.zeros(())}
  if reg_alpha:
    for side, x in (("real", real), ("fake", fake)):
      if side in reg_type.split("_"):
        parts[f"reg_{side}"] = reg_alpha * (_input_gradient(critic, x)**2).sum(1).mean()
  return sum(parts.values()), parts


def logistic_generator(scores: jax.Array) -> jax.Array:
  """E softplus(-D(fake))."""
  return jax.nn.softplus(-_flat(scores)).mean()


def least_squares_critic(critic: Critic, real: jax.Array, fake: jax.Array):
  """(E (D(real) - 1)^2 + E D(fake)^2) / 2; returns loss [], {"loss"}."""
  real, fake = jax.lax.stop_gradient((real, fake))
  loss = 0.5 * (((_flat(critic(real)) - 1)**2).mean() + (_flat(critic(fake))**2).mean())
  return loss, {"loss": loss}


def least_squares_generator(scores: jax.Array) -> jax.Array:
  """E (D(fake) - 1)^2."""
  return ((_flat(scores) - 1)**2).mean()


def critic_loss(name: str, critic: Critic, real: jax.Array, fake: jax.Array, alpha: jax.Array,
                **options) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The critic's loss by name; `alpha` is used by "wasserstein" only.

  Raises:
    UserError: unknown name.
  """
  if name == "wasserstein":
    return wasserstein_critic(critic, real, fake, alpha, **options)
  if name == "logistic":
    return logistic_critic(critic, real, fake, **options)
  if name == "least_squares":
    return least_squares_critic(critic, real, fake, **options)
  raise UserError(f"adversarial loss {name!r}: use {', '.join(NAMES)}")


def generator_loss(name: str, scores: jax.Array) -> jax.Array:
  """The generator's loss by name, on the critic's scores [b, ...] of fakes.

  Raises:
    UserError: unknown name.
  """
  losses = {"wasserstein": wasserstein_generator, "logistic": logistic_generator,
            "least_squares": least_squares_generator}
  if name not in losses:
    raise UserError(f"adversarial loss {name!r}: use {', '.join(NAMES)}")
  return losses[name](scores)
