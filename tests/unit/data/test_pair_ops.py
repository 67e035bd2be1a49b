"""Operations on triples of a pair and its mask: each draws once, for all three alike."""


import numpy as np
import pytest

from data_pipelines.pairs import ops
from data_pipelines.tf import tf


# --------------------------------------------------------------------------------- paired crops
def triple(size=(50, 70)):
  """Images whose values are their coordinates, so that a crop tells where it came from."""
  rows, cols = np.mgrid[0:size[0], 0:size[1]].astype(np.float32) / 128
  image = np.stack([rows, cols, np.zeros_like(rows)], -1)
  mask = np.zeros((*size, 1), np.float32)
  mask[33:36, 58:61] = 1
  return {"image": image, "clean": image.copy(), "mask": mask}


def run_op(op, example, seed, in_tf_data):
  """Eagerly, or inside tf.data: the two must not differ."""
  seed = tf.constant(seed, tf.int32)
  if not in_tf_data:
    return {k: np.asarray(v) for k, v in op({k: tf.constant(v) for k, v in example.items()},
                                            seed).items()}
  data = tf.data.Dataset.from_tensors(example).map(lambda e: op(e, seed))
  return next(data.as_numpy_iterator())


@pytest.mark.parametrize("in_tf_data", [False, True])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
def test_crop_is_one_for_all_three(in_tf_data, scale):
  op = ops.crop((16, 24), 0.5, scale)
  places = set()
  for k in range(12):
    out = run_op(op, triple(), (3, k), in_tf_data)
    assert out["image"].shape == (16, 24, 3) and out["mask"].shape == (16, 24, 1)
    np.testing.assert_array_equal(out["image"], out["clean"])
    places.add(tuple(np.round(out["image"][0, 0, :2] * 128).astype(int)))
    if scale == (1.0, 1.0):  # the mask moved along: it is where the coordinates say
      rows, cols = (out["image"][..., c] * 128 for c in (0, 1))
      inside = (rows >= 33) & (rows < 36) & (cols >= 58) & (cols < 61)
      np.testing.assert_array_equal(out["mask"][..., 0] > 0, inside)
  assert len(places) > 6


def test_share_of_crops_on_marks():
  hits = {share: np.mean([run_op(ops.crop((16, 16), share), triple(), (1, k), False)[
      "mask"].any() for k in range(60)]) for share in (0.0, 1.0)}
  assert hits[1.0] == 1.0 and hits[0.0] < 0.5


def test_small_frames_are_mirrored():
  out = run_op(ops.crop((64, 80), 0.0), triple((50, 70)), (0, 0), True)
  start = (64 - 50) // 2
  np.testing.assert_allclose(out["image"][start:start + 50, 5:75], triple()["image"])
  np.testing.assert_allclose(out["image"][start - 1], out["image"][start + 1])


@pytest.mark.parametrize("in_tf_data", [False, True])
def test_flips_and_jitter_are_shared(in_tf_data):
  seen = set()
  for k in range(12):
    out = run_op(ops.flip(0.5, 0.5), triple(), (5, k), in_tf_data)
    np.testing.assert_array_equal(out["image"], out["clean"])
    seen.add((out["image"][0, 0, 0] > 0, out["image"][0, 0, 1] > 0))
    bright = run_op(ops.jitter((0.5, 1.5), (0.5, 2.0)), triple(), (5, k), in_tf_data)
    np.testing.assert_array_equal(bright["image"], bright["clean"])
    assert np.any(bright["image"] != triple()["image"])
  assert len(seen) == 4
