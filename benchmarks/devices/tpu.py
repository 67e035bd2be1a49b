"""Compiles a training step for TPUs that need not be there: its memory, what they say to each other.

  pip install "jax[tpu]"    # XLA's compiler for TPUs; it runs on any CPU
  python -m benchmarks.devices.tpu
  python -m benchmarks.devices.tpu --tasks=dae,annotation --topology=v5e:2x4 --size=tiny

Compiles the step that training runs (core/parallel.py, as shard_map writes it out) on all devices of a
topology, by JAX's names (v4:2x2x1, v5e:2x4, v5p:2x2x1, v6e:2x4). A calculation, not a measurement: XLA's own
plan of memory, its count of FLOP and of bytes, on one device. The batch is that of one device. A step of
full size takes XLA minutes of one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time

from benchmarks import report, settings
from benchmarks.devices import collectives

# libtpu otherwise looks for a machine's metadata server, and lets one process use its TPU.
DEVICELESS = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
              "JAX_ENABLE_COMPILATION_CACHE": "false"}
SIZES = {"full": settings.GPU, "tiny": settings.TINY}
GIB = 2**30


def work(task: str, variant: str, batch: int, size: str, topology: str, reduce: str) -> None:
  """Compiles one step in this process: JSON on stdout."""
  import jax
  from jax.experimental import topologies

  from benchmarks import package_steps
  devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
  jax.default_backend = lambda: "tpu"  # what the package asks to choose between forms
  setting = {**SIZES[size][task], "variant": variant}
  setting["batch"] = batch or setting["batch"]
  lowered = package_steps.lowered_on(setting, devices, reduce)
  begin = time.monotonic()
  compiled = lowered.compile()
  took = time.monotonic() - begin
  plan, cost = compiled.memory_analysis(), compiled.cost_analysis()
  said = collectives.found(compiled.as_text())
  print(json.dumps({
      "device": devices[0].device_kind, "devices": len(devices), "batch": setting["batch"],
      "jax": jax.__version__, "seconds": took,
      "held": plan.argument_size_in_bytes, "scratch": plan.temp_size_in_bytes,
      "flops": cost.get("flops", 0.0), "bytes": cost.get("bytes accessed", 0.0),
      "collectives": len(said), "reduced": sum(c.bytes for c in said)}))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--tasks", default="dae")
  parser.add_argument("--variants", default="bfloat16")
  parser.add_argument("--topology", default="v5e:2x4", help="kind:shape, as JAX names them")
  parser.add_argument("--batch", type=int, default=0, help="images a device; 0 = the task's own")
  parser.add_argument("--size", default="full", choices=tuple(SIZES))
  parser.add_argument("--reduce", default="float32", choices=("float32", "bfloat16"))
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  tasks = report.listed(parser, "--tasks", args.tasks, SIZES[args.size])
  variants = report.listed(parser, "--variants", args.variants, ("float32", "bfloat16"))
  if args.batch < 0:
    parser.error(f"--batch={args.batch} must not be negative")
  if not importlib.util.find_spec("libtpu"):
    parser.error('XLA\'s compiler for TPUs is missing: pip install "jax[tpu]" (no TPU needed)')
  rows, result = [], {}
  for task in tasks:
    for variant in variants:
      try:
        got = report.child("benchmarks.devices.tpu", {
            "task": task, "variant": variant, "batch": args.batch, "size": args.size,
            "topology": args.topology, "reduce": args.reduce}, DEVICELESS)
      except RuntimeError as e:
        sys.exit(f"{task} {variant} for {args.topology}: {str(e).splitlines()[-1]}")
      result[f"{task} {variant}"] = got
      rows.append((task, variant, f"{got['devices']} {got['device']}", got["batch"],
                   f"{got['seconds']:.0f} s", f"{got['held'] / GIB:.2f} GiB",
                   f"{got['scratch'] / GIB:.2f} GiB", f"{got['flops'] / 1e12:.3g}",
                   f"{got['bytes'] / 1e9:.3g} GB", got["collectives"], f"{got['reduced'] / 1e6:.3g} MB"))
  report.show(("task", "dtype", "compiled for", "batch of one", "compiling", "held", "scratch memory",
               "TFLOP", "bytes accessed", "collectives", "their results"), rows, result, args.output)


if __name__ == "__main__":
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    work(**json.loads(sys.argv[1]))
  else:
    main()
