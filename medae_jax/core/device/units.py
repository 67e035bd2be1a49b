"""What this processor computes in hardware, where XLA's choice of a form does not know it."""

from __future__ import annotations

import functools
import pathlib

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


@functools.cache
def multiply_bfloat16() -> bool:
  """Whether products of bfloat16 with float32 sums are faster than those of float32: so where Linux names
  the units. False elsewhere, where nothing was measured."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:
    return False
  flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
  return bool(_BFLOAT16 & set(flags.split()))
