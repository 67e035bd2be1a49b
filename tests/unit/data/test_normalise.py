"""Preparation of brain volumes by brute force: intensities, slice range, resize, labels, healthy slices."""

import numpy as np
import pytest

from data_pipelines.brains import fields, normalise, slices
from data_pipelines.errors import UserError
from data_pipelines.ops import resize
from data_pipelines.tf import tf


def volumes(seed=0, shape=(10, 12, 9)):
  """Two modalities, brain in slices 2 ... 6, with slice 4 empty."""
  rng = np.random.default_rng(seed)
  found = rng.uniform(50, 200, (2, *shape)).round()
  found[:, :2] = 0
  found[:, :, :, [0, 1, 4, 7, 8]] = 0
  return list(found)


def test_unit_is_the_99th_percentile_of_the_positive_voxels():
  raw = volumes()
  found = normalise.prepare(raw, None, (10, 12))
  for c in range(2):
    scale = np.quantile(raw[c][raw[c] > 0], 0.99)
    assert found.scale[c] == pytest.approx(scale)
    np.testing.assert_allclose(found.image[..., c], np.moveaxis(raw[c][:, :, 2:7], 2, 0) / scale)
  np.testing.assert_allclose(found.slice_sum, np.mean(
      [v / s for v, s in zip(raw, found.scale)], 0).sum((0, 1)))


def test_units_of_the_median_change_intensities_alone():
  raw = volumes()
  raw[1][5:8, 5:8, 2:7] *= 9  # a bright lesion
  found, published, balanced = (normalise.prepare(raw, None, (10, 12), unit=u)
                                for u in ("median", "percentile", "balanced"))
  np.testing.assert_allclose(balanced.scale**2, found.scale * published.scale)
  np.testing.assert_allclose(balanced.image * balanced.scale, found.image * found.scale)
  for c in range(2):
    assert found.scale[c] == 2 * np.median(raw[c][raw[c] > 0])
    np.testing.assert_allclose(found.image[..., c], np.moveaxis(raw[c][:, :, 2:7], 2, 0) / found.scale[c])
  np.testing.assert_array_equal(found.slice_sum, published.slice_sum)  # which slices are kept


def test_slices_from_the_first_to_the_last_with_signal_are_kept():
  assert normalise.prepare(volumes(), None, (10, 12)).slices.tolist() == [2, 3, 4, 5, 6]
  assert normalise.slice_range(np.array([0.4, 0.6, 0.0, 0.51, 0.5])) == (1, 3)  # above one half
  with pytest.raises(normalise.BadScan, match="enough signal"):
    normalise.slice_range(np.array([0.5, 0.2]))


def by_hand(image, size):
  """Bilinear with half-pixel centres, clamped at the borders, one pixel at a time."""
  out = np.zeros(size)
  for i in range(size[0]):
    for j in range(size[1]):
      at = [max((k + 0.5) * n / m - 0.5, 0) for k, n, m in zip((i, j), image.shape, size)]
      low = [int(a) for a in at]
      high = [min(a + 1, n - 1) for a, n in zip(low, image.shape)]
      f = [a - b for a, b in zip(at, low)]
      out[i, j] = ((image[low[0], low[1]] * (1 - f[1]) + image[low[0], high[1]] * f[1]) * (1 - f[0])
                   + (image[high[0], low[1]] * (1 - f[1]) + image[high[0], high[1]] * f[1]) * f[0])
  return out


@pytest.mark.parametrize("size", [(5, 6), (16, 16), (10, 24), (7, 12)])
def test_resize_is_bilinear_with_half_pixel_centres(size):
  image = np.random.default_rng(1).random((10, 12))
  np.testing.assert_allclose(resize.bilinear(image, size), by_hand(image, size), atol=1e-12)
  stack = np.stack([image, 2 * image], -1)
  np.testing.assert_allclose(resize.bilinear(stack, size)[..., 1], 2 * by_hand(image, size), atol=1e-12)


def test_labels_are_cut_at_one_half_before_and_after_the_resize():
  seg = np.zeros((10, 12, 9))
  seg[4:8, 4:8, 3] = 4            # a class number counts as lesion
  seg[4:8, 4:8, 5] = 0.5          # one half does not
  seg[2, 2, 6] = 1                # a single pixel disappears in the resize
  found = normalise.prepare(volumes(), seg, (5, 6))
  assert found.mask.dtype == np.uint8
  np.testing.assert_array_equal(found.mask.sum((1, 2, 3)), [0, 4, 0, 0, 0])
  np.testing.assert_array_equal(found.healthy, [True, False, True, True, True])
  np.testing.assert_allclose(found.soft[4, 1, 1, 0], 0.25)


