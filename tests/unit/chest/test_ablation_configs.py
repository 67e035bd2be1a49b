"""The sweep of MorphAEus's ablations: its runs differ in what their names say, and in nothing else."""

import pytest

from configs import morphaeus_cxr, sweep_morphaeus
from data_pipelines.errors import UserError
from medae_jax.core import config as config_lib
from medae_jax.training.plan import Plan


def test_runs_differ_in_the_ablated_part_alone():
  plan = Plan(sweep_morphaeus.get_config("small,runs=1,root=x"), "w")
  runs = {dict(t.cell)["ablation"]: plan.config(t) for t in plan.trials()}
  assert set(runs) == set(morphaeus_cxr.ABLATIONS)
  full = runs.pop("full")
  assert full.train.epochs == 40 and full.data.lungs == "ellipses" and full.data.image_size == 32
  changed = {name: set(config_lib.differences(full, run)) for name, run in runs.items()}
  assert changed == {"prior": {"method.warmup_epochs", "method.score.of"}, "nowarm": {"method.warmup_epochs"},
                     "noreverse": {"model.both"}}


def test_demonstrations_are_synthetic_radiographs():
  for name in ("demo", "smoke"):
    assert morphaeus_cxr.get_config(name).data.name == "synthetic_radiographs"
  with pytest.raises(UserError, match="ablation=all: use full, prior"):
    morphaeus_cxr.get_config("ablation=all")
