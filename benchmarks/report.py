"""What every comparison prints: the machine, seconds with their spread, a table, JSON on demand."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Large blocks of memory in pages of 2 MiB instead of 4 KiB; read when a process starts.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def processor() -> str:
  """Name of the processor, and its number where the name says little (virtual machines)."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:
    lines = []
  found = {key: value.strip() for key, colon, value in
           (line.replace("\t", "").partition(":") for line in lines) if colon}
  name = found.get("model name") or platform.processor() or platform.machine()
  if "cpu family" in found:
    name += f" (family {found.get('cpu family')}, model {found.get('model')})"
  units = [u for u in ("avx512f", "avx512_bf16", "amx_bf16") if u in found.get("flags", "").split()]
  return f"{name}{', ' if units else ''}{' '.join(units)}"


def python_path() -> dict[str, str]:
  """PYTHONPATH of a child: the repository before what this process was given."""
  return {"PYTHONPATH": os.pathsep.join(
      [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}


def machine() -> dict[str, Any]:
  """Processor, cores this process may use, versions, date, command."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  versions = {"python": platform.python_version()}
  for package in ("jax", "numpy", "scipy", "sklearn"):
    with contextlib.suppress(ImportError):
      versions[package] = importlib.import_module(package).__version__
  return {"cpu": processor(), "cores": cores, "date": time.strftime("%Y-%m-%d"), "versions": versions,
          "load_average": os.getloadavg(), "command": " ".join(sys.argv)}


def listed(parser, flag: str, text: str, known) -> list[str]:
  """The names in "a,b"; ends the program with one line where one of them is not `known`."""
  names = text.split(",")
  for name in names:
    if name not in known:
      parser.error(f"{flag}: {name!r} is none of {', '.join(known)}")
  return names


def say(text: str) -> None:
  """Progress, on stderr."""
  print(text, file=sys.stderr, flush=True)


def peak_memory() -> int:
  """Largest resident set of this process so far, bytes."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
      1 if sys.platform == "darwin" else 1024)


def spread(values) -> str:
  """"median (least to most)" of some repeats."""
  return f"{statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"


def child(module: str, argument: dict[str, Any], env=None, python: str = sys.executable) -> dict:
  """Runs `python -m module JSON` and returns the JSON of its last line of stdout.

  A process of its own has its own peak of memory, its own threads and its own caches.

  Raises:
    RuntimeError: it failed; with the end of what it said.
  """
  done = subprocess.run(
      [python, "-m", module, json.dumps(argument)], cwd=ROOT, text=True, capture_output=True,
      env={**os.environ, **python_path(), **(env or {})}, check=False)
  if done.returncode:
    raise RuntimeError(f"{module} {argument}: {done.stderr.strip()[-1500:]}")
  return json.loads(done.stdout.strip().splitlines()[-1])


def show(columns, rows, result: dict[str, Any], output: str = "") -> None:
  """Prints a Markdown table and the machine; writes `result` as JSON where `output` names a file."""
  print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
  for row in rows:
    print("| " + " | ".join(str(v) for v in row) + " |")
  result = {**machine(), **result}
  print(f"\n{result['cpu']}, {result['cores']} core(s), {result['date']}, {result['versions']}",
        flush=True)
  if output:
    pathlib.Path(output).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
