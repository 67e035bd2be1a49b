"""Loss weights from gradient norms: PIAD's policy (arXiv 1909.05904, as its public codes run it).

At every refresh the size of each kernel's gradient is noted for the adversarial and for the
reconstruction loss. Over the last H refreshes (200) each series v is smoothed from its first kept
value, s_1 = v_1, s_k = 0.05 v_k + 0.95 s_{k-1}; the weight of the reconstruction loss is the median
over kernels and refreshes of s_adv / s_rec (the paper says mean, both codes take the median).

The history is a ring buffer of fixed size inside the state: a resumed run goes on exactly. A kernel
whose gradients are both zero has no ratio and is left out; a ratio with a zero reconstruction
gradient is infinite, which the median survives. Where the result is not finite the old weight
stays.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MEASURES = ("norm", "std")
AVERAGES = ("median", "mean")


def kernels(tree) -> list[tuple[str, jax.Array]]:
  """(path, leaf) of every kernel of a network's parameters or gradients; biases are ignored."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  named = [("/".join(str(k.key) for k in path), leaf) for path, leaf in leaves]
  return [(name, leaf) for name, leaf in named if name.rsplit("/", 1)[-1] == "kernel"]


def measure(grads, kind: str = "norm") -> jax.Array:
  """Size of each kernel's gradient, [L]: L2 norm (2021) or population deviation (2019)."""
  size = (lambda g: jnp.sqrt(jnp.sum(g**2))) if kind == "norm" else jnp.std
  return jnp.stack([size(g.astype(jnp.promote_types(g.dtype, jnp.float32))) for _, g in kernels(grads)])


def init(params, history: int = 200) -> dict[str, Any]:
  """Empty history of one network: {"sizes" [2, L, history] (adv, rec), "count", "weight" 1}."""
  leaves = [leaf for _, leaf in kernels(params)]
  dtype = jnp.promote_types(jnp.result_type(*leaves), jnp.float32)
  return {"sizes": jnp.zeros((2, len(leaves), history), dtype),
          "count": jnp.zeros((), jnp.int32), "weight": jnp.ones((), dtype)}


def refresh(policy, adv: jax.Array, rec: jax.Array, *, smooth: float = 0.05,
            average: str = "median") -> dict[str, Any]:
  """The policy after one more refresh with the sizes `adv`, `rec` [L] of both losses' gradients."""
  history = policy["sizes"].shape[-1]
  place = policy["count"] % history
  sizes = policy["sizes"].at[:, :, place].set(jnp.stack([adv, rec]))
  count = policy["count"] + 1
  # Oldest first: place 0 until the ring is full, then the place to be written next.
  first = jnp.where(count > history, count % history, 0)
  ordered = sizes[:, :, (first + jnp.arange(history)) % history]
  smoothed = jnp.einsum("mlj,kj->mlk", ordered, _smoothing(history, smooth, sizes.dtype),
                        precision=jax.lax.Precision.HIGHEST)
  kept = jnp.arange(history) < jnp.minimum(count, history)
  ratio = jnp.where(kept, smoothed[0] / smoothed[1], jnp.nan)
  found = _mean(ratio) if average == "mean" else _median(ratio)
  return {"sizes": sizes, "count": count,
          "weight": jnp.where(jnp.isfinite(found), found, policy["weight"])}


def _smoothing(history: int, smooth: float, dtype) -> jax.Array:
  """[k, j]: share of value j in smoothed value k. One product replaces a scan over the history."""
  k, j = np.indices((history, history))
  first = np.where(j == 0, 1.0, smooth)
  return jnp.asarray(np.where(j <= k, first * (1 - smooth) ** (k - j + 0.0), 0.0), dtype)


def _median(x):
  """Median of what is not NaN; infinite values count."""
  x = jnp.sort(x.ravel())  # NaN last
  n = jnp.sum(~jnp.isnan(x))
  return (x[jnp.maximum(n - 1, 0) // 2] + x[n // 2]) / 2


def _mean(x):
  return jnp.sum(jnp.where(jnp.isfinite(x), x, 0)) / jnp.sum(jnp.isfinite(x))
