"""What surviving costs: the checksums of checkpoints, and the bound on steps in flight, as ratios in one run.

  python -m benchmarks.survival
  python -m benchmarks.survival --configs=configs/dae_brats.py:smoke --repeats=20

Both forms of each pair take turns in one process, in many short blocks, of which the fastest count: a busy
machine only adds. A save is timed until training goes on, in seconds of processor of its thread (on a CPU the
arrays are there, nothing is waited for); "share" is what the checksums take of the throughput of a run that
saves every --every steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np

from benchmarks import report
from medae_jax import api
from medae_jax.core import checkpoint, checksums, example, method as method_lib, parallel, streams
from medae_jax.training import progress

UNBOUNDED = 10**9


def main() -> None:
  """Prints one JSON object a config."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  sizes = [f"configs/dae_brats.py{size}" for size in (":smoke", ":demo", "")]
  parser.add_argument("--configs", nargs="+", default=sizes)
  parser.add_argument("--every", type=int, default=100, help="steps between saves")
  parser.add_argument("--repeats", type=int, default=30)
  parser.add_argument("--seconds", type=float, default=0.3, help="of a block of steps, about")
  args = parser.parse_args()
  for name in args.configs:
    print(json.dumps({"config": name, **measure(name, args), "machine": report.machine()}), flush=True)


def measure(name: str, args) -> dict:
  """Both ratios for one config."""
  config = api.config(name)
  method = method_lib.load(config)
  stage, size = method.stages()[0], config.train.batch_size
  batch = example.example_batch(method, config, size, stage)
  state = method_lib.fresh_state(method, jax.random.key(0), batch)
  saves = _saves(state, args.repeats)
  step = parallel.train_step_fn(
      lambda s, b, r, axis: method.train_step(s, b, r, stage=stage, axis_name=axis),
      streams.step_key(config, stage), mode=config.parallel.mode)
  queue = _queue(step, state, jax.tree.map(lambda x: np.stack([x]), batch), config, args)
  between = args.every * queue["ms a step, bounded"]
  return {"parameters": sum(x.size for x in jax.tree.leaves(state.params)), "saves": saves, "queue": queue,
          "share of throughput": (saves["blocks, ms"] - saves["blocks without, ms"])
          / (between + saves["blocks, ms"])}


def _saves(state, repeats: int) -> dict[str, float]:
  """Milliseconds of a save with its checksums and without."""
  meta = {"stage": "", "batches": {}, "best": None, "stale": 0, "evaluated": -1, "done": False}
  times: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
  with tempfile.TemporaryDirectory() as folder:
    saver = checkpoint.Checkpoints(pathlib.Path(folder))
    for number in range(1 + 2 * repeats):
      hashed = bool(number % 2)
      moved = jax.block_until_ready(state.replace(step=np.int32(number)))
      with contextlib.nullcontext() if hashed else _without_checksums():
        begin, used = time.perf_counter(), time.thread_time()
        total = checkpoint.checksum(state.params) if hashed else 0.0
        saver.save("last", moved, {**meta, "checksum": total})
        blocks = time.thread_time() - used
        saver.wait()
        if number:  # the first one makes threads and folders
          times[hashed].append((1e3 * blocks, 1e3 * (time.perf_counter() - begin)))
    saver.close()
  found = {f"{what}{'' if hashed else ' without'}, ms": reduce(t[k] for t in times[hashed])
           for k, what, reduce in ((0, "blocks", statistics.median), (1, "on disk", min))
           for hashed in (True, False)}
  return {**found, "repeats": repeats}


@contextlib.contextmanager
def _without_checksums():
  kept = checksums.crc
  checksums.crc = lambda tree: 0
  try:
    yield
  finally:
    checksums.crc = kept


def _queue(step, state, stacked, config, args) -> dict[str, float]:
  """Milliseconds of a step with at most progress.IN_FLIGHT dispatches in flight, and without bound."""
  holder, bound = [step(state, stacked)[0]], progress.IN_FLIGHT
  size = config.train.batch_size

  def block(steps, in_flight):
    progress.IN_FLIGHT = in_flight
    begin = time.perf_counter()
    with progress.Progress(steps, 0, UNBOUNDED, active=False) as shown:
      for n in range(1, steps + 1):
        holder[0], metrics = step(holder[0], stacked)
        shown.add(n, metrics, size)
      shown.flush()
    return (time.perf_counter() - begin) / steps
  try:
    block(3, bound)  # threads and allocators
    steps = max(4, min(2000, int(args.seconds / block(3, bound))))
    pairs = [(block(steps, bound), block(steps, UNBOUNDED)) for _ in range(args.repeats)]
  finally:
    progress.IN_FLIGHT = bound
  fastest = [min(p[k] for p in pairs) for k in (0, 1)]
  return {"ms a step, bounded": 1e3 * fastest[0], "ms a step, unbounded": 1e3 * fastest[1],
          "throughput bounded/unbounded": fastest[1] / fastest[0],
          "median of pairs": statistics.median(b / a for a, b in pairs), "steps": steps,
          "repeats": len(pairs)}


if __name__ == "__main__":
  main()
