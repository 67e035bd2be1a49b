"""The most expensive kernels of a training step: time by the profiler, bytes and FLOP by XLA's program."""

from __future__ import annotations

import collections
import os
import pathlib
import tempfile

STEPS = 5


def profile(setting: dict, device: str) -> dict:
  """{"step_s": wall seconds of a step, "kernels": rows, most time first, "bytes", "flops", "count"}.

  Command buffers are off while it runs: what a graph launches has no names.
  """
  if device == "gpu":
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_command_buffer="
  import time

  import jax

  from benchmarks import gpu_program, package_steps, settings
  step = package_steps.build(setting, *settings.make(setting), device)
  for _ in range(3):
    float(step())
  known = {k.name: k for k in gpu_program.kernels(step.program().compile().as_text())}
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      begin = time.perf_counter()
      for _ in range(STEPS):
        loss = step()
      float(loss)
      seconds = (time.perf_counter() - begin) / STEPS
    spent, named = _events(pathlib.Path(folder), known)
  rows = [{"name": name, "seconds": s / STEPS, "bytes": known[name].bytes, "flops": known[name].flops,
           "source": known[name].source, "result": known[name].result}
          for name, s in sorted(spent.items(), key=lambda i: -i[1])]
  return {"setting": setting, "step_s": seconds, "kernels": rows[:40], "count": len(known),
          "bytes": sum(k.bytes for k in known.values()), "flops": sum(k.flops for k in known.values()),
          "in_kernels_s": sum(r["seconds"] for r in rows), "unnamed_s": named / STEPS}


def _events(folder: pathlib.Path, known):
  """({kernel of the program: seconds}, seconds of device events that are none of them)."""
  import jax
  spent, other = collections.Counter(), 0.0
  data = jax.profiler.ProfileData.from_file(str(next(folder.rglob("*.xplane.pb"))))
  for plane in data.planes:
    on_device = plane.name.startswith("/device:")
    for line in plane.lines:
      if on_device and not line.name.startswith("Stream"):
        continue  # derived lines repeat what the streams did
      for event in line.events:
        op = dict(event.stats).get("hlo_op")
        if op in known:
          spent[op] += event.duration_ns / 1e9
        elif on_device:
          other += event.duration_ns / 1e9
  return spent, other
