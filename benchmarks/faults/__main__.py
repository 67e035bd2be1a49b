"""Puts the faults of the table into a scratch copy, one at a time, and reports which the tests catch.

  python -m benchmarks.faults                   all that have no verdict yet, then the table
  python -m benchmarks.faults --only dae-       those whose name begins so, afresh
  python -m benchmarks.faults --again missed    what was missed, after tests were strengthened
  python -m benchmarks.faults --check           only whether the table fits the code

A run can be broken off and goes on: verdicts are kept in --results until fault or tests named change.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import pathlib
import queue
import sys
import tempfile

from benchmarks.faults import run, table


def main(argv=None) -> int:
  """Exit status 0: every fault of the table has a verdict; 1: the table does not fit, or tests are red."""
  options = _options(argv)
  faults = table.read()
  wrong = table.problems(faults)
  if wrong:
    print("\n".join(wrong), file=sys.stderr)
    return 1
  print(f"{len(faults)} faults in {len({f.file for f in faults})} files")
  if options.check:
    return 0
  results = pathlib.Path(options.results)
  known = _read(results)
  todo = [f for f in faults if _due(f, known, options)]
  if todo:
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
      if not _go(todo, pathlib.Path(folder), results, options):
        return 1
  known = _read(results)
  found = [known[f.key] for f in faults if f.key in known]
  print(report(found))
  if len(found) < len(faults):
    print(f"{len(faults) - len(found)} faults have no verdict yet: run again")
  return int(len(found) < len(faults))


def _options(argv):
  parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--only", default="", help="names that begin so, afresh")
  parser.add_argument("--again", default="", choices=("", "missed", "all"), help="verdicts to repeat")
  parser.add_argument("--jobs", type=int, default=1, help="scratch copies at work at once")
  parser.add_argument("--limit", type=float, default=120, help="seconds a fault")
  parser.add_argument("--count", type=int, default=0, help="stop after so many faults; 0 = all")
  parser.add_argument("--results", default="runs/faults.jsonl")
  parser.add_argument("--check", action="store_true", help="only check the table")
  parser.add_argument("--trust", action="store_true", help="skip the run of the tests without a fault")
  return parser.parse_args(argv)


def _due(fault, known, options) -> bool:
  if options.only:
    return fault.name.startswith(options.only)
  verdict = known.get(fault.key, {}).get("verdict")
  return verdict is None or options.again == "all" or (
      options.again == "missed" and verdict != run.CAUGHT)


def _go(todo, folder, results, options) -> bool:
  """Judges `todo`; False where the tests fail without any fault."""
  trees = [run.Tree(folder / f"copy{i}") for i in range(max(1, options.jobs))]
  try:
    if not options.trust:
      tests = sorted({t for f in todo for t in f.tests})
      verdict, seconds, why = trees[0].run_tests(tests, 20 * options.limit)
      if verdict != run.MISSED:
        print(f"the tests fail without any fault: {why}", file=sys.stderr)
        return False
      print(f"without a fault all tests pass ({seconds:.0f} s)", flush=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    _judge_all(todo[:options.count or None], trees, results, options.limit)
  finally:
    for tree in trees:
      tree.close()
  return True


def _judge_all(todo, trees, results, limit) -> None:
  """Every fault in whichever copy is free; verdicts are written as they come."""
  free = queue.Queue()
  for tree in trees:
    free.put(tree)

  def one(fault):
    tree = free.get()
    try:
      return tree.judge(fault, limit)
    finally:
      free.put(tree)
  with concurrent.futures.ThreadPoolExecutor(len(trees)) as pool:
    for i, found in enumerate(pool.map(one, todo), 1):
      with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
      print(f"{i}/{len(todo)} {found['verdict']:7} {found['seconds']:5.0f} s  {found['name']}  "
            f"{found['why'][:110]}", flush=True)


def _read(results: pathlib.Path) -> dict[str, dict]:
  """The last verdict of each fault, by key."""
  if not results.exists():
    return {}
  lines = results.read_text(encoding="utf-8").splitlines()
  return {found["key"]: found for found in map(json.loads, lines)}


def report(found) -> str:
  """A table by room, and what was missed."""
  lines = ["| room | faults | caught | share |", "| --- | --- | --- | --- |"]
  rooms = sorted({f["room"] for f in found})
  for room in [*rooms, "all"]:
    own = [f for f in found if room in (f["room"], "all")]
    caught = sum(f["verdict"] == run.CAUGHT for f in own)
    lines.append(f"| {room} | {len(own)} | {caught} | {100 * caught / max(1, len(own)):.0f} % |")
  lines += [f"{f['verdict']}: {f['name']} ({f['why'][:110]})" for f in found
            if f["verdict"] != run.CAUGHT]
  return "\n".join(lines)


if __name__ == "__main__":
  sys.exit(main())
