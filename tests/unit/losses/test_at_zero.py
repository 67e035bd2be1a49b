"""Where nothing differs nothing is pulled: |0| has the derivative 0, as in PyTorch (jnp.abs has 1)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.losses import deformation, perceptual, pixel


def test_absolute_by_hand():
  x = jnp.array([-2.0, -0.0, 0.0, 3.0])
  np.testing.assert_array_equal(pixel.absolute(x), [2, 0, 0, 3])
  np.testing.assert_array_equal(jax.vmap(jax.grad(pixel.absolute))(x), [-1, 0, 0, 1])
  np.testing.assert_array_equal(pixel.absolute(jnp.array([-jnp.inf, jnp.nan])), [np.inf, np.nan])
  assert pixel.absolute(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("loss", ["l1", "perceptual"])
def test_equal_images_are_left_alone(loss):
  """One pixel of four is brighter by 2 in the reconstruction: only this one is pulled down."""
  image = jnp.array([0.5, 0.0, 1.0, 0.25]).reshape(1, 2, 2, 1)
  recon = image.at[0, 1, 0, 0].add(2)
  terms = perceptual.parse(loss, layers="image", absolute=True)
  trunk = _Images() if loss == "perceptual" else None
  found = jax.grad(lambda y: perceptual.per_image(terms, trunk, image, y).sum())(recon)
  np.testing.assert_allclose(found.ravel(), [0, 0, 0.25, 0], rtol=1e-6)


class _Images:
  """A trunk of which only the image itself is read."""
  stats: dict = {}

  def input(self, image):
    return image

  def __call__(self, image, layers):
    assert not layers
    return {}


def test_a_field_at_rest_stays():
  field = jnp.zeros((1, 5, 5, 2))
  assert not np.any(jax.grad(lambda f: deformation.gradient_l1(f).sum())(field))
  moved = jax.grad(lambda f: deformation.gradient_l1(f).sum())(field.at[0, 2, 2, 0].set(1.0))
  # In two differences along rows and two along columns, of halves each; mean over 3x3x2, and half of it.
  assert float(moved[0, 2, 2, 0]) == pytest.approx(4 * 0.5 / 18 / 2)
