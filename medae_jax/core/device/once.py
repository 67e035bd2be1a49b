"""Programs that run once or seldom: the one that draws a network's first parameters, those of pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

# Of LLVM, which takes 3: for the parameters of `dae_brats.py:demo` 9.5 instead of 31.9 s of a core (AMD EPYC,
# family 25, model 1), and the same numbers bit for bit; for its pictures 7.0 instead of 13.8 s. At level 0
# the numbers differ by rounding, and the pictures take twice as long.
_LEVEL = 1


def jit(function: Callable) -> Callable[..., Any]:
  """`jax.jit` of a program that runs seldom: on CPUs its compilation is what takes time, not the run."""
  if jax.default_backend() != "cpu" or jax.config.read("jax_disable_most_optimizations"):
    return jax.jit(function)
  return jax.jit(function, compiler_options={"xla_backend_optimization_level": _LEVEL})
