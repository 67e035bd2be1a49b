"""What a compiled step needs of memory, by XLA's own plan, and what the device has."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import jax
import numpy as np

from data_pipelines import machine

MARGIN = 0.9  # of what is free: allocators lose some to holes, libraries take workspaces


@dataclasses.dataclass(frozen=True)
class Plan:
  """Bytes of one device while a step runs.

  Attributes:
    needs: state, batches and data in, results out, and scratch, all at once.
    scratch: activations, gradients and workspaces alone.
    fixed: what a batch of any size needs: state, resident data, and a gradient of every parameter.
    batch: images of the global batch that the plan is for.
    free: what the device (on CPUs the machine) can give this process; None where it does not say.
  """
  needs: int
  scratch: int
  fixed: int
  batch: int
  free: int | None

  @property
  def fits(self) -> bool | None:
    """None where the device does not say what it has."""
    return None if self.free is None else self.needs <= self.free

  @property
  def largest_batch(self) -> int | None:
    """Largest global batch, a multiple of the devices, were memory to grow in proportion: an estimate."""
    per_image = max(self.needs - self.fixed, 1) / self.batch
    if self.free is None or self.free * MARGIN <= self.fixed:
      return None
    n = jax.device_count()
    return int((self.free * MARGIN - self.fixed) / per_image) // n * n

  def line(self) -> str:
    """For a log: what it needs, what there is, the largest batch."""
    text = f"Memory of a step by XLA's plan: {_text(self.needs)} a device at batch {self.batch}"
    if self.free is None:
      return text
    most = self.largest_batch
    return (f"{text}, {_text(self.free)} free; the largest batch that fits is "
            + (f"about {most}" if most else "smaller than one image a device"))

  def row(self) -> dict[str, Any]:
    """For JSON."""
    return {"needed_bytes": self.needs, "scratch_bytes": self.scratch, "fixed_bytes": self.fixed,
            "free_bytes": self.free, "fits": self.fits, "largest_batch": self.largest_batch}


def plan(compiled, state, batch: int) -> Plan | None:
  """The plan of a compiled training step; None where the backend has none.

  Args:
    compiled: of jax.stages, one device's program (lower().compile()).
    state: what it trains, with `params`; batch: images of the global batch.
  """
  try:
    m = compiled.memory_analysis()
  except (NotImplementedError, jax.errors.JaxRuntimeError):
    return None
  if m is None:
    return None
  size = lambda tree: sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
                          if hasattr(x, "dtype") and not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))
  needs = (m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
           + m.temp_size_in_bytes + m.generated_code_size_in_bytes)
  fixed = min(size(state) + size(getattr(state, "params", {})), needs)
  return Plan(int(needs), int(m.temp_size_in_bytes), int(fixed), int(batch), free())


def free() -> int | None:
  """Bytes that the smallest local device can still give, with what this process already holds there."""
  stats = [d.memory_stats() or {} for d in jax.local_devices()]
  limits = [s["bytes_limit"] for s in stats if "bytes_limit" in s]
  if limits:
    return int(min(limits))
  return machine.free_memory() if jax.default_backend() == "cpu" else None


def installed() -> int:
  """Bytes of the machine's memory, free or not."""
  return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _text(count: float) -> str:
  return f"{count / 2**30:.2f} GiB" if count >= 2**30 / 10 else f"{count / 2**20:.1f} MiB"
