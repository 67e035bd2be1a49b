"""Environment of a process that trains or scores: quiet TensorFlow, compiled programs kept between runs."""

from __future__ import annotations

import os


def prepare() -> None:
  """Sets what is not set yet; before jax and TensorFlow are imported, since they read it then."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow only feeds data here
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # ... and announces oneDNN otherwise
  # Compiled programs are kept between runs: a second start takes seconds.
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/medae_jax/xla"))
