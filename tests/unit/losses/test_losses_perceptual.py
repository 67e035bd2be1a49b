"""Perceptual losses: expressions, hand-computed values, gradients and per-image independence."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.core.errors import UserError
from medae_jax.losses import adversarial as la, perceptual as lp, pixel
from medae_jax.losses.trunk import IMAGENET_MEAN, IMAGENET_STD, Trunk, network_input
from medae_jax.methods import _growing
from medae_jax.models import vgg


@pytest.fixture(scope="module")
def trunk():
  params = vgg.random_params(0, (4, 4, 6, 6, 6), ["r32"])
  stats = {k: {"mean": np.full(n, 0.1, np.float32), "std": np.full(n, 2.0, np.float32)}
           for k, n in (("r12", 4), ("r22", 4), ("r32", 6))}
  return Trunk(vgg.features, params, stats)


def pair(n=3, size=16, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  return rng.uniform(-1, 1, (2, n, size, size, channels)).astype(np.float32)


def test_layer_expressions():
  for wrong in (":r32", " :r32", "-8:r32"):
    with pytest.raises(ValueError, match="write RESOLUTION:LAYERS"):
      lp.parse_layers(wrong)
  assert lp.parse_layers("r32") == {0: {"r32": 1.0}}
  assert lp.parse_layers("8:r12, 16:r22+0.5*image") == {8: {"r12": 1.0},
                                                        16: {"r22": 1.0, "image": 0.5}}
  for wrong in ("r33x", "eight:r12", "8:r12 r22", "8:2*r99"):
    with pytest.raises(ValueError):
      lp.parse_layers(wrong, vgg.check_layers)
  with pytest.raises(UserError, match="r32 is named twice"):  # the second factor alone counted
    lp.parse_layers("8:r32, 16:r32+0.5*r32")


def test_loss_expressions():
  terms = lp.parse("relative_perceptual_L1 + 0.1*l1", layers="r32")
  assert [(t.name, t.weight) for t in terms] == [("perceptual", 1.0), ("l1", 0.1)]
  assert terms[0].normalize and terms[0].absolute and terms[0].relative
  assert lp.layers_of(terms, [8, 16]) == ("r32",)
  assert lp.layers_of(lp.parse("perceptual", layers="0*r42+r12+image"), [8]) == ("r12",)  # no pass deeper
  with pytest.raises(ValueError, match="none of l1"):
    lp.parse("l3", layers="")
  for text, layers in (("1.2.3*l1", ""), ("", ""), ("perceptual", "1.2.3*r32")):  # 1.2.3 was a traceback
    with pytest.raises(UserError, match="write names, optionally with a factor"):
      lp.parse(text, layers=layers)
  with pytest.raises(UserError, match="write RESOLUTION:LAYERS"):
    lp.parse("perceptual", layers="\u00b3:r32")  # a digit that is no number
  with pytest.raises(ValueError, match="no layer for resolution 16"):
    lp.layers_of(lp.parse("perceptual", layers="8:r12"), [16])


def test_images_enter_a_trunk_by_their_range_and_its_normalisation():
  image = np.array([0.0, 100.0, 200.0], np.float32).reshape(1, 1, 3, 1)
  unit = np.repeat(image / 200, 3, -1)
  np.testing.assert_allclose(network_input(image, 0, 200, None, None), unit)
  np.testing.assert_allclose(network_input(2 * unit - 1), (unit - IMAGENET_MEAN) / IMAGENET_STD,
                             rtol=1e-5)
  np.testing.assert_allclose(network_input(unit, 0, 1, (0.5, 0.5, 0.5), (0.25, 0.5, 1)),
                             (unit - 0.5) / np.array([0.25, 0.5, 1]), rtol=1e-6)


@pytest.mark.parametrize("channels", [2, 4])
def test_images_that_are_neither_grey_nor_of_three_colours_have_no_features(channels):
  with pytest.raises(UserError, match=f"need 1 or 3 channels, the images have {channels}"):
    network_input(np.ones((1, 2, 2, channels), np.float32))


def test_errors_of_the_foreground_are_divided_by_it():
  image, recon = np.zeros((2, 2, 2, 2), np.float32), np.full((2, 2, 2, 2), 2.0, np.float32)
  mask = np.zeros((2, 2, 2, 1), bool)
  mask[0, 0, 0], recon[0, 0, 0] = True, (1, 3)  # squares 1 and 9 in one of four pixels, nothing in the other
  np.testing.assert_allclose(pixel.masked_squared_error(image, recon, mask), [10 / 8, 0])
  np.testing.assert_allclose(pixel.masked_squared_error(image, recon, mask, "foreground"), [10 / 2, 0])
  with pytest.raises(UserError, match="loss_over='fore': use all or foreground"):
    pixel.masked_squared_error(image, recon, mask, "fore")


def test_any_network_of_features_will_do():
  """Its features, range and normalisation are arguments: here it squares the pixels."""
  square = lambda params, x, layers, dtype: dict.fromkeys(layers, params * x ** 2)
  trunk = Trunk(square, 3.0, {}, low=0.0, high=2.0, mean=None, std=None)
  image, recon = np.abs(pair())
  found = lp.per_image(lp.parse("perceptual", layers="anything"), trunk, image, recon)
  want = (3 * (image / 2)**2 - 3 * (recon / 2)**2)**2
  np.testing.assert_allclose(found, want.mean((1, 2, 3)), rtol=1e-5)


def test_a_map_weighs_layers_and_terms_as_the_loss_does():
  """Layers as large as the image: nothing is resized, the map's mean is the loss."""
  power = lambda params, x, layers, dtype: {k: x ** int(k[1:]) for k in layers}
  trunk = Trunk(power, {}, {}, low=0.0, high=1.0, mean=None, std=None)
  image, recon = np.abs(pair())
  terms = lp.parse("perceptual + 0.5*l2 + 2*l1", layers="p1+3*p2")
  mean = np.asarray(lp.anomaly_map(terms, trunk, image, recon)).mean((1, 2, 3))
  np.testing.assert_allclose(mean, lp.per_image(terms, trunk, image, recon), rtol=1e-5)


