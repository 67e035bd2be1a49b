"""Optimisers as the reference implementations execute them.

PyTorch's Adam differs from optax in three details that show in the golden vectors: its weight decay
is an L2 term added to the gradient (after clipping where the reference clips first), AMSGrad takes
the maximum of the *uncorrected* second moment, and the global-norm clip divides by norm + 1e-6.
One `scale_by_adam` serves both: for plain Adam it computes what optax's does up to the last bit,
but old checkpoints hold its state (with the place of `nu_max`), and a resumed run must go on exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

_SMALL = 1 << 16  # elements: an array below it is read faster than a GPU starts the kernel that sums it


def global_norm(tree) -> jax.Array:
  """Square root of the sum of squares of all leaves; on GPUs the small ones are summed as one array."""
  leaves = jax.tree.leaves(tree)
  small = [x for x in leaves if x.size < _SMALL]
  if jax.default_backend() != "gpu" or len(small) < 2:
    return optax.global_norm(tree)
  large = [x for x in leaves if x.size >= _SMALL]
  return optax.global_norm([jnp.concatenate([jnp.ravel(x) for x in small]), *large])


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
  """g <- g min(1, max_norm / (||g|| + 1e-6)) over all leaves, the PyTorch form."""
  def update(grads, state, params=None):
    del params
    scale = jnp.minimum(1.0, max_norm / (global_norm(grads) + 1e-6))
    return jax.tree.map(lambda g: g * scale, grads), state
  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class AdamState(NamedTuple):
  count: jax.Array  # type: ignore[assignment]  # int32 [], updates done; hides tuple.count
  mu: optax.Updates
  nu: optax.Updates
  nu_max: optax.Updates | None  # None without AMSGrad


def scale_by_adam(b1=0.9, b2=0.999, eps=1e-8, amsgrad=False,
                  eps_hat=False) -> optax.GradientTransformation:
  """Adam or AMSGrad in PyTorch's order: m / (sqrt(max v)/sqrt(1-b2^t) + eps) / (1-b1^t).

  Args:
    eps_hat: eps before the bias is corrected, m sqrt(1-b2^t) / (1-b1^t) / (sqrt(v) + eps): the form of
      Keras and TensorFlow ("epsilon hat", Kingma & Ba 2015, end of section 2).
  """
  def init(params):
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)
    return AdamState(jnp.zeros((), jnp.int32), zeros(), zeros(), zeros() if amsgrad else None)

  def update(grads, state, params=None):
    del params
    count = state.count + 1
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
    nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
    nu_max = jax.tree.map(jnp.maximum, state.nu_max, nu) if amsgrad else None

    def direction(m, v):
      t = count.astype(v.dtype)
      if eps_hat:
        return m * (jnp.sqrt(1 - b2**t) / (1 - b1**t)) / (jnp.sqrt(v) + eps)
      return m / (1 - b1**t) / (jnp.sqrt(v) / jnp.sqrt(1 - b2**t) + eps)
    updates = jax.tree.map(direction, mu, nu_max if amsgrad else nu)
    return updates, AdamState(count, mu, nu, nu_max)
  return optax.GradientTransformation(init, update)


def adam(schedule, *, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, clip=None, amsgrad=False,
         eps_hat=False):
  """clip -> + weight_decay * params (L2, coupled) -> Adam/AMSGrad -> -schedule(step).

  Args:
    schedule: float or function of the optimiser's own update count.
    clip: global norm, None = no clipping.
    eps_hat: see `scale_by_adam`.
  """
  steps = []
  if clip:
    steps.append(clip_by_global_norm(clip))
  if weight_decay:
    steps.append(optax.add_decayed_weights(weight_decay))
  steps += [scale_by_adam(b1, b2, eps, amsgrad, eps_hat), optax.scale_by_learning_rate(schedule)]
  return optax.chain(*steps)


def sgd(schedule, *, momentum=0.0, weight_decay=0.0):
  """PyTorch's SGD: g + weight_decay * p; v <- momentum v + g (v starts at the first g); -lr v."""
  steps = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
  if momentum:
    steps.append(optax.trace(decay=momentum, nesterov=False))
  return optax.chain(*steps, optax.scale_by_learning_rate(schedule))
