"""The DAE's score as a whole against numpy and scipy, and its noise at test time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from medae_jax.methods import dae
from tests.unit import tiny_dae

SHAPE = (3, 16, 24, 2)


class Simple(dae.Method):
  """The DAE with a network of one line: `net(image)`, which a test can compute by hand."""

  def __init__(self, config, net):
    super().__init__(config)
    self._function = net

  def _apply(self, params, image):
    return self._function(image)


def method(net, **score):
  config = tiny_dae.config()
  with config.unlocked():
    config.method.score.update(score)
  return Simple(config, net)


def scored(net, image, **score):
  """Outputs of the jitted score, as numpy."""
  state = dae.State.create({"net": {}})
  return jax.tree.map(np.asarray, jax.jit(method(net, **score).score)(state, {"image": image}))


def brains(seed=0):
  """Images [3,16,24,2]: two overlapping bodies with holes and thin parts, background exactly 0."""
  rng = np.random.default_rng(seed)
  image = rng.uniform(0.1, 1.0, SHAPE)
  body = np.zeros(SHAPE[:3], bool)
  body[:, 1:14, 2:21] = True
  body[0, 6, 9] = False            # one missing pixel does not erode a 5x5 box
  body[1, 5:7, 6:8] = False        # four do
  body[2, :, 20:] = True           # reaches the border: the outermost two rows and columns go
  return (image * body[..., None]).astype(np.float32)


def shift(image):
  """Neither odd nor even, differs by channel and has both signs of the residual."""
  return 0.55 * image[..., ::-1] + 0.2


def by_hand(image, recon, positive=1.0, negative=1.0, erosion=5, median=5, foreground=True):
  """median(erode(foreground) * mean_c(weighted residual)), [B,H,W], in float64."""
  residual = image.astype(np.float64) - recon
  raw = (np.asarray(positive) * residual.clip(0) + np.asarray(negative) * (-residual).clip(0)).mean(-1)
  body = (image.sum(-1) > 0.01) | (not foreground)
  if erosion > 1:
    count = scipy.ndimage.uniform_filter(body.astype(np.float64), (0, erosion, erosion),
                                         mode="constant") * erosion**2
    body = np.round(count) > 0.95 * erosion**2
  raw = raw * body
  return scipy.ndimage.median_filter(raw, (1, median, median), mode="mirror") if median > 1 else raw


@pytest.mark.parametrize("options", [
    {}, {"erosion": 3, "median": 3}, {"erosion": 0}, {"median": 0}, {"erosion": 0, "median": 0},
    {"foreground": False}, {"foreground": False, "erosion": 0, "median": 0},
    {"weights_positive": (2.0, 0.5), "weights_negative": (0.25, 1.5)},
    {"weights_positive": (1.0,), "weights_negative": (0.0,)}, {"weights_negative": (0.0, 3.0)}])
def test_map_is_weights_then_mean_then_erosion_then_median(options):
  image = brains()
  found = scored(shift, image, **options)
  weights = {k.removeprefix("weights_"): v for k, v in options.items() if k.startswith("weights")}
  rest = {k: v for k, v in options.items() if not k.startswith("weights")}
  want = by_hand(image, shift(image), **weights, **rest)
  np.testing.assert_allclose(found["recon"], shift(image), atol=1e-6)
  np.testing.assert_allclose(found["map"][..., 0], want, atol=1e-6)
  assert found["map"].dtype == np.float32 and found["score"].dtype == np.float32


def test_the_order_matters_on_these_images():
  """Otherwise the test above could not tell the orders apart."""
  image = brains()
  residual = image.astype(np.float64) - shift(image)
  want = by_hand(image, shift(image))
  body = by_hand(np.repeat(image.sum(-1, keepdims=True), 2, -1), 0 * image - 1, erosion=5, median=0) > 0
  before = scipy.ndimage.median_filter(np.abs(residual).mean(-1), (1, 5, 5), mode="mirror") * body
  per_channel = np.abs(residual.mean(-1)) * body
  assert np.abs(before - want).max() > 0.05
  assert np.abs(scipy.ndimage.median_filter(per_channel, (1, 5, 5), mode="mirror") - want).max() > 0.05


@pytest.mark.parametrize("how", ["mean", "max", "top1", "foreground_mean"])
def test_image_score_is_made_of_the_finished_map(how):
  image = brains()
  found = scored(shift, image, image_score=how)
  maps = by_hand(image, shift(image)).reshape(3, -1)
  body = (image.sum(-1) > 0.01).reshape(3, -1)
  want = {"mean": maps.mean(1), "max": maps.max(1),
          "top1": np.sort(maps, 1)[:, -4:].mean(1),  # 1 % of 384 pixels
          "foreground_mean": (maps * body).sum(1) / body.sum(1)}[how]
  np.testing.assert_allclose(found["score"], want, rtol=1e-5)


def test_an_image_scores_alike_alone_and_in_company():
  image, state = brains(), dae.State.create({"net": {}})
  score = jax.jit(method(lambda x: x * x, test_noise_draws=2).score)
  together = score(state, {"image": image})
  for i in range(3):  # at another place of the batch, in other company
    moved = score(state, {"image": np.stack([image[(i + 1) % 3], image[i], image[i]])})
    np.testing.assert_allclose(moved["map"][1], together["map"][i], atol=1e-6)


# ------------------------------------------------------------------------- noise at test time
def test_antithetic_draws_cancel_for_a_linear_network():
  """f(x + e) and f(x - e) average to f(x): whatever the noise, nothing of it is left."""
  image = brains()
  plain = scored(shift, image)
  noisy = scored(shift, image, test_noise_draws=3, test_noise_std=5.0)
  np.testing.assert_allclose(noisy["map"], plain["map"], atol=2e-5)
  np.testing.assert_allclose(noisy["recon"], plain["recon"], atol=2e-5)


def fields(draws, std, res=4):
  """Mean of squared noise fields [B,H,W,C]: what f(x) = x^2 adds to the reconstruction."""
  image = np.ones((2, 16, 24, 2), np.float32)
  found = scored(lambda x: x * x, image, test_noise_draws=draws, test_noise_std=std,
                 test_noise_res=res)
  return found["recon"] - 1.0


def test_fixed_fields_have_the_stated_sigma_and_are_averaged():
  one, many = fields(1, 0.5), fields(64, 0.5)
  np.testing.assert_allclose(one[0], one[1], atol=1e-5)        # the same fields for every image
  np.testing.assert_allclose(fields(1, 1.0), 4 * one, atol=1e-4)
  assert one.min() > -1e-5
  # variance at nodes is sigma^2; between them, bilinear weights leave (2/3)^2 on average
  expected = 0.25 * (2 / 3) ** 2
  assert 0.75 * expected < many.mean() < 1.6 * expected
  assert many.std() < 0.35 * one.std()                         # 64 different fields, not one
  assert np.abs(one[0, ..., 0] - one[0, ..., 1]).max() > 0.01  # another field for each channel


def test_resolution_of_the_fixed_fields():
  """One node: the field is constant over the image; two: it is not."""
  flat = fields(1, 0.5, res=1)
  assert np.ptp(flat[0, ..., 0]) < 1e-5 and flat.max() > 0
  assert np.ptp(fields(1, 0.5, res=2)[0, ..., 0]) > 0.01


@pytest.mark.parametrize("axis", [1, 2])
def test_every_second_draw_is_made_on_the_mirrored_image(axis):
  """A network that knows the side: the left shows what unmirrored draws do, the right the others."""
  image = np.ones((1, 16, 24, 2), np.float32)
  left = np.indices(image.shape)[axis] < image.shape[axis] // 2
  network = lambda x: x * (1 + 0.5 * left)
  for draws, share in ((1, 0.0), (2, 0.5), (3, 1 / 3), (4, 0.5)):
    found = scored(network, image, test_noise_draws=draws, test_noise_mirror=axis)["recon"]
    want = np.where(left, 1 + 0.5 * (1 - share), 1 + 0.5 * share)
    np.testing.assert_allclose(found, want, atol=1e-5)
  plain = scored(network, image, test_noise_draws=2, test_noise_mirror=0)["recon"]
  np.testing.assert_allclose(plain[left], 1.5, atol=1e-5)


def test_noise_stays_inside_the_foreground():
  image = brains()
  found = scored(lambda x: x * x, image, test_noise_draws=2, test_noise_std=1.0)
  outside = image.sum(-1) <= 0.01
  assert np.abs(found["recon"] - image**2)[outside].max() < 1e-6
  assert np.abs(found["recon"] - image**2)[~outside].max() > 0.1


# --------------------------------------------------------------------- dtype of the network
def test_scores_are_float32_with_a_bfloat16_network():
  """Only the network is bfloat16: parameters, residual, map and score are float32."""
  config = tiny_dae.config(size=16)
  with config.unlocked():
    config.model.dtype = "bfloat16"
  half, image = dae.Method(config.lock()), brains()[:, :, :16]
  state = jax.eval_shape(half.init, jax.random.key(0), {"image": image})
  assert {x.dtype for x in jax.tree.leaves(state.params)} == {np.dtype("float32")}
  shapes = jax.eval_shape(half.score, state, {"image": image})
  assert {name: x.dtype for name, x in shapes.items()} == dict.fromkeys(
      ("recon", "map", "score"), np.dtype("float32"))
  rounded = lambda x: shift(x).astype(jnp.bfloat16)
  found = scored(rounded, image)
  exact = by_hand(image, np.asarray(rounded(jnp.asarray(image)).astype(jnp.float32), np.float64))
  assert found["map"].dtype == np.float32 and np.abs(exact - by_hand(image, shift(image))).max() > 1e-4
  np.testing.assert_allclose(found["map"][..., 0], exact, atol=1e-6)


def test_gaussian_comes_last():
  image = jnp.asarray(brains(), jnp.float32)
  plain, smooth = (scored(lambda x: 0.5 * x, image, gaussian=g)["map"] for g in (0.0, 1.2))
  want = scipy.ndimage.gaussian_filter(plain, (0, 1.2, 1.2, 0))
  np.testing.assert_allclose(smooth, want, rtol=1e-4, atol=1e-7)
  assert np.abs(smooth - plain).max() > 0.01


def test_the_network_sees_the_whole_image_without_noise():
  """Pixels too dark for the foreground (0.004 + 0.005 is below 0.01) go in as they are, too."""
  image = brains()
  image[image.sum(-1) == 0] = (0.004, 0.005)
  found = scored(lambda x: 0.5 * x + 0.125, image)
  np.testing.assert_allclose(found["recon"], 0.5 * image + 0.125, atol=1e-6)
