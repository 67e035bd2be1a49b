"""Overrides and differences of configs, what a method needs of a batch, stages, keys, scoring's inputs."""

import json
import pathlib
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import common
from medae_jax.core import config as config_lib, example, fields, method as method_lib, needs, scoring
from medae_jax.core.errors import UserError
from medae_jax.core.method import Stage
from medae_jax.core.needs import Need


def small():
  return ml_collections.ConfigDict({"seed": 0, "train": {"steps": 10, "sizes": (1, 2)},
                                    "sweep": {"folds": 2}})


def test_override_changes_a_locked_copy():
  base = small().lock()
  found = config_lib.override(base, {"train.steps": 5, "seed": 3})
  assert (found.train.steps, found.seed, base.train.steps, base.seed) == (5, 3, 10, 0)
  assert config_lib.override(base, None) == config_lib.override(base, {}) == base
  with pytest.raises((AttributeError, KeyError)):
    found.train.new = 1
  with pytest.raises(ValueError, match="config.train.stepz: there is no 'stepz'; there is .*steps"):
    config_lib.override(base, {"train.stepz": 5})
  nested = ml_collections.ConfigDict({"a": {"a": 1, "b": 2}})  # a group of the field's own name
  assert config_lib.override(nested, {"a.a": 5}).to_dict() == {"a": {"a": 5, "b": 2}}


def test_a_value_of_the_command_line_has_the_type_of_its_field():
  base = ml_collections.ConfigDict({"n": 1, "on": True, "x": 0.5, "pair": (1, 2), "any": None}).lock()
  for field, good in {"n": 2, "on": False, "x": 1, "pair": [3], "any": "x"}.items():
    found = config_lib.override(base, {field: good}, typed=True)[field]
    assert found == (tuple(good) if field == "pair" else good)
  for field, bad in (("n", True), ("on", 1), ("n", 1.5), ("x", True), ("x", "1"), ("pair", 3)):
    with pytest.raises(ValueError, match=rf"config.{field}=.* is of type"):
      config_lib.override(base, {field: bad}, typed=True)


def test_paths_and_numbers_of_numpy_are_values_of_fields():
  """mx.config(..., **{"data.dir": pathlib.Path(...)}) was refused, and so was a number of an array."""
  base = ml_collections.ConfigDict({"n": 1, "on": True, "x": 0.5, "pair": (1, 2), "dir": ""}).lock()
  for field, given, want in (("n", np.int64(3), 3), ("on", np.bool_(False), False),
                             ("x", np.float32(0.25), 0.25), ("pair", (np.int8(3),), (3,)),
                             ("dir", pathlib.Path("a/b"), "a/b")):
    for typed in (True, False):
      found = config_lib.override(base, {field: given}, typed=typed)[field]
      assert found == want and type(found) is type(want)
  with pytest.raises(ValueError, match="config.n=2.5 is of type float"):
    config_lib.override(base, {"n": np.float64(2.5)}, typed=True)


def test_differences_are_the_fields_that_changed():
  changed = config_lib.override(small(), {"train.steps": 5, "sweep.folds": 3})
  assert config_lib.differences(small(), changed) == {"train.steps": 5}  # the sweep's own do not count


class _Needs(method_lib.BaseMethod):
  needs = {"image": Need("BHWC", low=-1, high=1), "mask": Need("BHW1", low=0, high=1)}
  score_optional = ("sample",)

  def score(self, state, batch):
    return {"seen": jnp.asarray(sorted(batch) == ["image", "sample"]), "score": batch["image"].sum((1, 2, 3))}


def batch(**changes):
  found = {"image": np.zeros((2, 4, 4, 3), np.float32), "mask": np.zeros((2, 4, 4, 1), np.float32)}
  return {**found, **changes}


@pytest.mark.parametrize("change,message", [
    ({"image": np.full((2, 4, 4, 3), 1.01, np.float32)}, "values from 1.01 to 1.01"),
    ({"image": np.full((2, 4, 4, 3), -1.01, np.float32)}, "values from -1.01"),
    ({"mask": np.full((2, 4, 4, 1), -0.5, np.float32)}, "'mask' holds values"),
    ({"image": np.full((2, 4, 4, 3), np.nan, np.float32)}, "NaN or infinity"),
    ({"image": np.float32(np.where(np.indices((2, 4, 4, 3))[2] == 3, np.inf, 0))}, "NaN or infinity"),
    ({"image": np.zeros((2, 4, 4), np.float32)}, "has shape"),
    ({"image": np.zeros((2, 4, 4, 3), np.float64)}, "is float64")])
