"""Many files in many processes: jobs in, results out, with progress and one writer at a time.

A worker is a process of its own rather than multiprocessing's: it does not import the program that
started it (nor TensorFlow, nor JAX), and it ends by itself when that program is killed, because its
stdin closes. A job and its result are dicts that JSON can hold, one a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import contextlib
import fcntl
import json
import logging
import os
import pathlib
import queue
import subprocess
import sys
import time
from types import ModuleType
from typing import Any

import tqdm

from data_pipelines import machine

_EVERY = 10  # seconds between lines of the log where there is no terminal


def default_count(bytes_a_job: float) -> int:
  """One process a core, as far as memory lasts for jobs of `bytes_a_job` each; at least 1."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  return max(1, min(cores, int(machine.free_memory() / bytes_a_job)))


def run(module: ModuleType, jobs: Sequence[Mapping[str, Any]], count: int
        ) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
  """(job, result) in the order they finish.

  Args:
    module: has `run(job) -> result`, and calls `serve(run)` where it is started with python -m.
    count: processes; 1 = this one.

  Yields:
    The result is {"bad": reason} for a job whose process died; the others go on.
  """
  count = min(count, len(jobs))
  if count <= 1:
    for job in jobs:
      yield job, module.run(job)
    return
  idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
  for _ in range(count):
    idle.put(Worker(module))

  def one(job):
    worker = idle.get()
    try:
      return job, worker.run(job)
    finally:
      idle.put(worker)
  with concurrent.futures.ThreadPoolExecutor(count) as pool:
    futures = [pool.submit(one, job) for job in jobs]
    try:
      for future in concurrent.futures.as_completed(futures):
        yield future.result()
    finally:  # also where the caller stops early: nothing new is begun
      for future in futures:
        future.cancel()
      pool.shutdown()
      while not idle.empty():
        idle.get().close()


def serve(function: Callable[[dict], dict]) -> None:
  """What a worker process does: results of jobs until stdin closes."""
  for line in sys.stdin:
    print(json.dumps(function(json.loads(line))), flush=True)


class Worker:
  """A process that runs `module`; started when it gets a job, and again if it dies."""

  def __init__(self, module: ModuleType):
    self.name, self.process = module.__name__, None

  def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
    """The result of one job, {"bad": reason} where the process died over it."""
    process = self.process = self.process or self._start()
    try:
      process.stdin.write(json.dumps(job) + "\n")
      process.stdin.flush()
      line = process.stdout.readline()
    except OSError:
      line = ""
    if line.endswith("\n"):
      return json.loads(line)
    code = process.wait()
    self.close()
    return {"bad": f"the process that read it ended with code {code} (out of memory?)"}

  def _start(self):
    root = str(pathlib.Path(__file__).resolve().parents[len(__package__.split("."))])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Processes run side by side: threads inside each would only get in the way.
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", self.name], env=env, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

  def close(self) -> None:
    """Ends the process."""
    if self.process is not None:
      with contextlib.suppress(OSError):
        self.process.stdin.close()
      self.process.stdout.close()
      self.process.wait()
      self.process = None


class Progress:
  """A bar on a terminal, else a line of the log now and then.

  Args:
    total: jobs. unit: what a job is called. verb: what is done to it, "prepared".
  """

  def __init__(self, total: int, unit: str, verb: str):
    self.total, self.done, self.unit, self.verb = total, 0, unit, verb
    self._start = self._said = time.monotonic()
    self._bar = tqdm.tqdm(total=total, desc=verb, unit=f" {unit}", disable=None, dynamic_ncols=True)

  def step(self, bad: int) -> None:
    """One more job is done; `bad` of all so far were left out."""
    self.done += 1
    self._bar.set_postfix_str(f"{bad} left out", refresh=False)
    self._bar.update()
    now = time.monotonic()
    if self._bar.disable and (now - self._said > _EVERY or self.done == self.total):
      self._said, rate = now, self.done / max(now - self._start, 1e-6)
      left = int((self.total - self.done) / rate)
      logging.info("%s %d/%d %ss, %d left out, %.2f %ss/s, ETA %d:%02d", self.verb, self.done,
                   self.total, self.unit, bad, rate, self.unit, left // 60, left % 60)

  def close(self) -> None:
    """Leaves the bar where it stands."""
    self._bar.close()


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """One process at a time writes into a folder; others wait, then find the work done."""
  with open(folder / ".lock", "w", encoding="utf-8") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      logging.info("waiting for another process that prepares %s", folder)
      fcntl.flock(lock, fcntl.LOCK_EX)
    yield
