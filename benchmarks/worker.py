"""One side of a comparison in its own process: JSON commands in, JSON answers out.

A process of its own keeps the two frameworks' thread pools and GPU libraries apart, and lets either
run where the other is not installed. The first line starts the work (imports are done by then; what compiles
and tunes beside it would disturb it). Then {"steps": n, "warm_s": seconds of steps before them that are not
timed; one at least} -> {"seconds", "cpu_seconds", "loss", "memory"}, and {"program": true} -> what XLA's
plan says of our step, null where it says nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time


def main() -> None:
  setting = json.loads(sys.argv[1])
  answers = os.fdopen(os.dup(1), "w")  # libraries may print: only this pipe carries answers
  os.dup2(2, 1)
  from benchmarks import settings
  tensors, batch = settings.make(setting)
  if setting["side"] == "peer":
    import torch
    if setting["device"] == "cpu":
      torch.set_num_threads(len(os.sched_getaffinity(0)))
    versions = {"torch": torch.__version__}
    build = importlib.import_module(f"benchmarks.peers.{setting['task']}").build
  else:
    # First, since medae_jax sets XLA's flags.
    import jax

    from benchmarks.package_steps import build
    versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
  sys.stdin.readline()
  step = build(setting, tensors, batch, setting["device"])
  begin = time.perf_counter()
  first = float(step())  # compiles
  print(json.dumps({"first_step_s": time.perf_counter() - begin, "loss": first,
                    "versions": versions}), file=answers, flush=True)
  for line in sys.stdin:
    if "program" in json.loads(line):
      print(json.dumps(_program(step)), file=answers, flush=True)
      continue
    command = json.loads(line)
    n = command["steps"]
    _warm(step, command.get("warm_s", 0))
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(n):
      loss = step()
    loss = float(loss)  # waits for the device
    spent, cpu = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"seconds": spent, "cpu_seconds": cpu, "loss": loss,
                      "memory": _memory(setting)}), file=answers, flush=True)


def _warm(step, seconds: float) -> None:
  """A step or more, for `seconds`, that are not timed: the others' turns left this process's caches cold, and
  a virtual machine may have handed its free memory back to the host and fetches it anew, for a second."""
  begin = time.perf_counter()
  while True:
    float(step())
    if time.perf_counter() - begin >= seconds:
      return


def _program(step) -> dict | None:
  """Of one dispatch: FLOP as written (what the compiler computes twice earns nothing), bytes that its
  kernels move, their number, and scratch memory."""
  if not hasattr(step, "program"):
    return None
  from benchmarks import gpu_program
  lowered = step.program()
  compiled, costs = lowered.compile(), lowered.cost_analysis()
  costs = costs[0] if isinstance(costs, (list, tuple)) else costs
  kernels = gpu_program.kernels(compiled.as_text())
  return {"flops": costs.get("flops"), "bytes": sum(k.bytes for k in kernels),
          "conv_flops": sum(k.flops for k in kernels), "kernels": len(kernels),
          "scratch": compiled.memory_analysis().temp_size_in_bytes}


def _memory(setting) -> int:
  """Peak bytes on the device, or of the process on a CPU."""
  if setting["device"] == "cpu":
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  if setting["side"] == "peer":
    import torch
    return torch.cuda.max_memory_allocated()
  import jax
  return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


if __name__ == "__main__":
  main()
