"""A process inside a scratch copy that has imported the libraries and forks for every run of tests.

Imports take longer than most of these tests. Reads a line of JSON {"tests", "limit"} for each run
from stdin and answers one {"status", "output"}; status is pytest's, or null after the limit.
Nothing of the project itself may be imported before the fork: it is what changes.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import tempfile
import time

LIBRARIES = ("jax", "flax.linen", "optax", "orbax.checkpoint", "tensorflow", "scipy.ndimage", "pytest",
             "scipy.interpolate", "sklearn.metrics", "nibabel", "PIL.Image", "tqdm", "ml_collections")


def main() -> None:
  """Serves until stdin ends."""
  # as tests/conftest.py, which comes too late for libraries that are there already
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR",
                        str(pathlib.Path(tempfile.gettempdir()) / "medae_jax_test_cache"))
  os.environ.update(JAX_PLATFORMS="cpu", TF_CPP_MIN_LOG_LEVEL="2",
                    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0.5")
  for name in LIBRARIES:
    __import__(name)
  answers = os.dup(1)
  os.dup2(2, 1)  # whatever a library prints must not mix with the answers
  for line in sys.stdin:
    request = json.loads(line)
    answer = json.dumps(_run(request["tests"], request["limit"])) + "\n"
    os.write(answers, answer.encode())


def _run(tests, limit: float) -> dict:
  with tempfile.TemporaryFile() as output:
    child = os.fork()
    if child == 0:
      _child(tests, output.fileno())
    end = time.monotonic() + limit
    done = status = 0
    while not done and time.monotonic() < end:
      time.sleep(0.05)
      done, status = os.waitpid(child, os.WNOHANG)
    if not done:
      os.killpg(child, signal.SIGKILL)
      os.waitpid(child, 0)
    output.seek(0)
    text = output.read().decode(errors="replace")
  return {"status": os.waitstatus_to_exitcode(status) if done else None, "output": text[-20_000:]}


def _child(tests, output: int) -> None:
  """Runs pytest in this process and leaves it; a group of its own, so that all of it can be ended."""
  os.setpgid(0, 0)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  os.dup2(output, 1)
  os.dup2(output, 2)
  status = 70
  try:
    import pytest
    status = int(pytest.main(["-x", "-q", "-m", "not slow", "--tb=line", "-p", "no:cacheprovider", *tests]))
  finally:
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
  main()
