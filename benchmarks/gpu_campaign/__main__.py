r"""Everything about an accelerator, by one command that can be broken off and given again.

  python -m benchmarks.gpu_campaign --out=DIR
  python -m benchmarks.gpu_campaign --out=DIR2 --resume=DIR/campaign.json     (goes on elsewhere)
  python -m benchmarks.gpu_campaign --out=DIR --size=tiny --device=cpu        (a rehearsal, minutes)

Parts: --parts=a,b,... (units.PARTS). Each unit is a process with its own time limit; one that fails says
why in one line, and the others go on. --minutes bounds the whole: what does not fit is left to the next
run of the same command, which repeats nothing that is done (--again=UNIT,... does). DIR gets
campaign.json, campaign.md (for docs/performance.md) and campaign.log. Needs jax, flax, optax, orbax,
scikit-learn, scipy, Pillow, jinja2, pytest, tqdm and ml_collections (two pure wheels: pip download --no-deps
ml_collections tqdm; there, pip install --no-deps --target=SITE and PYTHONPATH=SITE); torch for the peers,
in the same Python or under --torch-python; neither TensorFlow nor nibabel nor pydicom nor the network.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from benchmarks import report
from benchmarks.gpu_campaign import tables, units

_NEEDED = ("jax", "flax", "optax", "orbax", "absl", "sklearn", "scipy", "PIL", "pytest", "tqdm",
           "jinja2", "ml_collections")  # jinja2 comes with torch


def lacking() -> str:
  """A line on what this Python lacks of what the units import; "" where nothing is missing."""
  names = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
  if not names:
    return ""
  return (f"MISSING in this Python: {', '.join(names)}. Units that need it fail. Without a network: "
          "pip download --no-deps elsewhere; here pip install --no-deps --target=SITE and PYTHONPATH=SITE.")


def run(unit: units.Unit, folder: pathlib.Path, limit: float, log) -> dict:
  """One unit in a process group of its own: {"status": "done" or "failed", "why", "seconds", "result"}."""
  output = folder / "unit.json"
  output.unlink(missing_ok=True)
  command = [sys.executable, "-m", unit.module, *unit.args, f"--output={output}"]
  begin = time.perf_counter()
  print(f"\n=== {unit.name}: {' '.join(command[1:])}", file=log, flush=True)
  start = log.tell()
  process = subprocess.Popen(command, cwd=report.ROOT, stdout=log, stderr=log, start_new_session=True,
                             env={**os.environ, **report.python_path(), **_cache(folder)})
  why = ""
  try:
    code = process.wait(timeout=limit)
    why = f"exit code {code}: {_last_line(log, start)}" if code else ""
  except subprocess.TimeoutExpired:
    why = f"over its limit of {limit:.0f} s"
  finally:
    _end(process)
  try:
    result = json.loads(output.read_text(encoding="utf-8"))
  except (OSError, ValueError):
    result, why = None, why or "wrote no result"
  return {"part": unit.part, "status": "failed" if why else "done", "why": why, "result": result,
          "seconds": time.perf_counter() - begin, "args": list(unit.args), "limit": limit}


def _cache(folder) -> dict[str, str]:
  """Compiled programs and the choice of kernels are shared between the units of one run."""
  return {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
          "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "all",
          "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TF_CPP_MIN_LOG_LEVEL": "2"}


def _end(process) -> None:
  """Ends a unit with all it started."""
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except ProcessLookupError:
    return
  process.wait()


def _last_line(log, start: int) -> str:
  log.flush()
  text = pathlib.Path(log.name).read_bytes()[start:].decode(errors="replace")
  lines = [line for line in text.splitlines() if line.strip() and "frames from the traceback" not in line]
  errors = [line for line in lines if "Error" in line.partition(" ")[0]]
  return " ".join((errors or lines or ["no output"])[-1].split())[:300]


def main(argv=None) -> int:
  """Runs what is left; 0 when nothing is, 3 when time ran out (the command can be given again)."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for the results")
  parser.add_argument("--resume", type=pathlib.Path, help="campaign.json of an earlier run elsewhere")
  parser.add_argument("--size", choices=("full", "tiny"), default="full")
  parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
  parser.add_argument("--parts", default=",".join(units.PARTS))
  parser.add_argument("--units", default="", help="these alone: 'dae 16,flags'")
  parser.add_argument("--again", default="", help="units to repeat although they are there")
  parser.add_argument("--minutes", type=float, default=9.0, help="of this run")
  parser.add_argument("--patience", type=float, default=1.0, help="times the limits (a busy machine)")
  parser.add_argument("--torch-python", default=sys.executable, dest="torch_python")
  parser.add_argument("--list", action="store_true", help="the units and their limits, and no more")
  args = parser.parse_args(argv)
  end = time.monotonic() + 60 * args.minutes
  # Ended from outside, it ends the unit in hand: that has a process group of its own.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  parts = report.listed(parser, "--parts", args.parts, units.PARTS)
  plan = units.plan(args.size, args.device, args.torch_python)
  names = [u.name for u in plan]
  wanted = report.listed(parser, "--units", args.units, names) if args.units else names
  again = report.listed(parser, "--again", args.again, names) if args.again else []
  if args.list:
    for unit in plan:
      print(f"{unit.part}  {unit.name:20s} at most {unit.limit:.0f} s, begun with {unit.least:.0f} s left")
    return 0
  if line := lacking():
    print(line, flush=True)
  args.out.mkdir(parents=True, exist_ok=True)
  state_file = args.out / "campaign.json"
  state = _state(state_file, args)
  todo = [u for u in plan if u.part in parts and u.name in wanted
          and (u.name not in state["units"] or u.name in again)]
  late = []
  with (tempfile.TemporaryDirectory(prefix="medae_campaign_") as folder,
        open(args.out / "campaign.log", "a", encoding="utf-8") as log):
    for unit in todo:
      left = end - time.monotonic()
      if left < unit.least:  # a shorter one may still fit
        late.append(unit.name)
        continue
      limit = args.patience * unit.limit
      found = run(unit, pathlib.Path(folder), min(limit, left), log)
      if found["status"] == "failed" and found["limit"] < limit and "limit" in found["why"]:
        late.append(unit.name)  # time ran out, not its own limit
        continue
      state["units"][unit.name] = found
      _write(state_file, state)
      print(f"\n[{unit.part}] {unit.name}: {found['status']} in {found['seconds']:.0f} s {found['why']}")
      print(tables.unit_text(unit.name, found, state), flush=True)
      (args.out / "campaign.md").write_text(tables.page(state, names), encoding="utf-8")
  failed = [n for n, u in state["units"].items() if u["status"] == "failed"]
  print(f"\n{len(state['units'])} of {len(plan)} units measured, {len(failed)} failed {failed or ''}; "
        f"left for the next run: {', '.join(late) or 'nothing'}\n{args.out}/campaign.md", flush=True)
  return 3 if late else 0


def _state(path: pathlib.Path, args) -> dict:
  source = path if path.is_file() else args.resume
  if source is not None:
    state = json.loads(source.read_text(encoding="utf-8"))
    if (state["size"], state["device"]) != (args.size, args.device):
      raise SystemExit(f"{source} is of --size={state['size']} --device={state['device']}: another --out")
    return state
  return {"size": args.size, "device": args.device, "machine": report.machine(), "units": {}}


def _write(path: pathlib.Path, state: dict) -> None:
  """Whole or not at all: a run may be killed at any moment."""
  part = path.with_suffix(".part")
  part.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
  part.replace(path)


if __name__ == "__main__":
  sys.exit(main())
