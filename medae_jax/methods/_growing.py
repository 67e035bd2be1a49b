"""Progressive growing: stages from `config.method.growing`, and the loss of a transition.

(stable, r0) -> (transition, 2 r0) -> (stable, 2 r0) -> ... -> (stable, max_res); without growing
only (stable, max_res). The last stage has config.train.steps. Names are "stable_32", "transition_64".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from medae_jax.core import upgrade
from medae_jax.core.errors import UserError
from medae_jax.core.method import Stage
from medae_jax.losses import perceptual as losses
from medae_jax.losses.trunk import Trunk
from medae_jax.models.layers import resample


def resolutions(growing, max_res: int) -> tuple[int, ...]:
  """Resolutions of the stages, ascending.

  Raises:
    UserError: initial_res is not max_res divided by a power of two.
  """
  res = [growing.initial_res or max_res]
  while res[-1] < max_res:
    res.append(2 * res[-1])
  if res[-1] != max_res:
    raise UserError(f"config.method.growing.initial_res={growing.initial_res} must be "
                     f"config.model.max_res={max_res} divided by a power of two")
  return tuple(res)


def stages(config, *, groups: int = 1) -> tuple[Stage, ...]:
  """All stages in order.

  Args:
    groups: batches that one step consumes (critic steps + 1).

  Raises:
    UserError: malformed `steps_per_stage` or `batch_sizes`, or names of no stage.
  """
  g, out = config.method.growing, []
  res = resolutions(g, config.model.max_res)
  sizes = _pairs(g.batch_sizes, "batch_sizes")
  own = _pairs(upgrade.stages_text("dpa", g.steps_per_stage), "steps_per_stage")
  for r in res:
    data = {"batch_size": sizes.get(str(r), config.train.batch_size) * groups}
    if r > res[0]:
      out.append(Stage(f"transition_{r}", own.get(f"transition_{r}", g.transition_steps), data))
    last = config.train.steps if r == res[-1] else g.stable_steps
    out.append(Stage(f"stable_{r}", own.get(f"stable_{r}", last), data))
  unknown = set(own) - {s.name for s in out} | set(sizes) - {str(r) for r in res}
  if unknown:
    raise UserError(f"config.method.growing names {sorted(unknown)}, but the stages (of steps_per_stage) are "
                    f"{', '.join(s.name for s in out)}, the resolutions (of batch_sizes) "
                    f"{', '.join(str(r) for r in res)}")
  if config.method.parity:
    out[-1] = Stage(out[-1].name, reference_iterations(out[-1].steps), out[-1].data)
  return tuple(out)


def reference_iterations(n: int) -> int:
  """Iterations that the public code runs in a last stage of nominal length n: n, or n + 1.

  It adds 1/n to a float64 and ends at 1; the sum of some n falls short of 1 (5000 runs 5001).
  Stages before the last end within 1e-6 of 1, always after n.
  """
  progress, count = 0.0, 0
  while progress < 1.0:
    progress, count = min(progress + 1 / n, 1.0), count + 1
  return count


def stage_of(params) -> tuple[int, bool]:
  """(resolution, transition?) of an encoder's parameters; a transition has two from_image."""
  found = sorted(int(k.removeprefix("from_image_")) for k in params if k.startswith("from_image_"))
  return found[-1], len(found) == 2


def blended_loss(terms: Sequence[losses.Term], trunk: Trunk, half: Trunk, image, recon, *,
                 res: int, alpha, real: Mapping | None = None) -> jax.Array:
  """Loss of each image of a transition whose feature distances fade in: [B].

  Each feature term is (1 - alpha) loss(D2 image, D2 recon; layers of res/2) + alpha loss(image,
  recon; layers of res), D2 = 2x2 mean; l1 and l2 terms stay as they are. alpha may be traced.

  Args:
    trunk, half: with the statistics of res and of res/2.
    real: features of `image` for all layers of `res`, if they are there already.
  """
  small_image, small_recon = (resample.downscale(x, 2) for x in (image, recon))
  total: Any = 0.0
  for term in terms:
    value = losses.term_loss(term, trunk, image, recon, res, real)
    if term.name == "perceptual":
      value = resample.fade(losses.term_loss(term, half, small_image, small_recon, res // 2), value, alpha)
    total = total + term.weight * value
  return total


def _pairs(text: str, field: str) -> dict[str, int]:
  """{"stable_32": 3} of "stable_32:3, transition_32:4"."""
  pairs = [part.split(":") for part in text.replace(" ", "").split(",") if part]
  if any(len(p) != 2 or not p[1].isdigit() or not int(p[1]) for p in pairs):
    raise UserError(f"config.method.growing.{field}={text!r}: write NAME:NUMBER, NAME:NUMBER ...")
  return {name: int(number) for name, number in pairs}
