"""MorphAEus resumed at a checkpoint of the warm-up, across the epoch where the deformer's Adam starts: exact.

(tests/contract stops it where the warm-up ends.)
"""

import shutil

import numpy as np
import pytest

from medae_jax import train
from medae_jax.core import parallel
from tests.contract import cases
from tests.contract.run_steps import flat

pytestmark = pytest.mark.usefixtures("one_trace")


def config():
  """Two steps of warm-up (an epoch is one step), two with the deformation, as small as it gets."""
  c = cases.config("morphaeus_cxr")
  with c.unlocked():
    c.model.update(levels=1, integration_steps=1, widths=(2, 2, 2, 2))
    c.method.update(layers="r11", warmup_epochs=2)
    c.data.update(n_train=8, n_val=2, n_test=2)
    c.optim.epoch_steps = 1
    c.train.update(steps=4, batch_size=8, save_every=1, eval_every=4, keep=4)
  return c


def counts(result):
  """{optimiser: steps that its Adam has counted}."""
  opt = parallel.to_host(result["state"]).opt
  return {name: {int(v) for k, v in flat(tree).items() if "count" in k} for name, tree in opt.items()}


@pytest.mark.slow
def test_a_run_is_resumed_exactly_across_the_start_of_the_second_adam(tmp_path):
  whole = train.train(config(), str(tmp_path / "whole"))
  assert whole["finished"] and counts(whole) == {"ae": {4}, "deformer": {2}}
  kept = shutil.copytree(tmp_path / "whole", tmp_path / "broken") / "checkpoints"
  assert sorted(p.name for p in (kept / "last").iterdir() if p.name.isdigit()) == ["1", "2", "3", "4"]
  for folder in (kept / "best", *(kept / "last" / step for step in "234")):
    shutil.rmtree(folder)
  again = train.train(config(), str(tmp_path / "broken"))
  assert again["finished"] and again["best"] == whole["best"]
  for part in ("params", "stats", "opt"):
    old, new = (flat(parallel.to_host(getattr(r["state"], part))) for r in (whole, again))
    assert sorted(old) == sorted(new)
    for key in old:
      np.testing.assert_array_equal(old[key], new[key], err_msg=f"{part}{key}")
