"""SIGTERM and SIGINT end a run after the step in flight, with a checkpoint, and exit code 0."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys

from absl import logging
import jax
import numpy as np


def command() -> str:
  """The command line of this process, which goes on where it was interrupted."""
  return shlex.join([*(["python"] if sys.argv[0].endswith(".py") else []), *sys.argv])


class Interrupted(Exception):
  """A validation or a fit was left after a signal; nothing of it is kept."""


class GracefulStop:
  """Context manager; `requested(step)` turns True once a signal has come.

  A second signal ends the process at once, as without this class. With several processes all of
  them must agree on the step, so they ask each other every `sync_every` steps.
  """

  def __init__(self, sync_every: int = 10):
    self._sync_every = sync_every
    self._flag = False
    self._checked = 0
    self._old = {}

  def __enter__(self):
    for number in (signal.SIGTERM, signal.SIGINT):
      with contextlib.suppress(ValueError):  # not the main thread: the host program decides
        self._old[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def _handle(self, number, frame):
    if self._flag:
      signal.signal(number, self._old[number])
      signal.raise_signal(number)
      return
    self._flag = True
    logging.warning("%s received: finishing this step, saving, then exit. Once more to end at once.",
                    signal.Signals(number).name)

  @property
  def came(self) -> bool:
    """True once a signal has come; several processes agree in `requested` only."""
    return self._flag and jax.process_count() == 1

  def check(self) -> None:
    """Raises Interrupted where `came`: between the batches of what is repeated on resuming."""
    if self.came:
      raise Interrupted

  def requested(self, step: int) -> bool:
    """True when the run should end after `step`; the same answer in every process."""
    if jax.process_count() == 1:
      return self._flag
    if step - self._checked < self._sync_every:
      return False
    self._checked = step
    from jax.experimental import multihost_utils
    return bool(np.any(multihost_utils.process_allgather(np.array(self._flag))))
