"""Bytes of a JPEG and entropy by their definitions: range, channels, values beyond both ends."""

import io

import numpy as np
from PIL import Image
import pytest
from scipy import ndimage

from medae_jax.scores import trivial

LEVELS = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), np.uint8)


def size(levels):
  """Bytes of what Pillow writes by default: quality 75."""
  file = io.BytesIO()
  Image.fromarray(levels).save(file, "JPEG")
  return len(file.getvalue())


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_jpeg_has_black_and_white_at_the_ends_of_the_span(channels):
  """Colours together, other channels each by themselves."""
  levels = LEVELS[..., :channels]
  want = [size(x) if channels == 3 else sum(size(x[..., c]) for c in range(channels)) for x in levels]
  found = trivial.scores(levels / 255 * 4 - 1, (-1.0, 3.0))
  np.testing.assert_array_equal(found["jpeg"], want)


def test_what_is_beyond_the_span_counts_as_its_end():
  image = np.tile([-5.0, 0, 0, 1, 1, 9, 9, 9], 2).reshape(1, 4, 4, 1)
  found = trivial.scores(image, (0.0, 1.0))
  share = np.array([3, 5]) / 8
  np.testing.assert_allclose(found["entropy"], -(share * np.log2(share)).sum())
  np.testing.assert_array_equal(found["jpeg"], trivial.scores(image.clip(0, 1), (0.0, 1.0))["jpeg"])


def test_mean_spread_and_laplacian_are_those_of_their_definitions():
  """The second derivative is taken where all four neighbours are, each channel by itself."""
  images = LEVELS[..., :2] / 255
  found = trivial.scores(images, (0.0, 1.0))
  second = ndimage.laplace(images, axes=(1, 2))[:, 1:-1, 1:-1]
  for name, wanted in (("mean", images.mean((1, 2, 3))), ("std", images.std((1, 2, 3))),
                       ("laplacian", np.abs(second).mean((1, 2, 3)))):
    np.testing.assert_allclose(found[name], wanted, err_msg=name)
