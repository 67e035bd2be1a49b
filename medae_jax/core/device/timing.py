"""Timing on accelerators: repeats, medians with spread, cost analysis, measured peaks.

All waits are `block_until_ready`: without it JAX returns before the work is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import os
import platform
import resource
import sys
import time
from typing import Any

import flax
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from medae_jax.core import fields

MATMUL_SIZES = {"cpu": (1024, 2048), "accelerator": (4096, 8192, 16384)}


def measure(run: Callable[[int], Any], options) -> dict[str, float]:
  """Seconds of one unit of `run`.

  Args:
    run: (n) -> arrays; does n units of work and returns something to wait for.
    options: repeats, seconds.

  Returns:
    {"median", "min", "max", "repeats", "units": n a repeat} in seconds a unit.
  """
  return measure_in_turn([run], options)[0]


def measure_in_turn(runs: Sequence[Callable[[int], Any]], options) -> list[dict[str, float]]:
  """As `measure`, of several runs whose repeats go round: clocks and neighbours strike all alike."""
  def timed(run, n):
    begin = time.perf_counter()
    jax.block_until_ready(run(n))
    return time.perf_counter() - begin

  def units_of(run):
    timed(run, 1)  # warms caches, threads and allocators
    units = 1
    while (spent := timed(run, units)) < options["seconds"] / 3 and units < 2**20:
      units *= 2  # doubling, since a first unit may be prefetched and seem to cost nothing
    return max(1, round(units * options["seconds"] / spent))
  units = [units_of(run) for run in runs]
  times = [[timed(run, n) / n for run, n in zip(runs, units)]
           for _ in range(int(options["repeats"]))]
  return [{"median": float(np.median(t)), "min": min(t), "max": max(t), "repeats": len(t),
           "units": n} for t, n in zip(zip(*times), units)]


def rate(seconds: dict[str, float], images: float) -> dict[str, float]:
  """images/s from seconds a unit: median, and the slowest and fastest repeat."""
  return {"median": images / seconds["median"], "min": images / seconds["max"],
          "max": images / seconds["min"], "repeats": seconds["repeats"]}


def matmul_peak(dtype: str, precision=None, options=fields.BENCH) -> dict[str, Any]:
  """FLOP/s of one device's matrix products in `dtype`: the best of several square sizes.

  A measured peak, not a data sheet's: it holds for this device, clock, driver and XLA.
  """
  best: dict[str, Any] = {"flops_per_s": 0.0}
  chain = 4  # products a call, so that dispatch does not show

  @jax.jit
  def products(a, b):
    for _ in range(chain):
      a = jnp.dot(a, b, precision=precision, preferred_element_type=a.dtype)
    return a

  def repeat(a, b, times):
    return [products(a, b) for _ in range(times)]

  for n in MATMUL_SIZES["cpu" if jax.default_backend() == "cpu" else "accelerator"]:
    a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    # Random, since devices run faster on zeros; scaled so that the chain keeps its magnitude.
    b = (jax.random.normal(jax.random.key(1), (n, n)) / n**0.5).astype(dtype)
    seconds = measure(functools.partial(repeat, a, b), options)
    flops = chain * 2 * n**3 / seconds["min"]
    if flops > best["flops_per_s"]:
      best = {"flops_per_s": flops, "size": n, "dtype": str(jnp.dtype(dtype))}
  return best


def flops_of(fn: Callable, *args) -> float | None:
  """FLOP of one call by XLA's cost analysis of the program as written, None where XLA has none.

  Counted before optimisation, so that what the compiler recomputes earns nothing; a loop counts
  one round.
  """
  try:
    costs = jax.jit(fn).lower(*args).cost_analysis()
  except (NotImplementedError, jax.errors.JaxRuntimeError):
    return None
  costs = costs[0] if isinstance(costs, (list, tuple)) else costs
  return float(costs["flops"]) if costs and costs.get("flops", 0) > 0 else None


def memory() -> dict[str, Any]:
  """Peak bytes on the busiest device, or the process's where the backend does not tell."""
  stats = [d.memory_stats() or {} for d in jax.local_devices()]
  peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
  if peaks:
    return {"peak_bytes": int(max(peaks)), "of": "device"}
  factor = 1 if sys.platform == "darwin" else 1024
  used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor
  return {"peak_bytes": int(used), "of": "whole process (resident set; the backend has no count)"}


def device() -> dict[str, Any]:
  """What ran."""
  first = jax.devices()[0]
  return {"kind": first.device_kind, "platform": first.platform, "count": jax.device_count(),
          "processes": jax.process_count(), "host": platform.machine(),
          "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                  else os.cpu_count()}


def versions() -> dict[str, str]:
  """Of everything that shapes the figures."""
  return {"python": platform.python_version(), "jax": jax.__version__, "jaxlib": jaxlib.__version__,
          "flax": flax.__version__, "numpy": np.__version__}
