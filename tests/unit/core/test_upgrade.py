"""Old names of fields, values, stages, networks and optimisers are read as the new ones."""

import importlib
import json
import pathlib

import jax
import ml_collections
import numpy as np
import pytest

from data_pipelines.datasets import paired
from medae_jax import tasks
from medae_jax.core import (
  checkpoint,
  config as config_lib,
  example,
  method as method_lib,
  streams,
  trained,
  upgrade,
)
from medae_jax.core.files import write_json
from medae_jax.training import start
from tests.contract import cases


def older(values):
  """config.json's content as an older version wrote it."""
  name = values["method"]["name"]
  values = json.loads(json.dumps(values))
  for path, names in upgrade.VALUES.get(name, {}).items():
    *groups, field = path.split(".")
    group = upgrade._group(values, groups)
    group[field] = {new: old for old, new in names.items()}.get(group[field], group[field])
  for old, new in upgrade.FIELDS.get(name, {}).items():
    *groups, field = new.split(".")
    group = upgrade._group(values, groups)
    group[old.rsplit(".", 1)[-1]] = group.pop(field)
  return values


@pytest.mark.parametrize("case", ["dpa_nih", "piad_cifar10", "dae_brats"])
def test_fields_and_values_of_an_older_config(case):
  config = cases.load_config(cases.ROOT / "configs" / f"{case}.py", "smoke")
  with config.unlocked():
    if case == "dpa_nih":
      config.method.adversarial.name = "least_squares"
      config.method.growing.steps_per_stage = "stable_16:3, transition_32:4"
    if case == "piad_cifar10":
      config.method.adv_latent.name = "logistic"
  new = json.loads(json.dumps(config.to_dict()))
  old = older(new)
  assert (old == new) == (case == "dae_brats")
  if case == "dpa_nih":
    assert old["method"]["adversarial"]["name"] == "least_squared" and "dis_widths" in old["model"]
    old["method"]["growing"]["steps_per_stage"] = "stab_16:3, trns_32:4"
  if case == "piad_cifar10":
    assert old["method"]["adv_latent"]["name"] == "nnl" and old["method"]["policy"]["name"] == "gradnorm"
  assert upgrade.config(old) == new
  assert upgrade.config(json.loads(json.dumps(new))) == new


def test_other_methods_keep_their_names():
  outside = {"method": {"name": "mine:Method", "n_dis": 2, "policy": {"name": "gradnorm"}},
             "model": {"dis_widths": [1]}, "optim": {"lr_dis": 0.1}}
  assert upgrade.config(json.loads(json.dumps(outside))) == outside
  assert upgrade.stage("mine:Method", "stab_8") == "stab_8"
  assert upgrade.networks("mine:Method", {"dis": 1}) == {"dis": 1}
  assert upgrade.config({"method": None}) == {"method": None}  # damaged files are told by others


def test_stages_by_their_old_names():
  assert upgrade.stage("dpa", "stab_32") == "stable_32" == upgrade.stage("dpa", "stable_32")
  meta = {"stage": "trns_64", "best": 1.0, "batches": {"stab_32": 1, "trns_64": 2}}
  assert upgrade.meta("dpa", meta) == {"stage": "transition_64", "best": 1.0,
                                       "batches": {"stable_32": 1, "transition_64": 2}}
  config = cases.load_config(cases.ROOT / "configs" / "dpa_nih.py", "smoke")
  with config.unlocked():
    config.method.growing.steps_per_stage = "trns_32:7"
  assert {s.name: s.steps for s in method_lib.stages_of(method_lib.load(config))}["transition_32"] == 7


