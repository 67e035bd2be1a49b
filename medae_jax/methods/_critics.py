"""Critics beside a generator: which loss, which examples, one step of the critic's optimiser.

For methods that take `n_critic` critic steps before each step of their other networks (DPA's
adversarial ablations, PIAD).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import optax

from medae_jax.core import parallel
from medae_jax.core.errors import UserError
from medae_jax.losses import adversarial

_PENALISED = ("wasserstein_weight", "gradient_penalty", "norm_penalty", "target_gamma")
_OPTIONS = {"wasserstein": _PENALISED, "logistic": ("reg_alpha", "reg_type"), "least_squares": ()}


@dataclasses.dataclass(frozen=True)
class AdversarialLoss:
  """A loss of losses.adversarial with its weights.

  Attributes:
    name: one of adversarial.NAMES.
    options: arguments of its critic's side.
  """
  name: str
  options: Mapping[str, Any]

  @classmethod
  def of(cls, config: Mapping[str, Any], field: str) -> AdversarialLoss:
    """The loss that `config` describes: "name" and the options of that loss.

    Raises:
      UserError: an unknown name; `field` says where it stands.
    """
    name = config["name"]
    if name not in _OPTIONS:
      raise UserError(f"{field}.name={name!r}: use {', '.join(_OPTIONS)}")
    return cls(name, {k: config[k] for k in _OPTIONS[name] if k in config})

  def generator(self, scores: jax.Array) -> jax.Array:
    """The generator's loss [] on the critic's scores [b, ...] of its output."""
    return adversarial.generator_loss(self.name, scores)

  def update(self, tx: optax.GradientTransformation, apply: Callable, params, opt, batch, *,
             accum: int = 1, axis_name: str | None = None):
    """One step of the critic; its opponents stand still.

    Args:
      apply: (params, [b, ...]) -> scores [b, ...].
      batch: {"real" [b, ...], "fake" [b, ...], "mix" [b]}: data, the generator's output, mixing
        coefficients of the gradient penalty, U(0,1).
      accum, axis_name: see core.parallel.value_and_grad.

    Returns:
      params, opt, loss [], {name: weighted part []}.
    """
    def loss_fn(params, part, _):
      critic = lambda x: apply(params, x)
      return adversarial.critic_loss(self.name, critic, part["real"], part["fake"], part["mix"],
                                     **self.options)
    (loss, parts), grads = parallel.value_and_grad(loss_fn, params, batch, None, accum=accum,
                                                   axis_name=axis_name)
    updates, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt, loss, parts


def sub_batches(batch: Mapping[str, Any], n: int) -> list[dict[str, Any]]:
  """n batches out of one of n b examples: example i goes to batch i % n.

  n_critic critic steps and one generator step each want examples of their own. Taking every n-th
  one (rather than consecutive thirds) gives the same batches whatever the number of devices, since
  every device holds a contiguous stretch of the global batch.

  Raises:
    UserError: the number of examples on this device is not divisible by n.
  """
  size = len(jax.tree.leaves(batch)[0])
  if size % n:
    raise UserError(f"{size} examples a device do not divide into {n} sub-batches")
  return [jax.tree.map(lambda x, j=j: x[j::n], dict(batch)) for j in range(n)]
