"""Growing DPA over whole runs: resumed in every stage, best state and pictures (devices: tests/contract)."""

import shutil

import numpy as np
from PIL import Image
import pytest

from medae_jax import train
from medae_jax.core import trained
from tests.contract.run_steps import flat
from tests.unit.methods import test_dpa

pytestmark = pytest.mark.usefixtures("one_trace")


def config():
  """The smoke run with blocks of two layers instead of four: what grows is the same, programs are smaller."""
  return test_dpa.config(**{
      "model.kind": "regular", "method.growing.transition_steps": 3, "train.log_every": 1,
      "train.save_every": 1, "train.keep": 20, "train.eval_every": 2,
      "train.best_metric": "val/loss", "train.best_mode": "min"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """(workdir, result) of the unbroken run, which keeps every step and validates each second one."""
  workdir = tmp_path_factory.mktemp("growing") / "whole"
  return workdir, train.train(config(), str(workdir))


@pytest.mark.slow
def test_growing_resumes_within_and_across_stages(whole, tmp_path):
  """Stopped in the middle of a transition, and between stages: the parameters of one long run."""
  want = flat(whole[1]["state"].params)
  last = whole[0] / "checkpoints" / "last"
  steps = sorted(int(p.name) for p in last.iterdir() if p.name.isdigit())
  assert set(steps) >= {2, 3}
  for cut in (2, 3):  # end of the first stage, within the transition
    copy = tmp_path / f"cut{cut}"
    shutil.copytree(whole[0], copy)
    for step in steps:
      if step != cut:  # an earlier one would stand in for one that cannot be read
        shutil.rmtree(copy / "checkpoints" / "last" / str(step))
    shutil.rmtree(copy / "checkpoints" / "best")
    again = flat(train.train(config(), str(copy))["state"].params)
    for key in want:
      np.testing.assert_allclose(again[key], want[key], atol=1e-6, err_msg=f"{cut} {key}")


@pytest.mark.slow
def test_the_best_state_comes_from_the_last_stage(whole):
  """Losses at 16 px are smaller numbers of another kind: they must not win. A picture a stage."""
  info = trained.load(whole[0], {"eval.checkpoint": "best"}).info
  assert info["which"] == "best" and info["stage"] == "stable_32"
  pictures = sorted((whole[0] / "stages").iterdir())
  assert [p.name for p in pictures] == ["0_stable_16.png", "1_transition_32.png", "2_stable_32.png"]
  first, last = (np.asarray(Image.open(p)) for p in (pictures[0], pictures[-1]))
  assert first.shape == last.shape and (first != last).any()
