"""Seconds from `launch.py` to the end of the first training step, with a cold and a warm cache.

  python -m benchmarks.startup
  python -m benchmarks.startup --configs=configs/dae_brats.py:demo --extra=--config.data.dir=FOLDER

Every start is a fresh process in a fresh workdir; the cache of compiled programs is a folder of its
own, empty at the first start. The clock stops when the loss of step 1 stands in metrics.jsonl.
"Data" is when the data set is open, "network" when the weights are initialised; "core" are the seconds that
processor cores have spent by the end of step 1 (Linux), which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import report

_MARKS = (("data", "Data: "), ("network", "Network "))  # of launch.py's log


def start(config: str, folder: pathlib.Path, cache: pathlib.Path, extra, limit: float) -> dict:
  """{"data", "network", "step"}: seconds since the launch, "core": of cores; RuntimeError on failure."""
  command = [sys.executable, "launch.py", f"--config={config}", f"--workdir={folder}",
             "--config.train.steps=1", "--config.train.log_every=1", *extra]
  env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
  env.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", None)  # as a user has it
  metrics, log, found = folder / "metrics.jsonl", folder.with_suffix(".log"), {}
  begin = time.perf_counter()
  with open(log, "w", encoding="utf-8") as out:
    process = subprocess.Popen(command, cwd=report.ROOT, env=env, stdout=out, stderr=out)
  try:
    while "step" not in found:
      spent = time.perf_counter() - begin
      text = log.read_text(encoding="utf-8")
      found.update({k: spent for k, words in _MARKS if words in text and k not in found})
      if metrics.exists() and '"train/loss"' in metrics.read_text(encoding="utf-8"):
        found["step"] = spent
        found["core"] = _core_seconds(process.pid)
      if "step" not in found and (process.poll() is not None or spent > limit):
        raise RuntimeError(f"{' '.join(command)}: {text[-1500:]}")
      time.sleep(0.02)
  finally:
    process.kill()
    process.wait()
  return found


def _core_seconds(pid: int) -> float:
  """Seconds that cores have spent on a process, NaN where the system does not say."""
  try:
    ticks = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
  except OSError:
    return float("nan")
  return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--configs", default="configs/dae_brats.py:demo,configs/dae_brats.py")
  parser.add_argument("--repeats", type=int, default=2, help="starts with a warm cache")
  parser.add_argument("--limit", type=float, default=300, help="seconds before a start has failed")
  parser.add_argument("--extra", action="append", default=[], help="a flag for launch.py")
  parser.add_argument("--output", default="", help="JSON file")
  args = parser.parse_args()
  rows, result = [], {}
  for config in args.configs.split(","):
    with tempfile.TemporaryDirectory(prefix="medae_bench_") as temp:
      temp = pathlib.Path(temp)
      starts = []
      for i in range(1 + args.repeats):
        starts.append(start(config, temp / f"run{i}", temp / "cache", args.extra, args.limit))
        report.say(f"{config}: start {i}: {starts[-1]}")
    result[config] = starts
    cell = lambda found: ", ".join(f"{k} {found[k]:.1f}" for k in ("data", "network", "step", "core"))
    best = min(starts[1:], key=lambda f: f["step"])
    rows.append((config, f"{starts[0]['step']:.1f}", cell(starts[0]),
                 report.spread([s["step"] for s in starts[1:]]), cell(best)))
  report.show(("config", "cold, s", "reached after", "warm, s", "reached after (fastest)"), rows,
              {"starts": result}, args.output)


if __name__ == "__main__":
  main()
