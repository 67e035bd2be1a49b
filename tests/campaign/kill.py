"""Starts a command, kills it at a moment, starts it again until it is done; counts what that cost."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
HANG = 900  # seconds; the slowest command needs a tenth on an idle machine
CHAIN = 4  # kills of one result at most


@dataclasses.dataclass(frozen=True)
class Work:
  """A kind of run; what it reads and writes lies in a folder of its own.

  Attributes:
    arguments: of python.
    results: what it writes, below the folder: compared with the undisturbed run.
    partial: (folder, reference) -> what looks finished and is not.
    watch: patterns below the folder, of files and folders that come and go while it writes.
    before: fills the folder before the first start.
    once: refuses to write where a result lies: right where a kill came after the last write.
  """
  name: str
  arguments: Callable[[pathlib.Path], list[str]]
  results: str
  partial: Callable[[pathlib.Path, pathlib.Path], list[str]]
  watch: tuple[str, ...]
  before: Callable[[pathlib.Path], None] = lambda folder: None
  trains: bool = False
  once: bool = False


@dataclasses.dataclass
class Attempt:
  """One start: whether it was killed, the seconds of processor it had, what it said."""
  killed: bool
  code: int
  seconds: float
  seen: int
  said: str


def environment(cache: pathlib.Path) -> dict[str, str]:
  """Programs are compiled once for the whole campaign, also the small ones."""
  return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache),
          "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
          "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
          "XDG_CACHE_HOME": str(cache / "xdg"), "PYTHONDONTWRITEBYTECODE": "1"}


def attempt(work: Work, folder: pathlib.Path, cache: pathlib.Path, *, clock: float = np.inf,
            sight: float = np.inf, delay: float = 0.0) -> Attempt:
  """Runs the command; SIGKILL to its process group at a moment.

  Args:
    clock: seconds of processor after which it is killed (of all its processes: a busy machine only takes
      longer).
    sight: killed `delay` seconds after so many files of work.watch have been seen.
  """
  log = folder / "log"
  known, seen = set(_sights(work, folder)), set()
  end = time.monotonic() + HANG
  with open(log, "w", encoding="utf-8") as out:
    process = subprocess.Popen([sys.executable, *work.arguments(folder)], cwd=ROOT, stdout=out,
                               stderr=subprocess.STDOUT, env=environment(cache), start_new_session=True)
    killed, used = False, 0.0
    while process.poll() is None:
      used = max(used, _seconds(process.pid))
      seen |= set(_sights(work, folder)) - known
      if used >= clock or len(seen) >= sight or time.monotonic() > end:
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        assert time.monotonic() < end, f"hangs for {HANG} s: {work.name} in {folder}"
        break
      time.sleep(0.002 if sight < np.inf else 0.01)
  return Attempt(killed, process.wait(), used, len(seen), log.read_text(errors="replace"))


def _sights(work, folder):
  found: list[str] = []
  for pattern in work.watch:
    with contextlib.suppress(OSError):  # a folder that went while it was looked into
      found += map(str, folder.glob(pattern))
  return found


def _seconds(leader: int) -> float:
  """Seconds of processor of a process group; of the leader and its ended children where it is alone."""
  ticks = 0
  for pid in {leader, *_children(leader)}:
    try:
      fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
      continue
    ticks += sum(map(int, fields[11:15]))
  return ticks / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
  try:
    return [int(x) for p in pathlib.Path(f"/proc/{pid}/task").iterdir()
            for x in (p / "children").read_text().split()]
  except OSError:
    return []


@dataclasses.dataclass
class Chain:
  """What became of one result that was killed several times and finished in the end."""
  kills: int = 0
  resumes: int = 0
  seconds: float = 0.0  # of processor, of all attempts
  lost: list[str] = dataclasses.field(default_factory=list)
  partial: list[str] = dataclasses.field(default_factory=list)
  refused: list[str] = dataclasses.field(default_factory=list)
  steps: list[int] = dataclasses.field(default_factory=list)  # that a kill cost, where it trains


def chain(work: Work, reference: pathlib.Path, whole: Attempt, folder: pathlib.Path, cache: pathlib.Path,
          rng, most: int) -> Chain:
  """Kills one result at moments that `rng` draws, at most `most` times, then lets it finish."""
  folder.mkdir(parents=True)
  work.before(folder)
  found, before, whole_now = Chain(), Progress(), False
  for _ in range(min(most, CHAIN)):
    # Half of the moments by the clock, over the whole length; half where something is being written.
    if rng.random() < 0.5:
      moment = {"clock": rng.uniform(0, whole.seconds)}
    else:
      moment = {"sight": int(rng.integers(1, max(whole.seen, 1) + 1)), "delay": rng.uniform(0, 0.03)}
    ran = attempt(work, folder, cache, **moment)
    found.seconds += ran.seconds
    _judge(work, found, before, ran)
    if not ran.killed:
      break
    whole_now = work.once and (folder / work.results).exists()
    found.kills += 1
    if (folder / work.results).exists():
      found.partial += [f"{moment}: {x}" for x in work.partial(folder / work.results,
                                                               reference / work.results)]
    before = Progress.of(folder / work.results) if work.trains else before
    shutil.copyfile(folder / "log", folder / f"log{found.kills}")
    if whole_now:
      break
  if whole_now:
    ran = attempt(work, folder, cache)
    found.refused += [] if "is not empty" in ran.said else [f"not refused: {ran.said[-300:]}"]
  elif found.kills and ran.killed:
    ran = attempt(work, folder, cache)
    found.seconds += ran.seconds
    _judge(work, found, before, ran)
  found.resumes = found.kills
  return found


def _judge(work, found: Chain, before: Progress, ran: Attempt) -> None:
  """The command may be killed or end well; it may not forget a checkpoint that was there."""
  if not ran.killed and ran.code:
    found.refused.append(ran.said[-600:])
  starts = [int(s) for s in re.findall(r"Resuming at step (\d+)", ran.said)]
  if not work.trains or before.reached is None or (ran.killed and not starts):
    return
  start = min(starts, default=0)
  if start < before.kept:
    found.lost.append(f"checkpoint of step {before.kept}, resumed at {start}")
  found.steps.append(before.reached - start)


@dataclasses.dataclass(frozen=True)
class Progress:
  """Newest finished checkpoint, and the last step in metrics.jsonl, of the run that is least far."""
  kept: int = 0
  reached: int | None = None

  @staticmethod
  def of(folder: pathlib.Path) -> Progress:
    """Of a workdir, or of the workdirs seed_<n> below it."""
    found = [_progress(w) for w in sorted(folder.glob("seed_*")) or [folder]]
    return Progress(min(k for k, _ in found), max(r for _, r in found))


def _progress(workdir):
  steps = [int(p.name) for p in (workdir / "checkpoints" / "last").glob("*") if p.name.isdigit()]
  rows = workdir / "metrics.jsonl"
  said = re.findall(r'^\{"step": (\d+),.*\}$', rows.read_text(), re.M) if rows.exists() else []
  return max(steps, default=0), max(map(int, said), default=0)
