"""Anomaly detection with frozen features: nothing is trained, normal features are remembered.

A network trained on other images (config.method.backbone) gives the features; what is normal is fitted
in `finalize`, in one pass over the normal images. Scores of an image, on means over rows and columns:
  mahalanobis  to the mean, with Ledoit & Wolf's covariance (scores/feature_distance.py)
  neighbours   mean distance to the k nearest normal images
  forest       isolation forest, as Deep IF (scores/forest.py)
and with patch features (methods/_patches.py), which also give the map:
  padim        a Gaussian a position (Defard et al. 2021): for images that are registered
  patchcore    nearest of a bank of normal patches (Roth et al. 2022)
Several sets of taps are fitted side by side, since what suits natural images (relu4) does not suit
radiographs (relu2). `config.method.score` says which one scores; config.eval.choose_score lets evaluate
choose among all, by the image AUROC on the validation split, and note it in calibration.json.

Deviations from the papers: taps are scaled to count alike (_patches.py); PaDiM's regularisation is
relative to the variance; the map is smoothed by config.method.score.smooth pixels.
"""

from __future__ import annotations

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from medae_jax.core import checks, parallel
from medae_jax.core.errors import UserError
from medae_jax.core.method import BaseMethod, Need, State
from medae_jax.methods import _features, _patches
from medae_jax.scores import feature_distance, forest, memory_bank, residual

POOLED = ("mahalanobis", "neighbours", "forest")
SCORES = (*POOLED, *_patches.KINDS)
RULES = {
    "method.scores": checks.names(*SCORES),
    "method.image_taps": checks.several(checks.text, 1),
    "method.map_taps": checks.text,
    "method.channels": checks.several(checks.whole(0)),
    "method.low": checks.number(), "method.high": checks.number(), "method.bounded": checks.flag,
    "method.neighbours": checks.whole(1), "method.most_images": checks.whole(2),
    "method.forest.trees": checks.whole(1, 100_000), "method.forest.samples": checks.whole(2, 2**24),
    "method.patches.size": checks.odd, "method.patches.grid": checks.whole(0),
    "method.padim.dims": checks.whole(1), "method.padim.eps": checks.number(0, above=True),
    "method.padim.reduce": checks.choice("project", "select"),
    "method.patchcore.candidates": checks.whole(1), "method.patchcore.share": checks.number(0, 1, above=True),
    "method.patchcore.most": checks.whole(1), "method.patchcore.neighbours": checks.whole(0),
    "method.score.image": checks.choice(*SCORES), "method.score.map": checks.choice("none", *_patches.KINDS),
    "method.score.taps": checks.text, "method.score.smooth": checks.number(0, 100),
    "method.score.foreground": checks.flag, "method.score.offer": checks.flag}