def test_a_batch_that_does_not_fit_is_refused(change, message):
  method = _Needs(None)
  needs.check_batch(method, batch())
  ends = batch(image=np.array([-1, 1], np.float32)[:, None, None, None] * np.ones((2, 4, 4, 3), np.float32))
  needs.check_batch(method, ends)   # the ends belong to the range
  with pytest.raises(ValueError, match=message):
    needs.check_batch(method, batch(**change))


def test_a_missing_stream_is_named():
  method = _Needs(None)
  method.needs = {"noisy/image": Need()}
  with pytest.raises(ValueError, match="no 'noisy/image'.*clean/image"):
    needs.check_batch(method, {"clean": {"image": np.zeros((1, 2, 2, 1), np.float32)}})


def test_stages_follow_each_other():
  class Three:
    def stages(self):
      return [Stage("a", 3), Stage("b", 2), Stage("c", 4)]
  stages = method_lib.stages_of(Three())
  assert [s.begin for s in stages] == [0, 3, 5]
  assert [method_lib.stage_at(stages, s) for s in (0, 2, 3, 4, 5, 8, 9)] == [0, 0, 1, 1, 2, 2, 2]


def test_example_keys_are_those_of_the_place_in_the_global_batch():
  draw = lambda rng, index: np.array(jax.vmap(jax.random.uniform)(
      method_lib.example_keys(rng, jnp.asarray(index, jnp.int32))))
  whole = draw(jax.random.key(0), range(6))
  assert len(set(whole)) == 6
  np.testing.assert_array_equal(draw(jax.random.key(0), [4, 1]), whole[[4, 1]])
  assert not set(draw(jax.random.key(1), range(6))) & set(whole)


def test_a_score_sees_the_keys_it_asks_for_and_no_label():
  config = ml_collections.ConfigDict({"method": {"name": f"{__name__}:_Needs", "score": {}}})
  score = scoring.score_fn(config, method_lib.State.create({}))
  found = score({**batch(), "label": np.ones(2, np.int32), "sample": np.zeros(2, np.int32)})
  assert bool(found["seen"])
  with pytest.raises(ValueError, match="no 'image'"):
    score({"mask": batch()["mask"]})


def test_example_batch_has_the_sizes_of_config_and_stage():
  config = ml_collections.ConfigDict({"method": {"name": "x"}, "data": {
      "image_size": (8, 6), "modalities": ("a", "b", "c")}})
  method = _Needs(config)
  found = example.example_batch(method, config, 5)
  assert found["image"].shape == (5, 8, 6, 3) and found["mask"].shape == (5, 8, 6, 1)
  np.testing.assert_array_equal(found["index"], np.arange(5))
  grown = example.example_batch(method, config, 5, Stage("s", 1, {"image_size": 4, "batch_size": 2}))
  assert grown["image"].shape == (2, 4, 4, 3)


@pytest.mark.parametrize("there, here, said", [
    ({"lr": 1, "score": {"w": [1, 2]}}, {"lr": 1, "score": {"w": [1]}},
     r"config.method.score.w: \[1, 2\] there, \[1\] here"),
    ({"lr": 1}, {"lr": 1, "wf": 2}, "config.method.wf: only here"),
    ({"lr": 1, "wf": 2}, {"lr": 1}, "config.method.wf: only there"),
    (None, {"lr": 1}, "config.method.lr: only here")])
def test_another_run_is_told_by_the_field_that_differs(tmp_path, there, here, said):
  (tmp_path / "config.json").write_text(json.dumps({"method": there, "model": {}}))
  config = ml_collections.ConfigDict({"method": here, "model": {}})
  with pytest.raises(UserError, match=f"{said}; give the run's value"):
    config_lib.check_workdir(config, tmp_path)


def test_fields_that_a_run_from_before_them_lacks_are_those_that_change_nothing(tmp_path):
  """Above all, nobody has insisted on anything in such a run."""
  old, now = common.base().to_dict(), common.base()
  for group in fields.YOUNGER:
    del old[group]
  for group, names in fields.YOUNGER_FIELDS.items():
    for name in names:
      del old[group][name]
  (tmp_path / "config.json").write_text(json.dumps(old))
  found = config_lib.read_config(tmp_path)
  for group, names in {**fields.YOUNGER, **fields.YOUNGER_FIELDS}.items():
    for name in names:
      assert found[group][name] == now[group][name], f"{group}.{name}"
  assert found.predict.force is False and found.eval.choose_score == () and found.train.trackers == ()


