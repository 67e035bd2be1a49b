"""Damage of any file of a checkpoint: one line, a fall-back, and the step written anew."""

import pathlib
import shutil

from absl import logging
import numpy as np
import pytest

from medae_jax import train
from medae_jax.core import checkpoint, parallel, trained
from tests.contract import cases
from tests.contract.run_steps import flat

pytestmark = pytest.mark.usefixtures("one_trace")


def config():
  c = cases.config("BatchNormMethod")
  with c.unlocked():
    c.train.update(steps=6, save_every=3, eval_every=3, log_every=3)
    c.optim = {"lr": 1e-2}
  return c


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
  """(workdir, parameters) of a finished run."""
  workdir = tmp_path_factory.mktemp("sound") / "run"
  return workdir, flat(parallel.to_host(train.train(config(), str(workdir))["state"].params))


@pytest.fixture
def warnings(monkeypatch):
  said = []
  monkeypatch.setattr(logging, "warning", lambda text, *args: said.append(text % args))
  return said


def _flipped(path):
  data = bytearray(path.read_bytes())
  for place in range(len(data) // 3, len(data), max(1, len(data) // 7)):
    data[place] ^= 0x10
  path.write_bytes(data)


HOW = {"deleted": lambda p: p.unlink(), "empty": lambda p: p.write_bytes(b""),
       "cut": lambda p: p.write_bytes(p.read_bytes()[:-max(1, p.stat().st_size // 3)]),
       "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)), "flipped": _flipped}


FAST = (("model", "flipped"), ("opt", "cut"), ("meta", "empty"))


@pytest.mark.parametrize("part, how", [
    pytest.param(part, how, marks=() if (part, how) in FAST else pytest.mark.slow)
    for part in ("model", "opt", "meta") for how in HOW])
def test_every_file_of_the_newest_checkpoint(sound, tmp_path, part, how, warnings):
  """Whatever a file's damage does: training ends with the same parameters, and all that is left is sound."""
  workdir = pathlib.Path(shutil.copytree(sound[0], tmp_path / "run"))
  newest = workdir / "checkpoints" / "last" / "6"
  for path in [p for p in (newest / part).rglob("*") if p.is_file()]:
    HOW[how](path)
  result = train.train(config(), str(workdir))
  found = flat(parallel.to_host(result["state"].params))
  for key, value in sound[1].items():
    np.testing.assert_array_equal(found[key], value)
  assert any("of step 6 cannot be read" in x for x in warnings) and all("\n" not in x for x in warnings)
  again = checkpoint.Checkpoints(workdir)
  assert again.steps("last")[0] == 6 and again.sound("last"), "written anew"
  again.close()


def test_a_damaged_best_is_said_and_the_last_is_scored(sound, tmp_path, warnings):
  workdir = pathlib.Path(shutil.copytree(sound[0], tmp_path / "run"))
  (step,) = [p for p in (workdir / "checkpoints" / "best").iterdir() if p.name.isdigit()]
  shutil.rmtree(step / "model")
  run = trained.load(workdir)
  assert run.info["which"] == "last" and run.info["step"] == 6
  assert any("best checkpoint is damaged: using the last one, of step 6" in x for x in warnings)


def test_where_all_last_ones_are_damaged_training_goes_on_from_the_best(sound, tmp_path, warnings):
  workdir = pathlib.Path(shutil.copytree(sound[0], tmp_path / "run"))
  for path in (workdir / "checkpoints" / "last").iterdir():
    shutil.rmtree(path / "model", ignore_errors=True)
  found = flat(parallel.to_host(train.train(config(), str(workdir))["state"].params))
  for key, value in sound[1].items():
    np.testing.assert_array_equal(found[key], value)
  assert any("Going on from the best checkpoint" in x for x in warnings)


def test_a_damaged_best_is_replaced_by_the_next_validation(tmp_path, warnings):
  first, more = config(), config()
  for c in (first, more):  # the second validation is no better than the damaged one: that does not count
    with c.unlocked():
      c.train.best_mode = "max"
  with first.unlocked():
    first.train.steps = 3
  train.train(first, str(tmp_path))
  shutil.rmtree(tmp_path / "checkpoints" / "best" / "3" / "model")
  train.train(more, str(tmp_path))
  again = checkpoint.Checkpoints(tmp_path)
  assert again.steps("best") and again.sound("best")
  again.close()
