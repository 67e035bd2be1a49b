"""What devices say to each other in a training step, counted in the program for GPUs that need not be there.

  pip install "jax[cuda13]"    # XLA's compiler for GPUs; it runs on any CPU
  python -m benchmarks.devices.collectives
  python -m benchmarks.devices.collectives --tasks=dae --devices=8 --reduce=bfloat16

Compiles the step that training runs (core/parallel.py, as shard_map writes it out) for that many H100s. A
calculation, not a measurement: reductions, bytes of their results, and how many convolutions XLA's schedule
starts while one is under way (begun, not yet waited for). The batch is that of one device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys

from benchmarks import gpu_program, report, settings

_KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute"
_OP = re.compile(rf"= (\(.*?\)|\S+) ((?:{_KINDS})(?:-start)?)\(")


@dataclasses.dataclass(frozen=True)
class Collective:
  """One reduction or gather: bytes of its results, their types, convolutions that start meanwhile."""
  kind: str
  bytes: int
  types: tuple[str, ...]
  beside: int


def found(text: str) -> list[Collective]:
  """The collectives of a scheduled HLO module, in their order."""
  lines, result = text.splitlines(), []
  for i, line in enumerate(lines):
    match = _OP.search(line)
    if not match:
      continue
    name = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) =", line)
    begun = match[2].endswith("start")
    beside = _beside(lines[i + 1:], name[1]) if name and begun else 0
    size = gpu_program.size_of(match[1]) // (2 if begun else 1)  # what is begun names operands and results
    result.append(Collective(match[2], size, gpu_program.types_of(match[1]), beside))
  return result


def _beside(lines, name):
  """Convolutions that start before `name` is waited for."""
  count = 0
  for line in lines:
    if "-done" in line and re.search(rf"%{re.escape(name)}\b", line):
      return count
    count += "__cudnn$conv" in line
  return count


def work(task: str, variant: str, batch: int, devices: int, reduce: str) -> None:
  """Compiles one step in this process: JSON on stdout."""
  import jax

  from benchmarks import package_steps
  jax.default_backend = lambda: "gpu"  # what the package asks to choose between forms
  lowered = package_steps.lowered_on({**settings.GPU[task], "variant": variant, "batch": batch},
                                     gpu_program.h100s(devices), reduce)
  compiled = lowered.compile(compiler_options={"xla_gpu_autotune_level": 0})
  print(json.dumps([dataclasses.asdict(c) for c in found(compiled.as_text())]))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--tasks", default="dae")
  parser.add_argument("--variant", default="bfloat16", choices=tuple(gpu_program.PEAK))
  parser.add_argument("--devices", type=int, default=8)
  parser.add_argument("--batch", type=int, default=16, help="images a device")
  parser.add_argument("--reduce", default="float32,bfloat16")
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  tasks = report.listed(parser, "--tasks", args.tasks, settings.GPU)
  reduces = report.listed(parser, "--reduce", args.reduce, ("float32", "bfloat16"))
  if min(args.devices, args.batch) < 1:
    parser.error(f"--devices={args.devices} and --batch={args.batch} must be 1 or more")
  if not gpu_program.has_compiler():
    parser.error('XLA\'s compiler for GPUs is missing: pip install "jax[cuda13]" (no GPU needed)')
  rows, result = [], {}
  for task in tasks:
    for reduce in reduces:
      got = report.child("benchmarks.devices.collectives", {
          "task": task, "variant": args.variant, "batch": args.batch, "devices": args.devices,
          "reduce": reduce}, gpu_program.DEVICELESS)
      result[f"{task} {reduce}"] = got
      rows.append((task, args.devices, reduce, len(got), f"{sum(c['bytes'] for c in got) / 1e6:.1f} MB",
                   ", ".join(sorted({t for c in got for t in c["types"]})),
                   sum(c["beside"] for c in got)))
  report.show(("task", "devices", "reduce", "collectives", "results", "types", "convolutions beside them"),
              rows, result, args.output)


if __name__ == "__main__":
  if sys.argv[1:2] and sys.argv[1].startswith("{"):
    work(**json.loads(sys.argv[1]))
  else:
    main()
