"""Windows, gains, noise and sizes against their definitions: what is drawn lies where it is said to."""

import numpy as np
from PIL import Image
import pytest

from data_pipelines.errors import UserError
from data_pipelines.ops import augment, coarse_noise, resize
from data_pipelines.pairs import ops
from data_pipelines.tf import tf


def places(size, window, share=0.0, scale=(1.0, 1.0), marks=(), draws=24):
  """(first row and column, rows, columns, any mark) of windows; the frame's values are its coordinates."""
  rows, cols = np.mgrid[:size[0], :size[1]].astype(np.float32) / 256
  mask = np.zeros((*size, 1), np.float32)
  for mark in marks:
    mask[mark] = 1
  example = {"image": tf.constant(np.stack([rows, cols, cols], -1)), "mask": tf.constant(mask)}
  example["clean"] = example["image"]
  op, found = ops.crop(window, share, scale), []
  for k in range(draws):
    out = {key: v.numpy() for key, v in op(example, tf.constant([7, k])).items()}
    image = out["image"] * 256
    found.append((image[0, 0, 0], image[0, 0, 1], np.ptp(image[..., 0]) + 1, np.ptp(image[..., 1]) + 1,
                  out["mask"].any()))
  return np.array(found)


def test_windows_reach_every_place_and_no_other():
  found = places((17, 26), (16, 24))
  assert set(found[:, 0]) == {0, 1} and set(found[:, 1]) == {0, 1, 2}


def test_windows_on_a_mark_are_centred_but_for_a_quarter_of_their_size():
  found = places((200, 240), (16, 24), 1.0, marks=[(100, 120)], draws=40)
  off = np.array([100, 120]) - found[:, :2] - (8, 12)
  assert np.abs(off[:, 0]).max() in (3, 4) and np.abs(off[:, 1]).max() in (5, 6)
  assert off.min(0).max() < 0 < off.max(0).min() and len({tuple(o) for o in off}) > 12
  assert abs(np.corrcoef(off.T)[0, 1]) < 0.5  # rows and columns by themselves
  two = places((200, 240), (16, 24), 1.0, marks=[(40, 40), (160, 200)], draws=12)
  assert 2 < (two[:, 0] < 100).sum() < 10 and two[:, 4].all()


def test_every_mark_is_chosen_as_often_as_the_others():
  rows = places((200, 40), (8, 8), 1.0, marks=[(20, 20), (100, 20), (180, 20)], draws=48)[:, 0]
  often = np.histogram(rows, [0, 60, 140, 200])[0]
  assert often.sum() == 48 and often.min() >= 8 and often.max() <= 24


def test_a_magnified_window_shows_less_and_keeps_every_mark():
  found = places((100, 120), (16, 24), 1.0, (2.0, 2.0), [(50, 60)], 8)
  np.testing.assert_allclose(found[:, 2:4], np.broadcast_to([8, 12], (8, 2)), atol=1.1)
  far = places((100, 120), (16, 24), 1.0, (0.25, 0.25), [(50, 60)], 4)
  assert far[:, 4].all() and far[:, 2].min() > 55  # 64 rows in 16: the one marked pixel is still there
  assert 0.3 < (places((140, 140), (16, 16), 0.0, (0.25, 4.0))[:, 2] < 16).mean() < 0.7


@pytest.mark.parametrize("gain, gamma, want", [((2.0, 2.0), (1.0, 1.0), [0, 0.4, 1]),
                                               ((1.0, 1.0), (2.0, 2.0), [0, 0.04, 0.64])])
def test_brightness_is_gain_times_a_power(gain, gamma, want):
  x = tf.constant([0.0, 0.2, 0.8])
  out = ops.jitter(gain, gamma)({"image": x, "clean": x}, tf.constant([1, 2]))
  for key in ("image", "clean"):
    np.testing.assert_allclose(out[key], want, atol=1e-6)


