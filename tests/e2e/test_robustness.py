"""Kills, signals, broken losses, damaged checkpoints and full disks: nothing is lost, and it is said.

A process of its own runs where it must die, get a signal or lack disk space; all other runs are in
this process.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from absl import logging
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax import train
from medae_jax.core import parallel
from tests import tiny_methods
from tests.contract import cases
from tests.contract.run_steps import flat

pytestmark = pytest.mark.slow
STEPS = 60


def config(steps=STEPS, every=5):
  c = cases.config("BatchNormMethod")
  with c.unlocked():
    c.train.update(steps=steps, save_every=every, eval_every=every, log_every=1)
    c.optim = {"lr": 1e-2}
  return c


def run(workdir, **fields):
  """Trains in this process; the parameters of a finished run."""
  result = train.train(config(**fields), str(workdir))
  assert result["finished"]
  return flat(parallel.to_host(result["state"].params))


def start(workdir, every=5, first="pass"):
  """Trains in a process of its own, after the statement `first`."""
  script = ("import sys\nfrom absl import logging\nfrom medae_jax import train\n"
            "from tests.e2e import test_robustness\n"
            f"{first}\nlogging.set_verbosity(logging.INFO)\ntry:\n"
            f"  train.train(test_robustness.config(every={every}), sys.argv[1])\n"
            "except OSError as e:\n  sys.exit(f'medae_jax: error: {e}')\n")
  return subprocess.Popen([sys.executable, "-c", script, str(workdir)], cwd=cases.ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "JAX_PLATFORMS": "cpu"})


def finish(process, code=0):
  text, _ = process.communicate(timeout=600)
  assert process.returncode == code, text[-3000:]
  return text


def assert_same(a, b):
  assert sorted(a) == sorted(b)
  for key in a:
    np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def finished_steps(workdir):
  last = pathlib.Path(workdir) / "checkpoints" / "last"
  return sorted(int(p.name) for p in last.glob("*") if p.name.isdigit()) if last.exists() else []


def wait_for(condition, process, seconds=300):
  end = time.time() + seconds
  while time.time() < end:
    if condition():
      return True
    if process.poll() is not None:
      return False
    time.sleep(0.002)
  raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
  """(workdir, parameters) of a run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp("unbroken")
  return workdir, run(workdir)


@pytest.fixture
def copied(unbroken, tmp_path):
  """A finished workdir to damage."""
  return pathlib.Path(shutil.copytree(unbroken[0], tmp_path / "run"))


def test_kill_in_mid_training(unbroken, tmp_path):
  process = start(tmp_path)
  assert wait_for(lambda: len(finished_steps(tmp_path)) >= 1, process)
  process.kill()
  process.communicate()
  assert 0 < max(finished_steps(tmp_path)) < STEPS
  assert_same(unbroken[1], run(tmp_path))
  steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
           if "train/loss" in line]
  assert steps == list(range(1, STEPS + 1)), "each step is logged once"


def test_kill_in_mid_save(unbroken, tmp_path):
  process = start(tmp_path, every=2)
  partial = lambda: any("tmp" in p.name for p in (tmp_path / "checkpoints").glob("*/*")
                        ) and len(finished_steps(tmp_path)) >= 1
  assert wait_for(partial, process), "no save was caught in the act"
  process.kill()
  process.communicate()
  assert_same(unbroken[1], run(tmp_path, every=2))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_resumes(unbroken, tmp_path, number):
  process = start(tmp_path, every=1000)
  wait_for(lambda: (tmp_path / "metrics.jsonl").exists()
           and (tmp_path / "metrics.jsonl").read_text().count("\n") >= 3, process)
  process.send_signal(number)
  finish(process, 0)
  saved = finished_steps(tmp_path)
  assert len(saved) == 1 and 0 < saved[0] < STEPS
  assert_same(unbroken[1], run(tmp_path, every=1000))


def test_non_finite_loss_stops_and_names_the_step(tmp_path, monkeypatch):
  old = tiny_methods.BatchNormMethod.train_step

  def poisoned(self, state, batch, rng, **kw):
    new, metrics = old(self, state, batch, rng, **kw)
    return new, {"loss": jnp.where(state.step == 13, jnp.nan, metrics["loss"])}
  monkeypatch.setattr(tiny_methods.BatchNormMethod, "train_step", poisoned)
  with pytest.raises(FloatingPointError, match=r"step 13\b.*checkpoint of step 10 is kept"):
    run(tmp_path)
  assert max(finished_steps(tmp_path)) == 10


def _damage(folder):
  """Overwrites the middle of the largest file of a checkpoint's model."""
  files = [p for p in (folder / "model").rglob("*") if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  middle = len(data) // 2
  data[middle - 64:middle + 64] = bytes(128)
  largest.write_bytes(data)


def test_damaged_checkpoint_falls_back(unbroken, copied, monkeypatch):
  steps, said = finished_steps(copied), []
  _damage(copied / "checkpoints" / "last" / str(steps[-1]))
  monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
  again = run(copied)
  assert any(f"Falling back to the checkpoint of step {steps[-2]}" in x for x in said), said
  assert_same(unbroken[1], again)


def test_all_checkpoints_damaged_is_said(copied):
  for folder in copied.glob("checkpoints/*/*/model"):  # the best one as well
    shutil.rmtree(folder)
  with pytest.raises((ValueError, OSError), match="can be read"):
    run(copied)


def test_full_disk_while_saving(unbroken, tmp_path):
  """A file-size limit stands for the full disk: the save fails, earlier checkpoints stay."""
  run(tmp_path, steps=STEPS // 2)
  kept = finished_steps(tmp_path)
  limit = ("import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
           "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))")
  for event in tmp_path.glob("events*"):
    event.unlink()
  text = finish(start(tmp_path, first=limit), 1)
  line = [x for x in text.splitlines() if x.startswith("medae_jax: error:")]
  assert len(line) == 1 and "Traceback" not in text, text[-4000:]
  assert not list(tmp_path.rglob("*.tmp"))
  assert set(kept) <= set(finished_steps(tmp_path))
  assert_same(unbroken[1], run(tmp_path))
