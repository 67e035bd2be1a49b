"""Edges of what feeds, counts, waits and chooses around a training: numbers by hand, nothing is compiled."""

import datetime
import errno
import fcntl
import os
import subprocess
import sys
import types

from absl import logging
import jax
import ml_collections
import numpy as np
import pytest

from configs import dae_brats
from medae_jax.core import config as config_lib
from medae_jax.core.method import State
from medae_jax.training import cost, feed, foresee, full_size, lock, plan, progress, slurm, together
from tests import tiny_sweep


@pytest.mark.parametrize("n, views, size", [(7, 1, 3), (3, 1, 5), (4, 2, 3), (2, 3, 13), (5, 1, 5)])
def test_data_on_the_device_come_once_an_epoch_each_pair_of_image_and_view(n, views, size):
  """Whatever the batch: one that ends in the next epoch, one of several epochs."""
  config = ml_collections.ConfigDict({
      "seed": 3, "data": {"resident": True}, "train": {"batch_size": size, "random_streams": "named"}})
  data = types.SimpleNamespace(resident_arrays=lambda: {"image": np.arange(n), "label": 10 * np.arange(n)})
  arrays, sample = feed.resident_data(data, config, views=views)
  found = []
  for step in range(4 * n * views):
    batch = sample(arrays, np.arange(size), step)
    assert batch["label"].tolist() == (10 * batch["image"]).tolist() and ("view" in batch) == (views > 1)
    found += zip(batch["image"].tolist(), batch["view"].tolist() if views > 1 else [0] * size)
  pairs = n * views
  epochs = [found[k:k + pairs] for k in range(0, len(found) - pairs + 1, pairs)]
  assert all(sorted(e) == [(i, v) for i in range(n) for v in range(views)] for e in epochs)
  assert len(set(map(tuple, epochs))) > 1, "every epoch has an order of its own"


def test_batches_of_every_stream_are_divided_among_the_devices(monkeypatch):
  asked = []
  monkeypatch.setattr(feed.parallel, "check_batch_size", lambda *what: asked.append(what))
  monkeypatch.setattr(feed.stream, "train_stream", lambda *_, **more: more["batch_size"])
  config = ml_collections.ConfigDict({
      "seed": 3, "data": {"batch_sizes": {"noisy": 0, "clean": 6}},
      "train": {"batch_size": 4, "random_streams": "named"}})
  assert feed.batches_of(None, config, None, 0, 0) == 4
  assert asked == [(4,), (6, "config.data.batch_sizes.clean")]


def test_of_several_patients_in_one_folder_each_is_looked_at():
  metas = [{"path": p, "patient": q} for p, q in (("a", "1"), ("a", "2"), ("a", "1"), ("b", "1"), ("b", "1"))]
  source = types.SimpleNamespace(meta=lambda i: metas[i])
  assert foresee._one_of_each(source, np.array([4, 2, 1, 0, 3])).tolist() == [4, 2, 1]


@pytest.mark.parametrize("steps, fields, long", [
    (1000, {}, False), (1001, {}, True), (1001, {"data.tfds_dir": "/mine"}, False),
    (1001, {"data.dir": "/mine"}, False)])
def test_more_than_a_thousand_steps_on_synthetic_brains_are_an_accident(steps, fields, long):
  lengths = {"train.steps": steps, "train.epochs": 0, "train.examples": 0}
  config = config_lib.override(dae_brats.get_config(), {**lengths, **fields})
  assert full_size.is_accident(config, "cpu") == long


# ------------------------------------------------------------------------------------------- what it costs
@pytest.mark.parametrize("fits, smaller", [(None, 5), (10, 5), (12, 5), (7, 7), (0, 5)])
def test_a_smaller_batch_than_now_is_the_remedy(fits, smaller):
  config = ml_collections.ConfigDict({"train": {"batch_size": 10, "accum": 1}, "data": {}})
  assert f"config.train.batch_size={smaller} instead of 10" in cost.remedies(config, fits)


def test_an_end_more_than_half_a_day_away_is_said_with_its_day():
  now = datetime.datetime(2026, 12, 1, 9, 0)
  assert cost.expected(12 * 3600, 1.0, now).startswith("43,200 steps of 1 s: about 12 h 0 min, until 21:00,")
  assert "about 13 h 0 min, until 2026-12-01 22:00," in cost.expected(13 * 3600, 1.0, now)


