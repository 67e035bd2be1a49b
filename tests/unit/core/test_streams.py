"""Named random streams: no seed, stage or stream repeats another's draws, and old runs keep theirs."""

import itertools
import json

import jax
import ml_collections
import numpy as np
import pytest

from data_pipelines import stream
from data_pipelines.dataset import ArraySource, DataSet
from medae_jax.core import method, streams
from medae_jax.training import feed

STAGES = [method.Stage(f"stage_{i}", 5, begin=5 * i) for i in range(4)]
PAIRS = list(itertools.product(range(4), range(4)))  # (seed, stage)


def config(seed, **train):
  return ml_collections.ConfigDict({"seed": seed, "data": {},
                                    "train": {"random_streams": "named", "batch_size": 16, **train}})


def bits(key):
  return tuple(np.asarray(jax.random.key_data(key)).tolist())


class Numbers(DataSet):
  """64 examples that are their own place."""

  def train(self):
    return ArraySource({"row": np.arange(64)})

  def resident_arrays(self):
    return {"row": np.arange(64)}


def test_no_key_is_drawn_twice():
  keys = [bits(streams.init_key(config(seed))) for seed in range(4)]
  for seed, i in PAIRS:
    keys.append(bits(streams.grow_key(config(seed), STAGES[i], i)))
    keys.append(bits(streams.resident_key(config(seed), STAGES[i])))
    step = streams.step_key(config(seed), STAGES[i])
    keys.append(bits(step))
    keys += [bits(jax.random.fold_in(step, s)) for s in range(5 * i, 5 * i + 5)]
  assert len(set(keys)) == len(keys)


def test_a_renamed_stage_keeps_its_draws():
  """dpa's "stable_32" was "stab_32" when streams were named: runs of then resume with their numbers."""
  for new, old in (("stable_32", "stab_32"), ("transition_64", "trns_64")):
    renamed, first = config(3), config(3)
    with renamed.unlocked():
      renamed.method = {"name": "dpa"}
    one, two = method.Stage(new, 5), method.Stage(old, 5)
    assert bits(streams.step_key(renamed, one)) == bits(streams.step_key(first, two))
    assert bits(streams.grow_key(renamed, one, 1)) == bits(streams.grow_key(first, two, 1))
    assert streams.data_seed(renamed, one, 1) == streams.data_seed(first, two, 1)
    assert bits(streams.step_key(first, one)) != bits(streams.step_key(first, two))


def test_no_seed_and_stage_read_the_data_in_the_order_of_another():
  """Before: stage 1 of seed 0 was stage 0 of seed 1."""
  def order(seed, i):
    batches = feed.batches_of(Numbers(), config(seed), STAGES[i], i, 0)
    return tuple(np.concatenate([next(batches)["row"] for _ in range(4)]).tolist())
  orders = {pair: order(*pair) for pair in PAIRS}
  assert all(sorted(o) == list(range(64)) for o in orders.values())
  assert len(set(orders.values())) == len(PAIRS)
  assert order(2, 3) == orders[2, 3]  # the same seed: the same order, in any process


def test_resident_data_come_in_an_order_of_their_own():
  def order(seed, i):
    c = config(seed)
    c.data.resident = True
    arrays, sample = feed.resident_data(Numbers(), c, 16, STAGES[i])
    pick = jax.jit(lambda step: sample(arrays, np.arange(16), step)["row"])
    return tuple(np.concatenate([pick(s) for s in range(4)]).tolist())
  assert len({order(*pair) for pair in PAIRS[:8]}) == 8


@pytest.mark.parametrize("size", [6, 40])
def test_resident_data_show_every_view_of_every_image_once_an_epoch(size, monkeypatch):
  """Batches end within an epoch, and one may be longer than an epoch."""
  monkeypatch.setattr(Numbers, "resident_arrays", lambda self: {"row": np.arange(8)})
  c = config(0)
  c.data.resident = True
  arrays, sample = feed.resident_data(Numbers(), c, size, STAGES[0], views=2)
  drawn = [sample(arrays, np.arange(size), step) for step in range(240 // size)]
  pairs = [(int(r), int(v)) for found in drawn for r, v in zip(found["row"], found["view"])]
  epochs = [tuple(pairs[i:i + 16]) for i in range(0, 240, 16)]
  assert all(set(e) == set(itertools.product(range(8), range(2))) for e in epochs)
  assert len(set(epochs)) == len(epochs)


def test_keys_are_the_same_in_every_version_and_process():
  """Written down: a changed hash would make old runs resume with other numbers."""
  c = config(3)
  assert streams.data_seed(c, STAGES[1], 1) == 941055278
  assert bits(streams.step_key(c, STAGES[1])) == (1866516304, 3997637345)
  assert min(streams.data_seed(config(s), STAGES[i], i) for s, i in PAIRS) >= 0
  assert max(streams.data_seed(config(s), STAGES[i], i) for s, i in PAIRS) < 2**30


@pytest.mark.parametrize("train", [{}, {"random_streams": "legacy"}])
def test_runs_from_before_the_names_draw_as_they_did(train):
  c = ml_collections.ConfigDict({"seed": 5, "train": train})
  key = jax.random.key(5)
  assert streams.data_seed(c, STAGES[2], 2) == 7
  assert bits(streams.init_key(c)) == bits(streams.step_key(c, STAGES[2])) == bits(key)
  assert bits(streams.grow_key(c, STAGES[2], 2)) == bits(jax.random.fold_in(key, 2))
  assert bits(streams.resident_key(c, STAGES[2])) == bits(jax.random.key(6))


@pytest.mark.parametrize("old, scheme", [({}, "legacy"), ({"random_streams": "legacy"}, "legacy"),
                                         ({"random_streams": "named"}, "named"), (None, "named")])
def test_the_workdir_decides(tmp_path, old, scheme):
  """The command line of a resumed run has today's default; the run has what it began with."""
  if old is not None:
    (tmp_path / "config.json").write_text(json.dumps({"seed": 1, "train": old}))
  given = config(1).lock()
  found = streams.of_workdir(given, tmp_path)
  assert found.train.random_streams == scheme and given.train.random_streams == "named"


def test_streams_beside_each_other_differ():
  class Two(Numbers):
    def train(self):
      return {"a": super().train(), "b": super().train()}
  batch = next(stream.train_stream(Two(), {}, batch_size=64, first_step=0,
                                   seed=streams.data_seed(config(0), STAGES[0], 0)))
  assert batch["a"]["row"].tolist() != batch["b"]["row"].tolist()
