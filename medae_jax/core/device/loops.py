"""Loops whose bodies hold the gradients of convolutions.

XLA for CPUs brings these into the layout of its fast code only outside of loops; inside a
`while` they run 50 times slower. A GPU or TPU wants the loop: one dispatch, one compiled body.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp


def scan(fn: Callable, carry, xs):
  """jax.lax.scan; on CPUs written out, so for few iterations: compile time grows with them.

  A single iteration is written out everywhere: a loop would copy the carry. By hand, since what
  lax.scan(unroll=True) leaves is as slow as the loop.
  """
  n = len(jax.tree.leaves(xs)[0])
  if n > 1 and jax.default_backend() != "cpu":
    return jax.lax.scan(fn, carry, xs)
  found = []
  for i in range(n):
    carry, y = fn(carry, jax.tree.map(lambda x, i=i: x[i], xs))
    found.append(y)
  return carry, jax.tree.map(lambda *y: jnp.stack(y), *found)


class Step(Protocol):
  """A compiled training step: (state, batches [K, ...]) -> (state, metrics [K])."""

  def __call__(self, state, batches) -> tuple[Any, Any]: ...

  def lower(self, state, batches) -> jax.stages.Lowered:
    """The program that a call with these arguments runs; compiled ahead, it is not compiled again."""


def dispatch(fn: Any) -> Step:
  """fn itself; on CPUs a step a call, where waiting for a dispatch costs nothing.

  Args:
    fn: (state, batches [K, ...]) -> (state, metrics [K]), a compiled scan of K training steps.
  """
  if jax.default_backend() != "cpu":
    return fn

  @functools.wraps(fn)
  def call(state, batches):
    steps, found = len(jax.tree.leaves(batches)[0]), []
    for i in range(steps):
      state, metrics = fn(state, jax.tree.map(lambda x, i=i: x[i:i + 1], batches))
      found.append(metrics)
    return state, found[0] if steps == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *found)
  step: Any = call
  step.lower = lambda state, batches: fn.lower(state, jax.tree.map(lambda x: x[:1], batches))
  return step
