"""Trains a few steps of each named case and writes the parameters; run with forced device counts.

  XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m tests.contract.run_steps OUT MODE CASE...
"""

import sys

from absl import logging
import jax
import numpy as np

from medae_jax import train
from medae_jax.core import parallel
from tests.contract import cases


def flat(tree):
  """{path: float64 array} of a tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves}


def main(out, mode, names):
  logging.set_verbosity(logging.ERROR)
  parallel.initialize_hosts()
  arrays = {}
  for name in names:
    config = cases.config(name)
    with config.unlocked():
      config.parallel.mode = mode
    workdir = f"{out}.{name}"
    result = train.train(config, workdir)
    state = parallel.to_host(result["state"])
    for part in ("params", "stats", "extra"):
      arrays.update({f"{name}|{part}{k}": v for k, v in flat(getattr(state, part)).items()})
    arrays[f"{name}|step"] = state.step
  if jax.process_index() == 0:
    np.savez(f"{out}.npz", **arrays)


if __name__ == "__main__":
  main(sys.argv[1], sys.argv[2], sys.argv[3:])
