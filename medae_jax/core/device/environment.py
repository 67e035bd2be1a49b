"""Environment of a process that trains or scores: quiet TensorFlow, compiled programs kept between runs."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import logging
import os
import select
import sys
import threading
import time


def prepare() -> None:
  """Sets what is not set yet; before jax and TensorFlow are imported, since they read it then."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow only feeds data here
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # ... and announces oneDNN otherwise
  # Compiled programs are kept between runs: a second start takes seconds.
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/medae_jax/xla"))


def quiet_threads() -> None:
  """Failures of Orbax' and other writers' threads without their tracebacks: who waits for them says one line.

  On a full disk hundreds of tracebacks stood around the line that says so.
  """
  shown, threads = sys.unraisablehook, threading.excepthook

  def hook(args):
    if "Event loop is closed" not in str(args.exc_value):  # TensorStore tells one that failed
      shown(args)

  def of_thread(args):
    if args.exc_type is not None and issubclass(args.exc_type, OSError):
      logging.getLogger("absl").debug("%s: %s", args.thread and args.thread.name, args.exc_value)
    else:
      threads(args)
  sys.unraisablehook, threading.excepthook = hook, of_thread
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def without_orbax(record: logging.LogRecord) -> bool:
  """A filter of the log: Orbax reports every file it opens, and of an error a traceback a thread."""
  ours = "orbax" not in record.pathname
  if not ours:
    record.exc_info = record.exc_text = None
    record.msg, record.args = " ".join(record.getMessage().split())[:300], ()
  return ours or record.levelno >= logging.ERROR


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
  """Ends with 1, quietly where what reads stdout has closed it: `launch.py --mode=list | head`."""
  try:
    yield
    sys.stdout.flush()
  except BrokenPipeError as e:
    if _is_read():  # another pipe, to a process that ended
      print(f"medae_jax: error: {e}", file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is flushed at the end goes there
    sys.exit(1)


@contextlib.contextmanager
def threads_may_wait(seconds: float = 60.0) -> Iterator[None]:
  """A run that failed ends, whatever its threads wait for: after a save that failed those of Orbax wait for
  minutes for each other, with the workdir held, and Python for them.

  Args:
    seconds: that they are given all together: one of them may be saving an earlier checkpoint.
  """
  try:
    yield
  except SystemExit as e:
    if e.code in (None, 0):
      raise
    end = time.monotonic() + seconds
    others = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    for thread in others:
      with contextlib.suppress(Exception):  # Orbax' threads raise what they failed of
        thread.join(max(0.0, end - time.monotonic()))
    if not any(t.is_alive() for t in others):
      raise
    if isinstance(e.code, str):
      print(e.code, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(e.code if isinstance(e.code, int) else 1)


def _is_read() -> bool:
  """Whether stdout still has a reader; True where the system cannot tell."""
  if not hasattr(select, "poll"):
    return True
  poll = select.poll()
  poll.register(sys.stdout.fileno(), 0)  # errors alone
  return not poll.poll(0)
