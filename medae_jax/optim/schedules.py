"""Learning-rate schedules: functions of the step (int32 []) that return a rate []; optax's where it has them.

A duration is written in the config once, in steps or in epochs (`epoch_steps` iterations each);
"epoch" schedules are constant inside an epoch, as in the reference implementations.
"""

from __future__ import annotations

import jax.numpy as jnp
import optax

from medae_jax.core.errors import UserError

# {schedule in epochs: the fields that it reads}
_READ = {"cosine_cyclic": ("half_period", "epoch_steps"), "piecewise": ("boundaries",)}


def cosine_cyclic(lr: float, half_period: int, epoch_steps: int) -> optax.Schedule:
  """lr/2 (1 + cos(pi e / half_period)), e = step // epoch_steps; rises again after half_period.

  The DAE reference runs 10.5 periods of it (Kascenas 2022, public scripts). Not optax's cosine,
  which ends at half_period.
  """
  def schedule(step):
    epoch = (step // epoch_steps) % (2 * half_period)  # keeps the cosine's argument small in float32
    return lr / 2 * (1 + jnp.cos(jnp.pi * epoch / half_period))
  return schedule


def cosine(lr: float, steps: int, warmup: int, final: float) -> optax.Schedule:
  """One cosine cycle from lr to lr*final over `steps`, after a linear warm-up of `warmup` steps.

  The warm-up takes lr/warmup in its first step and lr in its last; optax's begins at 0, and its
  cosine rounds differently, so that a resumed run would not go on exactly.
  """
  def schedule(step):
    step = jnp.asarray(step, float)
    ramp = jnp.where(warmup > 0, jnp.minimum(1.0, (step + 1) / max(warmup, 1)), 1.0)
    t = jnp.clip((step - warmup) / max(steps - warmup, 1), 0.0, 1.0)
    return lr * ramp * (final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * t)))
  return schedule


def piecewise(lr: float, boundaries, factor: float, epoch_steps: int) -> optax.Schedule:
  """lr * factor^(number of boundaries, in epochs, at or before the step)."""
  return optax.piecewise_constant_schedule(lr, {int(b) * epoch_steps: factor for b in boundaries})


def build(config, total_steps: int) -> optax.Schedule:
  """The schedule that `config.optim` describes.

  Args:
    config: `config.optim` with `lr`, `schedule` (constant, cosine, cosine_cyclic, piecewise) and
      the fields of that schedule.
    total_steps: length of training, for schedules that end with it.

  Raises:
    UserError: unknown `schedule`, or one whose fields this config lacks.
  """
  name = config.schedule
  lacking = [part for part in _READ.get(name, ()) if part not in config]
  if lacking:
    raise UserError(f"config.optim.schedule={name!r} reads config.optim.{lacking[0]}, which this config "
                    "lacks: use constant or cosine")
  if name in _READ and config.get("epoch_steps", 1) == 0:
    raise ValueError("config.optim.epoch_steps is 0: training.durations.resolve comes first")
  if name == "constant":
    return optax.constant_schedule(config.lr)
  if name == "cosine":
    return cosine(config.lr, total_steps, config.get("warmup", 0), config.get("final", 0.0))
  if name == "cosine_cyclic":
    return cosine_cyclic(config.lr, config.half_period, config.epoch_steps)
  if name == "piecewise":
    return piecewise(config.lr, config.boundaries, config.get("factor", 0.1),
                     config.get("epoch_steps", 1))
  raise UserError(f"config.optim.schedule={name!r}: use constant, cosine, cosine_cyclic or piecewise")
