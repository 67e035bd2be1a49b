r"""Evaluates a workdir and writes how many batches this process has scored; started once a process.

  JAX_COORDINATOR_ADDRESS=... JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0 \
      python -m tests.contract.run_evaluation WORKDIR OUT
"""

import pathlib
import sys

from absl import logging
import jax

from medae_jax import evaluate
from medae_jax.core import parallel, scoring

OVERRIDES = {"eval.batch_size": 3, "eval.fit_residual": True, "eval.fit_lesions": "marked",
             "eval.measures": ("similarity",)}


def main(workdir, out):
  logging.set_verbosity(logging.ERROR)
  parallel.initialize_hosts()
  scored, explained = [], scoring.explained

  def counting(*args, **kwargs):
    call = explained(*args, **kwargs)
    return lambda batch: scored.append(1) or call(batch)
  scoring.explained = counting
  evaluate.evaluate(workdir, OVERRIDES)
  pathlib.Path(f"{out}{jax.process_index()}").write_text(str(len(scored)), encoding="utf-8")


if __name__ == "__main__":
  main(*sys.argv[1:])