class Method(BaseMethod):
  fits = True
  frozen = (_features.NET,)

  def __init__(self, config):
    super().__init__(config)
    checks.apply(config, RULES)
    m = config.method
    if m.low >= m.high:
      raise UserError(f"config.method.low={m.low:g} is not below config.method.high={m.high:g}")
    self.needs = {"image": Need("BHWC", low=m.low, high=m.high if m.bounded else None,
                                note="1 or 3 channels, or config.method.channels of them")}
    self._pooled = any(s in POOLED for s in m.scores)
    self._patched = any(s in _patches.KINDS for s in m.scores)
    self._sets = {} if not self._pooled else {
        "+".join(taps): taps for taps in (self._parse(t, "image_taps") for t in m.image_taps)}
    self._map_taps = self._parse(m.map_taps, "map_taps") if self._patched else ()
    self._check_score()

  def _parse(self, taps, field):
    return self._features(taps, field).taps

  def _features(self, taps, field="taps"):
    """The backbone up to `taps`, a text or a sequence of names; config.method.<field> says which."""
    return _features.Features(self.config, taps if isinstance(taps, str) else "+".join(taps), field)

  def _check_score(self):
    m, score = self.config.method, self.config.method.score
    for name in ("image", "map"):
      if score[name] not in (*m.scores, "none"):
        raise UserError(f"config.method.score.{name}={score[name]!r} is not among config.method.scores="
                        f"{tuple(m.scores)}, which says what is fitted")
    if score.image in POOLED and self._taps() not in self._sets:
      raise UserError(f"config.method.score.taps={score.taps!r} is none of the sets that are fitted "
                      f"(config.method.image_taps): {', '.join(self._sets)}")

  def _taps(self):
    """Name of the set of taps of the image score."""
    taps = self.config.method.score.taps
    return "+".join(self._parse(taps, "score.taps")) if taps else next(iter(self._sets), "")

  def _all_taps(self):
    return tuple(dict.fromkeys(t for taps in (*self._sets.values(), self._map_taps) for t in taps))

  # ------------------------------------------------------------------------------ the frozen network
  def stages(self):
    return ()

  def init(self, rng, batch):
    if "forest" in self.config.method.scores:
      forest.check_options(self.config.method.forest)
    shape = batch["image"].shape
    features = self._features(self._all_taps())
    self._check_channels(shape[3])
    features.check_shape((*shape[:3], len(self.config.method.channels) or shape[3]))
    return State.create(features.init_params())

  def pretrained(self):
    return self._features(self._all_taps()).pretrained()

  def _check_channels(self, there):
    if max(self.config.method.channels, default=0) >= there:
      raise UserError(f"config.method.channels={tuple(self.config.method.channels)}: the images have {there} "
                      "channels")

  def _maps(self, state, image, taps):
    """{tap: [B,h,w,C]} of images as the data set gives them."""
    m = self.config.method
    if m.channels:
      self._check_channels(image.shape[-1])
      image = image[..., tuple(m.channels)]
    image = (image - m.low) * (2 / (m.high - m.low)) - 1
    return self._features(taps).maps(state.params, image)

  # ------------------------------------------------------------------------------------- fitting
  def finalize(self, state, batches):
    """The state with `extra`: {"image": {taps: {score: arrays}}, "patch": what _patches.Fit gives}.

    Memory on the host: the means of at most config.method.most_images images, and _patches.Fit's.
    """
    m, seed = self.config.method, int(self.config.seed)
    pooled, patch = {}, None
    compiled = parallel.per_example_fn(self._seen)
    for batch in batches:
      found = compiled(state, {"image": batch["image"]})
      valid = np.asarray(batch["valid"], bool)
      for tap, rows in found["pooled"].items():
        pooled.setdefault(tap, memory_bank.Reservoir(m.most_images, seed)).add(np.asarray(rows)[valid])
      if self._patched:
        patch = patch or _patches.Fit(m, [found["pooled"][t].shape[1] for t in self._map_taps], seed)
        patch.add(np.asarray(found["patches"]), valid)
    if not pooled:
      raise UserError("there are no normal images to fit to: see config.data")
    extra = {"image": {}}
    rows = {tap: found.rows() for tap, found in pooled.items()}
    for name, taps in self._sets.items():
      extra["image"][name] = self._fit(np.concatenate([rows[t] for t in taps], -1), seed)
    if patch is not None:
      extra["patch"] = patch.result()
      logging.info("Patches: grid %s.", "x".join(map(str, found["patches"].shape[1:3])))
    return state.replace(extra=jax.tree.map(jnp.asarray, extra))

  def _seen(self, state, batch):
    """What is fitted to, of a batch."""
    maps = self._maps(state, batch["image"], self._all_taps())
    out = {"pooled": {tap: x.mean((1, 2)) for tap, x in maps.items()}}
    if self._patched:
      out["patches"] = self._patch_rows(maps)
    return out

  def _patch_rows(self, maps):
    """One vector a position, as fitted and as scored: [B,h,w,C]."""
    p = self.config.method.patches
    return _patches.patches(maps, self._map_taps, p.size, p.grid)

  def _fit(self, rows, seed):
    """{score: arrays} of the normal rows [n,D] of one set of taps."""
    m, out = self.config.method, {}
    if "mahalanobis" in m.scores:
      gaussian = feature_distance.LedoitWolf()
      gaussian.add(rows)
      found = gaussian.fit()
      out["mahalanobis"] = {"mean": found["mean"].astype(np.float32),
                            "whiten": feature_distance.whitening(found["covariance"])}
    if "neighbours" in m.scores:
      out["neighbours"] = {"bank": rows.astype(np.float32)}
    if "forest" in m.scores:
      out["forest"] = forest.fit(rows, trees=m.forest.trees, samples=m.forest.samples, seed=seed)
    return out

  # ------------------------------------------------------------------------------------- scoring
  def score(self, state, batch):
    """{"score" [B], "map" [B,H,W,1]}, both >= 0; the map where config.method.score.map asks for one.

    With config.method.score.offer also "offer/image=KIND;taps=SET" [B], a score for each that is
    fitted: the fields of config.method.score that would make it "score".
    """
    c, image = self.config.method.score, batch["image"]
    offers = self._offers() if c.offer else ()
    wanted = dict.fromkeys([*offers, self._chosen()])
    maps = self._maps(state, image, self._needed([*wanted, (c.map, "")]))
    patched = dict.fromkeys(kind for kind in [k for k, _ in wanted] + [c.map] if kind in _patches.KINDS)
    if patched:
      rows = self._patch_rows(maps)
      patched = {k: _patches.score(k, rows, state.extra["patch"], self.config.method.patchcore.neighbours)
                 for k in patched}
    value = lambda kind, taps: patched[kind][1] if kind in patched else self._distance(
        state, maps, kind, taps)
    out = {"score": value(*self._chosen())}
    out.update({f"offer/image={kind};taps={taps}": value(kind, taps) for kind, taps in offers})
    if c.map != "none":
      out["map"] = self._map(patched[c.map][0], image)
    return out

  def _chosen(self):
    """(score, set of taps) of config.method.score; no taps for scores of patches."""
    kind = self.config.method.score.image
    return kind, self._taps() if kind in POOLED else ""

  def _offers(self):
    scores = self.config.method.scores
    return [(k, t) for t in self._sets for k in POOLED if k in scores] + [
        (k, "") for k in _patches.KINDS if k in scores]

  def _needed(self, wanted):
    """Taps of (score, set of taps) pairs."""
    found = [t for kind, taps in wanted if kind in POOLED for t in self._sets[taps]]
    return tuple(dict.fromkeys(found + [t for kind, _ in wanted if kind in _patches.KINDS
                                        for t in self._map_taps]))

  def _distance(self, state, maps, kind, taps):
    rows = jnp.concatenate([maps[t].mean((1, 2)) for t in self._sets[taps]], -1)
    fitted = state.extra["image"][taps][kind]
    if kind == "mahalanobis":
      return feature_distance.mahalanobis(rows, **fitted)
    if kind == "neighbours":
      return feature_distance.k_nearest(rows, fitted["bank"], self.config.method.neighbours)
    return forest.score(fitted, rows)

  def _map(self, distance, image):
    c = self.config.method.score
    full = jax.image.resize(distance, (*image.shape[:3], 1), "bilinear")
    full = _patches.smoothed(full, c.smooth)
    return full * residual.foreground(image) if c.foreground else full

  def inference_state(self, state):
    """The network up to the taps of the chosen score and map, and what was fitted for these."""
    c, (kind, taps) = self.config.method.score, self._chosen()
    extra, patched = {}, [k for k in _patches.KINDS if k in (kind, c.map)]
    if kind in POOLED:
      extra["image"] = {taps: {kind: state.extra["image"][taps][kind]}}
    if patched:
      extra["patch"] = {k: state.extra["patch"][k] for k in ("scale", *patched)}
    kept = self._features(self._needed([(kind, taps), (c.map, "")])).init_params()
    return state.replace(params=_cut(state.params, kept), extra=extra, opt={}, stats={})


def _cut(tree, like):
  """The branches of `tree` that `like` has."""
  return {k: _cut(tree[k], v) for k, v in like.items()} if isinstance(like, dict) else tree
