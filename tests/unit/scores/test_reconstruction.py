"""Scores of a reconstruction by their definitions, on a method that needs no training."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from scipy import ndimage
from sklearn.covariance import LedoitWolf

from medae_jax.core import fields
from medae_jax.core.errors import UserError
from medae_jax.core.method import Need, State
from medae_jax.metrics import similarity
from medae_jax.scores import equalise, reconstruction, residual
from medae_jax.tasks.anomaly.score_choice import ScoreChoice

TRUNK = {"trunk": "vgg19", "trunk_weights": "random:0", "trunk_widths": (4, 6, 4, 4, 4),
         "trunk_layers": "r11+r21"}


def config(free=(), **score):
  return ml_collections.ConfigDict({"method": {"score": {**fields.RECON_SCORE, **score}},
                                    "eval": {"choose_score": free}})


def build(channels=1, low=0, high=1, **score):
  scores = reconstruction.Reconstruction(config(**score), Need(low=low, high=high))
  return scores, State.create(scores.pretrained())


def pair(channels=1, n=3, size=16, seed=0):
  rng = np.random.default_rng(seed)
  image = rng.uniform(size=(n, size, size, channels)).astype(np.float32)
  return image, np.clip(image + rng.normal(0, 0.1, image.shape), 0, 1).astype(np.float32)


def recon_of(state, batch):
  return 0.8 * batch["image"] + 0.1


def features(scores, state, image):
  def of(s, x):
    trunk = scores._trunk(s)
    return trunk(trunk.input(x), scores._layers)
  return {k: np.asarray(v, np.float64) for k, v in jax.jit(of)(state, image).items()}


def mapped(scores, state, image, recon, kind):
  return np.asarray(jax.jit(lambda s, x, y: scores.map(s, x, y, kind))(state, image, recon))


def test_residual_ssim_and_their_mixture():
  scores, state = build(low=-1, high=1, alpha=0.75, window=5)
  image, recon = pair(2)
  away = np.abs(image - recon).mean(-1, keepdims=True)
  unlike = 1 - np.asarray(similarity.ssim_map(image, recon, 5, 2.0)).mean(-1, keepdims=True)
  of = lambda kind: mapped(scores, state, image, recon, kind)
  np.testing.assert_allclose(of("residual"), away, rtol=1e-5)
  np.testing.assert_allclose(of("ssim"), np.maximum(unlike, 0), atol=1e-6)
  np.testing.assert_allclose(of("l1_ssim"), 0.75 * np.maximum(unlike, 0) + 0.25 * away / 2, atol=1e-6)
  assert of("ssim").dtype == np.float32 and of("ssim").min() >= 0


@pytest.mark.parametrize("flat", [False, True])
def test_equalised_like_scikit_image(flat):
  image, other = pair(2, n=2)
  if flat:
    image = np.full_like(image, 0.3)
  found = jax.jit(lambda v, i: equalise.equalise(v, i, bins=32))(other, image)
  for i in range(2):
    for c in range(2):
      count, edges = np.histogram(image[i, ..., c], bins=32)
      share = count.cumsum() / count.sum()
      want = np.interp(other[i, ..., c], (edges[:-1] + edges[1:]) / 2, share)
      # A value on an edge may fall to either side in float32.
      assert np.mean(np.abs(np.asarray(found[i, ..., c]) - want) > 1e-4) < 0.02


def test_perceptual_distance_and_the_equalised_residual_times_it():
  scores, state = build(**TRUNK)
  image, recon = pair()
  a, b = features(scores, state, image), features(scores, state, recon)
  want = 0
  for layer in ("r11", "r21"):
    unit = [f / (np.linalg.norm(f, axis=-1, keepdims=True) + 1e-10) for f in (a[layer], b[layer])]
    apart = ((unit[0] - unit[1]) ** 2).sum(-1)
    want = want + np.stack([ndimage.zoom(p, 16 / p.shape[0], order=1, grid_mode=True, mode="nearest")
                            for p in apart])
  found = mapped(scores, state, image, recon, "perceptual")[..., 0]
  np.testing.assert_allclose(found, want, atol=1e-5)
  equal = jax.jit(equalise.equalise)
  away = np.abs(np.asarray(equal(image, image) - equal(recon, image)))[..., 0]
  both = mapped(scores, state, image, recon, "equalised")[..., 0]
  np.testing.assert_allclose(both, away * found, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_mahalanobis_of_feature_errors_like_scikit_learn(channels):
  scores, state = build(kind="mahalanobis", **TRUNK)
  normal = pair(channels, n=5)[0]
  valid = np.array([True, True, True, True, False])  # the last one is padding
  state = scores.finalize(state, [{"image": normal[:2], "valid": valid[:2]},
                                  {"image": normal[2:], "valid": valid[2:]}], recon_of)
  image, recon = pair(channels, n=2, seed=1)
  planes = lambda x: np.moveaxis(x, -1, 0).reshape(-1, 16, 16, 1)
  error = lambda x, y: {k: v - features(scores, state, planes(y))[k]
                        for k, v in features(scores, state, planes(x)).items()}
  fit, new = error(normal[:4], recon_of(None, {"image": normal[:4]})), error(image, recon)
  want = 0
  for layer, e in new.items():
    lw = LedoitWolf().fit(fit[layer].reshape(-1, e.shape[-1]))
    away = np.sqrt(lw.mahalanobis(e.reshape(-1, e.shape[-1])) / e.shape[-1])
    away = away.reshape(channels, 2, *e.shape[1:3])
    want = want + np.stack([ndimage.zoom(p, 16 / p.shape[0], order=1, grid_mode=True, mode="nearest")
                            for p in away.mean(0)]) / 2
  found = mapped(scores, state, image, recon, "mahalanobis")[..., 0]
  np.testing.assert_allclose(found, want, rtol=2e-3)


def test_the_published_score_stays_and_another_kind_replaces_map_and_score():
  image, recon = pair()
  own = {"recon": recon, "map": jnp.ones((3, 16, 16, 1)), "score": jnp.arange(3.0), "folded": jnp.zeros(3)}
  scores, state = build()
  assert scores.outputs(state, image, own) == own
  scores, state = build(kind="ssim", image_score="max")
  out = jax.jit(lambda s, x, o: scores.outputs(s, x, o, finish=lambda m: 2 * m))(state, image, own)
  np.testing.assert_allclose(out["map"], 2 * mapped(scores, state, image, recon, "ssim"), atol=1e-6)
  np.testing.assert_allclose(out["score"], np.asarray(out["map"]).max((1, 2, 3)), rtol=1e-6)
  np.testing.assert_array_equal(out["recon"], recon)
  assert set(out) == set(own)


def test_val_chooses_kind_and_image_score_among_what_is_offered():
  """The anomaly changes texture, not brightness: SSIM sees it, the residual does not."""
  rng = np.random.default_rng(0)
  label = np.tile([0, 1], 6)
  recon = np.tile(np.linspace(0.2, 0.8, 16)[None, :, None, None], (12, 1, 16, 1)).astype(np.float32)
  noise = 0.05 * np.sign(rng.standard_normal(recon.shape))
  image = (recon + np.where(label[:, None, None, None], noise, 0.06)).astype(np.float32)
  scores, state = build(offer=True, **TRUNK)
  own = residual.residual_map(jnp.asarray(image - recon))
  out = jax.jit(scores.outputs)(state, image, {"recon": recon, "map": own, "score": own.mean((1, 2, 3))})
  offers = {k.removeprefix("offer/") for k in out if k.startswith("offer/")}
  kinds = ("published", "ssim", "l1_ssim", "perceptual", "equalised")  # mahalanobis is not fitted
  assert offers == {f"kind={k};image_score={how}" for k in kinds for how in ("mean", "max", "top1")}
  chosen = ScoreChoice(config(("kind",)))
  chosen.update({"label": label, "valid": np.ones(12, bool)}, out)
  result = chosen.result()
  assert result["image_score"] == "mean" and result["kind"] != "published"
  assert chosen.summary()["image_auroc"]["kind=published;image_score=mean"] < 0.5


def test_what_is_offered_has_the_filters_and_the_mask_of_the_method():
  scores, state = build(offer=True)
  image, recon = pair(size=12)
  own, mask = jnp.asarray(image[..., :1]), jnp.asarray(image > 0.5)
  out = scores.outputs(state, image, {"recon": recon, "map": own, "score": own.mean((1, 2, 3))},
                       finish=lambda m: 2 * m, mask=mask)
  found = lambda kind, how: out[f"offer/kind={kind};image_score={how}"]
  want = 2 * scores.map(state, image, recon, "ssim")
  np.testing.assert_allclose(found("ssim", "max"), want.max((1, 2, 3)), rtol=1e-6)
  np.testing.assert_allclose(found("ssim", "foreground_mean"),
                             (want * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)), rtol=1e-5)
  np.testing.assert_allclose(found("published", "max"), image.max((1, 2, 3)))  # finished by the method


def test_a_score_that_is_no_mean_of_a_map_is_offered_once_and_as_it_is():
  scores = reconstruction.Reconstruction(config(offer=True), Need(low=0, high=1), plain=False)
  image, recon = pair()
  own = {"recon": recon, "map": jnp.asarray(image), "score": jnp.arange(3.0)}
  out = scores.outputs(State.create(scores.pretrained()), image, own)
  offers = {k.removeprefix("offer/") for k in out if k.startswith("offer/")}
  assert offers == {"kind=published", *(f"kind={k};image_score={how}" for k in ("residual", "ssim", "l1_ssim")
                                        for how in ("mean", "max", "top1"))}
  np.testing.assert_array_equal(out["offer/kind=published"], [0, 1, 2])


def test_what_cannot_score_is_refused():
  with pytest.raises(UserError, match="trunk_weights"):
    build(kind="equalised")
  with pytest.raises(UserError, match="score.kind='cosine'"):
    build(kind="cosine")
  scores, state = build(kind="mahalanobis", **TRUNK)
  image, recon = pair()
  with pytest.raises(UserError, match="fitted no errors"):
    scores.map(state, image, recon, "mahalanobis")
  with pytest.raises(UserError, match="checkpoint has no trunk"):
    scores.map(State.create({}), image, recon, "perceptual")


def test_an_exported_state_holds_what_the_score_reads():
  scores, state = build(**TRUNK)
  assert scores.inference(state) == ({}, {})
  scores, state = build(kind="perceptual", **TRUNK)
  nets, extra = scores.inference(state.replace(extra={"recon_score": {}}))
  assert list(nets) == [reconstruction.NET] and not extra
  scores, state = build(kind="mahalanobis", **TRUNK)
  nets, extra = scores.inference(state.replace(extra={"recon_score": {"fitted": 1}, "other": 2}))
  assert list(nets) == [reconstruction.NET] and extra == {"recon_score": {"fitted": 1}}
  scores, state = build(offer=True, **TRUNK)  # the published score is chosen, others may be asked for
  nets, extra = scores.inference(state.replace(extra={"recon_score": {}}))
  assert list(nets) == [reconstruction.NET] and list(extra) == ["recon_score"]


def test_errors_are_fitted_where_the_score_or_the_config_asks_for_it():
  fits = lambda **score: build(**TRUNK, **score)[0].fits
  assert fits(kind="mahalanobis") and fits(kind="ssim", fit=True)
  assert not fits(kind="ssim") and not build(fit=True)[0].fits  # nothing to fit without a trunk