def test_a_folder_without_a_config_is_none_of_a_run(tmp_path):
  for _ in range(2):
    with pytest.raises(FileNotFoundError, match="is not the folder of a training run"):
      config_lib.read_config(tmp_path)
    (tmp_path / "config.json").mkdir(exist_ok=True)  # a folder of that name is none either


@pytest.mark.parametrize("asked, there, found", [
    ("", True, "splits.csv"), ("", False, ""), ("mine.csv", True, "mine.csv"), (None, True, None)])
def test_a_run_is_measured_on_the_split_that_it_made(tmp_path, asked, there, found):
  """Unless another table is asked for (another data set has no such field): no image changes sides."""
  data = {} if asked is None else {"split_table": asked}
  config = ml_collections.ConfigDict({"data": data}).lock()
  if there:
    config_lib.write_split([{"id": "a", "split": "train"}], tmp_path)
  want = str(tmp_path / found) if found == "splits.csv" else found
  assert config_lib.with_split(config, tmp_path).data.get("split_table", None) == want


def test_the_split_of_a_run_is_written_once(tmp_path):
  config_lib.write_split([], tmp_path / "run")
  assert not (tmp_path / "run").exists()
  for name in ("a", "b"):
    config_lib.write_split([{"id": name, "split": "train"}], tmp_path)
  assert (tmp_path / config_lib.SPLIT).read_text().splitlines() == ["id,split", "a,train"]


@pytest.mark.parametrize("table, noted", [("splits.csv", ""), ("other/splits.csv", "other/splits.csv")])
def test_a_run_does_not_note_where_its_own_split_lies(tmp_path, table, noted):
  """The folder may be moved; a table that was given is another matter."""
  config = ml_collections.ConfigDict({"data": {"split_table": str(tmp_path / table)}})
  config_lib.write_config(config, tmp_path)
  found = json.loads((tmp_path / "config.json").read_text())["data"]["split_table"]
  assert found == (noted and str(tmp_path / noted))


@pytest.mark.parametrize("data, count", [
    ({"channels": 2, "modalities": ("t1",)}, 2), ({"channels": 0, "modalities": "flair,t1,"}, 2),
    ({"modalities": ("t1", "t2", "ct")}, 3), ({}, None)])
def test_channels_are_said_or_counted(data, count):
  assert example.channels(ml_collections.ConfigDict({"data": data})) == count


def test_an_example_of_several_views_has_each_in_turn():
  method = types.SimpleNamespace(needs={"image": Need("BHWC")}, views=3)
  config = ml_collections.ConfigDict({"data": {"image_size": (4, 6), "channels": 1}})
  found = example.example_batch(method, config, 5)
  assert found["view"].tolist() == [0, 1, 2, 0, 1] and found["image"].shape == (5, 4, 6, 1)
  method.views = 1
  assert "view" not in example.example_batch(method, config, 5)


def test_a_library_that_a_method_lacks_is_no_unknown_method(monkeypatch):
  """The module is there: what it needs is not, and that has a name of its own."""
  config = ml_collections.ConfigDict({"method": {"name": "dae"}})

  def absent(name):
    def load(path):
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    monkeypatch.setattr(method_lib.importlib, "import_module", load)
  absent("some_library")
  with pytest.raises(ModuleNotFoundError, match="some_library"):
    method_lib.load(config)
  absent("medae_jax.methods")
  with pytest.raises(UserError, match="config.method.name='dae' is not a method"):
    method_lib.load(config)


@pytest.mark.parametrize("watched, seconds", [(True, 0.3), (False, 30)])
def test_a_bar_moves_where_somebody_watches_and_seldom_in_a_log_file(monkeypatch, watched, seconds):
  monkeypatch.setattr(scoring.tqdm, "tqdm", lambda **given: given)
  monkeypatch.setattr(scoring.sys, "stderr", types.SimpleNamespace(isatty=lambda: watched))
  bar = scoring.progress("test", 8, "batch", done=2)
  assert (bar["mininterval"], bar["maxinterval"], bar["disable"]) == (seconds, 2 * seconds, False)
  assert (bar["total"], bar["initial"], bar["desc"]) == (8, 2, "test")
  assert scoring.progress("test", None, "batch", active=False)["disable"]
