"""The fill against the check values that the golden folder's README prints."""

import numpy as np
import pytest

from tests import golden_fill


@pytest.mark.parametrize("seed, expected", [
    (0, [-0.838693831, 0.904120644, -0.641797431]),
    (11, [-0.339267002, 0.037506994, -0.131603181]),
])
def test_probe_values(seed, expected):
  np.testing.assert_allclose(golden_fill.uniform("probe", 3, seed), expected, rtol=0, atol=6e-10)


def test_kinds_scale_the_same_draw():
  r = golden_fill.uniform("w", 2 * 3 * 3 * 3, 0).reshape(2, 3, 3, 3)
  conv = golden_fill.fill("w", (2, 3, 3, 3), "conv", 0, conv_gain=1.8)
  np.testing.assert_allclose(conv, r * (6 / 27) ** 0.5 * 1.8, rtol=1e-6)
  conv_t = golden_fill.fill("w", (2, 3, 3, 3), "convT", 0, conv_gain=1.8)  # gain: conv only
  np.testing.assert_allclose(conv_t, r * (6 / 2) ** 0.5, rtol=1e-6)
  assert conv.dtype == np.float32


def test_unknown_kind_is_named():
  with pytest.raises(ValueError, match="'w'.*'norm'"):
    golden_fill.fill("w", (2,), "norm", 0)
