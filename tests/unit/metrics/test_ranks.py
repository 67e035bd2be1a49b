"""Friedman's test and Nemenyi's difference against Demsar's own example and tables."""

import numpy as np
import pytest
import scipy.stats

from medae_jax.metrics import ranks

# Demsar 2006, table 6: AUC of four methods on 14 data sets (C4.5, +m, +cf, +m+cf).
AUC = np.array([
    [.763, .768, .771, .798], [.599, .591, .590, .569], [.954, .971, .968, .967], [.628, .661, .654, .657],
    [.882, .888, .886, .898], [.936, .931, .916, .931], [.661, .668, .609, .685], [.583, .583, .563, .625],
    [.775, .838, .866, .875], [1., 1., 1., 1.], [.940, .962, .965, .962], [.619, .666, .614, .669],
    [.972, .981, .9751, .975], [.957, .978, .946, .970]])


def test_the_papers_example():
  found = ranks.compare(AUC)
  np.testing.assert_allclose(found.average, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
  assert found.chi2 == pytest.approx(9.28, abs=0.05) and found.f == pytest.approx(3.69, abs=0.03)
  assert found.difference == pytest.approx(1.25, abs=0.005) and found.blocks == 14
  assert found.p == pytest.approx(scipy.stats.f.sf(found.f, 3, 39))


@pytest.mark.parametrize("methods, q", [(2, 1.960), (3, 2.343), (4, 2.569), (10, 3.164)])
def test_critical_values(methods, q):
  """Table 5(a)."""
  found = ranks.critical_difference(methods, 30, 0.05)
  assert found == pytest.approx(q * np.sqrt(methods * (methods + 1) / 180), abs=2e-3)


def test_ties_and_the_same_order_everywhere():
  same = ranks.compare(np.array([[.9, .8, .7], [.6, .5, .4]]))
  assert list(same.average) == [1, 2, 3] and same.f is None and same.p == pytest.approx(1 / 6)
  tied = ranks.compare(np.array([[.5, .5], [.5, .5], [.7, .7]]))
  assert list(tied.average) == [1.5, 1.5] and tied.chi2 == 0 and tied.p == 1
  close = ranks.compare(np.array([[.5, .5 + 1e-9], [.5, .5 + 1e-9]]))  # no tie, in float32 it were one
  assert list(close.average) == [2, 1]
  for bad in (np.ones((1, 3)), np.ones((3, 1)), np.array([[1., np.nan], [1., 2.]])):
    with pytest.raises(ValueError, match="without gaps"):
      ranks.compare(bad)


def test_cliques_are_the_longest_ones():
  assert ranks.cliques([1.0, 1.4, 2.0, 3.5], 1.0) == [(0, 2)]
  assert ranks.cliques([3.0, 1.0, 2.0], 1.0) == [(0, 1), (1, 2)]
  assert ranks.cliques([1.0, 2.5, 4.0], 1.0) == []
