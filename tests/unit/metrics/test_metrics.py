"""Metrics against scikit-learn, brute force, and the definition."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from sklearn import metrics as reference

from medae_jax.metrics import bootstrap, components, detection


def _random(seed, n=4000, ties=False, share=0.1):
  rng = np.random.default_rng(seed)
  positive = rng.random(n) < share
  scores = rng.gamma(1.0, 0.1, n).astype(np.float32) + positive * rng.random(n).astype(np.float32)
  return (np.round(scores, 1) if ties else scores), positive


def _counts(scores, positive, **kwargs):
  histograms = detection.Histograms(**kwargs)
  histograms.add(scores[None], positive[None], np.ones(1, bool))
  return histograms.counts()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_histogram_metrics_equal_scikit_learn_on_float16(seed, ties):
  scores, positive = _random(seed, ties=ties)
  rounded = scores.astype(np.float16)
  counts = _counts(scores, positive)
  assert detection.average_precision(counts) == pytest.approx(
      reference.average_precision_score(positive, rounded), abs=1e-12)
  assert detection.auroc(counts) == pytest.approx(
      reference.roc_auc_score(positive, rounded), abs=1e-12)
  thresholds = np.linspace(0, 1, 37)
  want = [reference.f1_score(positive, rounded > np.float16(t)) for t in thresholds]
  np.testing.assert_allclose(detection.dice_at(counts, thresholds), want, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_of_float_scores_equal_scikit_learn(ties):
  scores, positive = _random(2, ties=ties)
  scores = scores - 0.5  # any sign
  counts = detection.sorted_counts(scores, positive)
  assert detection.average_precision(counts) == pytest.approx(
      reference.average_precision_score(positive, scores), abs=1e-12)
  assert detection.auroc(counts) == pytest.approx(
      reference.roc_auc_score(positive, scores), abs=1e-12)
  thresholds = np.unique(scores)[::97]
  want = [reference.f1_score(positive, scores > t) for t in thresholds]
  np.testing.assert_allclose(detection.dice_curve(counts)[::97], want, atol=1e-12)


def test_weights_count_like_repetitions():
  scores, positive = _random(3, n=200, ties=True)
  weights = np.random.default_rng(0).integers(0, 4, 200)
  weighted = detection.sorted_counts(scores, positive, weights)
  repeated = detection.sorted_counts(np.repeat(scores, weights), np.repeat(positive, weights))
  assert detection.average_precision(weighted) == pytest.approx(detection.average_precision(repeated))
  assert detection.auroc(weighted) == pytest.approx(detection.auroc(repeated))


def test_device_codes_are_those_of_numpy():
  every = np.arange(detection.CODES, dtype=np.uint16).view(np.float16).astype(np.float32)
  between = ((every[:-2] + every[1:-1]) / 2).astype(np.float32)  # ties of the rounding itself
  extra = np.float32([0.0, -0.0, 1e-9, 3e-8, 65519.0, 65520.0, 1e30, np.inf])
  scores = np.concatenate([every, between, np.nextafter(between, 0), extra])
  counts = _counts(scores, np.zeros(scores.shape, bool))
  with np.errstate(over="ignore"):
    want = np.bincount(detection.code_of(np.abs(scores)), minlength=detection.CODES)
  np.testing.assert_array_equal(counts[0], want)
  assert counts[1].sum() == 0


@pytest.mark.parametrize("bad", [np.nan, -0.1])
def test_broken_scores_are_refused(bad):
  scores = np.float32([[0.1, bad, 0.3]])
  histograms = detection.Histograms()
  histograms.add(scores, scores > 0.2, np.ones(1, bool))
  with pytest.raises(ValueError, match="1 pixel scores are NaN or negative"):
    histograms.counts()
  with pytest.raises(ValueError, match="NaN"):
    detection.sorted_counts(np.float32([np.nan, 1]), [0, 1])


def test_batches_groups_padding_and_flush(monkeypatch):
  rng = np.random.default_rng(4)
  scores, positive = rng.random((10, 6, 5, 1), np.float32), rng.random((10, 6, 5, 1)) < 0.3
  group = np.int32([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
  monkeypatch.setattr(detection, "_FLUSH", 50)
  histograms = detection.Histograms(groups=3)
  for begin in (0, 4, 8):
    rows = np.minimum(np.arange(begin, begin + 4), 9)
    valid = np.arange(begin, begin + 4) < 10
    histograms.add(scores[rows], positive[rows], valid, group[rows])
  assert histograms.shift == 0
  grouped = histograms.grouped()[..., :detection.CODES]
  for g in range(3):
    want = _counts(scores[group == g].ravel(), positive[group == g].ravel())
    np.testing.assert_array_equal(grouped[g], want)
  np.testing.assert_array_equal(grouped.sum(0), histograms.counts())
  assert histograms.counts().sum() == scores.size


def test_counts_that_were_given_stay_when_more_come():
  histograms = detection.Histograms()
  score, positive = np.float32([[0.25]]), np.array([[True]])
  histograms.add(score, positive, np.ones(1, bool))
  first = histograms.counts()
  histograms.add(score, positive, np.ones(1, bool))
  assert histograms.counts()[1, detection.code_of(0.25)] == 2
  assert first[1, detection.code_of(0.25)] == 1 == first.sum()


def test_dice_of_each_patient_is_that_of_his_counts():
  counts = np.random.default_rng(0).integers(0, 9, (3, 2, 3))  # as many patients as bins: nothing may mix
  for patient, curve in zip(counts, detection.dice_curve(counts)):
    hits = [patient[1, k + 1:].sum() for k in range(3)]
    calls = [patient[:, k + 1:].sum() for k in range(3)]
    np.testing.assert_allclose(curve, [2 * h / (c + patient[1].sum()) for h, c in zip(hits, calls)])


def test_group_counts_are_bounded_in_memory():
  histograms = detection.Histograms(groups=500, max_bytes=2**22)
  assert histograms.shift > 0
  assert histograms.grouped().nbytes <= 2**22
  scores, positive = _random(5)
  histograms.add(scores[None], positive[None], np.ones(1, bool), np.int32([7]))
  exact = detection.average_precision(histograms.counts())
  coarse = detection.average_precision(histograms.grouped()[7])
  assert coarse == pytest.approx(exact, abs=0.02) and coarse != exact


def test_no_positives_is_nan_not_a_number_that_looks_fine():
  scores = np.float32([0.1, 0.2, 0.3])
  counts = _counts(scores, np.zeros(3, bool))
  assert np.isnan(detection.average_precision(counts)) and np.isnan(detection.auroc(counts))
  assert np.isnan(detection.best_dice(counts)).all()
  all_positive = _counts(scores, np.ones(3, bool))
  assert detection.average_precision(all_positive) == 1 and np.isnan(detection.auroc(all_positive))


def test_best_dice_takes_the_smallest_threshold():
  scores, positive = np.float32([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1], bool)
  assert detection.best_dice(_counts(scores, positive)) == (1.0, 0.2)
  # a scale on which the reference's grid k/1000 is useless
  best, threshold = detection.best_dice(_counts(scores / 4000, positive), "all")
  assert best == 1.0 and threshold == pytest.approx(0.2 / 4000, rel=1e-2)


def test_quantile():
  scores = np.linspace(0, 1, 1001, dtype=np.float32)
  assert detection.quantile(_counts(scores, scores > 2), 0.99) == pytest.approx(0.99, abs=1e-3)
  assert np.isnan(detection.quantile(np.zeros((2, detection.CODES)), 0.5))


def test_component_filter_counts_shut_in_cavities():
  volume = np.zeros((9, 9, 9), bool)
  volume[1:6, 1:6, 1:6] = True
  volume[2:5, 2:5, 2:5] = False  # a shell of 98 voxels around 27
  volume[8, 8, 6:9] = True
  count = lambda n: components.remove_small_components(volume, n).sum()
  assert [count(n) for n in (0, 2, 3, 98, 124, 125)] == [101, 101, 98, 98, 98, 0]
  volume[1, 1, 1] = False  # a corner gone: a 26-connected background gets in
  assert components.remove_small_components(volume, 97).sum() == 0


def test_component_filter_equals_brute_force():
  rng = np.random.default_rng(6)
  volume = rng.random((6, 20, 20)) < 0.12
  labels, n = scipy.ndimage.label(volume, np.ones((3, 3, 3)))
  want = np.zeros_like(volume)
  for i in range(1, n + 1):
    if (labels == i).sum() > 4:
      want |= labels == i
  np.testing.assert_array_equal(components.remove_small_components(volume, 4), want)
  assert want.any() and (want != volume).any()


def test_bootstrap_resamples_whole_patients():
  rng = np.random.default_rng(7)
  scores, positive = rng.random((5, 400), np.float32), rng.random((5, 400)) < 0.2
  histograms = detection.Histograms(groups=5)
  histograms.add(scores, positive, np.ones(5, bool), np.arange(5, dtype=np.int32))
  weights = bootstrap.resample_weights(5, 40, seed=1)
  assert (weights.sum(1) == 5).all()
  found = bootstrap.resample_counts(histograms.grouped(), weights,
                                  {"ap": detection.average_precision}, chunk=7)["ap"]
  for value, weight in zip(found[:5], weights[:5], strict=True):
    rows = np.repeat(np.arange(5), weight)
    want = reference.average_precision_score(positive[rows].ravel(),
                                             scores[rows].ravel().astype(np.float16))
    assert value == pytest.approx(want, abs=1e-12)
  low, high = bootstrap.interval(found)
  assert low < detection.average_precision(histograms.counts()) < high
  assert bootstrap.interval([np.nan] * 10) is None


def test_a_share_of_all_or_none_has_an_interval():
  assert bootstrap.of_share(np.ones(200), 24) == [pytest.approx(scipy.stats.beta.ppf(0.025, 24, 1)), 1.0]
  assert bootstrap.of_share(np.zeros(200), 3) == [0.0, pytest.approx(scipy.stats.beta.ppf(0.975, 1, 3))]
  values = np.linspace(0.5, 1, 200)
  assert bootstrap.of_share(values, 24) == bootstrap.interval(values)
  assert bootstrap.of_share(np.full(200, np.nan), 24) is None


def test_an_interval_needs_half_of_the_resamples():
  of = lambda undefined, values: bootstrap.interval([np.nan] * undefined + values)
  assert of(3, [1.0, 1.0, 1.0]) == [1.0, 1.0] and of(4, [1.0, 1.0, 1.0]) is None
  assert of(0, [1.0]) is None and of(0, []) is None
  np.testing.assert_allclose(of(1, list(range(101))), [2.5, 97.5])
