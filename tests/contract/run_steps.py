"""Trains a few steps of each named case and writes the parameters; run with forced device counts.

  XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m tests.contract.run_steps \
      OUT MODE CASE... [-- OUT MODE CASE...]

Jobs of one process stand behind each other: imports and what does not depend on the mode are paid once.
MODE is pmap, shard_map, or evaluate: then CASE is a workdir (tests/contract/run_evaluation.py).
"""

import itertools
import sys

from absl import logging
import jax
import numpy as np

from medae_jax import train
from medae_jax.core import parallel
from tests.contract import cases, run_evaluation
from tests.unit.house import compiling


def flat(tree):
  """{path: float64 array} of a tree."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(k): np.asarray(v) for k, v in leaves}


def steps(out, mode, names):
  """Trains the cases in workdirs "OUT.CASE", writes OUT.npz."""
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


def main(arguments):
  logging.set_verbosity(logging.ERROR)
  compiling.share_ir_contexts()
  parallel.initialize_hosts()
  for last, job in itertools.groupby(arguments, lambda a: a == "--"):
    if not last:
      out, mode, *names = job
      if mode == "evaluate":
        run_evaluation.evaluate(*names, out)
      else:
        steps(out, mode, names)


if __name__ == "__main__":
  main(sys.argv[1:])