# ------------------------------------------------------------------------------------------------ batches
def test_gains_have_their_deviation_and_belong_to_their_rows():
  batch = {"image": tf.ones([400, 1, 1, 3])}
  op, seed = augment.random_gain(0.2), tf.constant([1, 2])
  gain = np.log(op(batch, seed, 0, 400, 400)["image"].numpy())
  assert gain.std() == pytest.approx(0.2, rel=0.1) and abs(gain.mean()) < 0.03
  assert np.abs(np.corrcoef(gain.reshape(400, 3).T)[0, 1:]).max() < 0.2
  part = np.log(op({"image": tf.ones([7, 1, 1, 3])}, seed, 20, 27, 400)["image"].numpy())
  np.testing.assert_allclose(part, gain[20:27], rtol=1e-6)


def test_paired_windows_reach_every_place_alike():
  image = tf.constant(np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1).repeat(300, 0))
  out = augment.paired_crop(4)({"image": image, "mask": image}, tf.constant([0, 1]), 0, 300, 300)
  assert {int(v) for v in out["image"][:, 0, 0, 0]} == {6 * r + c for r in range(3) for c in range(3)}
  np.testing.assert_array_equal(out["image"], out["mask"])


def test_coarse_noise_has_its_deviation_and_shifts_over_the_whole_image():
  image = tf.zeros([300, 2, 3, 2])
  seed = tf.constant([1, 2])
  found = coarse_noise.coarse_noise(4, 0.2, "example")({"image": image}, seed, 0, 300, 300)
  rows, columns = found["roll"].numpy().T
  assert set(rows) == {0, 1} and set(columns) == {0, 1, 2}
  assert found["noise"].shape == (300, 4, 4, 2) and np.std(found["noise"]) == pytest.approx(0.2, rel=0.03)
  shared = coarse_noise.coarse_noise(1, 0.2)({"image": tf.zeros([6, 9, 9, 1])}, seed, 0, 6, 6)["roll"].numpy()
  assert len({tuple(r) for r in shared}) == 1
  op = coarse_noise.coarse_noise(1, 0.2)
  many = [op({"image": tf.zeros([1, 99, 99, 1])}, tf.constant([1, k]), 0, 1, 1)["roll"].numpy()[0]
          for k in range(6)]
  assert any(r != c for r, c in many) and len({tuple(r) for r in many}) > 4
  for wrong in ((0, 0.2), (4, -0.1), (4, 0.2, "image")):
    with pytest.raises(UserError, match="config.data.noise_"):
      coarse_noise.coarse_noise(*wrong)


# ------------------------------------------------------------------------------------------------ sizes
def test_places_between_pixels_and_outside():
  array = np.array([[1.0, 2, 4], [10, 20, 40]])
  found = resize.sample(array, (np.array([0, 1, 0.5, 1.5, -0.5, -1]), np.array([2.0, 1.5])))
  np.testing.assert_allclose(found, [[4, 3], [40, 30], [22, 16.5], [20, 15], [2, 1.5], [0, 0]])


def test_images_of_8_bits_stay_so_and_deeper_ones_are_not_rounded():
  rng = np.random.default_rng(0)
  levels = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)
  small = resize.unit_image((levels / 255).astype(np.float32), (10, 12))
  expected = np.asarray(Image.fromarray(levels).resize((12, 10), Image.Resampling.BILINEAR)) / 255
  np.testing.assert_allclose(small, expected, atol=1e-6)
  deep = rng.random((20, 30, 1)).astype(np.float32)
  found = resize.unit_image(deep, (10, 12))
  np.testing.assert_allclose(found, resize.antialiased_float(deep, (10, 12)), atol=1e-6)
  assert np.abs(found * 255 - np.round(found * 255)).max() > 0.3
  np.testing.assert_allclose(resize.antialiased_float(levels.astype(np.float32), (10, 12)),
                             resize.antialiased(levels, (10, 12)), atol=1)


def test_a_mark_is_never_lost_by_a_change_of_size():
  mask = np.zeros((45, 30, 1), np.float32)
  mask[22, 11] = 1
  found = resize.any_mark(mask, (9, 10))
  assert found.shape == (9, 10, 1) and found[4, 3, 0] == 1 and 1 <= found.sum() <= 6
