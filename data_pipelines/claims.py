"""One job on one machine at a time: claims on a shared folder, safe against kill -9 at any moment.

A claim is a file NAME.lock<number>, made by linking a finished file into place (atomic on local disks, NFS
and Lustre). Its holder touches it all the time. It is stale where its process is dead (same machine), or
where it was not touched for so long; then whoever links the next number first has taken it over, and nobody
has deleted anything of a holder that lives. What a claim protects must bear to be done twice with equal
results: a machine that stands still for longer than that and comes back finds its job done by another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import errno
import hashlib
import json
import logging
import os
import pathlib
import socket
import threading
import time
from typing import Any
import uuid

STALE = 600.0  # seconds without a touch
_WAIT = 2.0    # seconds between looks at jobs that others hold


def until_done(jobs: Sequence[Any], run: Callable[[Sequence[Any]], Iterable[tuple[Any, dict[str, Any]]]],
               name: Callable[[Any], str]) -> Iterator[tuple[Any, dict[str, Any]]]:
  """(job, result) of every job, done here or found done; what another process holds is asked for again.

  Args:
    run: does jobs, in any order; a result is {"held": by whom}, {"fatal": why} or anything else.
    name: of a job, for messages.

  Raises:
    OSError: a result is fatal (the disk is full, say).
  """
  while jobs:
    held = []
    for job, result in run(jobs):
      if "fatal" in result:
        raise OSError(f"preparation stopped at {name(job)}: {result['fatal']}; what is prepared is kept, run "
                      "again to go on")
      if "held" in result:
        held.append(job)
        logging.debug("%s is held by %s", name(job), result["held"])
      else:
        yield job, result
    jobs = held
    if jobs:
      time.sleep(_WAIT)


def identity() -> dict:
  """This process: machine (with boot and process namespace: containers have their own), pid, start."""
  machine = [socket.gethostname()]
  with contextlib.suppress(OSError):
    machine.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    machine.append(os.readlink("/proc/self/ns/pid"))
  return {"machine": " ".join(machine), "pid": os.getpid(), "started": _started(os.getpid())}


def owner_name() -> str:
  """A file name that no other process makes, and from which `left_by_dead` knows who made it."""
  me = identity()
  return f"{_short(me['machine'])}-{me['pid']}-{me['started']}-{uuid.uuid4().hex[:8]}"


def left_by_dead(name: str) -> bool:
  """Whether a process of this machine that is dead has made the name (`owner_name`)."""
  machine, _, rest = name.partition("-")
  pid, _, rest = rest.partition("-")
  here = identity()["machine"]
  return machine == _short(here) and pid.isdigit() and is_dead(
      {"machine": here, "pid": int(pid), "started": rest.partition("-")[0]})


def _short(machine):
  return hashlib.sha256(machine.encode()).hexdigest()[:12]


def clear(folder) -> None:
  """Takes away tickets that dead processes of this machine have left: their locks are judged one by one."""
  for ticket in pathlib.Path(folder).glob("*.ticket"):
    if left_by_dead(ticket.name):
      ticket.unlink(missing_ok=True)


def _started(pid):
  """When a process started, in the kernel's own unit; "" where it is dead or the system does not say."""
  try:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
  except (OSError, IndexError):
    return ""


def is_dead(owner: dict) -> bool:
  """Whether a process of this machine is gone; False for those of other machines, which nobody can see."""
  if owner.get("machine") != identity()["machine"]:
    return False
  if owner["started"]:
    return _started(owner["pid"]) != owner["started"]
  try:
    os.kill(owner["pid"], 0)
  except ProcessLookupError:
    return True
  except OSError:
    pass
  return False


@contextlib.contextmanager
def claimed(folder, name: str, stale: float = STALE) -> Iterator[str]:
  """Claims `name` for the block, where nobody holds it.

  Args:
    folder: of the locks; made where it is not there.
    stale: seconds; the same on all machines.

  Yields:
    "" where it is claimed now; else who holds it, "<machine>, process <pid>": the block does nothing then.

  Raises:
    OSError: the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  held = _take(folder, name, stale)
  if isinstance(held, str):
    yield held
    return
  number, path = held
  done = threading.Event()
  beat = threading.Thread(target=_touch, args=(path, done, stale / 10), daemon=True)
  beat.start()
  try:
    yield ""
  finally:
    done.set()
    beat.join()
    for old in sorted(_numbers(folder, name)):  # the own one last: until then the job is held
      if old <= number:
        _lock(folder, name, old).unlink(missing_ok=True)


def _touch(path, done, seconds):
  while not done.wait(seconds):
    with contextlib.suppress(OSError):
      os.utime(path)


def _take(folder, name, stale):
  """(number, path) of the lock that is ours now, or who holds the job."""
  ticket = folder / f"{owner_name()}.ticket"
  ticket.write_text(json.dumps(identity()), encoding="utf-8")
  try:
    while True:
      newest = max(_numbers(folder, name), default=-1)
      # The ticket's own time: what the clock of the shared folder says, whatever this machine's says.
      holder = _holder(_lock(folder, name, newest), ticket.stat().st_mtime, stale) if newest >= 0 else ""
      if holder:
        return holder
      path = _lock(folder, name, newest + 1)
      with contextlib.suppress(FileExistsError):  # another one was faster: it is looked at
        _link(ticket, path)
        os.utime(path)
        return newest + 1, path
      os.utime(ticket)
  finally:
    ticket.unlink(missing_ok=True)


def _link(ticket, path):
  """A second name for the ticket, or where a file system knows none, a new file with its content."""
  try:
    os.link(ticket, path)
  except OSError as error:
    if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
      raise
    with open(path, "x", encoding="utf-8") as file:
      file.write(ticket.read_text(encoding="utf-8"))


def _holder(path, now, stale):
  """Who lives behind a lock, "" where it is stale or gone."""
  try:
    age = now - path.stat().st_mtime
    text = path.read_text(encoding="utf-8")
  except FileNotFoundError:
    return ""
  if age > stale:
    return ""
  try:
    owner = json.loads(text)
    return "" if is_dead(owner) else f"{owner['machine'].split()[0]}, process {owner['pid']}"
  except (ValueError, KeyError, TypeError, AttributeError, IndexError):
    return "another process"  # that is writing it, where links are not known


def _lock(folder, name, number):
  return folder / f"{name}.lock{number}"


def _numbers(folder, name):
  """Numbers of the locks there are."""
  start = f"{name}.lock"
  return [int(entry.name[len(start):]) for entry in os.scandir(folder)
          if entry.name.startswith(start) and entry.name[len(start):].isdigit()]