def test_the_time_that_is_left_is_that_of_the_steps_that_are(monkeypatch):
  lines, now = [], [1.0]
  monkeypatch.setattr(progress, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
  monkeypatch.setattr(progress.cost, "expected", lambda steps, each: lines.append((steps, each)) or "")
  nothing = lambda *_, **more: None
  monkeypatch.setattr(progress.scoring, "progress", lambda *_: types.SimpleNamespace(
      disable=False, update=nothing, set_postfix=nothing, close=nothing))
  with progress.Progress(100, 0, 1000) as bar:
    bar.add(10, {"loss": np.ones(10)}, 8)  # compiles: neither its time nor its steps count
    now[0] = 7.0
    bar.add(13, {"loss": np.ones(3)}, 8)
    bar.flush()
  assert lines == [(87, 2.0)]


# ---------------------------------------------------------------------------------------------- the lock
def test_when_a_process_began_is_what_the_system_counts():
  """Between the readings of a clock before and after it: its number alone may be another's by now."""
  seconds = lambda: float(open("/proc/uptime").read().split()[0])
  before = seconds()
  with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
    began = int(lock._began(child.pid)) / os.sysconf("SC_CLK_TCK")
    assert before - 0.1 <= began <= seconds() + 0.1
    child.communicate(b"\n")


def test_who_waits_for_a_lock_asks_for_it_until_it_is_free(tmp_path, monkeypatch):
  asked = []
  def flock(file, how):
    asked.append(how)
    if how & fcntl.LOCK_NB:
      raise OSError(errno.EWOULDBLOCK, "held")
  monkeypatch.setattr(fcntl, "flock", flock)
  monkeypatch.setattr(logging, "warning", lambda *_: None)
  with lock.held(tmp_path, "evaluation", wait=True):
    assert asked == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]


# --------------------------------------------------------------------------------------------- the sweep
def searched(tmp_path, **changes):
  settings = tuple({"method.rate": rate} for rate in (0.1, 0.2))
  config = tiny_sweep.config(tmp_path, grid={"cls": (0,)}, folds=2, average=(), settings=settings, **changes)
  return plan.Plan(config, str(tmp_path / "w"))


def test_a_setting_of_which_a_fold_failed_is_not_chosen_by_the_others(tmp_path):
  found = searched(tmp_path)
  failed, *others = found.trials()
  for t, auroc in zip(others, (0.99, 0.5, 0.6), strict=True):
    tiny_sweep.write_result(found.job(t), auroc)
  assert found.choose({failed.name}) == {"cls=0": (1, 0, 0)}
  assert found.choose() == {}, "merely missing: nothing is chosen yet"


def test_nothing_is_chosen_while_a_run_of_a_later_setting_is_missing(tmp_path):
  found = searched(tmp_path)
  for t in found.trials()[:3]:
    tiny_sweep.write_result(found.job(t), 0.9)
  assert found.choose() == {}


def test_lengths_in_epochs_are_shares_of_each_fold_s_own_steps(tmp_path, monkeypatch):
  """Of 10 epochs: 30 of 60 steps and 30 of 100 are 5 and 3."""
  found = searched(tmp_path)
  trials = found.trials()[:2]
  monkeypatch.setattr(found, "job", lambda t: types.SimpleNamespace(
      folder=t.fold, config=ml_collections.ConfigDict({"train": {"epochs": 10.0}})))
  monkeypatch.setattr(plan.config_lib, "read_config", lambda fold: ml_collections.ConfigDict(
      {"train": {"steps": (60, 100)[fold]}}))
  assert found._length(trials, [{"checkpoint": {"step": 30}}] * 2) == (0, 4.0)


@pytest.mark.parametrize("searches", [True, False])
def test_a_cluster_gets_as_many_tasks_for_the_folds_as_for_the_final_runs(tmp_path, searches):
  text = slurm.write(tmp_path, 4, searches=searches, argv=["medae"]).read_text()
  assert text.count("submit --array=0-3") == 1 + searches and text.count("submit --array=4 ") == 1


# --------------------------------------------------------------------------------- runs beside each other
def test_networks_that_no_step_trains_are_shared_where_all_runs_have_the_same():
  state = lambda k, frozen: State.create({"net": {"w": np.full(2, k)}, "vgg": {"w": np.full(3, frozen)}})
  for other, shared in ((5.0, True), (6.0, False)):
    found, axes = together._stacked([state(1.0, 5.0), state(2.0, other)], ("vgg", "absent"))
    assert axes.params["net"]["w"] == 0 and axes.params["vgg"]["w"] == (None if shared else 0)
    assert found.params["net"]["w"].tolist() == [[1, 1], [2, 2]]
    assert found.params["vgg"]["w"].shape == ((3,) if shared else (2, 3))
    assert found.step.shape == (2,)


def test_a_dispatch_of_several_runs_has_steps_then_runs_then_images():
  """And a run that ended lends its lane to the batch of another."""
  made, seen = object.__new__(together.Together), []
  run = lambda going: types.SimpleNamespace(going=going, guard=lambda action, *args: action(*args))
  made._runs, made._states = [run(True), run(False), run(True)], None
  made._batches = [iter([{"image": np.full(4, 10 * r + k)} for k in range(2)]) for r in range(3)]
  made._step = lambda states, batches: seen.append(batches["image"]) or (states, {})
  made.advance(2)
  assert seen[0].shape == (2, 3, 4) and seen[0][..., 0].tolist() == [[0, 0, 20], [1, 1, 21]]
  assert jax.tree.leaves(made._states) == []
