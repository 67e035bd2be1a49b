"""Synchronised BatchNorm and the globally normalised loss: N devices equal one, in double precision."""

import pytest

from tests import device_equality

_BATCH = """
rng = np.random.default_rng(0)
clean = rng.random((8, 32, 32, 3))
image, mask = clean.copy(), np.zeros((8, 32, 32, 1))
for i in range(8):  # very unequal shares of marks: a mean of local means would differ
  image[i, 2:5 + 3 * i, 3:9] = 1
  mask[i, 2:5 + 3 * i, 3:9] = 1
batch = {"image": image, "clean": clean, "mask": mask, "index": np.arange(8, dtype=np.int32)}
"""


@pytest.mark.slow
def test_four_devices_equal_one_to_rounding():
  device_equality.check("annotation_removal", _BATCH, 1e-11)
