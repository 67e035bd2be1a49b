"""The sweep of all methods on radiographs: its order, what its runs differ in, and its synthetic variants."""

import pytest

from configs import sweep_chest, sweep_quirks
from data_pipelines.errors import UserError
from medae_jax.core import config as config_lib
from medae_jax.training.plan import Plan


def test_a_whole_seed_comes_before_the_next():
  plan = Plan(sweep_chest.get_config("root=x,vgg=v.npz,methods=ae_s+dpa+frozen+morphaeus"), "w")
  trials = plan.trials()
  assert [t.name for t in trials[:5]] == [
      "ae_s_run0", "dpa_run0", "frozen_seed0", "morphaeus_run0", "ae_s_run1"]
  configs = [plan.config(t) for t in trials[:4]]
  assert [c.data.image_size for c in configs] == [32, 32, 96, 32]
  for c in configs:
    assert c.eval.choose_score and "trivial" in c.eval.measures
  assert all(c.method.score.trunk_weights == "v.npz" and c.method.score.fit for c in configs if c.method.name
             != "frozen_features")
  assert len({c.seed for c in map(plan.config, trials[::4])}) == 3


def test_the_first_part_changes_nothing_of_the_others():
  plan = Plan(sweep_chest.get_config("root=x,vgg=v.npz,methods=frozen+aae"), "w")
  assert not plan.changes
  assert [plan.config(t).seed for t in plan.trials()] == [0, 2109, 1, 2110, 2, 2111]


def test_without_rounds_the_first_part_comes_first():
  config = sweep_chest.get_config("smoke,methods=ae_s+vae").unlock()
  config.sweep.rounds = False
  for part in config.sweep.parts:
    part["grid"] = {"run": (0, 1)}
  assert [t.name for t in Plan(config.lock(), "w").trials()] == [
      "ae_s_run0", "ae_s_run1", "vae_run0", "vae_run1"]


def test_every_synthetic_variant_is_of_radiographs():
  for word in ("smoke", "demo"):
    plan = Plan(sweep_chest.get_config(word), "w")
    assert {plan.config(t).data.name for t in plan.trials()} == {"synthetic_radiographs"}
  with pytest.raises(UserError, match="methods=ae_x: use some of ae_s"):
    sweep_chest.get_config("methods=ae_x")


def test_a_quirk_changes_its_field_alone():
  plan = Plan(sweep_quirks.get_config("small,root=x,runs=1,methods=vae+morphaeus"), "w")
  runs = {tuple(dict(t.labels).values()): plan.config(t) for t in plan.trials()}
  changed = {key: set(config_lib.differences(runs[key[0], "none"], run)) for key, run in runs.items()}
  assert changed == {
      ("vae", "none"): set(), ("vae", "sample=False"): {"method.sample"},
      ("vae", "kl=published"): {"method.kl"},
      ("vae", "data.preparation=published"): {"data.preparation"},
      ("vae", "all"): {"method.sample", "method.kl", "data.preparation"},
      ("morphaeus", "none"): set(), ("morphaeus", "norm=frozen"): {"model.norm"},
      ("morphaeus", "data.preparation=published"): {"data.preparation"},
      ("morphaeus", "all"): {"model.norm", "data.preparation"}}
  with pytest.raises(UserError, match="methods=x: use some of ae_s"):
    sweep_quirks.get_config("methods=x")
