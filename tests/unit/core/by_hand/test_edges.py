"""Edges of what the core reads, writes, compares and refuses; by hand, nothing is compiled."""

import json
import types

import ml_collections
import numpy as np
import pytest

from medae_jax.core import artefact, calibration, example, files, needs, places, trained
from medae_jax.core.device import memory
from medae_jax.core.errors import UserError
from medae_jax.core.method import State
from medae_jax.core.trained_on import changed

INFINITE = (float("inf"), -float("inf"), float("nan"), np.float32("inf"))


def test_numbers_that_are_none_are_empty_in_every_table_and_null_in_every_file(tmp_path):
  assert [files.cell(v) for v in INFINITE] == [""] * 4 and files.cell(1 / 3) == "0.333333"
  assert json.loads(files.to_json({"a": list(INFINITE), "b": np.array([1.0, np.inf])})) == {
      "a": [None] * 4, "b": [1, None]}
  files.write_csv(tmp_path / "a.csv", [{"x": 1}, {"y": INFINITE[0], "x": 2}, {"z": 0.5}])
  assert (tmp_path / "a.csv").read_text() == "x,y,z\n1,,\n2,,\n,,0.5\n"


def test_lines_whose_step_is_no_number_are_no_events(tmp_path):
  lines = [{"step": 3, "a": 1}, {"step": "x"}, {"a": 2}, {"step": None}, {"step": 4.0}]
  (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{\"step\": 5")
  assert files.read_events(tmp_path / "m.jsonl") == [lines[0], lines[4]]


@pytest.mark.parametrize("window, fits", [
    ([[0, 1]], True), ([[0, 1], [2, 3.5]], True), ([], True), ([[0, 1, 2]], False), ([[0]], False),
    ([0, 1], False), ([[0, "1"]], False)])
def test_a_window_is_two_numbers_a_channel(tmp_path, window, fits):
  (tmp_path / calibration.FILE).write_text(json.dumps({"window": window}))
  if fits:
    assert calibration.read(tmp_path) == {"window": window}
  else:
    with pytest.raises(UserError, match="window=.*is not a list of pairs of numbers"):
      calibration.read(tmp_path)


# ------------------------------------------------------------------------------------ memory of a step
def test_a_step_that_takes_all_there_is_fits():
  plan = memory.Plan(needs=1000, scratch=1, fixed=100, batch=9, free=1000)
  assert plan.fits and plan.largest_batch == 8  # (900 - 100) / 100 an image
  assert memory.Plan(1001, 1, 100, 9, 1000).fits is False and memory.Plan(1, 1, 1, 1, None).fits is None


def test_memory_that_results_share_with_what_came_in_counts_once(monkeypatch):
  sizes = {"argument_size": 1000, "output_size": 300, "alias_size": 200, "temp_size": 50,
           "generated_code_size": 7}
  analysis = types.SimpleNamespace(**{f"{k}_in_bytes": v for k, v in sizes.items()})
  state = types.SimpleNamespace(params={"w": np.zeros(10, np.float32)})
  monkeypatch.setattr(memory, "free", lambda: 5000)
  found = memory.plan(types.SimpleNamespace(memory_analysis=lambda: analysis), state, 4)
  assert (found.needs, found.scratch, found.fixed, found.batch) == (1157, 50, 40, 4)


# -------------------------------------------------------------------------------- batches and their needs
def test_each_stream_has_the_batch_that_the_config_says_or_the_first_s():
  data = {"image_size": (5, 7), "batch_sizes": {"noisy": 6, "clean": 0}}
  config = ml_collections.ConfigDict({"data": data})
  method = types.SimpleNamespace(views=1, needs={
      "noisy/image": needs.Need("BHW1"), "clean/image": needs.Need("BHW1")})
  batch = example.example_batch(method, config, 4)
  assert {k: v["image"].shape for k, v in batch.items()} == {"noisy": (6, 5, 7, 1), "clean": (4, 5, 7, 1)}
  assert {k: v["index"].tolist() for k, v in batch.items()} == {
      "noisy": [0, 1, 2, 3, 4, 5], "clean": [0, 1, 2, 3]}


@pytest.mark.parametrize("value, fits", [
    (1.00009, True), (-0.00009, True), (1.0002, False), (-0.0002, False), (float("inf"), False)])
def test_values_may_overshoot_both_ends_by_a_ten_thousandth(value, fits):
  image = np.full((1, 2, 3, 1), 0.5, np.float32)
  image[0, 1, 2] = value
  method = types.SimpleNamespace(needs={"image": needs.Need(low=0, high=1)})
  if fits:
    needs.check_batch(method, {"image": image})
  else:
    with pytest.raises(UserError, match="in the first batch"):
      needs.check_batch(method, {"image": image})


# ------------------------------------------------------------------------------------------ folders
def test_a_file_on_the_way_to_a_folder_is_in_the_way(tmp_path):
  (tmp_path / "file").touch()
  (tmp_path / "link").symlink_to(tmp_path / "gone")
  for name in ("file", "file/a/b", "link/a"):
    with pytest.raises(UserError, match=f"--output={tmp_path / name}: .* is no folder but a file"):
      places.check_folder(tmp_path / name, "--output")
  places.check_folder(tmp_path / "new/a/b", "--output")


@pytest.mark.parametrize("there", [True, False])
def test_the_export_of_before_comes_back_where_a_kill_had_left_none(tmp_path, there):
  old = tmp_path / ".out.export-x7/old"
  old.mkdir(parents=True)
  (old / "a").touch()
  if there:
    (tmp_path / "out").mkdir()
  artefact._put_back(tmp_path / "out", ".out.export-")
  assert (tmp_path / "out/a").exists() == (not there) and old.exists() == there


# ------------------------------------------------------------------------------------------ a trained run
def run(**info):
  config = ml_collections.ConfigDict({"method": {"name": "m", "score": {"k": 1}}, "model": {}, "data": {},
                                      "predict": {"batch_size": 1, "force": False}}).lock()
  return trained.Trained(config, None, State.create({}), None, info)


def test_images_are_those_of_the_stage_of_the_checkpoint():
  spec = lambda side: {"image": [[2, side, side + 1, 3], "float32"]}
  batches = {"small": spec(4), "large": spec(8)}
  assert run(stage="large", batches=batches).image_shape == (8, 9, 3)
  assert run(stage="small", batches=batches).image_shape == (4, 5, 3)
  assert run(stage="other", batches=batches).image_shape == (4, 5, 3)
  assert run(stage="main").image_shape is None


@pytest.mark.parametrize("values, kept", [
    ({"predict.batch_size": 2}, True), ({"method.score.k": 2}, False),
    ({"predict.batch_size": 2, "method.score.k": 2}, False)])
def test_a_score_is_kept_where_nothing_it_reads_has_changed(monkeypatch, values, kept):
  monkeypatch.setattr(trained.method_lib, "load", lambda config: None)
  own = run(stage="main")
  own.__dict__["score_fn"] = score = object()
  other = own.override(values)
  assert (other.__dict__.get("score_fn") is score) == kept
  assert [other.config.predict.batch_size, other.config.method.score.k] == [
      values.get("predict.batch_size", 1), values.get("method.score.k", 1)]


@pytest.mark.parametrize("one, other, same", [
    ((0.5, 0), (0.5, 0), True), ((0.5, 0), (0.55, 0), False), ((0, 10), (0, 11), False),
    ((1.0, 0), (0, 10), True), ((1.1, 0), (0, 10), True), ((1.2, 0), (0, 10), False),
    ((0.5, 0), (0, 20), True)])
def test_a_magnification_is_a_size_of_pixels_to_within_what_scanners_call_it(one, other, same):
  """x10 is one micrometre a pixel; two sizes, or two magnifications, are compared as they are."""
  assert changed._same_scale(one, other) == changed._same_scale(other, one) == same
