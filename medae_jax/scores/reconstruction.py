"""Which score a reconstruction gives, for every method that reconstructs: config.method.score.kind.

With image x, reconstruction y and C channels, as a map and as config.method.score.image_score of it:

  published    what the method's paper does
  residual     mean_c |x - y|
  ssim         1 - SSIM(x, y), mean over channels (metrics/similarity.py)
  l1_ssim      a (1 - SSIM) + (1 - a) |x - y| / range, a = 0.84 (Zhao, Gallo, Frosio, Kautz, IEEE TCI 2017)
  perceptual   distance in a trunk's features (scores/perceptual_distance.py)
  equalised    |E(x) - E(y)| times `perceptual`, E equalising the image's histogram (scores/equalise.py); the
               form of Reversed Auto-Encoders (arXiv 2401.10637) as known here: x's curve for both
  mahalanobis  of the features' error f(x) - f(y) at each position, to the errors of normal images:
               mean over layers of |W (f(x) - f(y) - m)| / sqrt(channels), Ledoit and Wolf's covariance
               over all positions (scores/feature_distance.py)

The last three read a frozen trunk, config.method.score.trunk and trunk_weights ("" = none: they are not
offered), which is kept in the checkpoint; the last one is fitted when training ends. The trunk sees images
of 1 or 3 channels as they are, others channel by channel. evaluate asks for all (config.method.score.offer)
and lets val choose by config.eval.choose_score=("kind","image_score").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core import fields
from medae_jax.core.errors import UserError, of_field
from medae_jax.core.needs import Need
from medae_jax.losses import perceptual
from medae_jax.losses.trunk import Trunk
from medae_jax.metrics import similarity
from medae_jax.scores import equalise, feature_distance, perceptual_distance, residual
from medae_jax.weights import trunks

KINDS = ("published", "residual", "ssim", "l1_ssim", "perceptual", "equalised", "mahalanobis")
OF_TRUNK = ("perceptual", "equalised", "mahalanobis")
NET = "score_trunk"  # its place in State.params


class Reconstruction:
  """Scores of reconstructions for one method; built once, pure functions of the state after that.

  Args:
    config: the whole config; fields of config.method.score that an older run lacks have their defaults.
    need: of the image: its range is `low` to `high`, open ends are taken for 0 and 1 above the low one.
    plain: the published score is image_score of `residual` (perhaps weighted), which is then offered once.

  Attributes:
    fits: whether something is fitted when training ends.

  Raises:
    UserError: an unknown score; a score that needs a trunk without weights.
  """

  def __init__(self, config, need: Need, plain: bool = True):
    given = config.method.get("score", None) or {}
    o = self._options = {k: given.get(k, v) for k, v in fields.RECON_SCORE.items()}
    if o["kind"] not in KINDS:
      raise UserError(f"config.method.score.kind={o['kind']!r}: use one of {', '.join(KINDS)}")
    self._low = need.low or 0.0
    self._high, self._plain = self._low + 1 if need.high is None else need.high, plain
    self._source = None
    self._layers: tuple[str, ...] = ()
    if o["trunk_weights"] and not o["trunk_layers"]:
      raise UserError("config.method.score.trunk_layers is empty: name layers of the network (r11+r21)")
    if o["trunk_weights"]:
      self._source = trunks.Source({"trunk": o["trunk"], "vgg_weights": o["trunk_weights"],
                                    "vgg_widths": o["trunk_widths"]}, "config.method.score.trunk")
      with of_field("method.score.trunk_layers", o["trunk_layers"]):
        found = perceptual.parse_layers(o["trunk_layers"], self._source.check)
        if found.keys() != {0}:
          raise UserError("name layers, without a resolution in front, such as r11+r21")
        self._layers = tuple(found[0])
    elif o["kind"] in OF_TRUNK:
      raise UserError(f"config.method.score.kind={o['kind']} compares features: set score.trunk_weights "
                      "to the weights of a network (docs/weights.md), or random:0 by choice, before training")
    self.fits = bool(self._layers) and (o["kind"] == "mahalanobis" or bool(o["fit"]))

  # --------------------------------------------------------------------------------- the state
  def init_params(self) -> dict:
    """{} or {NET: zeros}, for `Method.init`."""
    return {NET: jax.tree.map(jnp.asarray, self._source.zeros(self._layers))} if self._layers else {}

  def pretrained(self) -> dict:
    """What `init_params` left empty, for `Method.pretrained`.

    Raises:
      UserError, FileNotFoundError: as weights.trunks.Source.load.
    """
    return {NET: self._source.load(self._layers)} if self._layers else {}

  def finalize(self, state, batches: Iterable[dict], recon_of: Callable):
    """The state with extra["recon_score"]: mean and whitening of normal images' feature errors, a layer.

    Args:
      batches: normal images as scored, with "valid". recon_of: (state, batch) -> [B,H,W,C].
    """
    if not self.fits:
      return state
    errors = jax.jit(lambda s, b: self._errors(s, b["image"], recon_of(s, b)))
    sums = {layer: feature_distance.LedoitWolf() for layer in self._layers}
    for batch in batches:
      valid = np.asarray(batch["valid"], bool)
      seen = {k: v for k, v in batch.items() if k == "image"}
      for layer, error in errors(state, seen).items():
        rows = np.asarray(error)
        # Channels that entered one by one lie behind each other in the first axis.
        sums[layer].add(rows[np.tile(valid, len(rows) // len(valid))].reshape(-1, rows.shape[-1]))
    fitted = {}
    for layer, s in sums.items():
      found = s.fit()
      fitted[layer] = {"mean": jnp.asarray(found["mean"], jnp.float32),
                       "whiten": jnp.asarray(feature_distance.whitening(found["covariance"]))}
    return state.replace(extra={**state.extra, "recon_score": fitted})

  def inference(self, state) -> tuple[dict, dict]:
    """(networks, extra) that the chosen score reads, for `Method.inference_state`."""
    kind = self._options["kind"]
    keep = kind in OF_TRUNK or self._options["offer"]
    nets = {NET: state.params[NET]} if keep and NET in state.params else {}
    fitted = keep and (kind == "mahalanobis" or self._options["offer"]) and "recon_score" in state.extra
    return nets, {"recon_score": state.extra["recon_score"]} if fitted else {}

  # ------------------------------------------------------------------------------------ scores
  def outputs(self, state, image: jax.Array, published: dict[str, jax.Array],
              finish: Callable | None = None, mask: jax.Array | None = None) -> dict[str, jax.Array]:
    """`published` with "map" and "score" of the chosen kind; with config.method.score.offer all of them.

    Args:
      published: "recon" [B,H,W,C], "map" [B,H,W,1], "score" [B] of the method's own.
      finish: map -> map, filters that the method's own map has had (foreground, median).
      mask: [B,H,W,1] for image_score=foreground_mean.

    Returns:
      Offers are "offer/kind=KIND;image_score=HOW" [B].
    """
    o, recon = self._options, published["recon"]
    finish = finish or (lambda x: x)
    out = dict(published)
    if o["kind"] != "published":
      out["map"] = finish(self.map(state, image, recon, o["kind"]))
      out["score"] = residual.image_score(out["map"], o["image_score"], mask)
    if o["offer"]:
      for kind in self._offered(state):
        own = kind == "published"
        if own and not self._plain:
          out["offer/kind=published"] = published["score"]
          continue
        anomaly = published["map"] if own else finish(self.map(state, image, recon, kind))
        for how in residual.IMAGE_SCORES[:3 if mask is None else 4]:
          out[f"offer/kind={kind};image_score={how}"] = residual.image_score(anomaly, how, mask)
    return out

  def map(self, state, image: jax.Array, recon: jax.Array, kind: str) -> jax.Array:
    """One of KINDS but "published": float32 [B,H,W,1], >= 0.

    Raises:
      UserError: a run that has no trunk, or has fitted nothing.
    """
    o, size = self._options, self._high - self._low
    if kind == "residual":
      return residual.residual_map(image - recon)
    if kind in ("ssim", "l1_ssim"):
      alike = similarity.ssim_map(image, recon, o["window"], size).mean(-1, keepdims=True)
      unlike = jnp.maximum(1 - alike, 0).astype(jnp.float32)
      if kind == "ssim":
        return unlike
      return o["alpha"] * unlike + (1 - o["alpha"]) * residual.residual_map(image - recon) / size
    if kind == "mahalanobis":
      return self._mahalanobis(state, image, recon)
    trunk = self._trunk(state)
    apart = self._merged(perceptual_distance.distance_map(
        trunk, perceptual_distance.planes(image), perceptual_distance.planes(recon), self._layers), image)
    if kind == "perceptual":
      return apart
    away = equalise.equalise(image, image) - equalise.equalise(recon, image)
    return residual.residual_map(away) * apart

  def _offered(self, state):
    there = [k for k in KINDS if k not in OF_TRUNK and not (k == "residual" and self._plain)]
    if NET in state.params:
      there += [k for k in OF_TRUNK if k != "mahalanobis" or "recon_score" in state.extra]
    return there

  # ---------------------------------------------------------------------------------- features
  def _trunk(self, state) -> Trunk:
    if NET not in state.params:
      rest = ", ".join(k for k in KINDS if k not in OF_TRUNK)
      raise UserError("config.method.score: this run was trained without method.score.trunk_weights, its "
                      f"checkpoint has no trunk; use one of {rest}, or train again")
    return Trunk(self._source.features, state.params[NET], {}, low=self._low, high=self._high,
                 enter=self._source.enter)

  def _merged(self, values, image):
    """Mean over planes of [C*B,H,W,1]: [B,H,W,1]."""
    return values.reshape(-1, *image.shape[:3], 1).mean(0)

  def _errors(self, state, image, recon) -> dict[str, Any]:
    """{layer: f(x) - f(y)}, planes following each other."""
    trunk = self._trunk(state)
    first, second = (trunk(trunk.input(perceptual_distance.planes(x)), self._layers) for x in (image, recon))
    return {k: first[k] - second[k] for k in self._layers}

  def _mahalanobis(self, state, image, recon):
    fitted = state.extra.get("recon_score")
    if fitted is None:
      raise UserError("config.method.score.kind=mahalanobis: this run has fitted no errors of normal images; "
                      "set it before training, or method.score.fit=True")
    errors, shape = self._errors(state, image, recon), (*image.shape[:3], 1)
    total = jnp.zeros(shape, jnp.float32)
    for layer, error in errors.items():
      away = feature_distance.mahalanobis(error.reshape(-1, error.shape[-1]), **fitted[layer])
      away = away.reshape(*error.shape[:3], 1) / np.sqrt(error.shape[-1])
      planes = perceptual_distance.to_image(away, (len(away), *shape[1:]))
      total = total + self._merged(planes, image) / len(errors)
    return total
