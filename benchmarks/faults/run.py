"""Applies one fault in a scratch copy of the tree and runs its tests there."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from benchmarks.faults.table import ROOT, Fault

CAUGHT, MISSED, LATE, BROKEN = "caught", "missed", "late", "broken"
# pytest's status -> verdict. 2: a test file cannot even be imported.
_VERDICTS = {0: MISSED, 1: CAUGHT, 2: CAUGHT, None: LATE}
_IGNORED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "*.egg-info", "build", ".cache")


class Tree:
  """A copy of the working tree as it is now, uncommitted changes included, and a process in it."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    shutil.copytree(ROOT, folder, ignore=_IGNORED, symlinks=True)
    # No bytecode: a file that is changed twice in a second, to the same length, would be taken from it.
    self._server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.faults.server"], cwd=folder, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})

  def run_tests(self, tests, limit: float) -> tuple[str, float, str]:
    """(verdict as if a fault were in the tree, seconds, the line that says why)."""
    begin = time.monotonic()
    self._server.stdin.write(json.dumps({"tests": list(tests), "limit": limit}) + "\n")
    self._server.stdin.flush()
    answer = self._server.stdout.readline()
    if not answer:
      raise RuntimeError("the process that runs the tests has ended")
    answer = json.loads(answer)
    lines = [line for line in answer["output"].splitlines() if line.strip()]
    failed = next((line for line in lines if line.startswith(("FAILED", "ERROR"))), "")
    verdict = _VERDICTS.get(answer["status"], BROKEN)
    return verdict, time.monotonic() - begin, failed or (lines[-1] if lines else "no output")

  def judge(self, fault: Fault, limit: float) -> dict:
    """Runs the tests of one fault with the fault in the copy, and takes it out again."""
    path = self.folder / fault.file
    text = path.read_text(encoding="utf-8")
    path.write_text(fault.applied(text), encoding="utf-8")
    try:
      verdict, seconds, why = self.run_tests(fault.tests, limit)
    finally:
      path.write_text(text, encoding="utf-8")
    return {"name": fault.name, "key": fault.key, "room": fault.room, "verdict": verdict,
            "seconds": round(seconds, 1), "why": why[:300]}

  def close(self) -> None:
    """Ends the process."""
    self._server.stdin.close()
    self._server.wait()
