"""What the machine says of itself. A leaf, which medae_jax.core may import."""

from __future__ import annotations

import contextlib
import os


def free_memory() -> int:
  """Bytes that can be allocated without swapping; half of the memory where the system is silent."""
  with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/meminfo", encoding="ascii") as f:
    return 1024 * next(int(line.split()[1]) for line in f if line.startswith("MemAvailable"))
  return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
