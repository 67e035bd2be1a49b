"""The queue of dispatched steps is short, whatever the device: bar and signals are true."""

import threading
import time
import types

import numpy as np
import pytest

from medae_jax.training import progress as progress_lib


class Device:
  """Runs what is dispatched one after the other, slowly, in a thread of its own."""

  def __init__(self, seconds=0.01):
    self.seconds, self.done, self.awaited, self._last = seconds, 0, 0, None

  def dispatch(self, value):
    return {"loss": Result(self, value)}


class Result:
  """A number that is there once the device has finished it and all before it."""

  def __init__(self, device, value):
    self.value, self._device, before = value, device, device._last
    self._ready = threading.Event()
    self._place = 1 + (before._place if before else 0)
    device._last = self

    def run():
      if before is not None:
        before._ready.wait()
      time.sleep(device.seconds)
      device.done += 1
      self._ready.set()
    threading.Thread(target=run, daemon=True).start()

  def block_until_ready(self):
    self._ready.wait()
    self._device.awaited = max(self._device.awaited, self._place)
    return self

  def __array__(self, dtype=None, copy=None):
    self._ready.wait()
    return np.array([self.value], dtype or np.float32)


def test_no_more_than_a_few_dispatches_are_unfinished():
  device, seen = Device(), []
  with progress_lib.Progress(40, 0, 1000, active=False) as progress:
    progress.receive = lambda fetched, rate: seen.extend(fetched) or {"loss": 0.0}
    for step in range(1, 41):
      progress.add(step, device.dispatch(float(step)), 4)
      assert step - device.done <= progress_lib.IN_FLIGHT
      assert progress.finished <= device.done, "the bar counts what is not done"
      assert step - progress.finished <= progress_lib.IN_FLIGHT
    progress.flush()
    assert progress.finished == device.done == 40
  assert [(s, float(m["loss"][0])) for s, m in seen] == [(s, float(s)) for s in range(1, 41)]


def test_the_device_need_not_wait_for_the_host():
  """Two dispatches may be unfinished: while one runs the next is already there."""
  device = Device(0.05)
  with progress_lib.Progress(9, 0, 1000, active=False) as progress:
    progress.add(1, device.dispatch(1.0), 1)  # waits: it compiles
    begin = time.perf_counter()
    progress.add(2, device.dispatch(2.0), 1)
    progress.add(3, device.dispatch(3.0), 1)
    assert time.perf_counter() - begin < 0.05 and device.done < 3
    progress.flush()


def test_numbers_are_handed_on_every_log_every_steps(monkeypatch):
  device, seen = Device(0.0), []
  # A dispatch takes 1 ms by the clock of whoever waited for it last: true under any load.
  clock = types.SimpleNamespace(perf_counter=lambda: 0.001 * device.awaited)
  monkeypatch.setattr(progress_lib, "time", clock)
  with progress_lib.Progress(12, 0, 5, active=False) as progress:
    progress.receive = lambda fetched, rate: seen.append(([s for s, _ in fetched], rate)) or {}
    for step in (2, 4, 6, 8, 10, 12):
      progress.add(step, device.dispatch(0.0), 8)
    assert [steps for steps, _ in seen] == [[2, 4, 6], [8, 10]]
    with progress.paused():
      assert seen[-1][0] == [12], "validation and saving come after the check of all losses"
  # 2 dispatches of 8 images in 2 ms: the first call, which compiles, counts neither images nor time
  assert seen[0][1] == pytest.approx(8000)


def test_pauses_do_not_count_into_the_rate():
  device, rates = Device(0.002), []
  with progress_lib.Progress(9, 0, 1000, active=False) as progress:
    progress.receive = lambda fetched, rate: rates.append(rate) or {}
    progress.add(1, device.dispatch(0.0), 1)
    with progress.paused():
      time.sleep(0.3)
    for step in (2, 3, 4):
      progress.add(step, device.dispatch(0.0), 10)
    progress.flush()
  assert rates[0] is None and rates[1] > 30 / 0.2


def test_a_resumed_run_logs_where_an_unbroken_one_does():
  device, seen = Device(0.0), []
  with progress_lib.Progress(40, 17, 10, active=False) as progress:
    progress.receive = lambda fetched, rate: seen.append([s for s, _ in fetched]) or {}
    for step in (18, 19, 20, 21):
      progress.add(step, device.dispatch(0.0), 1)
    assert seen == [[18, 19, 20]]