def test_relative_loss_by_hand(trunk):
  """sum_k w_k mean|f~(x) - f~(y)| / mean|f~(x)| / sum_k w_k with numpy."""
  image, recon = pair()
  want = 0
  for layer, weight in (("r12", 1.0), ("r32", 3.0)):
    a, b = (np.asarray(vgg.features(trunk.params, network_input(jnp.asarray(x)),
                                    [layer])[layer]) for x in (image, recon))
    a, b = (a - 0.1) / 2, (b - 0.1) / 2
    want += weight * np.abs(a - b).mean((1, 2, 3)) / np.abs(a).mean((1, 2, 3)) / 4
  found = lp.per_image(lp.parse("relative_perceptual_L1", layers="r12+3*r32"), trunk, image, recon)
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_relative_loss_does_not_see_the_scale_of_the_features(trunk):
  """Halving sigma doubles every feature: the relative loss stays, the plain one doubles."""
  image, recon = pair()
  half = jax.tree.map(lambda x: x / 2, trunk.stats["r32"])
  other = dataclasses.replace(trunk, stats={
      "r32": {"mean": trunk.stats["r32"]["mean"], "std": half["std"]}})
  term = lp.parse("relative_perceptual_L1", layers="r32")
  plain = lp.parse("perceptual", layers="r32", normalize=True, absolute=True)
  np.testing.assert_allclose(lp.per_image(term, trunk, image, recon),
                             lp.per_image(term, other, image, recon), rtol=1e-5)
  np.testing.assert_allclose(2 * lp.per_image(plain, trunk, image, recon),
                             lp.per_image(plain, other, image, recon), rtol=1e-5)


def test_a_perfect_reconstruction_scores_zero_and_images_do_not_mix(trunk):
  image, recon = pair()
  recon[1] = image[1]
  found = np.asarray(lp.per_image(lp.parse("relative_perceptual_L1 + l2", layers="r32"), trunk,
                                  image, recon))
  assert found[1] == 0 and found[0] > 0.1
  alone = lp.per_image(lp.parse("relative_perceptual_L1 + l2", layers="r32"), trunk, image[:1],
                       recon[:1])
  np.testing.assert_allclose(alone, found[:1], rtol=1e-5)


