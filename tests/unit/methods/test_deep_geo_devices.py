"""Deep GEO on four devices as on one: training with synchronised statistics, and the Dirichlet fit."""

import pytest

from tests import device_equality

_BATCH = """
image = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 1))
batch = {"image": image, "view": np.arange(8, dtype=np.int32), "index": np.arange(8, dtype=np.int32)}
"""
_FIT = """
# finalize takes all devices (6 images: 2 of them padding); one device with the whole in one call
new = jax.tree.map(np.asarray, new)
valid = np.arange(8) < 6
fitted = method.finalize(new, [{"image": image, "valid": valid}])
from medae_jax.scores import dirichlet
moments = dirichlet.Moments()
moments.add(jax.jit(method.log_probabilities)(new, image[:6]))
np.testing.assert_allclose(fitted.extra["alpha"], dirichlet.fit(*moments.means()).alpha, rtol=1e-5)
"""


@pytest.mark.slow
def test_four_devices_equal_one_to_rounding():
  device_equality.check("deep_geo_nih", _BATCH, 1e-10, _FIT)
