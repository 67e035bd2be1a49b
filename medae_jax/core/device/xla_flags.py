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
_VERSIONS = ("0.10.", "0.11.")  # of jaxlib: XLA aborts the process for a flag that it does not know


def prefer_eigen_convolutions() -> None:
  """Adds the flag to XLA_FLAGS where `add` does."""
  add(_FLAG, _VALUE)


def add(flag: str, value: str) -> None:
  """Adds "flag=value" to XLA_FLAGS, unless jaxlib is another version, the user set it, or JAX already
  looked for its devices: XLA reads the variable once, then."""
  flags = os.environ.get("XLA_FLAGS", "")
  bridge = sys.modules.get("jax._src.xla_bridge")  # JAX has no public way to ask
  too_late = bridge is not None and bridge.backends_are_initialized()
  known = importlib.metadata.version("jaxlib").startswith(_VERSIONS)
  if known and not too_late and flag not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {flag}={value}".strip()
