"""The training stream is a pure function of the step, whatever the workers and hosts."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from data_pipelines import dataset, stream
from data_pipelines.errors import UserError
from data_pipelines.ops import coarse_noise
from data_pipelines.tf import tf


def _images(n):
  return np.arange(n, dtype=np.float32)[:, None, None, None] * np.ones((1, 8, 6, 2), np.float32)


class OneStream(dataset.DataSet):

  def __init__(self, source):
    self.source = source

  def train(self):
    return self.source


class Ragged(dataset.Source):
  """Images of different sizes, cropped at random to 4x4 by an example op."""

  ragged = True

  def __len__(self):
    return 7

  def read_one(self, i):
    side = 5 + i
    return {"image": np.arange(side * side, dtype=np.float32).reshape(side, side, 1) + 1000 * i,
            "number": np.int32(i)}

  @property
  def example_ops(self):
    def crop(example, seed):
      return {**example, "image": tf.image.stateless_random_crop(example["image"], (4, 4, 1), seed)}
    return (crop,)


SOURCES = {
    "arrays": lambda: dataset.ArraySource({"image": _images(10)},
                                           batch_ops=[coarse_noise.coarse_noise(4, 0.2, "example")]),
    "ragged": Ragged,
}


def take(source, count, **kwargs):
  args = {"batch_size": 4, "first_step": 0, "seed": 3, **kwargs}
  return list(itertools.islice(stream.train_stream(OneStream(source), {}, **args), count))


def assert_equal(a, b):
  assert a.keys() == b.keys()
  for key in a:
    np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.fixture(params=SOURCES)
def source(request):
  return SOURCES[request.param]()


def test_resume_at_any_step_equals_the_unbroken_stream(source):
  full = take(source, 8)
  for first in (1, 4, 7):
    for a, b in zip(full[first:], take(source, 8 - first, first_step=first)):
      assert_equal(a, b)


def test_starting_far_away_takes_no_longer():
  batch = take(SOURCES["arrays"](), 1, first_step=10**12)[0]  # would never end were it not O(1)
  assert batch["image"].shape == (4, 8, 6, 2)


@pytest.mark.parametrize("processes", [2, 4])
def test_hosts_share_the_global_batches(source, processes):
  full = take(source, 4)
  parts = [take(source, 4, process_index=p, process_count=processes) for p in range(processes)]
  for step, batch in enumerate(full):
    assert_equal(batch, {k: np.concatenate([p[step][k] for p in parts]) for k in batch})


def test_workers_change_nothing(source):
  for a, b in zip(take(source, 6, workers=1), take(source, 6, workers=7)):
    assert_equal(a, b)


def test_every_epoch_is_another_permutation():
  source = dataset.ArraySource({"image": _images(10)})
  drawn = np.concatenate([b["image"][:, 0, 0, 0] for b in take(source, 15, batch_size=4)])
  epochs = drawn.reshape(6, 10)  # 15 batches of 4 = 6 epochs of 10: batches straddle epochs
  for epoch in epochs:
    assert sorted(epoch) == list(range(10))
  assert len({tuple(e) for e in epochs}) == 6
  assert not np.array_equal(drawn, np.concatenate(
      [b["image"][:, 0, 0, 0] for b in take(source, 15, batch_size=4, seed=4)]))


def test_permutation_is_index_shuffle():
  source = dataset.ArraySource({"image": _images(10)})
  drawn = np.concatenate([b["image"][:, 0, 0, 0] for b in take(source, 5, batch_size=4)])
  for epoch in range(2):
    want = tf.random.experimental.index_shuffle(
        tf.range(10, dtype=tf.int64), seed=tf.constant([3, epoch]), max_index=tf.constant(9, tf.int64))
    np.testing.assert_array_equal(drawn[10 * epoch:10 * epoch + 10], want.numpy())


def test_examples_of_any_size_are_shuffled_and_augmented_anew_in_every_epoch():
  epochs = [dict(zip(b["number"].tolist(), b["image"])) for b in take(Ragged(), 3, batch_size=7)]
  assert all(sorted(e) == list(range(7)) for e in epochs)
  orders = [list(e) for e in epochs]
  assert list(range(7)) not in orders and orders[0] != orders[1] != orders[2]
  cut = [sum(np.array_equal(epochs[0][i], e[i]) for i in range(7)) for e in epochs[1:]]
  assert max(cut) < 5  # of the smallest images there are four windows alone


def test_one_example_and_more_batch_than_examples():
  source = dataset.ArraySource({"image": _images(3)})
  batch = take(source, 1, batch_size=7)[0]
  assert sorted(batch["image"][:3, 0, 0, 0]) == [0, 1, 2]
  assert take(dataset.ArraySource({"image": _images(1)}), 2)[1]["image"].shape[0] == 4


def test_index_is_the_place_in_the_global_batch():
  batch = take(SOURCES["arrays"](), 1, process_index=1, process_count=2)[0]
  assert batch["index"].dtype == np.int32 and batch["index"].tolist() == [2, 3]


def test_two_streams_have_their_own_size_and_order():
  class Two(dataset.DataSet):
    def train(self):
      return {name: dataset.ArraySource({"image": _images(10)},
                                         batch_ops=[coarse_noise.coarse_noise(2, 1.0)])
              for name in ("noisy", "clean")}
  def run(first, count, **kwargs):
    return list(itertools.islice(stream.train_stream(
        Two(), {"batch_sizes": {"clean": 2}}, batch_size=4, first_step=first, seed=0, **kwargs), count))
  full = run(0, 4)
  assert full[0]["noisy"]["image"].shape[0] == 4 and full[0]["clean"]["image"].shape[0] == 2
  assert full[0]["clean"]["index"].tolist() == [0, 1]
  assert not np.array_equal(full[0]["noisy"]["noise"][:2], full[0]["clean"]["noise"])
  parts = [run(2, 2, process_index=p, process_count=2) for p in range(2)]
  for name in ("noisy", "clean"):
    for step in (2, 3):
      assert_equal(full[step][name], {k: np.concatenate([p[step - 2][name][k] for p in parts])
                                      for k in full[step][name]})


@pytest.mark.parametrize("processes", [1, 2])
def test_eval_pads_the_last_batch_and_drops_nothing(source, processes):
  parts = [list(stream.eval_batches(source, batch_size=4, process_index=p, process_count=processes))
           for p in range(processes)]
  positions, valid = [], []
  for batches in zip(*parts):
    positions += np.concatenate([b["position"] for b in batches]).tolist()
    valid += np.concatenate([b["valid"] for b in batches]).tolist()
  n = len(source)
  assert len(positions) == -(-n // 4) * 4
  assert [p for p, v in zip(positions, valid) if v] == list(range(n))
  assert all(p == n - 1 for p, v in zip(positions, valid) if not v)
  rows = 4 // processes  # the place in the global batch, whoever reads it
  assert all(b["index"].tolist() == list(range(p * rows, (p + 1) * rows)) for p, part in enumerate(parts)
             for b in part)
  key = "image" if processes == 1 else "position"
  assert parts[0][-1][key].shape[0] == 4 // processes
  some = list(stream.eval_batches(source, batch_size=4, numbers=[1, 0], process_count=processes))
  for a, b in zip(some, parts[0][1::-1], strict=True):
    assert_equal(a, b)


def test_eval_noise_is_fixed_by_its_seed():
  source = SOURCES["arrays"]()
  first, again, other = (list(stream.eval_batches(source, batch_size=4, seed=s, with_batch_ops=True))
                         for s in (1, 1, 2))
  for a, b in zip(first, again):
    assert_equal(a, b)
  assert not np.array_equal(first[0]["noise"], other[0]["noise"])
  assert not np.array_equal(first[0]["noise"], first[1]["noise"])
  assert "noise" not in next(stream.eval_batches(source, batch_size=4))
  repeated = stream.evaluation(source, batch_size=4, seed=1, with_batch_ops=True)
  begun = next(iter(repeated))  # and left, as a validation is after a signal
  for a, b in zip(first, list(repeated), strict=True):
    assert_equal(a, b)
  assert_equal(begun, first[0])


def test_bad_batch_sizes_are_said_at_once():
  source = SOURCES["arrays"]()
  with pytest.raises(ValueError, match="multiple of the 3 processes"):
    take(source, 1, process_count=3)
  with pytest.raises(ValueError, match="no example"):
    take(dataset.ArraySource({"image": _images(0)}), 1)


class Damaged(dataset.Source):
  """Its third image cannot be read."""

  def __init__(self, ragged):
    self.ragged = ragged

  def __len__(self):
    return 6

  def read_one(self, i):
    if i == 2:
      raise UserError("c.png is not a readable image")
    return {"image": np.zeros((4, 4, 1), np.float32)}


@pytest.mark.parametrize("ragged", [False, True])
def test_a_file_that_cannot_be_read_is_said_in_the_reader_s_own_line(ragged):
  source = Damaged(ragged)
  with pytest.raises(UserError, match="^c.png is not a readable image$"):
    take(source, 6)
  with pytest.raises(UserError, match="^c.png is not a readable image$"):
    list(stream.eval_batches(source, batch_size=2, with_batch_ops=True))


def named(n):
  return dataset.ArraySource({"image": _images(n)}, [{"id": f"n{i}"} for i in range(n)],
                             batch_ops=[coarse_noise.coarse_noise(2, 0.1)])


def test_views_are_pairs_with_the_example_slowest():
  views = dataset.Views(named(3), 4)
  found = views.read(np.array([0, 5, 11]))
  assert len(views) == 12 and found["image"][:, 0, 0, 0].tolist() == [0, 1, 2]
  assert found["view"].tolist() == [0, 1, 3] and found["view"].dtype == np.int32
  one = views.read_one(6)
  assert one["image"][0, 0, 0] == 1 and one["view"] == 2 and views.meta(6) == {"id": "n1"}
  assert len(views.batch_ops) == 1 and dataset.Views(Ragged(), 2).ragged and not views.ragged


def test_a_part_of_a_source_keeps_what_belongs_to_its_examples():
  part = dataset.Subset(named(6), np.array([4, 1]))
  assert len(part) == 2 and part.read([1, 0])["image"][:, 0, 0, 0].tolist() == [1, 4]
  assert part.read_one(0)["image"][0, 0, 0] == 4 and part.meta(0) == {"id": "n4"} and part.position(1) == 1
  assert len(part.batch_ops) == 1 and dataset.Subset(Ragged(), np.array([0])).ragged
  plain = dataset.Plain(named(6))
  assert len(plain) == 6 and plain.batch_ops == plain.example_ops == () and plain.meta(3) == {"id": "n3"}


def test_what_does_not_go_together_is_refused():
  for arrays, metas in (({"image": _images(3), "label": np.zeros(2)}, None),
                        ({"image": _images(3)}, [{}] * 2)):
    with pytest.raises(UserError, match="differ in length"):
      dataset.ArraySource(arrays, metas)
  with pytest.raises(UserError, match="does not say which normal images"):
    OneStream(Ragged()).fitting()
  with pytest.raises(UserError, match="config.data.resident needs one stream of examples of one size"):
    OneStream(Ragged()).resident_arrays()
  with pytest.raises(UserError, match="batch size 0 must be"):
    take(named(3), 1, batch_size=0)


def test_open_dataset_names_what_exists():
  with pytest.raises(ValueError, match=r"'nonsense' is not a data set.*brats.*synthetic"):
    dataset.open_dataset({"name": "nonsense"}, 0)
  with pytest.raises(ValueError, match="'stream' is not a data set"):
    dataset.open_dataset({"name": "stream"}, 0)


@pytest.mark.slow
def test_a_program_that_leaves_a_stream_open_ends():
  """Prefetching threads that call Python must not hang the interpreter when it ends."""
  code = """
import numpy as np
from data_pipelines import dataset as datasets, stream
class D(datasets.DataSet):
  def train(self):
    return datasets.ArraySource({"image": np.zeros((500, 64, 64, 4), np.float32)})
it = stream.train_stream(D(), {}, batch_size=64, first_step=0, seed=0)
for _ in range(20): next(it)
"""
  done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
  assert done.returncode == 0


def test_functions_of_a_stream_are_traced_as_they_stand(monkeypatch):
  """AutoGraph would rewrite them first, a second of each start."""
  seen = []

  def op(batch, seed, lo, hi, total):
    seen.append(tf.__internal__.autograph.control_status_ctx().status.name)
    return batch
  take(dataset.ArraySource({"image": _images(10)}, batch_ops=[op]), 1)
  assert seen and set(seen) == {"DISABLED"}
