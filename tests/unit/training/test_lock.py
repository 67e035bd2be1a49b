"""Two processes in one workdir: the second is refused, and told who holds it; a dead one holds nothing."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys

from absl import logging
import pytest

from medae_jax import train
from medae_jax.core.errors import UserError
from medae_jax.training import lock

ROOT = pathlib.Path(__file__).resolve().parents[3]
_HOLD = ("import sys, time\nfrom medae_jax.training import lock\n"
         "with lock.held(sys.argv[1], 'training'):\n  print('held', flush=True)\n  time.sleep(600)\n")


def test_a_second_process_is_refused_and_a_killed_one_leaves_nothing(tmp_path):
  process = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], cwd=ROOT, text=True,
                             stdout=subprocess.PIPE, env={**os.environ, "JAX_PLATFORMS": "cpu"})
  try:
    assert process.stdout.readline() == "held\n"
    said = f"training of process {process.pid} on .*another --workdir"
    with pytest.raises(UserError, match=said), lock.held(tmp_path, "training"):
      pass
    with lock.held(tmp_path, "evaluation"):  # evaluating while a training runs is safe
      pass
  finally:
    process.send_signal(signal.SIGKILL)
    process.communicate()
  with lock.held(tmp_path, "training"):
    pass


def test_a_folder_made_for_a_refused_run_goes_again(tmp_path):
  with pytest.raises(KeyError), lock.held(tmp_path / "a" / "run", "training"):
    raise KeyError
  assert not (tmp_path / "a" / "run").exists()
  for run, name, stays in (("b", "checkpoints/best", False), ("c", "checkpoints/best/0", True),  # no weights
                           ("d", "runs/one/.training.lock", True)):  # of another process, perhaps
    with pytest.raises(KeyError), lock.held(tmp_path / run, "training"):
      (tmp_path / run / name).parent.mkdir(parents=True)
      (tmp_path / run / name).touch() if stays else (tmp_path / run / name).mkdir()
      raise KeyError
    assert (tmp_path / run).exists() == (tmp_path / run / name).exists() == stays
  (tmp_path / "old").mkdir()
  with lock.held(tmp_path / "old", "training"):
    pass
  assert (tmp_path / "old").is_dir()


@pytest.mark.parametrize("pid, host, began, refused", [
    (os.getppid(), None, None, True), (2**22 + 1, None, None, False), (1, "elsewhere", None, True),
    (os.getppid(), None, "1", False),         # the number is another process's by now
    (2**22 + 1, "elsewhere", None, True)])    # nobody can see from here whether it runs
def test_without_locks_of_the_file_system_the_text_decides(tmp_path, monkeypatch, pid, host, began, refused):
  def no_locks(*_):
    raise OSError(errno.ENOTSUP, "no locks")
  monkeypatch.setattr(fcntl, "flock", no_locks)
  said = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
  text = {"pid": pid, "host": host or lock.socket.gethostname(), "began": began or lock._began(pid) or "1"}
  (tmp_path / ".training.lock").write_text(json.dumps(text))
  if refused:
    with pytest.raises(UserError, match=f"process {pid}"), lock.held(tmp_path, "training"):
      pass
  else:
    with lock.held(tmp_path, "training"):
      assert "without locks" in said[0]


def test_training_holds_every_workdir_and_of_several_processes_the_first_does(tmp_path, monkeypatch):
  monkeypatch.setattr(train, "_train_runs", lambda configs, workdirs: workdirs)
  runs = [tmp_path / "a", tmp_path / "b"]
  for held in runs:
    with lock.held(held, "training"):
      with pytest.raises(UserError, match="another --workdir"):
        train.train_runs([None, None], runs)
      monkeypatch.setattr(train.jax, "process_index", lambda: 1)
      assert train.train_runs([None, None], runs) == runs
      monkeypatch.setattr(train.jax, "process_index", lambda: 0)
  assert train.train_runs([None, None], runs) == runs


@pytest.mark.parametrize("what, folder", [
    ("training", "checkpoints/last"), ("training", "checkpoints"), ("evaluation", "evaluation")])
def test_folders_that_may_not_be_written_are_told_before_the_work(tmp_path, monkeypatch, what, folder):
  """Training went on to its first checkpoint, evaluation to its end."""
  (tmp_path / folder).mkdir(parents=True)
  with lock.held(tmp_path, what):
    pass
  monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / folder)
  with pytest.raises(UserError, match=f"{folder} may not be written"), lock.held(tmp_path, what):
    pass
  with lock.held(tmp_path, "sweep"):
    pass


@pytest.mark.parametrize("code, held", [(errno.EWOULDBLOCK, True), (errno.EACCES, True), (errno.EIO, False)])
def test_a_lock_that_another_has_is_no_failure_of_the_disk(tmp_path, monkeypatch, code, held):
  """POSIX lets a file system say either of the two."""
  def refused(*_):
    raise OSError(code, os.strerror(code))
  monkeypatch.setattr(fcntl, "flock", refused)
  error, words = (lock.Held, "works in this folder") if held else (OSError, os.strerror(code))
  with pytest.raises(error, match=words), lock.held(tmp_path, "training"):
    pass
