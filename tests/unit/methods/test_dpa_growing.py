"""Growing DPA over whole runs: resumed in every stage, best state and pictures (devices: tests/contract)."""

import shutil

import numpy as np
from PIL import Image
import pytest

from medae_jax import train
from medae_jax.core import trained
from tests.contract.run_steps import flat
from tests.unit.methods import test_dpa

_STEPS = {"method.growing.transition_steps": 3, "train.log_every": 1}


def config(**changes):
  """The smoke run with blocks of two layers instead of four: what grows is the same, programs are smaller."""
  return test_dpa.config(**{"model.kind": "regular", **_STEPS, **changes})


@pytest.mark.slow
def test_growing_resumes_within_and_across_stages(tmp_path):
  """Stopped in the middle of a transition, and between stages: the parameters of one long run."""
  c = config(**{"train.save_every": 1, "train.eval_every": 0, "train.keep": 20})
  whole = train.train(c, str(tmp_path / "whole"))
  want = flat(whole["state"].params)
  last = tmp_path / "whole" / "checkpoints" / "last"
  steps = sorted(int(p.name) for p in last.iterdir() if p.name.isdigit())
  assert set(steps) >= {2, 3, 5}
  for cut in (2, 3, 5):  # end of the first stage, within the transition, at its end
    copy = tmp_path / f"cut{cut}"
    shutil.copytree(tmp_path / "whole", copy)
    for step in steps:
      if step != cut:  # an earlier one would stand in for one that cannot be read
        shutil.rmtree(copy / "checkpoints" / "last" / str(step))
    shutil.rmtree(copy / "checkpoints" / "best")
    again = flat(train.train(c, str(copy))["state"].params)
    for key in want:
      np.testing.assert_allclose(again[key], want[key], atol=1e-6, err_msg=f"{cut} {key}")


@pytest.mark.slow
def test_the_best_state_comes_from_the_last_stage(tmp_path):
  """Losses at 16 px are smaller numbers of another kind: they must not win. A picture a stage."""
  c = config(**{"train.eval_every": 1, "train.best_metric": "val/loss", "train.best_mode": "min"})
  train.train(c, str(tmp_path))
  info = trained.load(tmp_path, {"eval.checkpoint": "best"}).info
  assert info["which"] == "best" and info["stage"] == "stable_32"
  pictures = sorted((tmp_path / "stages").iterdir())
  assert [p.name for p in pictures] == ["0_stable_16.png", "1_transition_32.png", "2_stable_32.png"]
  first, last = (np.asarray(Image.open(p)) for p in (pictures[0], pictures[-1]))
  assert first.shape == last.shape and (first != last).any()
