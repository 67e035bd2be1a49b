"""Progress bar, throughput and the check that losses are finite.

Metrics stay on the device until `flush`, so that logging never makes the accelerator wait; every
step's numbers are checked, none is skipped.
"""

from __future__ import annotations

import contextlib
import sys
import time

import jax
import numpy as np
import tqdm


class Progress:
  """Collects the metrics of each dispatch; writes them every `log_every` steps.

  Args:
    total: steps of all stages; first_step: where this process starts.
    writer: core.writer.Writer; t: config.train.
  """

  def __init__(self, total, first_step, writer, t, active=True):
    self._writer, self._t = writer, t
    self._pending: list[tuple[int, dict, int]] = []  # (step after, metrics [k], images)
    self._paused = 0.0
    self._clock: float | None = None
    # One line a minute where nobody watches: a bar's carriage returns would fill a log file.
    interval = 0.5 if sys.stderr.isatty() else 30
    self._bar = tqdm.tqdm(total=total, initial=first_step, unit="step", desc="training",
                          disable=not active, mininterval=interval, maxinterval=2 * interval)
    self._last_log = first_step

  def add(self, step: int, metrics, images: int) -> None:
    """Notes the metrics (leaves [k]) of the dispatch that ended at `step`."""
    if self._clock is None:  # the first dispatch compiles: its time would spoil the rate
      jax.block_until_ready(metrics)
      self._clock, images = time.perf_counter(), 0
    self._pending.append((step, metrics, images))
    k = len(jax.tree.leaves(metrics)[0])
    self._bar.update(k)
    if step // self._t.log_every > self._last_log // self._t.log_every:
      self._last_log = step
      self.flush()

  def flush(self) -> None:
    """Fetches, checks and writes what is pending.

    Raises:
      FloatingPointError: a metric is not finite, with its step.
    """
    if not self._pending:
      return
    pending, self._pending = self._pending, []
    values = jax.device_get([m for _, m, _ in pending])
    for (after, _, _), metrics in zip(pending, values):
      _check_finite(after, metrics)
    now = time.perf_counter()
    seconds = now - (self._clock or now) - self._paused
    images = sum(n for _, _, n in pending)
    self._clock, self._paused = now, 0.0
    mean = {k: float(np.mean(np.concatenate([np.ravel(v[k]) for v in values]))) for k in values[0]}
    if images and seconds > 0:
      mean["images_per_second"] = images / seconds
    self._writer.scalars(pending[-1][0], {f"train/{k}": v for k, v in mean.items()})
    shown = {"loss": f"{mean.get('loss', float('nan')):.4g}"}
    if "images_per_second" in mean:
      shown["images/s"] = f"{mean['images_per_second']:.1f}"
    self._bar.set_postfix(shown, refresh=False)

  @contextlib.contextmanager
  def paused(self):
    """Time in here (validation, saving) does not count into images/s."""
    begin = time.perf_counter()
    yield
    self._paused += time.perf_counter() - begin

  def close(self) -> None:
    """Ends the bar."""
    self._bar.close()


def _check_finite(after: int, metrics) -> None:
  k = len(next(iter(metrics.values())))
  for name, value in metrics.items():
    bad = np.flatnonzero(~np.isfinite(np.asarray(value, np.float64)))
    if bad.size:
      raise FloatingPointError(f"train/{name} is not finite at step {after - k + int(bad[0])}: "
                               "training stops. Try a lower config.optim.lr, or check the data.")
