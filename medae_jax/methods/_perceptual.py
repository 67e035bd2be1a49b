"""The perceptual side of a method: a frozen trunk, channel statistics, training loss and score loss.

Fields of `config.method` (shared by every method with feature losses):
  loss          expression for losses/perceptual.parse, e.g. "relative_perceptual_L1 + 0.1*l1"
  layers        e.g. "r42" or "8:r12, 16:r22, 32:r32, 64:r42" (resolution of the stage: layers)
  score.loss, score.layers ("" or none = those of training)   the anomaly score, a choice of its own
  trunk         vgg19 (as published), or any backbone of models/backbone.py: vgg16, efficientnet_lite0 ...
  vgg_weights   PATH of its weights, or "random:SEED" by explicit choice; "" stops with the file to get
  vgg_widths    channels of the five groups of a *random* trunk; a file brings its own
  vgg_stats     "published": mean and std over ImageNet, valid for the published weights only
                (of VGG19);
                "natural": of Oxford's VGG16 over natural images, groups 1 to 4 (docs/weights.md)
                "running": averages over the first `vgg_stats_steps` training steps of each stage,
                per resolution, then frozen; what any other weights need
                PATH: .npz with <layer>_mean, <layer>_std
  vgg_dtype     of the frozen trunk in training; scores always use float32

The trunk lives in state.params["vgg"], cut after the deepest layer needed (22 MiB up to r42, not
the 548 of the published file), so that a checkpoint scores on machines without that file.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medae_jax.core import parallel
from medae_jax.core.errors import UserError, of_field
from medae_jax.losses import perceptual, trunk
from medae_jax.weights import trunks


class Perceptual:
  """Built once from `config.method`; pure functions of the state after that.

  Args:
    config: `config.method` as above.
    resolutions: of all stages, ascending; the last one is that of the images.
    entry: `low`, `high`, `mean`, `std` of losses.trunk.network_input: how images enter the trunk;
      by default they are in [-1, 1] and are normalised as ImageNet's.

  Raises:
    UserError: an unknown loss or layer, or published statistics with random weights.
  """

  def __init__(self, config, resolutions, **entry):
    self.config, self.resolutions, self.entry = config, tuple(resolutions), entry
    self.source = trunks.Source(config)
    options = {k: bool(config.get(k, False)) for k in ("normalize", "absolute", "relative")}
    self.terms, layers = self._parsed("method.", "method.", options)
    own = lambda name: "method.score." if config.score.get(name, "") else "method."
    self.score_terms, more = self._parsed(own("loss"), own("layers"), options)
    self.layers = tuple(sorted({*layers, *more}))
    self.running = bool(self.layers) and config.vgg_stats == "running"
    if self.layers and not self.running:
      self.source.check_stats(config.vgg_stats)

  def _parsed(self, loss, layers, options):
    """(terms, names of the trunk's layers that they read) of <loss>loss and <layers>layers."""
    of = lambda group, name: (self.config.score if group.endswith("score.") else self.config)[name]
    text = of(layers, "layers")
    with of_field(f"{layers}layers", text):
      found = perceptual.parse_layers(text, self.source.check)
    with of_field(f"{loss}loss", of(loss, "loss")):
      terms = perceptual.parse(of(loss, "loss"), layers=found, **options)
    with of_field(f"{layers}layers", text):
      return terms, perceptual.layers_of(terms, self.resolutions)

  def init_params(self) -> dict:
    """{} or {"vgg": {"trunk", "stats"}} of zeros, for `Method.init`; `pretrained` has the values."""
    if not self.layers:
      return {}
    params = {"trunk": jax.tree.map(jnp.asarray, self.source.zeros(self.layers))}
    if not self.running:
      widths = self.widths({"vgg": params})
      params["stats"] = {k: {part: jnp.zeros(widths[k]) for part in ("mean", "std")}
                         for k in self.layers}
    return {"vgg": params}

  def pretrained(self) -> dict:
    """What `init_params` left empty, read from files or drawn: for `Method.pretrained`.

    Raises:
      UserError, FileNotFoundError: as weights.vgg.load and load_stats; statistics of other weights.
    """
    if not self.layers:
      return {}
    params = {"trunk": self.source.load(self.layers)}
    if not self.running:
      params["stats"] = self._fixed_stats(params)
    return {"vgg": params}

  def _fixed_stats(self, params):
    path = self.config.vgg_stats
    stats, widths = self.source.stats(self.layers, path), self.widths({"vgg": params})
    for layer, values in stats.items():
      if values["mean"].shape != (widths[layer],):
        raise UserError(f"{path}: {layer} has {values['mean'].shape[0]} channels, the {self.source.name} "
                        f"weights have {widths[layer]}; statistics belong to their weights")
    return stats

  # ------------------------------------------------------------------------- running statistics
  def init_stats(self, res: int, widths) -> dict:
    """{} or {"vgg_<res>": ...} for State.stats: mean 0, std 1 until the first step."""
    if not self.running:
      return {}
    layers = perceptual.layers_of(self.terms + self.score_terms, [res])
    moments = {k: {"mean": jnp.zeros(widths[k]), "square": jnp.ones(widths[k])} for k in layers}
    return {f"vgg_{res}": {"count": jnp.zeros(()), "layers": moments}}

  def widths(self, params) -> dict[str, int]:
    """Channels of each layer, from the trunk in `params`."""
    if not self.layers:
      return {}
    return {k: self.source.width(params["vgg"]["trunk"], k) for k in self.layers}

  def update_stats(self, stats: dict, real: dict, res: int, axis_name) -> dict:
    """State.stats with the real images' features averaged in; over all devices.

    After `vgg_stats_steps` updates nothing changes any more, so that the loss stands still.
    """
    if not self.running:
      return stats
    old = stats[f"vgg_{res}"]
    count = old["count"] + 1
    rate = jnp.where(count <= self.config.vgg_stats_steps, 1 / count, 0.0)
    new = {}
    for layer, moments in old["layers"].items():
      feature = real[layer]
      now = parallel.pmean({"mean": feature.mean((0, 1, 2)),
                            "square": (feature**2).mean((0, 1, 2))}, axis_name)
      new[layer] = jax.tree.map(lambda a, b: a + rate * (b - a), moments, now)
    return {**stats, f"vgg_{res}": {"count": count, "layers": new}}

  # -------------------------------------------------------------------- cached features of images
  def cache(self, params, arrays, *, res: int, batch_size: int = 256) -> dict:
    """`arrays` with "feature/<layer>" [n,h,w,C] of its images beside them, in config.vgg_dtype.

    For device-resident, un-augmented images at the resolution `res`: about a third of a training
    step is the trunk's pass over the real images, which this saves. `cached` finds them again.
    """
    names = self._real_layers(res)
    if not names:
      return arrays
    dtype = jnp.dtype(self.config.vgg_dtype)
    features = jax.jit(lambda x: {k: v.astype(dtype) for k, v in self.real(
        params, x, res, dtype).items() if k != "image"})
    parts = [features(arrays["image"][i:i + batch_size])
             for i in range(0, len(arrays["image"]), batch_size)]
    return {**arrays, **{f"feature/{k}": jnp.concatenate([p[k] for p in parts]) for k in names}}

  def cached(self, batch, image) -> dict:
    """Features that `cache` put into the batch, in the form of `real`; {} where there are none."""
    found = {k.removeprefix("feature/"): v.astype(jnp.float32) for k, v in batch.items()
             if k.startswith("feature/")}
    return {**found, "image": self._trunk({}, {}).input(image)} if found else {}

  def _real_layers(self, res):
    return perceptual.layers_of(self.terms + (self.score_terms if self.running else ()), [res])

  def inference(self, params, stats, resolutions):
    """What score losses and maps read: ({} or {"vgg": ...}, {} or {"vgg_<res>": ...}).

    The trunk is cut after the deepest layer of the score; the training loss may go deeper.

    Args:
      resolutions: at which features are compared.
    """
    layers = perceptual.layers_of(self.score_terms, resolutions)
    if not layers:
      return {}, {}
    v, shifted = params["vgg"], any(t.normalize for t in self.score_terms)
    kept = {"trunk": self.source.cut(v["trunk"], layers)}
    if not self.running:
      return {"vgg": {**kept, **({"stats": {k: v["stats"][k] for k in layers}} if shifted else {})}}, {}
    names = [f"vgg_{r}" for r in resolutions if shifted and f"vgg_{r}" in stats]
    return {"vgg": kept}, {name: {"layers": {
        k: m for k, m in stats[name]["layers"].items() if k in layers}} for name in names}

  # ------------------------------------------------------------------------------------- losses
  def trunk(self, params, stats, res: int, dtype=jnp.float32) -> trunk.Trunk:
    """The trunk with the statistics that hold at `res`; empty where no loss needs it."""
    if not self.layers:
      return self._trunk({}, {})
    v = params.get("vgg", {"trunk": {}})  # an inference state has it where the score reads it
    fixed = v.get("stats", {})
    if self.running and f"vgg_{res}" in stats:
      fixed = {k: trunk.moments_to_stats(m["mean"], m["square"])
               for k, m in stats[f"vgg_{res}"]["layers"].items()}
    return self._trunk(v["trunk"], fixed, dtype)

  def _trunk(self, params, stats, dtype=jnp.float32):
    return trunk.Trunk(self.source.features, params, stats, dtype, **self.entry, enter=self.source.enter)

  def real(self, params, image, res: int, dtype) -> dict:
    """Features of the real images for the training terms at `res`; {} where none are needed."""
    if not self.layers:
      return {}
    weights = self._trunk(params["vgg"]["trunk"], {}, dtype)
    return perceptual.real_features(weights, image, self._real_layers(res))

  def of(self, score: bool, image):
    """(terms, dtype of the trunk) of the training loss, or of the score loss of an image.

    Scores have the dtype of the image, at least float32.
    """
    if score:
      return self.score_terms, jnp.promote_types(image.dtype, jnp.float32)
    return self.terms, jnp.dtype(self.config.vgg_dtype)

  def losses(self, params, stats, image, recon, *, res, real=None, score=False):
    """Training loss, or score loss, of each image: [B]."""
    terms, dtype = self.of(score, image)
    return perceptual.per_image(terms, self.trunk(params, stats, res, dtype), image, recon, res=res,
                                real=real or None)

  def map(self, params, stats, image, recon, *, res):
    """Per-pixel map of the score loss: [B,H,W,1]."""
    terms, dtype = self.of(True, image)
    return perceptual.anomaly_map(terms, self.trunk(params, stats, res, dtype), image, recon, res=res)
