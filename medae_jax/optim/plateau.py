"""Learning rates that fall when the validation loss stands still, as PyTorch's ReduceLROnPlateau."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np


def init() -> dict:
  """Arrays for State.stats: "scale" of the learning rate, the best value, validations since."""
  return {"scale": jnp.ones(()), "best": jnp.asarray(np.finfo(np.float32).max, jnp.float32),
          "bad": jnp.zeros((), jnp.int32)}


def update(plateau: dict, value: float, *, patience: int, factor: float, threshold: float = 1e-4) -> dict:
  """After a validation: more than `patience` of them without a gain multiply the scale by `factor`.

  Args:
    value: of the validation, lower is better.
    threshold: a gain is a value below best (1 - threshold).
  """
  best, bad, scale = float(plateau["best"]), int(plateau["bad"]), float(plateau["scale"])
  better = value < best * (1 - threshold)
  best, bad = (value, 0) if better else (best, bad + 1)
  if bad > patience:
    bad, scale = 0, scale * factor
  return {k: jnp.asarray(v, plateau[k].dtype) for k, v in (("scale", scale), ("best", best), ("bad", bad))}
