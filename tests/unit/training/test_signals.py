"""A signal at any moment: what runs is left at once, it is said what is saved, nothing is lost."""

import logging
import signal
import time

from jax.experimental import multihost_utils
import numpy as np
import pytest

from medae_jax.training import interrupt, progress as progress_lib, validate
from tests import console
from tests.unit.training import recorder
from tests.unit.training.test_progress import Device

LOSSES = (9.0, 8.0, 7.0, 5.0, 5.0, 5.0, 3.0, 3.0, 3.0, 4.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """(result, stats, workdir) of a run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp("whole")
  return *recorder.run(workdir, method__losses=LOSSES), workdir


def _signal_in_batch(monkeypatch, number, name=signal.SIGTERM):
  """The signal comes while the `number`-th validation batch of the process is prepared."""
  seen, numbered = [], validate.numbered

  def counted(batch, n):
    seen.append(n)
    if len(seen) == number:
      signal.raise_signal(name)
    return numbered(batch, n)
  monkeypatch.setattr(validate, "numbered", counted)
  return seen


# 10 validation images in batches of 4: three batches a validation, at steps 3, 6 and 9.
@pytest.mark.parametrize("number, name, at, left", [
    (1, signal.SIGTERM, 3, 1), (5, signal.SIGINT, 6, 5), (9, signal.SIGTERM, 9, 9)])
def test_a_validation_is_left_and_repeated(whole, tmp_path, monkeypatch, caplog, number, name, at,
                                           left):
  with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
    seen = _signal_in_batch(patch, number, name)
    result, _ = recorder.run(tmp_path / "w", method__losses=LOSSES)
  assert (result["step"], result["finished"], result["stopped"]) == (at, False, True)
  assert len(seen) == left, "the validation goes on after the signal"
  assert f"holds the checkpoint of step {at} of 9" in caplog.text
  assert recorder.saved(tmp_path / "w")[0][-1] == at
  assert recorder.lines(tmp_path / "w", "val/loss").keys() == {s for s in (3, 6) if s < at}

  for _ in range(2):  # the second call finds everything done
    result, stats = recorder.run(tmp_path / "w", method__losses=LOSSES)
    assert result["finished"] and not result["stopped"] and result["best"] == 3.0
    for key, value in whole[1].items():
      np.testing.assert_array_equal(value, stats[key], err_msg=key)
    assert recorder.lines(tmp_path / "w", "val/loss") == recorder.lines(whole[2], "val/loss")
  assert recorder.saved(tmp_path / "w", "best")[0] == recorder.saved(whole[2], "best")[0]


def test_a_fit_is_left_and_repeated(tmp_path, monkeypatch):
  changes = {"method__name": "tests.unit.training.recorder:FittedMethod", "data__n_val": 10}
  fitted = recorder.FittedMethod.finalize

  def disturbed(self, state, batches):
    signal.raise_signal(signal.SIGTERM)
    return fitted(self, state, batches)
  with monkeypatch.context() as patch:
    patch.setattr(recorder.FittedMethod, "finalize", disturbed)
    result, _ = recorder.run(tmp_path / "w", **changes)
  assert result["stopped"] and not result["finished"]
  assert "mean" not in recorder.saved(tmp_path / "w", "last")[1][0].extra
  assert recorder.run(tmp_path / "w", **changes)[0]["finished"]
  for which in ("last", "best"):
    state, meta = recorder.saved(tmp_path / "w", which)[1]
    assert "mean" in state.extra and meta["done"]


@pytest.mark.parametrize("seeds", ["", ",seeds"])
def test_the_command_line_says_how_to_go_on(tmp_path, monkeypatch, caplog, seeds):
  """One run and several seeds end alike: code 0, no evaluation, the command to go on."""
  file = tmp_path / "mine.py"
  file.write_text("from tests.unit.training import recorder\n"
                  "def get_config(arg=''):\n"
                  "  return recorder.config(seeds=(1, 2) if arg else ())\n")
  monkeypatch.setattr(interrupt.GracefulStop, "requested", lambda self, step: step == 5)
  arguments = (f"--config={file}:{seeds}" if seeds else f"--config={file}", f"--workdir={tmp_path}/w x")
  with caplog.at_level(logging.WARNING):
    code, said = console.call(*arguments)
  assert code == 0 and "error" not in said and "Traceback" not in said
  line = [x for r in caplog.records if "To go on" in (x := r.getMessage())]
  assert len(line) == 1 and line[0].endswith(f"python launch.py --config={file}{seeds and ':' + seeds} "
                                             f"'--workdir={tmp_path}/w x'")
  assert not list(tmp_path.rglob("evaluation"))


def test_a_slow_device_is_given_one_dispatch_at_a_time(monkeypatch):
  """A signal then waits for one step, not for those behind it as well."""
  device = Device(0.02)
  monkeypatch.setattr(progress_lib, "SLOW", 0.01)
  with progress_lib.Progress(9, 0, 1000, active=False) as progress:
    for step in (1, 2, 3, 4, 5):
      progress.add(step, device.dispatch(0.0), 1)
    assert progress.finished == device.done == 5
    with progress.paused():
      time.sleep(0.05)
    device.seconds = 0.001
    progress.add(6, device.dispatch(0.0), 1)
    progress.add(7, device.dispatch(0.0), 1)
    assert progress._seconds < 0.01, "a validation is no slow step"


def test_what_handled_a_signal_before_handles_it_afterwards():
  mine = lambda number, frame: None
  before = signal.signal(signal.SIGTERM, mine)
  try:
    with interrupt.GracefulStop():
      assert signal.getsignal(signal.SIGTERM) is not mine
    assert signal.getsignal(signal.SIGTERM) is mine
  finally:
    signal.signal(signal.SIGTERM, before)


def test_several_processes_ask_each_other_every_so_many_steps(monkeypatch):
  """And end together where one of them has had a signal."""
  asked = []
  monkeypatch.setattr(interrupt.jax, "process_count", lambda: 2)
  monkeypatch.setattr(multihost_utils, "process_allgather", lambda flag: (
      asked.append(bool(flag)) or [False, True]))
  stop = interrupt.GracefulStop(sync_every=3)
  assert [stop.requested(step) for step in range(1, 8)] == [s % 3 == 0 for s in range(1, 8)]
  assert asked == [False, False] and not stop.came
