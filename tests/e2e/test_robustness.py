"""Kills, signals, broken losses, damaged checkpoints and full disks: nothing is lost, and it is said."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.contract import cases

STEPS = 60
SCRIPT = """
import sys
from absl import logging
from medae_jax import train
from medae_jax.core import parallel
from tests.contract import cases
from tests.contract.run_steps import flat
import numpy as np
logging.set_verbosity(logging.INFO)
config = cases.config("BatchNormMethod")
with config.unlocked():
  config.train.update(steps={steps}, save_every={every}, eval_every={every}, log_every=1)
  config.optim = dict(lr=1e-2)
  {more}
try:
  result = train.train(config, sys.argv[1])
except (ValueError, OSError, FloatingPointError) as e:
  print("medae_jax: error:", e, file=sys.stderr)
  sys.exit(1)
if result["finished"]:
  np.savez(sys.argv[1] + "/final.npz", **flat(parallel.to_host(result["state"].params)))
"""


def start(workdir, more="pass", steps=STEPS, every=5, **kw):
  script = SCRIPT.format(steps=steps, every=every, more=more)
  return subprocess.Popen([sys.executable, "-c", script, str(workdir)], cwd=cases.ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "JAX_PLATFORMS": "cpu"}, **kw)


def finish(process, code=0):
  text, _ = process.communicate(timeout=600)
  assert process.returncode == code, text[-3000:]
  return text


def params(workdir):
  with np.load(pathlib.Path(workdir) / "final.npz") as z:
    return {k: z[k] for k in z.files}


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
  workdir = tmp_path_factory.mktemp("unbroken")
  finish(start(workdir))
  return params(workdir)


@pytest.mark.slow
def test_kill_in_mid_training(unbroken, tmp_path):
  process = start(tmp_path)
  assert wait_for(lambda: len(finished_steps(tmp_path)) >= 1, process)
  process.kill()
  process.communicate()
  assert 0 < max(finished_steps(tmp_path)) < STEPS
  finish(start(tmp_path))
  assert_same(unbroken, params(tmp_path))
  steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
           if "train/loss" in line]
  assert steps == list(range(1, STEPS + 1)), "each step is logged once"


@pytest.mark.slow
def test_kill_in_mid_save(unbroken, tmp_path):
  process = start(tmp_path, every=2)
  partial = lambda: any("tmp" in p.name for p in (tmp_path / "checkpoints").glob("*/*")
                        ) and len(finished_steps(tmp_path)) >= 1
  assert wait_for(partial, process), "no save was caught in the act"
  process.kill()
  process.communicate()
  finish(start(tmp_path, every=2))
  assert_same(unbroken, params(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_resumes(unbroken, tmp_path, number):
  process = start(tmp_path, every=1000)
  wait_for(lambda: (tmp_path / "metrics.jsonl").exists()
           and (tmp_path / "metrics.jsonl").read_text().count("\n") >= 3, process)
  process.send_signal(number)
  finish(process, 0)
  saved = finished_steps(tmp_path)
  assert len(saved) == 1 and 0 < saved[0] < STEPS
  finish(start(tmp_path, every=1000))
  assert_same(unbroken, params(tmp_path))


@pytest.mark.slow
def test_non_finite_loss_stops_and_names_the_step(tmp_path):
  poison = ("import jax, jax.numpy as jnp; from tests import tiny_methods as t; "
            "old = t.BatchNormMethod.train_step\n"
            "  def bad(self, state, batch, rng, **kw):\n"
            "    new, m = old(self, state, batch, rng, **kw)\n"
            "    return new, {'loss': jnp.where(state.step == 13, jnp.nan, m['loss'])}\n"
            "  t.BatchNormMethod.train_step = bad")
  text = finish(start(tmp_path, poison), 1)
  line = [x for x in text.splitlines() if x.startswith("medae_jax: error:")]
  assert len(line) == 1 and "step 13" in line[0] and "checkpoint of step 10 is kept" in line[0]
  assert max(finished_steps(tmp_path)) == 10


def _damage(folder):
  """Overwrites the middle of the largest file of a checkpoint's model."""
  files = [p for p in (folder / "model").rglob("*") if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  middle = len(data) // 2
  data[middle - 64:middle + 64] = bytes(128)
  largest.write_bytes(data)


@pytest.mark.slow
def test_damaged_checkpoint_falls_back(unbroken, tmp_path):
  finish(start(tmp_path))
  steps = finished_steps(tmp_path)
  (tmp_path / "final.npz").unlink()
  _damage(tmp_path / "checkpoints" / "last" / str(steps[-1]))
  text = finish(start(tmp_path))
  assert f"Falling back to the checkpoint of step {steps[-2]}" in text
  assert_same(unbroken, params(tmp_path))


@pytest.mark.slow
def test_all_checkpoints_damaged_is_one_line(tmp_path):
  finish(start(tmp_path))
  for step in finished_steps(tmp_path):
    shutil.rmtree(tmp_path / "checkpoints" / "last" / str(step) / "model")
  text = finish(start(tmp_path), 1)
  assert sum(x.startswith("medae_jax: error:") for x in text.splitlines()) == 1
  assert "can be read" in text


@pytest.mark.slow
def test_full_disk_while_saving(unbroken, tmp_path):
  """A file-size limit stands for the full disk: the save fails, earlier checkpoints stay."""
  finish(start(tmp_path, steps=STEPS // 2))
  (tmp_path / "final.npz").unlink()
  kept = finished_steps(tmp_path)
  import resource
  limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
  ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
  for event in tmp_path.glob("events*"):
    event.unlink()
  text = finish(start(tmp_path, ignore, preexec_fn=limit), 1)
  line = [x for x in text.splitlines() if x.startswith("medae_jax: error:")]
  assert len(line) == 1, text[-2000:]
  assert set(kept) <= set(finished_steps(tmp_path))
  finish(start(tmp_path))
  assert_same(unbroken, params(tmp_path))
