"""When a validation number counts as better, and when training has waited long enough."""

from __future__ import annotations

import math

from medae_jax.core.errors import UserError


def improves(value: float, best: float | None, mode: str, delta: float) -> bool:
  """Whether `value` beats `best` by more than `delta`; what is not finite never does.

  Args:
    best: None before the first finite value: any such is better.
    mode: "min" or "max".
    delta: gains up to this do not count.

  Raises:
    UserError: another mode.
  """
  if mode not in ("min", "max"):
    raise UserError(f"config.train.best_mode={mode!r}: use min or max")
  if not math.isfinite(value):
    return False
  if best is None:
    return True
  return (best - value if mode == "min" else value - best) > delta


def exhausted(stale: int, limit: int) -> bool:
  """True after `limit` validations in a row without a gain; never with limit 0.

  The DPA reference's "patience 3" stops at the fourth: limit 4.
  """
  return limit > 0 and stale >= limit
