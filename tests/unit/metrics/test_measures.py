"""Measures against independent references: scikit-learn, scipy, or the definition pixel by pixel."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import distance
from sklearn import linear_model, metrics as sk

from medae_jax.metrics import lesions, localisation, probability, regions, roc, surface


def rng(seed=0):
  return np.random.default_rng(seed)


# ------------------------------------------------------------------------------------------ ROC
@pytest.mark.parametrize("digits", [1, 6])
def test_roc_points_like_scikit_learn(digits):
  label = rng().random(60) < 0.4
  score = np.round(rng(1).random(60) + 0.4 * label, digits)
  for found, want in zip(roc.points(score, label), sk.roc_curve(label, score)):
    np.testing.assert_allclose(found, want, atol=1e-12)
  assert np.isnan(roc.fpr_at(score, np.ones(60), 0.95)).all()


def test_delong_is_the_variance_of_the_placements():
  label = rng().random(50) < 0.5
  score = np.round(rng(1).normal(size=50) + label, 1)  # with ties
  x, y = score[label], score[~label]
  wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
  sd = np.sqrt(wins.mean(1).var(ddof=1) / len(x) + wins.mean(0).var(ddof=1) / len(y))
  low, high = roc.delong(score, label)
  assert (low + high) / 2 == pytest.approx(sk.roc_auc_score(label, score), abs=1e-12)
  assert (high - low) / 2 == pytest.approx(1.959964 * sd, rel=1e-6)
  assert roc.delong(score, np.arange(50) == 3) is None
  assert roc.delong(np.arange(8), np.arange(8) > 3) == [1, 1]


# ---------------------------------------------------------------------------------------- AUPRO
def aupro_by_definition(maps, masks, limit):
  """Every threshold in turn, region by region."""
  regions_ = []
  for m, s in zip(masks, maps):
    labels, n = ndimage.label(m, np.ones((3, 3)))
    regions_ += [s[labels == k] for k in range(1, n + 1)]
  normal = maps[~masks]
  cuts = np.r_[np.inf, np.unique(maps)[::-1]]
  false = [np.mean(normal >= c) for c in cuts]
  overlap = [np.mean([np.mean(r >= c) for r in regions_]) for c in cuts]
  grid = np.unique(np.r_[0, [f for f in false if f < limit], limit])
  # From each false-positive rate on, the highest overlap; before it the lowest.
  top = {f: max(o for g, o in zip(false, overlap) if g == f) for f in false}
  area = 0.0
  for a, b in zip(grid, grid[1:]):
    end = np.interp(b, false, overlap) if b not in top else min(o for g, o in zip(false, overlap) if g == b)
    area += (b - a) * (top[a] + end) / 2
  return area / limit


@pytest.mark.parametrize("limit", [0.3, 0.05, 1.0])
def test_aupro_by_definition_and_scan_by_scan(limit):
  masks = np.zeros((3, 12, 12), bool)
  masks[0, 1:4, 1:4] = masks[0, 8:10, 8:9] = masks[2, 5:6, 2:9] = True
  maps = np.float16(np.round(rng().random(masks.shape) + 0.5 * masks, 1)).astype(np.float64)
  counted = sum(regions.counts(s, m) for s, m in zip(maps, masks))
  assert counted[1].sum() == pytest.approx(3)
  want = aupro_by_definition(maps, masks, limit)
  assert float(regions.aupro(counted, limit)) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("flipped", [False, True])
def test_delong_ends_at_0_and_1(flipped):
  score, label = np.array([1, 2, 3, 4, 6, 5]), np.array([0, 0, 0, 1, 1, 0], bool)
  low, high = roc.delong(-score if flipped else score, label)  # 7 of 8 pairs
  assert (low == 0.0 and 0.3 < high < 0.5) if flipped else (high == 1.0 and 0.5 < low < 0.7)


def test_one_score_for_all_is_one_point_of_the_curve():
  false, true, cuts = roc.points(np.full(4, 2.5), np.array([0, 1, 0, 1]))
  assert (false.tolist(), true.tolist(), cuts.tolist()) == ([0, 1], [0, 1], [np.inf, 2.5])
  assert roc.fpr_at(np.full(4, 2.5), np.array([0, 1, 0, 1]), 0.95) == (1.0, 2.5)



def test_aupro_counts_lesions_alike_whatever_their_size():
  mask = np.zeros((20, 20), bool)
  mask[:10, :10] = mask[15, 15] = True
  left = np.arange(20) < 12
  large, small, both = (1.0 * m for m in (mask & left, mask & ~left, mask))
  value = lambda s: float(regions.aupro(regions.counts(s, mask)))
  # The missed lesion joins at the false-positive rate 1: the curve goes from 1/2 straight to 1.
  assert value(large) == pytest.approx(value(small)) == pytest.approx(0.5 + 0.5 * 0.3 / 2)
  assert value(both) == 1
  assert np.isnan(regions.aupro(regions.counts(both, np.zeros_like(mask))))


def test_lesions_of_a_volume_touch_between_slices():
  mask = np.zeros((3, 4, 4), bool)
  mask[0, 0, 0] = mask[1, 1, 1] = True
  assert regions.counts(mask * 1.0, mask)[1].sum() == pytest.approx(1)


# ------------------------------------------------------------------------------------- surfaces
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 0.5, 0.7)])
def test_surface_distances_point_by_point(spacing):
  shape = (9, 10, 11)[-len(spacing):] if len(spacing) == 3 else (14, 15)
  blob = lambda seed: ndimage.gaussian_filter(rng(seed).normal(size=shape), 1.5) > 0.05
  a, b = blob(0), blob(1)
  border = lambda m: np.argwhere(m & ~ndimage.binary_erosion(np.pad(m, 1))[(slice(1, -1),) * m.ndim])
  between = distance.cdist(border(a) * spacing, border(b) * spacing)
  apart = surface.distances(a, b, spacing)
  np.testing.assert_allclose(np.sort(apart[0]), np.sort(between.min(1)), atol=1e-9)
  np.testing.assert_allclose(np.sort(apart[1]), np.sort(between.min(0)), atol=1e-9)
  want = max(np.percentile(between.min(1), 95), np.percentile(between.min(0), 95))
  assert surface.hd95(apart) == pytest.approx(want)
  near = (between.min(1) <= 1.2).sum() + (between.min(0) <= 1.2).sum()
  assert surface.surface_dice(apart, 1.2) == pytest.approx(near / sum(between.shape))


def test_a_shifted_square_and_nothing():
  a, b = np.zeros((2, 20, 20), bool)
  a[5:10, 5:10] = b[5:10, 8:13] = True
  apart = surface.distances(a, b, (2.0, 2.0))
  assert max(d.max() for d in apart) == 6.0  # three pixels of 2 mm
  assert surface.distances(a, a, (1, 1))[0].max() == 0
  assert surface.distances(a, np.zeros_like(a), (1, 1)) is None


# -------------------------------------------------------------------------------------- lesions
def test_lesions_found_and_false_ones_by_hand():
  mask, maps = np.zeros((2, 10, 10), bool), np.zeros((2, 10, 10))
  mask[0, 1:3, 1:3] = mask[0, 6:8, 6:8] = mask[0, 1, 8] = True   # three lesions, the last one missed
  maps[0, 2:4, 2:4], maps[0, 7, 7], maps[0, 9, 0], maps[1, 4, 4] = 0.9, 0.4, 0.6, 0.5
  found = [lesions.match(s, s > 0.3, m) for s, m in zip(maps, mask)]
  assert sorted(found[0].lesions) == [-np.inf, 0.4, 0.9]
  assert [list(f.false) for f in found] == [[0.6], [0.5]]
  out = lesions.froc(found)
  assert out["lesion_sensitivity"] == pytest.approx(2 / 3) and out["n_lesions"] == 3
  assert out["false_positives_per_scan"] == 1 and out["lesion_precision"] == 0.5
  # At most 0, 0 and 1 false ones in two scans; from 1 a scan on all of them.
  assert out["froc_mean"] == pytest.approx(np.mean([1 / 3] * 3 + [2 / 3] * 4))


def test_what_touches_at_a_corner_is_one_candidate_and_one_lesion():
  corner = np.eye(2, dtype=bool)
  apart = lesions.match(np.array([[0.5, 0], [0, 0.9]]), corner, np.zeros((2, 2), bool))
  assert apart.false.tolist() == [0.9]
  assert lesions.match(np.array([[0.5, 0], [0, 0.9]]), corner, corner).lesions.tolist() == [0.9]


def test_one_candidate_may_find_two_lesions_and_ties_are_not_split():
  mask = np.zeros((1, 9), bool)
  mask[0, 1] = mask[0, 5] = True
  both = lesions.match(np.ones((1, 9)), np.ones((1, 9), bool), mask)
  assert list(both.lesions) == [1, 1] and not both.false.size
  assert lesions.sensitivity_at(np.array([0.5]), np.array([0.5, 0.5]), 1, 1) == 0  # not below the tie
  assert lesions.sensitivity_at(np.array([0.5]), np.array([0.5, 0.5]), 1, 2) == 1
  none = lesions.froc([lesions.match(np.zeros((3, 3)), np.zeros((3, 3), bool), np.zeros((3, 3), bool))])
  assert np.isnan(none["lesion_sensitivity"]) and none["false_positives_per_scan"] == 0


# -------------------------------------------------------------------------------- probabilities
def test_brier_and_calibration_error_in_batches():
  p, y = rng().random(500), rng(1).random(500) < 0.4
  p[:2] = 0, 1
  sums = probability.Reliability(10)
  for part in np.array_split(np.arange(500), 7):
    sums.add(p[part], y[part])
  place = np.minimum((p * 10).astype(int), 9)
  want = sum(abs(p[place == b].mean() - y[place == b].mean()) * (place == b).mean() for b in range(10))
  assert sums.ece() == pytest.approx(want, abs=1e-12)
  assert sums.brier() == pytest.approx(sk.brier_score_loss(y, p), abs=1e-12)
  assert np.isnan(probability.Reliability().ece())


def test_logistic_curve_like_scikit_learn_on_plattss_targets():
  y = rng().random(80) < 0.3
  x = 5 + 0.1 * (rng(1).normal(size=80) + 2 * y)
  slope, intercept = probability.fit_logistic(x, y)
  n1, n0 = y.sum(), (~y).sum()
  target = np.where(y, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))
  rows, labels, weight = np.r_[x, x][:, None], np.r_[np.ones(80), np.zeros(80)], np.r_[target, 1 - target]
  model = linear_model.LogisticRegression(C=1e10, tol=1e-10, max_iter=10000).fit(rows - 5, labels, weight)
  got = probability.logistic(x, (slope, intercept))
  np.testing.assert_allclose(got, model.predict_proba(x[:, None] - 5)[:, 1], atol=1e-4)
  assert probability.fit_logistic(x, np.ones(80)) is None
  apart = probability.fit_logistic([0, 1, 10, 11], [False, False, True, True])  # separable, yet finite
  assert 0.2 < probability.logistic([0.0], apart)[0] < 0.3  # Platt's target of two normal ones is 1/4


def test_p_values_that_are_uniform_and_not():
  even = (np.arange(100) + 0.5) / 100
  assert probability.uniformity(even)[0] == pytest.approx(0.005)
  assert probability.uniformity(even**3)[0] > 0.3 and probability.uniformity(even**3)[1] < 1e-6
  assert np.isnan(probability.uniformity([])[0])


# --------------------------------------------------------------------------------- localisation
def test_pointing_game_and_ties():
  scores, mask = np.zeros((6, 6)), np.zeros((6, 6), bool)
  mask[1:3, 1:3] = True
  scores[2, 2] = 1
  assert localisation.hits(scores, mask) and not localisation.hits(scores, ~mask)
  assert not localisation.hits(np.ones((6, 6)), mask)  # a flat map points nowhere
  assert localisation.hits(scores, np.zeros((6, 6), bool)) is None


def test_boxes_against_masks_drawn_from_them():
  first, second = [[0, 0, 4, 6], [5, 5, 9, 9]], [[2, 1, 6, 8], [20, 20, 22, 22], [5, 5, 9, 9]]
  draw = lambda box: np.pad(np.ones((box[2] - box[0], box[3] - box[1]), bool),
                            ((box[0], 30 - box[2]), (box[1], 30 - box[3])))
  want = [[(draw(a) & draw(b)).sum() / (draw(a) | draw(b)).sum() for b in second] for a in first]
  np.testing.assert_allclose(localisation.iou(np.array(first), np.array(second)), want)
  truth, found = draw([0, 0, 4, 6]) | draw([20, 20, 25, 25]), draw([1, 0, 4, 6])
  assert sorted(map(tuple, localisation.boxes(truth))) == [(0, 0, 4, 6), (20, 20, 25, 25)]
  np.testing.assert_allclose(localisation.best_ious(found, truth), [0.75, 0])
  assert list(localisation.best_ious(np.zeros_like(truth), truth)) == [0, 0]


def test_of_two_highest_pixels_one_is_not_more_than_half_and_corners_touch():
  scores, mask = np.zeros((6, 6)), np.zeros((6, 6), bool)
  mask[1, 1] = mask[2, 2] = scores[1, 1] = scores[5, 5] = 1
  assert localisation.hits(scores, mask) is False
  scores[2, 2] = 1
  assert localisation.hits(scores, mask) is True
  assert localisation.boxes(mask).tolist() == [[1, 1, 3, 3]]


@pytest.mark.parametrize("seed", range(4))
def test_froc_by_trying_every_threshold(seed):
  """At most so many false candidates a scan, found by none lower; equal values fall together."""
  rng = np.random.default_rng(seed)
  scans = [lesions.Found(np.where(rng.random(3) < 0.8, rng.integers(0, 9, 3) / 8, -np.inf),
                         rng.integers(0, 9, rng.integers(0, 6)) / 8) for _ in range(5)]
  found, false = (np.concatenate([getattr(s, k) for s in scans]) for k in ("lesions", "false"))
  cuts = [-np.inf, *np.unique(np.r_[found, false])]
  best = lambda rate: max((found > t).mean() for t in cuts if (false > t).sum() <= rate * 5)
  for rate in (0.1, 0.3, 0.5, 1, 1.5, 8):
    assert lesions.sensitivity_at(found, false, 5, rate) == pytest.approx(best(rate)), rate
  assert lesions.froc(scans)["froc_mean"] == pytest.approx(
      np.mean([best(rate) for rate in (0.125, 0.25, 0.5, 1, 2, 4, 8)]))


def test_calibration_error_of_fifteen_bins_the_last_with_its_end():
  rng = np.random.default_rng(0)
  p = np.r_[rng.random(200), np.ones(7), 0.94, 0.0]
  y = rng.random(len(p)) < p**2
  y[p >= 13 / 15] = p[p >= 13 / 15] < 14 / 15  # the last two bins err in opposite ways
  edges = np.linspace(0, 1, 16)
  want = 0.0
  for low, high in zip(edges, edges[1:]):
    inside = (p >= low) & ((p < high) | (high == 1))
    want += abs(p[inside].sum() - y[inside].sum()) / len(p)
  made = probability.Reliability()
  made.add(p, y)
  assert made.ece() == pytest.approx(want) and made.brier() == pytest.approx(((p - y) ** 2).mean())


def test_the_farther_direction_decides_whichever_mask_is_first():
  small, large = np.zeros((2, 20, 24), bool)
  small[4:7, 4:7] = large[4:7, 4:7] = large[10:18, 12:22] = True
  one, other = surface.distances(small, large, (1.0, 2.0)), surface.distances(large, small, (1.0, 2.0))
  assert surface.hd95(one) == surface.hd95(other) == np.percentile(one[1], 95) > np.percentile(one[1], 90)
  assert one[0].max() == 0


def test_a_share_that_is_met_exactly_is_met():
  """19 of 20 positives are 0.95: the point at the lowest of the 19, above it one of ten negatives."""
  positives = [*range(82, 101), 1]
  negatives = [90.5, *range(50, 59)]
  score, label = np.array([*positives, *negatives]), np.repeat([1, 0], [20, 10])
  assert roc.fpr_at(score, label, 0.95) == (0.1, 82.0)
  assert roc.fpr_at(score, label, 0.99) == (1.0, 1.0)