def test_broken_scans_are_refused():
  raw = volumes()
  for change, words in ((lambda v: v.__setitem__((3, 3, 3), np.nan), "NaN"),
                        (lambda v: v.fill(0), "no positive voxel")):
    broken = [v.copy() for v in raw]
    change(broken[1])
    with pytest.raises(normalise.BadScan, match=words):
      normalise.prepare(broken, None, (5, 6))
  with pytest.raises(normalise.BadScan, match="differ in shape"):
    normalise.prepare([raw[0], raw[1][:-1]], None, (5, 6))
  for shape in ((4, 5), (4, 5, 6, 1)):
    with pytest.raises(normalise.BadScan, match="three axes"):
      normalise.prepare([np.ones(shape)] * 2, None, (5, 6))


def scan(patient, lesion_px):
  """A scan of as many slices; the image holds the slice number, the mask the lesion pixels."""
  n = len(lesion_px)
  image = np.broadcast_to(np.arange(n, dtype=np.float16)[:, None, None, None], (n, 4, 4, 1))
  mask = np.zeros((n, 4, 4, 1), np.uint8)
  for i, k in enumerate(lesion_px):
    mask[i].reshape(-1)[:k] = 1
  return slices.Scan(patient, image, mask, np.arange(10, 10 + n), np.array(lesion_px))


def test_only_healthy_slices_train_and_all_are_scored():
  data = slices.SliceDataSet("x", False, {"train": [scan("a", [0, 1, 0])], "val": [scan("b", [2, 0])],
                                          "test": [scan("c", [0, 3])]}, {})
  assert len(data.train()) == 2 and len(data.validation()) == 1
  np.testing.assert_array_equal(data.train().read([0, 1])["image"][:, 0, 0, 0], [0, 2])
  assert "mask" not in data.train().read([0])   # training never sees a label
  test = data.split("test")
  found = test.read(np.arange(2))
  assert found["label"].tolist() == [0, 1] and found["mask"].sum() == 3
  assert found["image"].dtype == np.float32 and test.meta(1)["slice"] == 11
  assert test.meta(1)["patient"] == "c"


@pytest.mark.parametrize("axes, axis", [("LPS", 0), ("RAS", 0), ("PLS", 1)])
def test_mirrors_and_gains_are_of_training_alone_and_before_the_noise(axes, axis):
  """Left becomes right, whichever axis that is; front and back stay."""
  cfg = fields.resolve({"flip": True, "orientation": axes, "gain": 0.2, "noise_res": 2, "noise_std": 0.1})
  noise = fields.batch_ops(cfg)
  data = slices.SliceDataSet("x", False, {"train": [scan("a", [0])], "val": [scan("b", [0])]}, {}, noise,
                             augment=fields.augment_ops(cfg))
  assert len(data.train().batch_ops) == 3 and data.train().batch_ops[2] is noise[0]
  assert data.validation().batch_ops == noise and data.split("val").batch_ops == ()
  batch = {"image": tf.reshape(tf.range(1, 161, dtype=tf.float32), [10, 4, 2, 2])}
  for op in data.train().batch_ops[:2]:
    batch = op(batch, tf.constant([3, 4]), 0, 10, 10)
  image = np.arange(1, 161).reshape(10, 4, 2, 2)
  mirrored = []
  for found, want in zip(batch["image"].numpy(), image):
    ratios = [found / w for w in (want, np.flip(want, axis))]
    one = [np.ptp(r.reshape(-1, 2), 0).max() < 1e-5 for r in ratios]  # one factor a modality
    assert sum(one) == 1
    mirrored.append(one[1])
    gain = ratios[int(one[1])][0, 0]
    assert gain[0] != gain[1] and (np.abs(np.log(gain)) < 1).all()
  assert 0 < sum(mirrored) < 10


@pytest.mark.parametrize("changes, said", [
    ({"gain": -0.1}, "gain=-0.1"), ({"gain": 1.5}, "gain=1.5"), ({"gain": 0.1, "resident": True}, "resident"),
    ({"flip": True, "resident": True}, "resident"), ({"flip": True, "orientation": ""}, "left to right"),
    ({"flip": True, "orientation": "SPL"}, 'orientation "SPL"')])
def test_what_cannot_be_augmented_is_refused(changes, said):
  with pytest.raises(UserError, match=said):
    fields.resolve(changes)


def test_order_of_training_scans_follows_the_seed_and_that_of_others_does_not():
  scans = lambda: [scan(p, [0]) for p in "abcdefgh"]
  order = lambda seed, split: [s.patient for s in slices.SliceDataSet(
      "x", False, {"train": scans(), "val": scans()}, {}, seed=seed).scans[split]]
  assert order(0, "train") != order(1, "train") and order(0, "val") == order(1, "val")
  limited = slices.SliceDataSet("x", False, {"train": scans(), "val": scans()}, {}, limit_train=3)
  assert len(limited.scans["train"]) == 3 and len(limited.scans["val"]) == 8
