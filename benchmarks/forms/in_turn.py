"""Several forms of one computation, timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import statistics
import time

import jax


def cpu_seconds(forms: Mapping[str, Callable], args, repeats: int) -> dict[str, list[float]]:
  """{form: seconds of the processor in each repeat}, compiled and run once before; the forms take turns."""
  compiled = {name: jax.jit(form) for name, form in forms.items()}
  for run in compiled.values():
    jax.block_until_ready(run(*args))
  return timed({name: lambda run=run: run(*args) for name, run in compiled.items()}, repeats)


def timed(runs: Mapping[str, Callable], repeats: int) -> dict[str, list[float]]:
  """The same of functions without arguments that are compiled already."""
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(repeats):
    for name, run in runs.items():
      begin = time.process_time()  # of all threads: other programs on the machine do not count
      jax.block_until_ready(run())
      seconds[name].append(time.process_time() - begin)
  return seconds


def cell(seconds: list[float], unit: float = 1.0, digits: int = 3) -> str:
  """Median (fastest to slowest), times `unit`."""
  middle, low, high = (unit * of(seconds) for of in (statistics.median, min, max))
  return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
