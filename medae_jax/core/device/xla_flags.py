"""XLA's settings for CPUs, put in place when medae_jax is imported.

jaxlib 0.10 and 0.11 hand convolutions to YNNPACK. On the machine of docs/performance.md, float32, 64
channels at 128x128, that makes GFLOP/s of (forward, input gradient, kernel gradient) without padding
151, 193, 27 instead of the 280, 269, 139 of XLA's older Eigen code; a plain product of matrices
reaches 300. Products and sums stay with YNNPACK, which is the faster there.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys

_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
_VALUE = "-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"  # the default list without convolutions
# jaxlib's that were tried. XLA aborts the process for a flag that it does not know, and flags go with
# a last digit, too (xla_cpu_use_fusion_emitters with 0.11.1): a newer one is slower until it is tried.
TRIED = ("0.10.0", "0.10.1", "0.10.2", "0.11.0", "0.11.1", "0.11.2")


def prefer_eigen_convolutions() -> None:
  """Adds the flag to XLA_FLAGS where `add` does."""
  add(_FLAG, _VALUE)


def add(flag: str, value: str, versions: tuple[str, ...] = TRIED) -> None:
  """Adds "flag=value" to XLA_FLAGS, unless jaxlib is another version, the user set it, or JAX already
  looked for its devices: XLA reads the variable once, then.

  Args:
    versions: those that know the flag.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  bridge = sys.modules.get("jax._src.xla_bridge")  # JAX has no public way to ask
  too_late = bridge is not None and bridge.backends_are_initialized()
  known = importlib.metadata.version("jaxlib") in versions
  if known and not too_late and flag not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {flag}={value}".strip()
