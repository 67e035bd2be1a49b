"""Dirichlet fits: the likelihood's gradient is zero, true parameters come back, nothing becomes NaN."""

import numpy as np
import pytest
from scipy import special, stats

from medae_jax.scores import dirichlet


def means(alpha, n, seed=0):
  p = np.random.default_rng(seed).dirichlet(alpha, n)[:, None]
  moments = dirichlet.Moments()
  moments.add(np.log(p))
  return moments.means()


@pytest.mark.parametrize("alpha", [np.full(5, 2000.0), np.array([0.05, 0.2, 3.0]), np.linspace(0.5, 40, 72)])
def test_newton_finds_the_maximum(alpha):
  """Also where the sum is 1e4, at which the fixed point creeps; the gradient vanishes."""
  p, log_p = means(alpha, 4000)
  fit = dirichlet.fit(p, log_p)
  assert fit.converged.all() and fit.steps.max() < 40
  gradient = special.digamma(fit.alpha.sum()) - special.digamma(fit.alpha[0]) + log_p[0]
  np.testing.assert_allclose(gradient, 0, atol=1e-9)
  np.testing.assert_allclose(fit.alpha[0], alpha, rtol=0.15)


def test_a_step_that_would_leave_the_positive_numbers_is_halved():
  """The first step from the start overshoots here; the maximum is found all the same."""
  p, log_p = means(np.exp(np.random.default_rng(0).uniform(-3, 3, 4)), 2)
  begin = dirichlet.start(p, log_p)
  assert (begin - dirichlet._newton_step(begin, log_p) <= 0).any()
  fit = dirichlet.fit(p, log_p)
  gradient = special.digamma(fit.alpha.sum()) - special.digamma(fit.alpha[0]) + log_p[0]
  assert fit.converged.all()
  np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_distributions_are_fitted_apart():
  """Several at once: each gets what it gets alone, however long the others take."""
  parts = [means(np.full(4, a), 500) for a in (0.3, 5.0, 3000.0)] + [means([0.05, 0.2, 3.0, 1.0], 5)]
  together = [np.concatenate([part[i] for part in parts]) for i in (0, 1)]
  for solve in (dirichlet.fit, dirichlet.fixed_point):
    fit = solve(*together)
    for t, part in enumerate(parts):
      alone = solve(*part)
      np.testing.assert_allclose(fit.alpha[t], alone.alpha[0], rtol=1e-6)
      assert fit.steps[t] == alone.steps[0]


def test_a_fixed_point_that_has_not_converged_says_so():
  fit = dirichlet.fixed_point(*means(np.full(5, 2e4), 300), steps=20)
  assert not fit.converged.any() and (fit.steps == 20).all()


@pytest.mark.parametrize("log_p", [
    np.full((3, 1, 4), np.log(0.25)), np.log([[[1.0, 1e-300, 1e-300]]] * 2), np.full((1, 1, 2), -0.5),
    np.array([[[0.0, -104.0, -200.0]], [[-90.0, 0.0, -800.0]]])])
def test_degenerate_images_stay_finite(log_p):
  """All vectors alike, one vector, probabilities that float32 calls 0: no maximum, but no NaN either."""
  moments = dirichlet.Moments()
  moments.add(log_p)
  for solve in (dirichlet.fit, dirichlet.fixed_point):
    fit = solve(*moments.means())
    assert np.isfinite(fit.alpha).all() and (fit.alpha > 0).all(), solve.__name__


def test_means_are_over_all_batches():
  p = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], (7, 2))
  moments = dirichlet.Moments()
  for part in (p[:4], p[4:5], p[5:]):
    moments.add(np.log(part))
  assert moments.n == 7
  for found, want in zip(moments.means(), (p.mean(0), np.log(p).mean(0))):
    np.testing.assert_allclose(found, want, rtol=1e-12)


def test_the_density_is_scipys_without_its_constant():
  alpha, p = np.array([[0.5, 2.0, 3.0]]), np.random.default_rng(0).dirichlet([1.0, 1.0, 1.0], 5)
  found = np.asarray(dirichlet.log_density(alpha, np.log(p)[:, None], 0.0))
  want = np.array([stats.dirichlet.logpdf(x, alpha[0]) for x in p])
  assert found.shape == (5, 1)
  np.testing.assert_allclose(found[:, 0] - found[0, 0], want - want[0], rtol=1e-4)
  limited = dirichlet.log_density(alpha, np.array([[[0.0, -1e3, -1e3]]]), 1e-6)  # of a saturated network
  np.testing.assert_allclose(limited, 3 * np.log(1e-6), rtol=1e-5)


def test_both_searches_begin_at_the_approximate_maximum():
  """f s, s = (K - 1) gamma / sum f (log f - l): by a loop over classes."""
  p = np.random.default_rng(4).dirichlet((2.0, 3.0, 5.0), 50)
  f, logs = p.mean(0), np.log(p).mean(0)
  scale = 2 * np.euler_gamma / sum(f[k] * (np.log(f[k]) - logs[k]) for k in range(3))
  np.testing.assert_allclose(dirichlet.start(f[None], logs[None]), f[None] * scale, rtol=1e-12)
