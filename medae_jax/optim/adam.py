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
import numpy as np
import optax


def _as_one_array() -> bool:
  """Whether gradients are joined before they are read: where a kernel for each leaf costs more (GPUs)."""
  return jax.default_backend() == "gpu"


def global_norm(tree) -> jax.Array:
  """Square root of the sum of squares of all leaves; on GPUs of one array instead of one by one."""
  if not _as_one_array() or len(jax.tree.leaves(tree)) < 2:
    return optax.global_norm(tree)
  return optax.global_norm(_flat(tree))


def _flat(tree):
  return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


def clip_scale(norm, max_norm: float) -> jax.Array:
  """min(1, max_norm / (norm + 1e-6)), the PyTorch form."""
  return jnp.minimum(1.0, max_norm / (norm + 1e-6))


def _none(path) -> bool:
  del path
  return False


def clip_by_global_norm(max_norm: float, own=_none) -> optax.GradientTransformation:
  """g <- g min(1, max_norm / (||g|| + 1e-6)) over all leaves; own: see `_scaled`."""
  def update(grads, state, params=None):
    del params
    return _scaled(grads, lambda norm: clip_scale(norm, max_norm), own), state
  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _scaled(grads, scale_of, own):
  """grads * scale_of(their global norm); on GPUs they go through memory once as one array.

  The update of a leaf then reads a piece of it in the leaf's own layout, and leaves of one shape share a
  kernel that writes in place. Kernel gradients come from the convolutions in another layout: read
  directly, each update transposes, and XLA copies what it cannot overwrite: 108 kernels of a DAE step.

  Args:
    own: key path -> whether that gradient is elementwise of arrays laid out as its leaf: read directly.
  """
  scale = scale_of(global_norm(grads))
  leaves, structure = jax.tree_util.tree_flatten_with_path(grads)
  scaled = [x * scale for _, x in leaves]
  joined = [i for i, (path, _) in enumerate(leaves) if not own(path)] if _as_one_array() else []
  if joined:
    parts = [leaves[i][1] for i in joined]
    flat, ends = _flat(parts) * scale, np.cumsum([x.size for x in parts])
    for i, x, end in zip(joined, parts, ends):
      scaled[i] = flat[end - x.size:end].reshape(x.shape).astype(x.dtype)
  return jax.tree.unflatten(structure, scaled)


def _joined(tx: optax.GradientTransformation, own=_none) -> optax.GradientTransformation:
  """tx of gradients that have been one array on GPUs; the state is that of tx."""
  # The factor is 1: the compiler, which does not know that, would undo the joining of bare pieces.
  def update(grads, state, params=None):
    joined = _scaled(grads, lambda norm: jnp.maximum(1.0, -norm), own) if _as_one_array() else grads
    return tx.update(joined, state, params)
  return optax.GradientTransformation(tx.init, update)


class AdamState(NamedTuple):
  count: jax.Array  # type: ignore[assignment]  # int32 [], updates done; hides tuple.count
  mu: optax.Updates
  nu: optax.Updates
  nu_max: optax.Updates | None  # None without AMSGrad


def scale_by_adam(b1, b2, eps, amsgrad, eps_hat) -> optax.GradientTransformation:
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
         eps_hat=False, own=_none):
  """clip -> + weight_decay * params (L2, coupled) -> Adam/AMSGrad -> -schedule(step).

  Args:
    schedule: float or function of the optimiser's own update count.
    clip: global norm, None = no clipping.
    eps_hat: see `scale_by_adam`. own: see `_scaled`.
  """
  steps = []
  if clip:
    steps.append(clip_by_global_norm(clip, own))
  if weight_decay:
    steps.append(optax.add_decayed_weights(weight_decay))
  steps += [scale_by_adam(b1, b2, eps, amsgrad, eps_hat), optax.scale_by_learning_rate(schedule)]
  tx = optax.chain(*steps)
  return tx if clip else _joined(tx, own)  # clipping joins them already


def sgd(schedule, *, momentum=0.0, weight_decay=0.0):
  """PyTorch's SGD: g + weight_decay * p; v <- momentum v + g (v starts at the first g); -lr v."""
  steps = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
  if momentum:
    steps.append(optax.trace(decay=momentum, nesterov=False))
  return _joined(optax.chain(*steps, optax.scale_by_learning_rate(schedule)))
