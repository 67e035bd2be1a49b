"""Augmentation mirrors image and mask alike: asymmetric images tell a mask that stayed behind."""

import numpy as np
import pytest

from data_pipelines.ops import augment
from data_pipelines.pairs import ops
from data_pipelines.tf import tf


def corner_pairs(n, size=8):
  """Images whose mask says which quadrant is bright: any shared mirroring keeps them equal."""
  rng = np.random.default_rng(0)
  image = np.zeros((n, size, size, 3), np.float32)
  for i in range(n):
    image[i, 1:3, size - 3:size - 1] = 1.0
  noise = 0.1 * rng.random(image.shape).astype(np.float32)
  return {"image": image + noise, "mask": image[..., :1].copy()}


def place(mask):
  """(top half, left half) of a single marked square."""
  rows, cols = np.argwhere(mask[..., 0] > 0.5).mean(0)
  return rows < 3.5, cols < 3.5


def test_masks_are_mirrored_with_their_images_in_batches():
  batch = {k: tf.constant(v) for k, v in corner_pairs(64).items()}
  out = {k: v.numpy() for k, v in augment.paired_flip()(batch, tf.constant([3, 1]), 0, 64, 64).items()}
  np.testing.assert_array_equal(out["image"][..., :1] > 0.5, out["mask"] > 0.5)
  seen = [place(m) for m in out["mask"]]
  for (top, left), flip in zip(seen, out["flip"]):
    assert (bool(flip[0]), bool(flip[1])) == (not top, left)  # what is recorded is what was done
  # four cases of 1/4 each in 64: standard deviation 3.5
  assert all(6 <= seen.count(case) <= 28 for case in set(seen)) and len(set(seen)) == 4
  again = augment.paired_flip()(batch, tf.constant([3, 2]), 0, 64, 64)["flip"].numpy()
  assert not np.array_equal(again, out["flip"])


@pytest.mark.parametrize("share,cases", [((1.0, 0.0), {(True, True)}), ((0.0, 1.0), {(False, False)}),
                                         ((0.0, 0.0), {(True, False)}), ((1.0, 1.0), {(False, True)})])
def test_masks_are_mirrored_with_image_and_clean_image(share, cases):
  pair = {k: v[0] for k, v in corner_pairs(1).items()}
  example = {"image": tf.constant(pair["image"]), "clean": tf.constant(pair["image"]),
             "mask": tf.constant(pair["mask"])}
  found = set()
  for k in range(6):
    out = {key: v.numpy() for key, v in ops.flip(*share)(example, tf.constant([1, k])).items()}
    np.testing.assert_array_equal(out["image"][..., :1] > 0.5, out["mask"] > 0.5)
    np.testing.assert_array_equal(out["image"], out["clean"])
    found.add(place(out["mask"]))
  assert found == cases


def test_crops_take_the_same_window_of_image_and_mask():
  batch = {k: tf.constant(v) for k, v in corner_pairs(32).items()}
  out = augment.paired_crop(6)(batch, tf.constant([0, 5]), 0, 32, 32)
  np.testing.assert_array_equal(out["image"].numpy()[..., :1] > 0.5, out["mask"].numpy() > 0.5)
  places = {tuple(c[:2]) for c in out["crop"].numpy()}
  assert len(places) > 5 and {max(c) for c in zip(*places)} == {2} and {min(c) for c in zip(*places)} == {0}


def test_jitter_changes_image_and_clean_image_by_one_draw_and_no_mask():
  pair = {k: tf.constant(0.2 + 0.5 * v[0]) for k, v in corner_pairs(1).items()}
  example = {"image": pair["image"], "clean": pair["image"], "mask": pair["mask"]}
  out = ops.jitter((0.5, 0.9), (0.5, 2.0))(example, tf.constant([1, 2]))
  np.testing.assert_array_equal(out["image"].numpy(), out["clean"].numpy())
  np.testing.assert_array_equal(out["mask"].numpy(), pair["mask"].numpy())
  assert np.abs(out["image"].numpy() - pair["image"].numpy()).max() > 0.01


def test_a_window_lies_where_it_is_said_to():
  """The values are the coordinates; the margin is what `crop` leaves beside a window."""
  where = np.stack(np.mgrid[:9, :9], -1).astype(np.float32)[None].repeat(16, 0)
  batch = {"image": tf.constant(where), "mask": tf.constant(where[..., 1:])}
  out = {k: v.numpy() for k, v in augment.paired_crop(6)(batch, tf.constant([3, 1]), 0, 16, 16).items()}
  np.testing.assert_array_equal(out["image"][:, 0, 0], out["crop"][:, :2])
  np.testing.assert_array_equal(out["image"][:, -1, -1], out["crop"][:, :2] + 5)
  np.testing.assert_array_equal(out["mask"], out["image"][..., 1:])
  assert (out["crop"][:, 2] == 3).all() and (out["crop"][:, 0] != out["crop"][:, 1]).any()
  assert out["crop"][:, :2].min() == 0 and out["crop"][:, :2].max() == 3


def test_windows_reach_every_place_and_rows_and_mirrors_are_drawn_apart_from_columns():
  """Of 9 x 9 pixels with their coordinates: 5 x 5 places of a window, four mirror images."""
  where = np.stack(np.mgrid[:9, :9], -1).astype(np.float32)[None].repeat(400, 0)
  batch, seed = {"image": tf.constant(where)}, tf.constant([3, 1])
  out = augment.random_crop(5)(batch, seed, 0, 400, 400)["image"].numpy()
  np.testing.assert_array_equal(out[:, -1, -1] - out[:, 0, 0], np.full((400, 2), 4))
  assert {tuple(x) for x in out[:, 0, 0].astype(int)} == {(r, c) for r in range(5) for c in range(5)}
  corner = augment.random_flip()(batch, seed, 0, 400, 400)["image"].numpy()[:, 0, 0].astype(int)
  counts = [np.sum((corner == c).all(1)) for c in ((0, 0), (8, 0), (0, 8), (8, 8))]
  assert sum(counts) == 400 and all(60 < n < 140 for n in counts)  # 100 each, standard deviation 9


@pytest.mark.parametrize("op", [augment.random_crop(5), augment.random_flip(), augment.random_gain(0.1),
                                augment.paired_crop(5), augment.paired_flip()])
def test_the_rows_of_one_process_are_drawn_as_in_the_whole_batch(op):
  batch = {k: tf.constant(v) for k, v in corner_pairs(8).items()}
  seed = tf.constant([3, 1])
  whole, part = op(batch, seed, 0, 8, 8), op({k: v[2:5] for k, v in batch.items()}, seed, 2, 5, 8)
  assert whole.keys() == part.keys()
  for key in whole:
    np.testing.assert_array_equal(whole[key][2:5], part[key])
  assert not np.array_equal(whole["image"], op(batch, tf.constant([3, 2]), 0, 8, 8)["image"])


def test_each_axis_is_mirrored_by_its_own_draw():
  pairs = corner_pairs(32)
  batch = {k: tf.constant(v) for k, v in pairs.items()}
  out = {k: v.numpy() for k, v in augment.paired_flip()(batch, tf.constant([5, 2]), 0, 32, 32).items()}
  assert {tuple(f) for f in out["flip"]} == {(0, 0), (0, 1), (1, 0), (1, 1)}
  for i, (rows, columns) in enumerate(out["flip"]):
    for name, value in pairs.items():
      np.testing.assert_array_equal(out[name][i], value[i][::-1 if rows else 1, ::-1 if columns else 1])
