"""What must not learn: where a gradient is stopped it is zero, and what the loss is for has one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.losses import adversarial, perceptual
from medae_jax.losses.trunk import Trunk
from medae_jax.models import efficientnet_lite, inception_resnet_v2, vgg

RNG = np.random.default_rng(0)


def largest(tree):
  return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))


def uniform(*shape):
  return jnp.asarray(RNG.uniform(-1, 1, shape), jnp.float32)


@pytest.mark.parametrize("name, more, options", [
    ("wasserstein", (jnp.full(3, 0.25),), {"norm_penalty": 0.5}),
    ("logistic", (), {"reg_alpha": 0.5, "reg_type": "real_fake"}), ("least_squares", (), {})])
def test_a_critic_s_loss_teaches_the_critic_alone(name, more, options):
  def loss(weight, real, fake):
    critic = lambda x: (weight * x**2).sum(-1)
    return getattr(adversarial, f"{name}_critic")(critic, real, fake, *more, **options)[0]
  weight, *images = jax.jit(jax.grad(loss, (0, 1, 2)))(jnp.float32(0.7), uniform(3, 5), uniform(3, 5))
  assert largest(weight) > 0 and largest(images) == 0


def test_a_perceptual_loss_teaches_the_reconstruction_alone():
  """Neither the image, nor features of it that were computed before, nor statistics, nor the trunk."""
  weights = {"r11": 1.0, "image": 0.5}
  (term,) = perceptual.parse("relative_perceptual_L1", layers="r11+0.5*image")
  params = vgg.random_params(0, (4, 4, 6, 6, 6), ["r11"])
  stats = {"r11": {"mean": jnp.full(4, 0.1), "std": jnp.full(4, 2.0)}}
  image, recon = uniform(2, 2, 8, 6, 1)

  def real(image, params):
    return perceptual.real_features(Trunk(vgg.features, params, stats), image, tuple(weights))

  def loss(recon, image, real, params, stats):
    return perceptual.perceptual(term, Trunk(vgg.features, params, stats), image, recon, weights, real).sum()
  known = real(image, params)
  first, *others = jax.jit(jax.grad(loss, range(5)))(recon, image, known, params, stats)
  assert largest(first) > 0 and largest(others) == 0
  total = lambda *given: sum(x.sum() for x in jax.tree.leaves(real(*given)))
  assert largest(jax.jit(jax.grad(total, (0, 1)))(image, params)) == 0


@pytest.mark.parametrize("features, unit, tap", [
    (lambda p, x, tap: vgg.features(p, x, [tap]), "conv1_1", "r11"),
    (lambda p, x, tap: inception_resnet_v2.features(p, x, [tap], jnp.float32), "conv2d_1a", "conv2d_1a"),
    (lambda p, x, tap: efficientnet_lite.features(0, p, x, [tap], jnp.float32), "_conv_stem", "stem")])
def test_a_pretrained_trunk_learns_nothing_and_lets_gradients_through(features, unit, tap):
  params = {unit: {"kernel": uniform(3, 3, 3, 32), "bias": uniform(32)}}
  total = lambda params, image: features(params, image, tap)[tap].sum()
  trunk, image = jax.grad(total, (0, 1))(params, uniform(1, 9, 9, 3))
  assert largest(trunk) == 0 and largest(image) > 0