def test_an_older_workdir_restores_scores_and_may_be_resumed(tmp_path):
  config = cases.load_config(cases.ROOT / "configs" / "dpa_cifar10.py", "smoke")
  with config.unlocked():
    config.method.adversarial.weight = 1.0
  method = method_lib.load(config)
  stages = method_lib.stages_of(method)
  batch = example.example_batch(method, config, 4, stages[0])
  state = method_lib.fresh_state(method, jax.random.key(0), batch)
  names = {new: old for old, new in upgrade.NETWORKS["dpa"].items()}
  rename = lambda tree: {names.get(k, k): v for k, v in tree.items()}
  written = state.replace(params=rename(state.params), opt=rename(state.opt))
  assert "dis" in written.params and "dis" in written.opt
  write_json(tmp_path / "config.json", older(json.loads(json.dumps(config.to_dict()))))
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save("last", written, {
      "stage": "stab_16", "best": None, "stale": 0, "evaluated": -1, "done": False,
      "batches": {"stab_16": checkpoint.batch_spec(batch)},
      "checksum": checkpoint.checksum(written.params)})
  checkpoints.wait()

  config_lib.write_config(config, tmp_path)  # the same experiment, although the names differ
  assert json.loads((tmp_path / "config.json").read_text())["optim"]["lr_critic"] == 0
  restored, meta = checkpoints.restore("last", lambda m: start.abstract_state(method, stages, m).opt)
  checkpoints.close()
  assert meta["stage"] == stages[0].name == "stable_16" and "stable_16" in meta["batches"]
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  jax.tree.map(np.testing.assert_array_equal, restored, state)
  run = trained.load(tmp_path)
  assert sorted(run.state.params) == ["critic", "dec", "enc", "vgg"]
  np.testing.assert_array_equal(run.score(batch["image"])["score"],
                                jax.jit(method.score)(state, batch)["score"])


@pytest.mark.parametrize("data, expected", [
    ({"name": "paired", "group_pattern": "^(.*)_[^_]*$"}, "legacy"), ({"name": "nih"}, "legacy"),
    ({"name": "paired", "grouping": "patient"}, "patient"), ({"name": "natural"}, None),
    ({"name": "own.module.nih2"}, None)])
def test_runs_before_the_rule_of_patients_keep_their_split(data, expected):
  assert upgrade.config({"data": dict(data)})["data"].get("grouping") == expected


def test_a_resumed_run_keeps_its_split(tmp_path):
  """The command line has today's rule; what the workdir records decides."""
  given = ml_collections.ConfigDict({"seed": 1, "train": {"random_streams": "named"}})
  given.data = paired.defaults()
  old = {"name": "paired", "group_pattern": "^(.*)_[^_]*$"}
  (tmp_path / "config.json").write_text(json.dumps({"train": {}, "data": old}))
  found = streams.of_workdir(given, tmp_path)
  assert (found.data.grouping, found.data.group_pattern) == ("legacy", "^(.*)_[^_]*$")
  assert (given.data.grouping, given.data.group_pattern) == ("patient", "")
  (tmp_path / "config.json").write_text(json.dumps({"train": {}, "data": {**old, "grouping": "file"}}))
  assert streams.of_workdir(given, tmp_path).data.grouping == "patient"


def test_fields_that_came_later_are_there_and_keep_their_values():
  old = {"data": {"name": "paired", "grouping": "x"}, "eval": {"kind": "restoration"}, "predict": {}}
  new = upgrade.config(json.loads(json.dumps(old)))
  assert new["data"]["window"] == [0, 0] and new["predict"]["identifiers"] == "derived"
  given = {**new, "data": {**new["data"], "window": [0, 4095]}}
  assert upgrade.config(json.loads(json.dumps(given))) == given
  other = {"data": {"name": "theirs"}, "eval": {"kind": "theirs"}, "predict": {}}
  assert upgrade.config(json.loads(json.dumps(other))) == other


# What runs of the first version have of their task: any other field of a task needs a line in upgrade.ADDED.
FIRST = {
    "anomaly": "eval.baseline_channel eval.components eval.dice_thresholds eval.fit_residual eval.quantile "
               "eval.panel_images predict.batch_size predict.orientation predict.overlay_slices "
               "predict.threshold",
    "restoration": "eval.fit_threshold eval.inpaint eval.panels eval.residual_level eval.threshold_beta "
                   "predict.compare predict.masks predict.overlap predict.tile",
    "segmentation": "eval.overlays predict.threshold"}


@pytest.mark.parametrize("kind", sorted(
    p.parent.name for p in pathlib.Path(tasks.__file__).parent.glob("*/fields.py")))
def test_runs_of_the_first_version_have_every_field_of_their_task(kind):
  fields = importlib.import_module(f"medae_jax.tasks.{kind}.fields")
  now = {f"eval.{name}" for name in fields.EVAL} | {f"predict.{name}" for name in fields.PREDICT}
  new = upgrade.config({"eval": {"kind": kind}, "predict": {}})
  given = {f"{group}.{name}" for group in ("eval", "predict") for name in new[group]}
  assert now <= given | set(FIRST[kind].split()), "put the default of older runs into core/upgrade.py: ADDED"
