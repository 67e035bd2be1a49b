"""PIAD's moving average of E and G, and the image that annotation removal's SSIM looks at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medae_jax.methods import annotation_removal, piad
from tests.unit.methods import test_annotation_method as annotation, test_piad


def test_ema_is_the_decayed_mean_of_all_iterations_and_scores():
  """Decay min(ema, (1 + t) / (10 + t)), t = 1, 2: the initial weights fade from the first step on."""
  config = test_piad._config(method__ema=0.25, method__loss="l2", method__n_critic=1)
  method = piad.Method(config)
  batch = test_piad._batch(8)
  state = method.init(jax.random.key(0), batch)
  step = jax.jit(lambda s, b: method.train_step(s, b, jax.random.key(5), stage=None, axis_name=None))
  nets = lambda params: {net: params[net] for net in ("enc", "dec")}
  want = jax.tree.map(np.asarray, nets(state.params))
  for decay in (2 / 11, 0.25, 0.25):  # (1+1)/(10+1), then the limit: (1+2)/(10+2) = 0.25
    state, _ = step(state, batch)
    want = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * np.asarray(p), want,
                        nets(state.params))
    for a, b in zip(jax.tree.leaves(state.stats["ema"]), jax.tree.leaves(want)):
      np.testing.assert_allclose(a, b, atol=1e-6)
  image = {"image": batch["image"][:2]}
  averaged = method.score(state, image)
  by_hand = method.score(state.replace(stats={**state.stats, "ema": want}), image)
  np.testing.assert_allclose(averaged["recon"], by_hand["recon"], atol=1e-5)
  last = piad.Method(test_piad._config(method__loss="l2", method__n_critic=1)).score(state, image)
  recon = method._apply("dec", state.params, method._apply("enc", state.params, image["image"]))
  np.testing.assert_allclose(last["recon"], recon, atol=1e-5)
  assert np.abs(np.asarray(last["recon"]) - averaged["recon"]).max() > 1e-5


class _Given(annotation_removal.Method):
  """A network that answers with a fixed image."""

  def _apply(self, params, stats, image, train, axis_name=None):
    return {"recon": jnp.full_like(image, 0.4)}, {}


@pytest.mark.parametrize("parity,partner", [(False, "clean"), (True, "image")])
def test_similarity_is_taken_to_the_clean_image_and_in_parity_to_the_annotated(parity, partner):
  """SSIM by skimage's definition would differ at borders: here, by the formula of losses/ssim.py."""
  from medae_jax.losses import ssim
  data = annotation.batch(2)
  c = annotation.config(**{"method.ssim_weight": 0.5, "method.parity": parity, "method.mse_weight": 0.0,
                           **({"model.head": "published"} if parity else {})})
  found = _Given(c).eval_step(annotation_removal.State.create({"net": {}}, {"net": {}}), data, None)
  recon = jnp.full_like(data["image"], 0.4)
  np.testing.assert_allclose(found["loss_ssim"], 0.5 * ssim.ssim_loss(recon, data[partner],
                                                                      c.method.ssim_window), rtol=1e-5)
  np.testing.assert_allclose(found["loss"], found["loss_ssim"], rtol=1e-5)


def test_validation_normalises_each_example_by_its_own_weights():
  """sum w (c - p)^2 / sum w, the sums over channels too: the training loss of a batch of one."""
  data = annotation.batch(2)
  c = annotation.config(**{"method.ssim_weight": 0.0, "method.alpha": 40.0, "method.beta": 2.0})
  found = _Given(c).eval_step(annotation_removal.State.create({"net": {}}, {"net": {}}), data, None)
  weight = np.broadcast_to(np.where(data["mask"] > 0, 40.0, 2.0), data["clean"].shape)
  want = (weight * (data["clean"] - 0.4) ** 2).sum((1, 2, 3)) / weight.sum((1, 2, 3))
  np.testing.assert_allclose(found["loss"], want, rtol=1e-5)


class _Net:
  """In the place of a network: notes what it is shown and answers with it."""
  stride = 8

  def apply(self, variables, x, mutable):
    self.shown = np.asarray(x)
    return x, {}


def test_sides_are_continued_by_their_edge_and_cut_again(monkeypatch):
  """As often as the poolings halve them; a residual head adds to the image."""
  method, net = annotation_removal.Method(annotation.config()), _Net()
  monkeypatch.setattr(method, "_net", lambda *args: net)
  image = np.random.default_rng(0).random((1, 13, 16, 3), np.float32)
  out, _ = method._apply({}, {}, jnp.asarray(image), False)
  np.testing.assert_array_equal(net.shown, np.pad(image, ((0, 0), (0, 3), (0, 0), (0, 0)), mode="edge"))
  np.testing.assert_allclose(out["recon"], 2 * image)


def test_what_is_shown_stays_in_the_range_of_images(monkeypatch):
  method = annotation_removal.Method(annotation.config(**{"method.score.threshold": 0.5}))
  monkeypatch.setattr(method, "_apply", lambda params, stats, image, train: ({"recon": 4 * image - 1}, {}))
  image = jnp.asarray([0.0, 0.3, 0.4, 0.9]).reshape(1, 2, 2, 1)
  found = method.score(annotation_removal.State.create({"net": {}}, {"net": {}}), {"image": image})
  np.testing.assert_allclose(np.ravel(found["recon"]), [0, 0.2, 0.6, 1], atol=1e-6)


def test_similarity_by_brute_force():
  """1 - mean SSIM of zero-padded uniform windows, pixel by pixel."""
  from medae_jax.losses import ssim
  rng = np.random.default_rng(0)
  a, b = rng.random((2, 1, 9, 8, 1))
  pad = lambda x: np.pad(x[0, ..., 0], 2)
  windows = lambda x: np.lib.stride_tricks.sliding_window_view(pad(x), (5, 5)).reshape(9, 8, 25)
  wa, wb = windows(a), windows(b)
  ma, mb = wa.mean(-1), wb.mean(-1)
  va, vb, cov = (wa**2).mean(-1) - ma**2, (wb**2).mean(-1) - mb**2, (wa * wb).mean(-1) - ma * mb
  value = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
  np.testing.assert_allclose(ssim.ssim_loss(jnp.asarray(a), jnp.asarray(b), 5), [1 - value.mean()],
                             atol=1e-5)