def test_the_magnitude_is_a_constant_for_the_gradient(trunk):
  image, recon = pair()
  terms = lp.parse("relative_perceptual_L1", layers="r32")
  grads = jax.grad(lambda x: lp.per_image(terms, trunk, x, recon).sum())(jnp.asarray(image))
  assert not np.any(grads)  # nothing reaches the real image at all
  grads = jax.grad(lambda y: lp.per_image(terms, trunk, image, y).sum())(jnp.asarray(recon))
  assert np.any(grads)


def test_map_points_at_the_changed_corner(trunk):
  image, _ = pair(n=1, size=32)
  recon = image.copy()
  recon[:, :8, :8] = -recon[:, :8, :8]
  for loss in ("relative_perceptual_L1", "l1", "relative_perceptual_L1 + 0.5*l2"):
    found = np.asarray(lp.anomaly_map(lp.parse(loss, layers="r12+r32"), trunk, image, recon))
    assert found.shape == (1, 32, 32, 1)
    assert found[0, :8, :8].mean() > 5 * found[0, 20:, 20:].mean()


def test_statistics_of_half_the_resolution_are_used_for_its_part(trunk):
  """In a transition at alpha 0 the loss is that of res/2 with `half`'s statistics."""
  image, recon = pair(size=16)
  terms = lp.parse("relative_perceptual_L1", layers="8:r12, 16:r12")
  other = dataclasses.replace(trunk, stats={"r12": {"mean": np.full(4, 0.5, np.float32),
                                                    "std": np.full(4, 1.0, np.float32)}})
  found = _growing.blended_loss(terms, trunk, other, image, recon, res=16, alpha=0.0)
  pool = lambda x: x.reshape(3, 8, 2, 8, 2, 1).mean((2, 4))
  want = lp.per_image(terms, other, pool(image), pool(recon), res=8)
  np.testing.assert_allclose(found, want, rtol=1e-5)
  other_stats = lp.per_image(terms, trunk, pool(image), pool(recon), res=8)
  assert not np.allclose(found, other_stats, rtol=1e-3)


# ------------------------------------------------------------------------------------ adversarial
def test_gradient_penalty_by_hand():
  """A linear critic w.x has gradient w everywhere: penalty (|w| - gamma)^2 / gamma^2."""
  w = np.array([3.0, 4.0], np.float32)
  critic = lambda x: x.reshape(-1, 2) @ w
  real, fake = np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)
  total, parts = la.wasserstein_critic(critic, real, fake, np.array([0.3, 0.9], np.float32),
                                       wasserstein_weight=2.0, gradient_penalty=10.0, norm_penalty=0.5,
                                       target_gamma=2.0)
  assert parts["wass"] == pytest.approx(-2 * 7) and parts["norm"] == pytest.approx(0.5 * 49)
  assert parts["gp"] == pytest.approx(10 * 3**2 / 4)
  assert total == pytest.approx(-14 + 24.5 + 22.5)


def test_gradient_penalty_of_a_constant_critic_is_finite():
  """|gradient| = 0: its derivative must not be NaN."""
  x = np.ones((2, 3), np.float32)
  loss = lambda w: la.wasserstein_critic(lambda v: (v * w).sum(1), x, x, np.ones(2, np.float32))[0]
  value, grad = jax.value_and_grad(loss)(jnp.zeros(3))
  assert np.isfinite(value) and np.isfinite(grad).all()


def test_unknown_adversarial_losses_are_refused():
  with pytest.raises(ValueError, match="wasserstein, logistic, least_squares"):
    la.critic_loss("hinge", None, None, None, None)
  with pytest.raises(ValueError, match="wasserstein, logistic, least_squares"):
    la.generator_loss("hinge", jnp.zeros(2))
  with pytest.raises(ValueError, match="real, fake or real_fake"):
    la.logistic_critic(lambda x: x.sum(1), jnp.zeros((1, 2)), jnp.zeros((1, 2)), reg_alpha=1.0,
                  reg_type="both")


def test_layers_of_a_resolution_go_before_those_of_any():
  term = lp.parse("perceptual", layers="r32, 16:r12+0*r22")[0]
  assert term.at(16) == {"r12": 1.0} and term.at(8) == {"r32": 1.0}  # a weight of 0 asks for nothing
  assert lp.parse("l1", layers="")[0].at(8) == {}
