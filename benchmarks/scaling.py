"""FLOP of one device's training step on 1, 2, 4 and 8 forced CPU devices: 1/N where none repeats.

  python -m benchmarks.scaling

Compiles the step that training runs (core/parallel.py) for a global batch of 16 and asks XLA what
the program of one device costs. The convolutions take their plain form: XLA counts one round of a
loop. That processes read disjoint shares of the data and end with the same state as one process is
tested: tests/contract/test_devices.py.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys

from benchmarks import report


def work(mode: str, size: int, depth: int, wf: int, batch: int) -> None:
  """FLOP of one device of this process's program."""
  import jax
  import numpy as np

  from configs import dae_brats
  from medae_jax.core import example, method as method_lib, parallel
  config = dae_brats.get_config()
  with config.unlocked():
    config.model.update(depth=depth, wf=wf)
    config.data.image_size = (size, size)
  method = method_lib.load(config)
  images = example.example_batch(method, config, batch)
  state = jax.eval_shape(lambda: method.init(jax.random.key(0), images))
  stage = method_lib.stages_of(method)[-1]
  step = parallel.train_step_fn(
      lambda s, b, r, axis: method.train_step(s, b, r, stage=stage, axis_name=axis), jax.random.key(0),
      mode=mode)
  call = inspect.unwrap(step)  # without loops.dispatch
  mapped = inspect.getclosurevars(call).nonlocals["mapped"]  # the compiled function itself
  count = jax.device_count()
  shape = lambda x: (1, count, batch // count) if mode == "pmap" else (1, batch)
  stacked = jax.tree.map(lambda x: np.reshape(x, (*shape(x), *x.shape[1:])), images)
  costs = mapped.lower(state, stacked, None).compile().cost_analysis()
  costs = costs[0] if isinstance(costs, list) else costs
  print(json.dumps({"flops": costs["flops"]}))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--devices", default="1,2,4,8")
  parser.add_argument("--mode", default="pmap", choices=("pmap", "shard_map"))
  parser.add_argument("--size", type=int, default=128)
  parser.add_argument("--depth", type=int, default=4)
  parser.add_argument("--wf", type=int, default=6)
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  flops = {}
  for n in (int(v) for v in args.devices.split(",")):
    found = report.child("benchmarks.scaling", {
        "mode": args.mode, "size": args.size, "depth": args.depth, "wf": args.wf,
        "batch": args.batch}, {
            "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join((
                os.environ.get("XLA_FLAGS", ""), f"--xla_force_host_platform_device_count={n}"))})
    flops[n] = found["flops"]
    report.say(f"{n} devices: {flops[n] / 1e9:.2f} GFLOP a device")
  first = min(flops)
  report.show(("devices", "GFLOP a device and step", "share of one device", "1/N"),
              [(n, f"{f / 1e9:.2f}", f"{f / flops[first]:.4f}", f"{first / n:.4f}")
               for n, f in flops.items()], {"flops": flops}, args.output)


if __name__ == "__main__":
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    work(**json.loads(sys.argv[1]))
  else:
    main()
