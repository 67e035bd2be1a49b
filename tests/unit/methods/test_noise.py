"""Coarse noise of the pipeline: distribution, sharing of the roll, sharding, eager = graph."""

import numpy as np
import pytest

from data_pipelines.ops import coarse_noise
from data_pipelines.tf import tf


def draw(op, seed=(0, 0), lo=0, hi=None, size=6, shape=(20, 12, 3)):
  hi = size if hi is None else hi
  batch = {"image": tf.zeros((hi - lo, *shape))}
  out = op(batch, tf.constant(seed, tf.int32), lo, hi, size)
  return out["noise"].numpy(), out["roll"].numpy()


def test_shapes_and_scale():
  field, roll = draw(coarse_noise.coarse_noise(16, 0.2), size=64)
  assert field.shape == (64, 16, 16, 3) and field.dtype == np.float32
  assert roll.shape == (64, 2) and roll.dtype == np.int32
  assert abs(field.std() - 0.2) < 0.002 and abs(field.mean()) < 0.003  # 49152 draws: 4 sigma
  channels = field.reshape(-1, 3)
  assert np.abs(np.corrcoef(channels.T) - np.eye(3)).max() < 0.04  # independent over channels
  flat = field.reshape(64, -1)
  assert np.abs(np.corrcoef(flat) - np.eye(64)).max() < 0.2  # and over images


def test_roll_is_shared_by_the_batch_or_one_an_image():
  _, shared = draw(coarse_noise.coarse_noise(4, 1.0, "batch"), size=500)
  _, own = draw(coarse_noise.coarse_noise(4, 1.0, "example"), size=500)
  assert len({tuple(r) for r in shared}) == 1
  assert set(own[:, 0]) == set(range(20)) and set(own[:, 1]) == set(range(12))
  steps = {tuple(draw(coarse_noise.coarse_noise(4, 1.0), seed=(0, s))[1][0]) for s in range(40)}
  assert len(steps) > 20  # another shift at every step


@pytest.mark.parametrize("roll", ["batch", "example"])
def test_rows_do_not_depend_on_the_number_of_hosts(roll):
  op = coarse_noise.coarse_noise(5, 0.3, roll)
  full = draw(op, (7, 3))
  for hosts in (2, 3):
    share = 6 // hosts
    parts = [draw(op, (7, 3), p * share, (p + 1) * share) for p in range(hosts)]
    for i in range(2):
      np.testing.assert_array_equal(full[i], np.concatenate([part[i] for part in parts]))


def test_eager_and_graph_agree():
  op = coarse_noise.coarse_noise(5, 0.3, "example")
  images = tf.data.Dataset.range(3).map(lambda step: op(
      {"image": tf.zeros((6, 20, 12, 3))}, tf.stack([tf.constant(7), tf.cast(step, tf.int32)]),
      0, 6, 6))
  for step, batch in enumerate(images):
    field, roll = draw(op, (7, step))
    np.testing.assert_array_equal(batch["noise"].numpy(), field)
    np.testing.assert_array_equal(batch["roll"].numpy(), roll)


def test_seeds_and_steps_differ():
  op = coarse_noise.coarse_noise(4, 1.0)
  fields = [draw(op, seed)[0] for seed in ((0, 0), (0, 1), (1, 0), (1, 1))]
  for i in range(4):
    for j in range(i):
      assert not np.array_equal(fields[i], fields[j])


@pytest.mark.parametrize("args,match", [((0, 0.2), "noise_res"), ((4, -1.0), "noise_std"),
                                        ((4, 0.2, "image"), "noise_roll")])
def test_parameters_out_of_range(args, match):
  with pytest.raises(ValueError, match=match):
    coarse_noise.coarse_noise(*args)
