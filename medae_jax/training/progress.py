"""The queue of dispatched steps, the progress bar and the throughput.

JAX returns from a step before the device has run it. Without a bound the host would run minutes
ahead of a slow device: the bar, the ETA and the answer to a signal would be wrong by as much. So at
most IN_FLIGHT dispatches are ever unfinished: enough that the device never waits for the host.
Where one takes longer than SLOW seconds (full size on a CPU) each is waited for: the device's pause
of milliseconds is nothing beside it, and a signal is answered after one dispatch instead of three.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import time

from absl import logging
import jax
import numpy as np

from medae_jax.core import scoring
from medae_jax.training import cost

IN_FLIGHT = 2  # unfinished dispatches: one runs, one waits behind it
SLOW = 1.0  # seconds


class Progress:
  """Counts what the device has finished; hands the numbers on every `log_every` steps.

  Numbers stay on the device until `flush`; every step's are handed on, none is skipped.

  Args:
    total: steps of all stages; first_step: where this process starts.
    log_every: config.train.log_every.

  Attributes:
    receive: ([(step after the dispatch, metrics as numpy)], images/s or None) -> {"loss": ...} to
      show; `flush` calls it.
    finished: steps that the device is known to have finished.
  """

  def __init__(self, total: int, first_step: int, log_every: int, active: bool = True):
    self.total, self._log_every = total, log_every
    self.receive: Callable = lambda fetched, images_per_second: {}
    self._pending: list[tuple[int, dict, int]] = []  # (step after, metrics, images)
    self._waited = 0  # how many of these are known to be finished
    self._paused = 0.0
    self._seconds = 0.0  # that the last dispatch took
    self._done_at: float | None = None
    self._clock: float | None = None
    self._expected, self._flushed = False, first_step
    self._bar = scoring.progress("training", total, "steps", first_step, active)
    self._last_log = self.finished = first_step

  def add(self, step: int, metrics, images: int) -> None:
    """Notes the dispatch that ends at `step`, and waits for those before it: see above.

    Args:
      metrics: its numbers, on the device.
      images: how many it trained on, in one run.
    """
    first = self._clock is None  # it compiles: its time would spoil the rate
    self._pending.append((step, metrics, 0 if first else images))
    self._wait(0 if first or self._seconds > SLOW else IN_FLIGHT)
    if first:
      self._clock = time.perf_counter()
    if step // self._log_every > self._last_log // self._log_every:
      self._last_log = step
      self.flush()

  def _wait(self, unfinished: int) -> None:
    """Blocks until all but the last `unfinished` dispatches are done; the bar counts these."""
    while len(self._pending) - self._waited > unfinished:
      step, metrics, _ = self._pending[self._waited]
      jax.block_until_ready(metrics)
      self._waited += 1
      now = time.perf_counter()
      self._seconds = now - self._done_at if self._done_at is not None else 0.0
      self._done_at = now
      self._bar.update(step - self.finished)
      self.finished = step

  def flush(self) -> None:
    """Waits for everything dispatched, fetches the numbers and hands them on."""
    if not self._pending:
      return
    self._wait(0)
    pending, self._pending, self._waited = self._pending, [], 0
    values = jax.device_get([m for _, m, _ in pending])
    now = time.perf_counter()
    seconds = now - (self._clock or now) - self._paused
    images = sum(n for _, _, n in pending)
    self._clock, self._paused = now, 0.0
    rate = images / seconds if images and seconds > 0 else None
    self._say_expected(pending, seconds if rate else 0)
    mean = self.receive([(step, m) for (step, _, _), m in zip(pending, values)], rate)
    shown = {"loss": f"{mean.get('loss', np.nan):.4g}"}
    if rate is not None:
      shown["images/s"] = f"{rate:.1f}"
    self._bar.set_postfix(shown, refresh=False)

  def _say_expected(self, pending, seconds: float) -> None:
    """Logs once how long the rest takes, when the rate of some steps is known."""
    # The first dispatch compiles: neither its time nor its steps count.
    begin, end = max([self._flushed, *(step for step, _, images in pending if not images)]), pending[-1][0]
    self._flushed = end
    if not self._expected and seconds and end > begin and not self._bar.disable:
      self._expected = True
      if self.total > end:
        logging.info("%s", cost.expected(self.total - end, seconds / (end - begin)))

  @contextlib.contextmanager
  def paused(self):
    """Time in here (validation, saving) does not count into images/s.

    What was dispatched before is flushed first: no state is validated or saved whose losses have
    not been checked.
    """
    self.flush()
    begin = time.perf_counter()
    yield
    now = time.perf_counter()
    self._paused += now - begin
    self._done_at = now

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._bar.close()
