"""Fields of config.method.score that every method that reconstructs has: which score, and its network."""

from medae_jax.core import fields


def add(score) -> None:
  """Adds kind, window, trunk ... (core.fields.RECON_SCORE) where the method lacks them."""
  for name, value in fields.RECON_SCORE.items():
    score[name] = score.get(name, value)
